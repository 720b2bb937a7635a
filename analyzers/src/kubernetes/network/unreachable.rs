//! What a pod's log says about the Services that it connects to.

use std::collections::BTreeSet;

use super::mesh;
use super::netpol::{PodEnd, Port, Protocol, connections};
use crate::snapshot::model::{Pod, Service};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef, Selector};
use crate::text::address::addresses_in;

/// How many lines from the end of a log are read.
const LINES: usize = 50;

/// The objects that may explain why a pod cannot use the Services that its log reports as unreachable: those Services,
/// and the pod's namespace where it lacks the sidecar that their pods require.
pub fn suspects(cluster: &Cluster, pod: &Pod) -> Vec<ObjectRef> {
    let services = unreachable_services(cluster, pod);
    let needs_sidecar = services.iter().any(|service| refuses_plain_text(cluster, pod, service));
    let namespace = needs_sidecar.then(|| ObjectRef::new(Kind::Namespace, "", pod.namespace()));
    services.iter().map(|service| service.reference()).chain(namespace).collect()
}

/// The Services of which the last lines of a pod's logs report that a connection failed.
fn unreachable_services<'a>(cluster: &'a Cluster, pod: &Pod) -> Vec<&'a Service> {
    const ERRORS: [&str; 10] = [
        "connection refused",
        "connection reset",
        "reset by peer",
        "no route to host",
        "i/o timeout",
        "timed out",
        "deadline exceeded",
        "econnrefused",
        "econnreset",
        "etimedout",
    ];
    let mut hosts: BTreeSet<String> = BTreeSet::new();
    for container in pod.spec.running_containers() {
        let Some(log) = cluster.log(pod.namespace(), pod.name(), &container.name) else { continue };
        for line in log.lines.iter().rev().take(LINES) {
            let lower = line.to_lowercase();
            if ERRORS.iter().any(|error| lower.contains(error)) {
                // Addresses in brackets and arrows: `10.0.0.8:41100->10.43.82.42:8080`.
                let line = line.replace("->", " ").replace(": ", " ");
                hosts.extend(addresses_in(&line).into_iter().map(|address| address.host));
            }
        }
    }
    let by_address = |host: &str| {
        let is_address = host.parse::<std::net::IpAddr>().is_ok();
        let mut services = cluster.all::<Service>().iter().filter(|_| is_address);
        services.find(|service| service.spec.cluster_ip == host)
    };
    let of_host = |host: &String| connections::service_of_host(cluster, pod.namespace(), host).or(by_address(host));
    let mut found: Vec<&Service> = hosts.iter().filter_map(of_host).collect();
    found.sort_by_key(|service| (service.namespace(), service.name()));
    found.dedup_by_key(|service| (service.namespace(), service.name()));
    found
}

/// Whether the pods of a Service accept only mutual TLS, which a pod without a sidecar cannot use.
fn refuses_plain_text(cluster: &Cluster, pod: &Pod, service: &Service) -> bool {
    if service.spec.selector.is_empty() {
        return false;
    }
    let selector = Selector::equals(&service.spec.selector);
    let behind = cluster.pods_matching(service.namespace(), &selector);
    let Some(to) = behind.into_iter().find(|pod| pod.is_active()).map(PodEnd::of) else { return false };
    let refuses = |port: Port| mesh::refuses_plain_text(cluster, &PodEnd::of(pod), &to, port.number).is_some();
    let ports = service.spec.ports.iter().filter_map(|port| to.target(&port.target(), Protocol::Tcp));
    { ports }.any(refuses)
}
