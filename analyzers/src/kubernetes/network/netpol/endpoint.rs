//! The two ends of a connection.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use super::address;
use crate::snapshot::model::{IntOrString, Labels, Pod, PodSpec, PodStatus, PodTemplate};
use crate::snapshot::{Object, ObjectRef};

/// One end of a connection.
#[derive(Clone, Copy, Debug)]
pub enum Endpoint<'a> {
    Pod(PodEnd<'a>),
    /// An address that does not belong to a pod.
    Address(IpAddr),
    /// Any address outside the cluster.
    Internet,
}

/// A pod, or the pod template of a workload.
#[derive(Clone, Copy, Debug)]
pub struct PodEnd<'a> {
    pub namespace: &'a str,
    pub labels: &'a Labels,
    pub spec: &'a PodSpec,
    /// The pod, unless this is a template.
    pub pod: Option<&'a Pod>,
}

/// One owner of pods, with a representative pod.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    pub owner: Cow<'a, ObjectRef>,
    pub end: PodEnd<'a>,
    /// How many active pods it has.
    pub pods: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// A port of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    pub number: i32,
    pub protocol: Protocol,
}

impl Protocol {
    /// TCP if empty; `None` for a protocol unknown to the API.
    pub fn parse(protocol: &str) -> Option<Protocol> {
        match protocol {
            "" | "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        })
    }
}

impl Port {
    pub fn tcp(number: i32) -> Port {
        Port { number, protocol: Protocol::Tcp }
    }

    pub fn udp(number: i32) -> Port {
        Port { number, protocol: Protocol::Udp }
    }
}

/// `9000`, `UDP 53`.
impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            Protocol::Tcp => write!(f, "{}", self.number),
            protocol => write!(f, "{protocol} {}", self.number),
        }
    }
}

impl<'a> Endpoint<'a> {
    pub fn pod(pod: &'a Pod) -> Endpoint<'a> {
        Endpoint::Pod(PodEnd::of(pod))
    }
}

impl<'a> PodEnd<'a> {
    pub fn of(pod: &'a Pod) -> PodEnd<'a> {
        PodEnd { namespace: &pod.metadata.namespace, labels: &pod.metadata.labels, spec: &pod.spec, pod: Some(pod) }
    }

    pub fn of_template(namespace: &'a str, template: &'a PodTemplate) -> PodEnd<'a> {
        PodEnd { namespace, labels: &template.metadata.labels, spec: &template.spec, pod: None }
    }

    /// Empty for a pod that is not scheduled yet.
    pub(super) fn node_name(&self) -> &'a str {
        self.pod.map_or("", |pod| &pod.spec.node_name)
    }

    fn status(&self) -> Option<&'a PodStatus> {
        self.pod.map(|pod| &pod.status)
    }

    /// Its addresses, if known; those of its node for a pod on the host network.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + 'a {
        let status = self.status().into_iter();
        status.flat_map(|s| s.pod_ips.iter().map(|ip| &*ip.ip).chain([&*s.pod_ip])).filter_map(address)
    }

    pub(super) fn is_same_pod(&self, other: &PodEnd) -> bool {
        match (self.pod, other.pod) {
            (Some(a), Some(b)) => {
                (&a.metadata.namespace, &a.metadata.name) == (&b.metadata.namespace, &b.metadata.name)
            }
            _ => false,
        }
    }

    /// Whether the other end is the node on which this pod runs: that traffic is always allowed, regardless of policies
    /// (the kubelet's probes depend on it).
    pub(super) fn is_on_node_of(&self, other: &Endpoint) -> bool {
        let Some(own) = self.pod else { return false };
        match other {
            Endpoint::Pod(other) if other.spec.host_network => {
                !own.spec.node_name.is_empty() && &*own.spec.node_name == other.node_name()
            }
            Endpoint::Address(ip) => address(&own.status.host_ip) == Some(*ip),
            _ => false,
        }
    }

    /// Whether one of its containers declares a port.
    pub fn declares(&self, port: Port) -> bool {
        let mut ports = self.spec.running_containers().flat_map(|container| &container.ports);
        ports.any(|p| p.container_port == port.number && Protocol::parse(&p.protocol) == Some(port.protocol))
    }

    /// Whether its containers declare any port at all.
    pub fn declares_ports(&self) -> bool {
        self.spec.running_containers().any(|container| !container.ports.is_empty())
    }

    /// Whether a probe uses a port.
    pub fn probes(&self, number: i32) -> bool {
        let probes = self
            .spec
            .running_containers()
            .flat_map(|c| [&c.liveness_probe, &c.readiness_probe, &c.startup_probe].into_iter().flatten());
        probes.filter_map(|probe| probe.port()).any(|port| port == IntOrString::Int(number))
    }

    /// The container ports of this name.
    pub fn named_ports<'n>(&self, name: &'n str) -> impl Iterator<Item = Port> + use<'a, 'n> {
        let ports = self.spec.running_containers().flat_map(|container| &container.ports);
        ports
            .filter(move |port| port.name == name)
            .filter_map(|port| Some(Port { number: port.container_port, protocol: Protocol::parse(&port.protocol)? }))
    }

    /// The port of this pod that a Service's target port resolves to.
    pub fn target(&self, target: &IntOrString, protocol: Protocol) -> Option<Port> {
        match target {
            IntOrString::Int(number) => Some(Port { number: *number, protocol }),
            IntOrString::String(name) => self.named_ports(name).find(|port| port.protocol == protocol),
        }
    }
}

impl Subject<'_> {
    /// `Deployment front`.
    pub fn name(&self) -> String {
        format!("{} {}", self.owner.kind, self.owner.name)
    }

    /// The representative pod, or the workload where there is none yet.
    pub fn sample(&self) -> ObjectRef {
        self.end.pod.map_or_else(|| self.owner.clone().into_owned(), Object::reference)
    }
}
