//! Known connections of pods: the in-cluster addresses in their environments and command lines.

use std::collections::BTreeMap;

use crate::kubernetes::workloads::references::{Reference, Usage, references};
use crate::snapshot::model::{ConfigMap, IngressClass, Pod, Service};
use crate::snapshot::{Cluster, Kind, Lookup, Object, ObjectRef};
use crate::text::address::{Address, addresses_in, addresses_of};

use super::{PodEnd, PolicySet, Subject};

/// A Service that a container's configuration refers to.
#[derive(Clone, Debug)]
pub struct Connection<'a> {
    pub service: &'a Service,
    /// The Service's port, if the address has one.
    pub port: Option<i32>,
    /// The variable's name, `the command line`, or the key of a ConfigMap.
    pub place: String,
    /// `db:5432`: only the address of a value, because the rest may be a password.
    pub address: String,
    /// `spec.containers[app].env[DB_HOST]`, or `data[DB_HOST]` of a ConfigMap.
    pub path: String,
    /// The ConfigMap that contains the address, unless the pod itself does.
    pub config_map: Option<ObjectRef>,
    /// Whether the address is in a mounted file, of which the program may use only a part.
    pub in_file: bool,
}

/// The Services that a pod's containers are configured to connect to, except those that select the pod itself.
pub fn known_connections<'a>(cluster: &'a Cluster, end: &PodEnd<'a>) -> Vec<Connection<'a>> {
    let mut connections = Vec::new();
    for container in end.spec.running_containers() {
        for variable in &container.env {
            let related =
                |name: &str| container.env.iter().find(|v| v.name.eq_ignore_ascii_case(name)).map(|v| &*v.value);
            for address in addresses_of(&variable.name, &variable.value, related) {
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
    connections.dedup_by(|a, b| a.has_same_target_as(b));
    connections
}

/// The Services that the ConfigMaps of a namespace configure its workloads to connect to, each with the workload. A
/// ConfigMap that several workloads share does not show which of them connects, unless a variable uses the key.
pub fn configured_connections<'s, 'a>(
    set: &'s PolicySet<'a>,
    namespace: &str,
) -> Vec<(&'s Subject<'a>, Connection<'a>)> {
    let (cluster, subjects) = (set.cluster(), set.subjects_in(namespace));
    let with_addresses =
        cluster.in_namespace::<ConfigMap>(namespace).iter().filter(|map| !map.data.addresses.is_empty());
    let with_addresses: BTreeMap<&str, &ConfigMap> = with_addresses.map(|map| (map.name(), map)).collect();
    if with_addresses.is_empty() {
        return Vec::new();
    }
    let mut users: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let has_addresses = |r: &Reference| r.kind == Kind::ConfigMap && with_addresses.contains_key(r.name);
    let uses: Vec<Vec<Reference>> =
        subjects.iter().map(|s| references(s.end.spec).into_iter().filter(has_addresses).collect()).collect();
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
            let map = with_addresses[reference.name];
            let is_variable = matches!(reference.usage, Usage::Env { .. });
            let is_only_user = users.get(reference.name).is_some_and(|users| users.len() == 1);
            let in_file = matches!(reference.usage, Usage::Volume { .. } | Usage::Projected { .. });
            for (key, address) in &map.data.addresses {
                if reference.key.map_or(is_only_user, |used| used == key && (is_variable || is_only_user)) {
                    let found = connection(cluster, &subject.end, address, key, format!("data[{key}]"));
                    let config_map = Some(map.reference());
                    connections.extend(found.map(|found| (subject, Connection { config_map, in_file, ..found })));
                }
            }
        }
        connections[first..].sort_by_key(|(_, connection)| connection.in_file);
    }
    connections.dedup_by(|(s, a), (t, b)| s.owner == t.owner && a.has_same_target_as(b));
    connections
}

impl Connection<'_> {
    fn has_same_target_as(&self, other: &Connection) -> bool {
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
    // The address of the pod itself, which it advertises or uses to find its peers.
    let selects_itself = service.metadata.namespace == end.namespace
        && !selector.is_empty()
        && crate::snapshot::Selector::equals(selector).matches(end.labels);
    let port = address.port;
    (!selects_itself).then(|| Connection {
        service,
        port,
        place: place.to_string(),
        address: address.to_string(),
        path,
        config_map: None,
        in_file: false,
    })
}

/// The existing Service that a host name resolves to for a pod of a namespace.
pub fn service_of_host<'a>(cluster: &'a Cluster, namespace: &str, host: &str) -> Option<&'a Service> {
    let labels: Vec<&str> = host.trim_end_matches('.').split('.').collect();
    let get = |namespace: &str, name: &str| match cluster.get::<Service>(namespace, name) {
        Lookup::Found(service) => Some(service),
        _ => None,
    };
    match labels.as_slice() {
        [name] => get(namespace, name),
        // Either SERVICE.NAMESPACE or, for a headless Service of the own namespace, POD.SERVICE.
        [a, b] => get(b, a).or_else(|| get(namespace, b).filter(|service| service.is_headless())),
        [name, namespace, "svc", ..] => get(namespace, name),
        [_pod, name, namespace, "svc", ..] => get(namespace, name),
        _ => None,
    }
}

/// A pod of the controller that serves the Ingresses of a class, if the controller is well known; preferably a ready one.
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
