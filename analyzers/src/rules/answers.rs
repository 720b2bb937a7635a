//! Whether a Service that something else relies on answers on a port: webhooks, aggregated APIs and routes ask the same.

use crate::engine::Finding;
use crate::kubernetes::network::endpoints::{Backends, EndpointsExt};
use crate::kubernetes::network::outage::{Outage, OutageExt};
use crate::snapshot::model::{IntOrString, Service, ServicePort};
use crate::snapshot::{Cluster, Gap, Kind, Lookup, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::list;

/// What is known of a Service's answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Answers {
    /// It answers, or nothing says that it does not, or it is just starting.
    Likely,
    Not(NoAnswer),
    /// What one would have to know was not read.
    Unread(Gap),
}

/// A Service that does not answer.
#[derive(Clone, Debug, PartialEq)]
pub struct NoAnswer {
    /// `Service policy/webhook does not exist`, as the second half of a sentence.
    pub why: String,
    pub kind: NoAnswerKind,
    /// The workload behind it that somebody scaled to zero.
    pub parked: Option<ObjectRef>,
    /// The Service, and the workloads behind it, whose findings explain the outage.
    pub because: Vec<ObjectRef>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswerKind {
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
        if let Some(outage) = self.outage(service) {
            return Answers::Not(no_endpoint(service, &outage));
        }
        let Some(backends) = self.backends(service) else {
            return self.coverage().gap(Kind::EndpointSlice).cloned().map_or(Answers::Likely, Answers::Unread);
        };
        match found.filter(|port| lacks_named_port(&backends, port)) {
            Some(port) => Answers::Not(no_named_port(service, port)),
            None => Answers::Likely,
        }
    }
}

fn missing(namespace: &str, name: &str) -> NoAnswer {
    NoAnswer {
        why: format!("Service {namespace}/{name} does not exist"),
        kind: NoAnswerKind::NoService,
        parked: None,
        because: vec![ObjectRef::new(Kind::Service, namespace, name)],
    }
}

/// `80 (http)`, as far as there are names.
fn port_name(port: &ServicePort) -> String {
    if port.name.is_empty() { port.port.to_string() } else { format!("{} ({})", port.port, port.name) }
}

fn no_port(service: &Service, number: i32) -> NoAnswer {
    let ports: Vec<String> = service.spec.ports.iter().map(port_name).collect();
    let has = if ports.is_empty() { "none at all".to_string() } else { format!("only {}", list(&ports, 5)) };
    NoAnswer {
        why: format!("Service {}/{} has no port {number}, {has}", service.namespace(), service.name()),
        kind: NoAnswerKind::NoPort,
        parked: None,
        because: vec![service.reference()],
    }
}

/// A port whose `targetPort` is a name that none of the pods has gets no entry in the EndpointSlices.
fn lacks_named_port(backends: &Backends, port: &ServicePort) -> bool {
    !backends.backends.is_empty()
        && matches!(port.target(), IntOrString::String(_))
        && !backends.backends.iter().any(|backend| backend.has_port(&port.name))
}

fn no_named_port(service: &Service, port: &ServicePort) -> NoAnswer {
    let target = crate::snapshot::model::port_text(&port.target());
    NoAnswer {
        why: format!(
            "no pod of Service {}/{} has a port named {target}, to which its port {} leads",
            service.namespace(),
            service.name(),
            port.port
        ),
        kind: NoAnswerKind::NoPort,
        parked: None,
        because: vec![service.reference()],
    }
}

fn no_endpoint(service: &Service, outage: &Outage) -> NoAnswer {
    let parked = match outage {
        Outage::Parked { workload, .. } => Some(workload.clone()),
        _ => None,
    };
    NoAnswer {
        why: format!("Service {}/{} has no ready endpoint: {}", service.namespace(), service.name(), outage.why()),
        kind: NoAnswerKind::NoEndpoint,
        parked,
        because: [service.reference()].into_iter().chain(outage.causes()).collect(),
    }
}

impl NoAnswer {
    /// What to do about it, and a command for that: adds it to a finding.
    pub fn fix(&self, finding: Finding, namespace: &str, service: &str) -> Finding {
        match &self.parked {
            Some(workload) => finding.fix_command(
                "Scale up what is behind the Service",
                kubectl([
                    "-n",
                    namespace,
                    "scale",
                    &format!("{}/{}", workload.kind.to_lowercase(), workload.name),
                    "--replicas=1",
                ]),
            ),
            None => finding.fix_command(
                "Bring the pods behind the Service back",
                kubectl(["-n", namespace, "describe", "service", service]),
            ),
        }
    }
}
