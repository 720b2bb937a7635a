//! Whether a Service responds on a port, for the webhooks, aggregated APIs and routes that depend on it.

use crate::engine::Finding;
use crate::kubernetes::network::endpoints::{Backends, EndpointsExt};
use crate::kubernetes::network::outage::{Outage, OutageExt};
use crate::snapshot::model::{IntOrString, Service, ServicePort};
use crate::snapshot::{Cluster, Gap, Kind, Lookup, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::list;

/// Whether a Service responds.
#[derive(Clone, Debug, PartialEq)]
pub enum Answers {
    /// It responds, is still starting, or there is no evidence that it does not respond.
    Likely,
    Not(NoAnswer),
    /// The objects that decide it were not read.
    Unread(Gap),
}

/// Why a Service does not respond.
#[derive(Clone, Debug, PartialEq)]
pub struct NoAnswer {
    /// `Service policy/webhook does not exist`: a clause for the end of a message.
    pub why: String,
    pub kind: NoAnswerKind,
    /// The workload behind it, if that is scaled to zero.
    pub parked: Option<ObjectRef>,
    /// The Service, and the workloads behind it, whose findings explain the outage.
    pub because: Vec<ObjectRef>,
}

#[allow(clippy::enum_variant_names, reason = "each says what there is none of")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswerKind {
    NoService,
    NoPort,
    NoEndpoint,
}

impl Cluster {
    /// Whether a Service responds on a port, or on any port if none is given.
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

/// `80 (http)`, or `80` if the port has no name.
fn port_name(port: &ServicePort) -> String {
    if port.name.is_empty() { port.port.to_string() } else { format!("{} ({})", port.port, port.name) }
}

fn no_port(service: &Service, number: i32) -> NoAnswer {
    let ports: Vec<String> = service.spec.ports.iter().map(port_name).collect();
    let has = if ports.is_empty() { "; it has no ports".to_string() } else { format!(", only {}", list(&ports, 5)) };
    NoAnswer {
        why: format!("Service {}/{} has no port {number}{has}", service.namespace(), service.name()),
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
            "no pod of Service {}/{} has a port named {target} (targetPort of port {})",
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
        why: format!("Service {}/{} has no ready endpoints: {}", service.namespace(), service.name(), outage.why()),
        kind: NoAnswerKind::NoEndpoint,
        parked,
        because: [service.reference()].into_iter().chain(outage.causes()).collect(),
    }
}

impl NoAnswer {
    /// Adds the fix, with a command, to a finding.
    pub fn fix(&self, finding: Finding, namespace: &str, service: &str) -> Finding {
        match &self.parked {
            Some(workload) => finding.fix_command(
                "Scale up the workload behind the Service",
                kubectl([
                    "-n",
                    namespace,
                    "scale",
                    &format!("{}/{}", workload.kind.to_lowercase(), workload.name),
                    "--replicas=1",
                ]),
            ),
            None => finding.fix_command(
                "Restore the pods behind the Service",
                kubectl(["-n", namespace, "describe", "service", service]),
            ),
        }
    }
}
