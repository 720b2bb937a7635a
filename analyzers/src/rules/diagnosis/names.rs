//! Names that do not resolve, or that resolve to something else.

use super::Diagnosis;
use crate::kubernetes::network::cluster_dns::DnsExt;
use crate::kubernetes::network::netpol::connections::service_of_host;
use crate::kubernetes::network::zones::unread_zones;
use crate::kubernetes::workloads::references::references;
use crate::kubernetes::workloads::restarts::PodContainer;
use crate::snapshot::model::{ConfigMap, Namespace, Pod, PodSpec, Service};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::address::{addresses_in, addresses_of};
use crate::text::similar::nearest_name;
use crate::text::words::list;

/// The DNS server answered that a name does not exist.
pub(super) fn unknown(
    cluster: &Cluster,
    container: &PodContainer,
    host: &str,
    server: Option<&str>,
    to: &mut Diagnosis,
) {
    let pod = container.pod;
    let service = service_of_host(cluster, pod.namespace(), host);
    if let Some(service) = service
        && uses_dns_of_node(cluster, pod, server)
    {
        return dns_of_node(cluster, pod, host, service, to);
    }
    if let Some(service) = service {
        // The name of a headless Service exists only while it has ready endpoints.
        return to.because(service.reference());
    }
    match asked(cluster, pod.namespace(), host) {
        Some((name, namespace)) => missing_service(cluster, container, host, name, namespace, to),
        None => external(cluster, host, to),
    }
}

/// Whether the pod uses the DNS servers of its node instead of the cluster's.
fn uses_dns_of_node(cluster: &Cluster, pod: &Pod, server: Option<&str>) -> bool {
    let policy = pod.spec.dns_policy.as_str();
    let by_policy = policy == "Default" || (pod.spec.host_network && matches!(policy, "" | "ClusterFirst"));
    let dns = cluster.dns();
    by_policy && !server.is_some_and(|server| dns.cluster_ips().contains(server))
}

fn dns_of_node(cluster: &Cluster, pod: &Pod, host: &str, service: &Service, to: &mut Diagnosis) {
    let owner = cluster.owner_of(pod);
    let path = if owner.is(Kind::Pod) { "spec.dnsPolicy" } else { "spec.template.spec.dnsPolicy" };
    let target = format!("{host} is Service {}/{}", service.namespace(), service.name());
    let (why, wanted) = if pod.spec.host_network {
        to.evidence("spec.hostNetwork is true", pod.reference(), "spec.hostNetwork");
        ("hostNetwork with dnsPolicy ClusterFirst", "ClusterFirstWithHostNet")
    } else {
        ("dnsPolicy Default", "ClusterFirst")
    };
    let policy = if pod.spec.dns_policy.is_empty() { "ClusterFirst" } else { pod.spec.dns_policy.as_str() };
    to.evidence(format!("spec.dnsPolicy is {policy}"), pod.reference(), "spec.dnsPolicy");
    to.clause(format!(
        "{why} uses the node's DNS servers, which do not know the cluster's Services ({target}); {wanted} uses the cluster's"
    ));
    to.fix(format!("Set {path} of {} to {wanted}, so that its pods use the cluster's DNS", owner.title()));
}

/// The Service that a name asks for, by its form: `db`, `db.shop` (if the namespace exists), `db.shop.svc…`.
fn asked<'h>(cluster: &Cluster, own_namespace: &'h str, host: &'h str) -> Option<(&'h str, &'h str)> {
    let labels: Vec<&str> = host.split('.').collect();
    match labels.as_slice() {
        [name] => Some((name, own_namespace)),
        [name, namespace] => cluster.get::<Namespace>("", namespace).found().map(|_| (*name, *namespace)),
        [name, namespace, "svc", ..] => Some((name, namespace)),
        _ => None,
    }
}

fn missing_service(
    cluster: &Cluster,
    container: &PodContainer,
    host: &str,
    name: &str,
    namespace: &str,
    to: &mut Diagnosis,
) {
    if !cluster.get::<Service>(namespace, name).is_missing() {
        return;
    }
    let pod = container.pod;
    let place = place_of(cluster, pod, host);
    if let Some((text, object, path)) = &place {
        to.evidence(format!("{text} refers to {host}"), object.clone(), path.clone());
    }
    let of = place.map(|(text, ..)| format!(" in {text}")).unwrap_or_default();
    let elsewhere: Vec<&Service> = cluster.all::<Service>().iter().filter(|s| s.name() == name).collect();
    if let Some(first) = elsewhere.first() {
        let namespaces: Vec<&str> = elsewhere.iter().map(|service| service.namespace()).collect();
        to.clause(format!("Service {name} is in namespace {}, not in {namespace}", list(&namespaces, 3)));
        for service in elsewhere.iter().take(3) {
            to.evidence(format!("Service {name} exists in {}", service.namespace()), service.reference(), "");
        }
        return to.fix(format!("Change {host} to {name}.{}{of}", first.namespace()));
    }
    let names = cluster.in_namespace::<Service>(namespace).iter().map(Object::name);
    match nearest_name(name, names) {
        Some(near) => {
            to.clause(format!("namespace {namespace} has no Service {name} (did you mean {near}?)"));
            to.fix(format!("Change {host} to {}{of}", host.replacen(name, near, 1)));
        }
        None => to.clause(format!("namespace {namespace} has no Service {name}")),
    }
}

/// Where a pod's configuration has the host: a text, the object and the field.
fn place_of(cluster: &Cluster, pod: &Pod, host: &str) -> Option<(String, ObjectRef, String)> {
    in_spec(&pod.spec, host).map(|(text, path)| (text, pod.reference(), path)).or_else(|| {
        let maps = references(&pod.spec).into_iter().filter(|reference| reference.kind == Kind::ConfigMap);
        maps.filter_map(|r| cluster.get::<ConfigMap>(pod.namespace(), r.name).found()).find_map(|map| {
            let (key, _) = map.data.addresses.iter().find(|(_, address)| address.host == host)?;
            Some((format!("key {key} of ConfigMap {}", map.name()), map.reference(), format!("data[{key}]")))
        })
    })
}

fn in_spec(spec: &PodSpec, host: &str) -> Option<(String, String)> {
    spec.all_containers().find_map(|container| {
        let variable = container.env.iter().find(|variable| {
            variable.value == host
                || addresses_of(&variable.name, &variable.value, |_| None).iter().any(|a| a.host == host)
        });
        if let Some(variable) = variable {
            let path = format!("spec.containers[{}].env[{}]", container.name, variable.name);
            return Some((format!("variable {}", variable.name), path));
        }
        let mut words = container.command.iter().chain(&container.args);
        let has = |text: &String| text == host || addresses_in(text).iter().any(|address| address.host == host);
        words.any(has).then(|| ("the command line".to_string(), format!("spec.containers[{}].args", container.name)))
    })
}

/// A name outside the cluster that a zone should know which CoreDNS does not read.
fn external(cluster: &Cluster, host: &str, to: &mut Diagnosis) {
    for unread in unread_zones(cluster) {
        if let Some(zone) = unread.zone_of(host) {
            let text = format!("{host} is in zone {zone}, which key {} configures", unread.key);
            to.evidence(text, unread.config_map.clone(), format!("data[{}]", unread.key));
            to.because(unread.config_map.clone());
        }
    }
}

/// A server whose certificate is not for the host: with search domains, `accounts.example` is Service `accounts` in
/// namespace `example`, if that exists.
pub(super) fn wrong_certificate(
    cluster: &Cluster,
    container: &PodContainer,
    host: &str,
    valid_for: &[String],
    to: &mut Diagnosis,
) {
    let pod = container.pod;
    let [name, namespace] = host.split('.').collect::<Vec<_>>()[..] else { return };
    let Some(service) = cluster.get::<Service>(namespace, name).found() else { return };
    let policy = pod.spec.dns_policy.as_str();
    let searches = if pod.spec.host_network {
        policy == "ClusterFirstWithHostNet"
    } else {
        matches!(policy, "" | "ClusterFirst" | "ClusterFirstWithHostNet")
    };
    // A certificate for other names of this Service shows that the Service is meant.
    let is_meant = valid_for.iter().any(|valid| valid.starts_with(&format!("{host}.svc")) || valid == name);
    let ndots = ndots(&pod.spec);
    if !searches || is_meant || ndots <= 1 || namespace == pod.namespace() {
        return;
    }
    let owner = cluster.owner_of(pod);
    to.clause(format!(
        "{host} resolves to Service {name} in namespace {namespace} (search domain svc.cluster.local, ndots {ndots}) \
         before any host outside the cluster"
    ));
    to.evidence(
        format!("{host}.svc.cluster.local is Service {namespace}/{name}"),
        service.reference(),
        "metadata.name",
    );
    if let Some((text, object, path)) = place_of(cluster, pod, host) {
        to.evidence(format!("{text} refers to {host}"), object, path);
    }
    let template = if owner.is(Kind::Pod) { "spec" } else { "spec.template.spec" };
    to.fix(format!(
        "If a host outside the cluster is meant, write it fully qualified with a trailing dot ({host}.), or set option \
         ndots to 1 in {template}.dnsConfig.options of {}",
        owner.title()
    ));
    to.fix(format!("Or rename Service {name} or namespace {namespace}, so that no Service has the name of the host"));
}

/// `ndots` of a pod's resolver; the kubelet sets 5.
fn ndots(spec: &PodSpec) -> u32 {
    let option = spec.dns_config.options.iter().find(|option| option.name == "ndots");
    option.and_then(|option| option.value.parse().ok()).unwrap_or(5)
}
