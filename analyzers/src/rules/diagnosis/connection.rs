//! Connections that fail: the Service behind an address, the policies between, and the node that translates it.

use super::Diagnosis;
use crate::kubernetes::network::cluster_dns::DnsExt;
use crate::kubernetes::network::endpoints::EndpointsExt;
use crate::kubernetes::network::netpol::{Direction, PodEnd, PolicySet};
use crate::kubernetes::network::targets::{is_api_server, selects, service_of};
use crate::kubernetes::network::tunnel_mtu::tunnel_mtu;
use crate::kubernetes::nodes::node_agents::{kube_proxy_on, reported_on};
use crate::kubernetes::workloads::restarts::PodContainer;
use crate::kubernetes::workloads::symptoms::{Failure, Target};
use crate::snapshot::model::{NetworkPolicy, Pod, Service};
use crate::snapshot::{Cluster, Object, Selector};
use crate::text::kubectl;

/// Links to the Services of the addresses, and to what is between.
pub(super) fn failed(cluster: &Cluster, pod: &Pod, targets: &[Target], failure: Failure, to: &mut Diagnosis) {
    for target in targets {
        let Some(service) = service_of(cluster, pod.namespace(), &target.host) else {
            if failure != Failure::Waits && is_unread_api_server(cluster, target) {
                check_kube_proxy(cluster, pod, &target.host, 443, to);
            }
            continue;
        };
        if selects(service, pod) {
            continue;
        }
        let object = service.reference();
        if target.host.parse::<std::net::IpAddr>().is_ok() {
            let port = target.port.map(|port| format!(":{port}")).unwrap_or_default();
            let text = format!("{}{port} is the ClusterIP of {}", target.host, described(service, pod));
            to.evidence(text, object.clone(), "spec.clusterIP");
        }
        to.because(object);
        if failure != Failure::Waits {
            policies(cluster, pod, Some(service), to);
            translation(cluster, pod, service, target, to);
        }
        if matches!(failure, Failure::Handshake | Failure::Timeout) {
            tunnel(cluster, pod, service, to);
        }
    }
}

/// `Service db`, with the namespace if it is another one.
fn described(service: &Service, pod: &Pod) -> String {
    if service.metadata.namespace == pod.metadata.namespace {
        format!("Service {}", service.name())
    } else {
        format!("Service {}/{}", service.namespace(), service.name())
    }
}

/// The DNS server did not answer.
pub(super) fn no_dns_answer(cluster: &Cluster, pod: &Pod, to: &mut Diagnosis) {
    let dns = cluster.dns();
    let Some(service) = dns.service() else { return };
    to.because(service.reference());
    policies(cluster, pod, Some(service), to);
    if let Some(proxy) = kube_proxy_on(cluster, &pod.spec.node_name) {
        to.because(reported_on(cluster, proxy));
    }
}

/// The policies that isolate one of the two ends.
fn policies(cluster: &Cluster, pod: &Pod, service: Option<&Service>, to: &mut Diagnosis) {
    if cluster.all::<NetworkPolicy>().is_empty() {
        return;
    }
    let set = PolicySet::new(cluster);
    for policy in set.isolating(Direction::Egress, &PodEnd::of(pod)) {
        to.because(policy.object.reference());
    }
    let Some(service) = service.filter(|service| !service.spec.selector.is_empty()) else { return };
    let pods = cluster.pods_matching(service.namespace(), &Selector::equals(&service.spec.selector));
    if let Some(other) = pods.first() {
        for policy in set.isolating(Direction::Ingress, &PodEnd::of(other)) {
            to.because(policy.object.reference());
        }
    }
}

/// kube-proxy of the pod's node translates the address of the Service.
fn translation(cluster: &Cluster, pod: &Pod, service: &Service, target: &Target, to: &mut Diagnosis) {
    if let Some(proxy) = kube_proxy_on(cluster, &pod.spec.node_name) {
        to.because(reported_on(cluster, proxy));
    }
    if is_api_server(service) {
        check_kube_proxy(cluster, pod, &service.spec.cluster_ip, target.port.unwrap_or(443), to);
    }
}

/// Whether a target is most likely the Service of the API server, which was not read: the first address of its range.
fn is_unread_api_server(cluster: &Cluster, target: &Target) -> bool {
    let is_first = target.host.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_private() && ip.octets()[3] == 1);
    is_first && target.port == Some(443) && cluster.get::<Service>("default", "kubernetes").found().is_none()
}

/// No policy applies to a pod on the host network, so only the translation on its node is left.
fn check_kube_proxy(cluster: &Cluster, pod: &Pod, address: &str, port: i32, to: &mut Diagnosis) {
    let node = pod.spec.node_name.as_str();
    if !pod.spec.host_network || node.is_empty() {
        return;
    }
    let text = format!(
        "Check kube-proxy on node {node}, or the component that replaces it: it translates {address}:{port}, the address of \
         Service default/kubernetes, to the API server"
    );
    match kube_proxy_on(cluster, node) {
        Some(proxy) => {
            to.fix_command(text, kubectl(["-n", proxy.namespace(), "logs", proxy.name(), "--tail=50"]));
        }
        None => to.fix(text),
    }
}

/// Pods on other nodes are reached through a tunnel, which loses large packets if the MTU of the pods is above its own.
fn tunnel(cluster: &Cluster, pod: &Pod, service: &Service, to: &mut Diagnosis) {
    let Some(fault) = tunnel_mtu(cluster) else { return };
    let is_elsewhere = |node: &str| !node.is_empty() && *node != *pod.spec.node_name;
    let backends = cluster.backends(service).unwrap_or_default().backends;
    let mut ready = backends.iter().filter(|backend| backend.ready).peekable();
    if !pod.spec.host_network && ready.peek().is_some() && ready.all(|backend| is_elsewhere(backend.node)) {
        let text = format!("all endpoints of {} are on other nodes", described(service, pod));
        to.evidence(text, service.reference(), "");
        to.because(fault.object.clone());
    }
}

/// Links an init container to the Services that its command names: `until nc -z db 5432; do sleep 2; done`.
pub(super) fn awaited_by_command(cluster: &Cluster, container: &PodContainer, to: &mut Diagnosis) {
    if !container.is_init {
        return;
    }
    let separates = |c: char| c.is_whitespace() || "\"'`,;|()<>[]{}=&/".contains(c);
    let words = container.spec.command.iter().chain(&container.spec.args).flat_map(|text| text.split(separates));
    for word in words.take(200) {
        let host = word.split(':').next().unwrap_or_default();
        let service = service_of(cluster, container.pod.namespace(), host);
        if let Some(service) = service.filter(|service| !selects(service, container.pod)) {
            to.because(service.reference());
        }
    }
}
