//! What pods are known to connect to: the in-cluster addresses that their environment and command lines name.

use std::collections::BTreeMap;

use crate::kubernetes::workloads::references::{Reference, Usage, references};
use crate::snapshot::model::{ConfigMap, IngressClass, Pod, Service};
use crate::snapshot::{Cluster, Kind, Lookup, Object, ObjectRef};
use crate::text::address::{Address, addresses_in, addresses_of};

use super::{PodEnd, PolicySet, Subject};

/// A Service that a container's configuration names.
#[derive(Clone, Debug)]
pub struct Connection<'a> {
    pub service: &'a Service,
    /// The Service's port, where the address says one.
    pub port: Option<i32>,
    /// The variable's name, `the command line`, or the key of a ConfigMap.
    pub place: String,
    /// `db:5432`: never more of a value than the address, for it may hold a password.
    pub address: String,
    /// `spec.containers[app].env[DB_HOST]`, or `data[DB_HOST]` of a ConfigMap.
    pub path: String,
    /// The ConfigMap that says so, if it is not the pod itself.
    pub config_map: Option<ObjectRef>,
    /// It stands in a file that is mounted: whoever reads the file need not use all of it.
    pub in_file: bool,
}

/// The Services that a pod's containers are told to connect to, other than those that lead to the pod itself.
pub fn known_connections<'a>(cluster: &'a Cluster, end: &PodEnd<'a>) -> Vec<Connection<'a>> {
    let mut connections = Vec::new();
    for container in end.spec.running_containers() {
        for variable in &container.env {
            let beside =
                |name: &str| container.env.iter().find(|v| v.name.eq_ignore_ascii_case(name)).map(|v| &*v.value);
            for address in addresses_of(&variable.name, &variable.value, beside) {
                let path = format!("spec.containers[{}].env[{}]", container.name, variable.name);
                connections.extend(connection(cluster, end, &address, &variable.name, path));
            }
        }
        for word in container.command.iter().chain(&container.args) {
            for address in addresses_in(word) {
                let path = format!("spec.containers[{}].args", container.name);
                connections.extend(connection(cluster, end, &address, "the command line", path));
            }
        }
    }
    connections.dedup_by(|a, b| a.is_to_the_same_as(b));
    connections
}

/// The Services that the ConfigMaps of a namespace tell its workloads to connect to, each with the workload. What
/// several workloads share tells of none of them what it connects to, unless a variable asks for the very key.
pub fn configured_connections<'s, 'a>(
    set: &'s PolicySet<'a>,
    namespace: &str,
) -> Vec<(&'s Subject<'a>, Connection<'a>)> {
    let (cluster, subjects) = (set.cluster(), set.subjects_in(namespace));
    let telling = cluster.in_namespace::<ConfigMap>(namespace).iter().filter(|map| !map.data.addresses.is_empty());
    let telling: BTreeMap<&str, &ConfigMap> = telling.map(|map| (map.name(), map)).collect();
    if telling.is_empty() {
        return Vec::new();
    }
    let mut users: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let tells = |r: &Reference| r.kind == Kind::ConfigMap && telling.contains_key(r.name);
    let uses: Vec<Vec<Reference>> =
        subjects.iter().map(|s| references(s.end.spec).into_iter().filter(tells).collect()).collect();
    for (n, reference) in uses.iter().enumerate().flat_map(|(n, uses)| uses.iter().map(move |r| (n, r))) {
        let of = users.entry(reference.name).or_default();
        if of.last() != Some(&n) {
            of.push(n);
        }
    }
    let mut connections: Vec<(&Subject, Connection)> = Vec::new();
    for (subject, uses) in subjects.iter().zip(&uses) {
        let first = connections.len();
        for reference in uses {
            let map = telling[reference.name];
            let is_asked_for = matches!(reference.usage, Usage::Env { .. });
            let is_alone = users.get(reference.name).is_some_and(|users| users.len() == 1);
            let in_file = matches!(reference.usage, Usage::Volume { .. } | Usage::Projected { .. });
            for (key, address) in &map.data.addresses {
                if reference.key.map_or(is_alone, |asked| asked == key && (is_asked_for || is_alone)) {
                    let found = connection(cluster, &subject.end, address, key, format!("data[{key}]"));
                    let config_map = Some(map.reference());
                    connections.extend(found.map(|found| (subject, Connection { config_map, in_file, ..found })));
                }
            }
        }
        connections[first..].sort_by_key(|(_, connection)| connection.in_file);
    }
    connections.dedup_by(|(s, a), (t, b)| s.owner == t.owner && a.is_to_the_same_as(b));
    connections
}

impl Connection<'_> {
    fn is_to_the_same_as(&self, other: &Connection) -> bool {
        let name = |c: &Connection| (c.service.metadata.name.clone(), c.service.metadata.namespace.clone(), c.port);
        name(self) == name(other)
    }
}

fn connection<'a>(
    cluster: &'a Cluster,
    end: &PodEnd<'a>,
    address: &Address,
    place: &str,
    path: String,
) -> Option<Connection<'a>> {
    let service = service_of_host(cluster, end.namespace, &address.host)?;
    let selector = &service.spec.selector;
    // The address by which others reach the pod itself: what it advertises, or its own peers.
    let leads_home = service.metadata.namespace == end.namespace
        && !selector.is_empty()
        && crate::snapshot::Selector::equals(selector).matches(end.labels);
    let port = address.port;
    (!leads_home).then(|| Connection {
        service,
        port,
        place: place.to_string(),
        address: address.to_string(),
        path,
        config_map: None,
        in_file: false,
    })
}

/// The Service that a host name means to a pod of a namespace, if it is one that exists.
pub fn service_of_host<'a>(cluster: &'a Cluster, namespace: &str, host: &str) -> Option<&'a Service> {
    let labels: Vec<&str> = host.trim_end_matches('.').split('.').collect();
    let get = |namespace: &str, name: &str| match cluster.get::<Service>(namespace, name) {
        Lookup::Found(service) => Some(service),
        _ => None,
    };
    match labels.as_slice() {
        [name] => get(namespace, name),
        // Either Service.Namespace or, below a headless Service of its own namespace, Pod.Service.
        [a, b] => get(b, a).or_else(|| get(namespace, b).filter(|service| service.is_headless())),
        [name, namespace, "svc", ..] => get(namespace, name),
        [_pod, name, namespace, "svc", ..] => get(namespace, name),
        _ => None,
    }
}

/// A pod of the controller that serves the Ingresses of a class, if it is one of the well-known ones; a ready one first.
pub fn ingress_controller<'a>(cluster: &'a Cluster, class: &IngressClass) -> Option<&'a Pod> {
    let name = match class.spec.as_ref()?.controller.as_deref()? {
        "k8s.io/ingress-nginx" => "ingress-nginx",
        "traefik.io/ingress-controller" => "traefik",
        "haproxy-ingress.github.io/controller" => "haproxy-ingress",
        "haproxy.org/ingress-controller/haproxy" => "kubernetes-ingress",
        "ingress-controllers.konghq.com/kong" => "kong",
        "nginx.org/ingress-controller" => "nginx-ingress",
        _ => return None,
    };
    let is_controller = |pod: &&Pod| {
        let part = pod.metadata.labels.get("app.kubernetes.io/component");
        part.is_none_or(|part| matches!(part, "controller" | "app"))
    };
    let pods = cluster.pods_of_app(name).filter(|pod| pod.is_active());
    pods.filter(is_controller).min_by_key(|pod| !pod.is_ready())
}
