//! Why a Service that something else relies on does not answer: webhooks, aggregated APIs and routes ask the same.

use crate::cluster::{Cluster, Lookup};
use crate::coverage::Gap;
use crate::endpoints::Backends;
use crate::finding::ObjectRef;
use crate::kind::{Kind, Object};
use crate::model::{IntOrString, Pod, Service, ServicePort};
use crate::selector::Selector;
use crate::time;
use crate::words::{count, list};
use crate::workload::Workload;

/// What is known of a Service's answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Answers {
    /// It answers, or nothing says that it does not, or it is just starting.
    Likely,
    Not(Outage),
    /// What one would have to know was not read.
    Unread(Gap),
}

/// A Service that does not answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Outage {
    /// `Service policy/webhook does not exist`, as the second half of a sentence.
    pub why: String,
    pub kind: OutageKind,
    /// Somebody scaled what is behind it to zero.
    pub is_parked: bool,
    /// The Service, and the workloads behind it, whose findings explain the outage.
    pub because: Vec<ObjectRef>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutageKind {
    NoService,
    NoPort,
    NoEndpoint,
}

impl Cluster {
    /// Whether a Service answers on a port; on any, if none is given.
    pub fn answers(&self, namespace: &str, name: &str, port: Option<i32>) -> Answers {
        let service = match self.get::<Service>(namespace, name) {
            Lookup::Found(service) => service,
            Lookup::Missing => return Answers::Not(missing(namespace, name)),
            Lookup::Unknown => {
                return self.coverage().gap(Kind::Service).cloned().map_or(Answers::Likely, Answers::Unread);
            }
        };
        if service.is_external_name() {
            return Answers::Likely;
        }
        let found = port.and_then(|number| service.port(number));
        if let (Some(number), None) = (port, found) {
            return Answers::Not(no_port(service, number));
        }
        if !service.is_live() {
            return Answers::Likely;
        }
        let Some(backends) = self.backends(service) else {
            return self.coverage().gap(Kind::EndpointSlice).cloned().map_or(Answers::Likely, Answers::Unread);
        };
        if !backends.takes_traffic() {
            return no_endpoint(self, service);
        }
        match found.filter(|port| lacks_named_port(&backends, port)) {
            Some(port) => Answers::Not(no_named_port(service, port)),
            None => Answers::Likely,
        }
    }
}

fn missing(namespace: &str, name: &str) -> Outage {
    Outage {
        why: format!("Service {namespace}/{name} does not exist"),
        kind: OutageKind::NoService,
        is_parked: false,
        because: vec![ObjectRef::new(Kind::Service, namespace, name)],
    }
}

/// `80 (http)`, as far as there are names.
fn port_name(port: &ServicePort) -> String {
    if port.name.is_empty() { port.port.to_string() } else { format!("{} ({})", port.port, port.name) }
}

fn no_port(service: &Service, number: i32) -> Outage {
    let ports: Vec<String> = service.spec.ports.iter().map(port_name).collect();
    let has = if ports.is_empty() { "none at all".to_string() } else { format!("only {}", list(&ports, 5)) };
    Outage {
        why: format!("Service {}/{} has no port {number}, {has}", service.namespace(), service.name()),
        kind: OutageKind::NoPort,
        is_parked: false,
        because: vec![service.reference()],
    }
}

/// A port whose `targetPort` is a name that none of the pods has gets no entry in the EndpointSlices.
fn lacks_named_port(backends: &Backends, port: &ServicePort) -> bool {
    matches!(port.target(), IntOrString::String(_))
        && !backends.backends.iter().any(|backend| backend.ports.iter().any(|p| p.name == port.name))
}

fn no_named_port(service: &Service, port: &ServicePort) -> Outage {
    let target = crate::endpoints::port_text(&port.target());
    Outage {
        why: format!(
            "no pod of Service {}/{} has a port named {target}, to which its port {} leads",
            service.namespace(),
            service.name(),
            port.port
        ),
        kind: OutageKind::NoPort,
        is_parked: false,
        because: vec![service.reference()],
    }
}

fn no_endpoint(cluster: &Cluster, service: &Service) -> Answers {
    let (namespace, name) = (service.namespace(), service.name());
    let mut because = vec![service.reference()];
    let mut is_parked = false;
    let detail = if service.spec.selector.is_empty() || !cluster.covers(Kind::Pod, namespace) {
        None
    } else {
        let selector = Selector::equals(&service.spec.selector);
        let pods = cluster.pods_matching(namespace, &selector);
        let active: Vec<&Pod> = pods.into_iter().filter(|pod| pod.is_active()).collect();
        let workloads = cluster.workloads_in(namespace);
        let made_by: Vec<&Workload> =
            workloads.iter().filter(|w| selector.matches(&w.template.metadata.labels)).collect();
        let is_new =
            |w: &&Workload| w.metadata.creation_timestamp.is_some_and(|t| time::age(cluster.now(), t) < time::START);
        if active.iter().any(|pod| is_starting(cluster, pod)) || made_by.iter().any(is_new) {
            return Answers::Likely;
        }
        because.extend(active.iter().map(|pod| cluster.owner_of(pod)));
        because.extend(made_by.iter().map(|workload| workload.object.clone()));
        because.dedup();
        is_parked = active.is_empty() && made_by.first().is_some_and(|workload| workload.is_scaled_to_zero());
        Some(behind(&active, &made_by))
    };
    let why = match detail {
        Some(detail) => format!("Service {namespace}/{name} has no ready endpoint: {detail}"),
        None => format!("Service {namespace}/{name} has no ready endpoint"),
    };
    Answers::Not(Outage { why, kind: OutageKind::NoEndpoint, is_parked, because })
}

/// Not ready yet, and not given up on either: no container of it was restarted and it is young.
fn is_starting(cluster: &Cluster, pod: &Pod) -> bool {
    let is_young = pod.created().is_some_and(|created| time::age(cluster.now(), created) < time::to_start(&pod.spec));
    is_young && pod.container_statuses().all(|status| status.restart_count == 0)
}

fn behind(pods: &[&Pod], workloads: &[&Workload]) -> String {
    let name = |workload: &Workload| format!("{} {}", workload.object.kind, workload.object.name);
    match (pods.len(), workloads.first()) {
        (0, Some(workload)) if workload.is_scaled_to_zero() => format!("{} is scaled to zero", name(workload)),
        (0, Some(workload)) => format!("{} has no pod", name(workload)),
        (0, None) => "its selector matches no pod".to_string(),
        (1, Some(workload)) => format!("the pod of {} is not ready", name(workload)),
        (n, Some(workload)) => format!("none of the {} of {} is ready", count(n, "pod"), name(workload)),
        (1, None) => "its pod is not ready".to_string(),
        (n, None) => format!("none of its {} is ready", count(n, "pod")),
    }
}
