//! What pods are known to connect to: the in-cluster addresses that their environment and command lines name.

use crate::cluster::{Cluster, Lookup};
use crate::model::{Container, EnvVar, IngressClass, Pod, Service};

use super::PodEnd;

/// A Service that a container's configuration names.
#[derive(Clone, Debug)]
pub struct Connection<'a> {
    pub service: &'a Service,
    /// The Service's port, where the address says one.
    pub port: Option<i32>,
    /// The variable's name, or `the command line`.
    pub place: String,
    /// `db:5432`: never more of a value than the address, for it may hold a password.
    pub address: String,
    /// `spec.containers[app].env[DB_HOST]`
    pub path: String,
}

/// The Services that a pod's containers are told to connect to, other than those that lead to the pod itself.
pub fn known_connections<'a>(cluster: &'a Cluster, end: &PodEnd<'a>) -> Vec<Connection<'a>> {
    let mut connections = Vec::new();
    for container in end.spec.running_containers() {
        for variable in &container.env {
            for (host, port) in addresses_of(container, variable) {
                let path = format!("spec.containers[{}].env[{}]", container.name, variable.name);
                connections.extend(connection(cluster, end, &host, port, &variable.name, path));
            }
        }
        for word in container.command.iter().chain(&container.args) {
            for (host, port) in addresses_in(word) {
                let path = format!("spec.containers[{}].args", container.name);
                connections.extend(connection(cluster, end, &host, port, "the command line", path));
            }
        }
    }
    connections.dedup_by(|a, b| {
        (&a.service.metadata.name, &a.service.metadata.namespace, a.port)
            == (&b.service.metadata.name, &b.service.metadata.namespace, b.port)
    });
    connections
}

fn connection<'a>(
    cluster: &'a Cluster,
    end: &PodEnd<'a>,
    host: &str,
    port: Option<i32>,
    place: &str,
    path: String,
) -> Option<Connection<'a>> {
    let service = service_of_host(cluster, end.namespace, host)?;
    let selector = &service.spec.selector;
    // The address by which others reach the pod itself: what it advertises, or its own peers.
    let leads_home = service.metadata.namespace == end.namespace
        && !selector.is_empty()
        && crate::selector::Selector::equals(selector).matches(end.labels);
    let address = port.map_or_else(|| host.to_string(), |port| format!("{host}:{port}"));
    (!leads_home).then(|| Connection { service, port, place: place.to_string(), address, path })
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

/// The addresses in the value of a variable. A value that is a bare host is one where the variable's name says so, and
/// its port is then in the variable beside it: `DB_HOST`, `DB_PORT`.
fn addresses_of(container: &Container, variable: &EnvVar) -> Vec<(String, Option<i32>)> {
    let found = addresses_in(&variable.value);
    if !found.is_empty() {
        return found;
    }
    let name = variable.name.to_ascii_uppercase();
    let Some(stem) = ["HOSTNAME", "HOST", "SERVER", "ADDRESS", "ADDR", "SERVICE", "ENDPOINT"]
        .iter()
        .find_map(|ending| name.strip_suffix(ending))
    else {
        return Vec::new();
    };
    if !is_host(&variable.value) {
        return Vec::new();
    }
    let port = container.env.iter().find(|other| other.name.to_ascii_uppercase() == format!("{stem}PORT"));
    vec![(variable.value.clone(), port.and_then(|port| port.value.parse().ok()))]
}

/// The addresses in any text: of every URL, and every `host:port`.
fn addresses_in(text: &str) -> Vec<(String, Option<i32>)> {
    const LONGEST: usize = 8192;
    if text.len() > LONGEST {
        return Vec::new();
    }
    let separates = |c: char| c.is_whitespace() || "\"'`,;|()<>[]{}=&".contains(c);
    text.split(separates).filter_map(address).collect()
}

fn address(word: &str) -> Option<(String, Option<i32>)> {
    let (scheme, rest) = match word.split_once("://") {
        Some((scheme, rest)) => (Some(scheme.rsplit(':').next().unwrap_or(scheme)), rest),
        None => (None, word),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse::<u16>().ok()?)),
        None => (authority, None),
    };
    if !is_host(host) {
        return None;
    }
    let port = port.map(i32::from).filter(|port| *port > 0);
    match scheme {
        Some(scheme) => Some((host.to_string(), port.or_else(|| usual_port(scheme)))),
        None => Some((host.to_string(), Some(port?))),
    }
}

fn usual_port(scheme: &str) -> Option<i32> {
    Some(match scheme {
        "http" | "ws" => 80,
        "https" | "wss" => 443,
        "postgres" | "postgresql" => 5432,
        "mysql" | "mariadb" => 3306,
        "redis" | "rediss" => 6379,
        "amqp" => 5672,
        "mongodb" => 27017,
        "nats" => 4222,
        _ => return None,
    })
}

/// A name that DNS could know.
fn is_host(text: &str) -> bool {
    !text.is_empty()
        && text.len() < 254
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.')
        && text.chars().any(|c| c.is_ascii_lowercase())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
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
        let labels = &pod.metadata.labels;
        labels.get("app.kubernetes.io/name") == Some(name)
            && labels.get("app.kubernetes.io/component").is_none_or(|part| matches!(part, "controller" | "app"))
    };
    let pods = cluster.all::<Pod>().iter().filter(|pod| pod.is_active());
    pods.filter(is_controller).min_by_key(|pod| !pod.is_ready())
}

#[cfg(test)]
mod tests {
    use super::addresses_in;

    #[test]
    fn addresses() {
        let found = |text: &str| {
            let found = addresses_in(text).into_iter();
            found.map(|(host, port)| port.map_or(host.clone(), |port| format!("{host}:{port}"))).collect::<Vec<_>>()
        };
        assert_eq!(found("http://api.shop.svc:8080/v1"), ["api.shop.svc:8080"]);
        assert_eq!(found("https://api"), ["api:443"]);
        assert_eq!(found("jdbc:postgresql://u:p@db:5433/shop?x=y"), ["db:5433"]);
        assert_eq!(found("while true; do wget -qO- http://back:80/; done"), ["back:80"]);
        assert_eq!(found("kafka-0:9092,kafka-1:9092"), ["kafka-0:9092", "kafka-1:9092"]);
        assert_eq!(found("0.0.0.0:8080 :8080 plain true"), [""; 0]);
        assert_eq!(found("http://$(HOST):80"), [""; 0]);
    }
}
