//! A NetworkPolicy, compiled.

use std::fmt;

use ipnet::IpNet;

use super::{Answer, Direction, Endpoint, PodEnd, PolicySet, Port, Protocol, is_everywhere};
use crate::snapshot::model::{IntOrString, NetworkPolicy};
use crate::snapshot::{Object, Selector};
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicyPeer, NetworkPolicyPort};

/// A NetworkPolicy with its compiled terms.
#[derive(Debug)]
pub struct Policy<'a> {
    pub object: &'a NetworkPolicy,
    pub selector: &'a Selector,
    terms: &'a Terms,
}

/// The compiled spec of a NetworkPolicy.
#[derive(Debug)]
pub(super) struct Terms {
    pub selector: Selector,
    /// `None` if the policy does not apply to the direction. An empty list allows nothing.
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
}

#[derive(Debug)]
pub struct Rule {
    /// An empty list means all peers.
    pub peers: Vec<Peer>,
    /// An empty list means all ports.
    pub ports: Vec<PortMatch>,
}

#[derive(Debug)]
pub enum Peer {
    /// `namespaces` is `None` for the policy's own namespace.
    Selected {
        namespaces: Option<Selector>,
        pods: Selector,
    },
    Block {
        cidr: IpNet,
        except: Vec<IpNet>,
    },
    /// A peer that the API would reject.
    Nothing,
}

#[derive(Debug)]
pub struct PortMatch {
    /// `None` for any protocol (an AdminNetworkPolicy's named port).
    pub protocol: Option<Protocol>,
    pub ports: Ports,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Ports {
    All,
    /// For a protocol unknown to the API.
    None,
    /// Inclusive.
    Range(i32, i32),
    Named(String),
}

impl Terms {
    pub(super) fn of(object: &NetworkPolicy) -> Terms {
        let spec = object.spec.as_ref();
        let selector = spec.and_then(|s| s.pod_selector.as_ref()).map(Selector::new).unwrap_or_default();
        let ingress: Vec<Rule> = spec
            .and_then(|s| s.ingress.as_ref())
            .into_iter()
            .flatten()
            .map(|rule| Rule::new(rule.from.as_deref(), rule.ports.as_deref()))
            .collect();
        let egress: Vec<Rule> = spec
            .and_then(|s| s.egress.as_ref())
            .into_iter()
            .flatten()
            .map(|rule| Rule::new(rule.to.as_deref(), rule.ports.as_deref()))
            .collect();
        let types = spec.and_then(|s| s.policy_types.as_deref()).unwrap_or_default();
        // The default of policyTypes: Ingress, and Egress if there are egress rules.
        let has = |name: &str| types.iter().any(|t| t == name);
        let (is_ingress, is_egress) =
            if types.is_empty() { (true, !egress.is_empty()) } else { (has("Ingress"), has("Egress")) };
        Terms { selector, ingress: is_ingress.then_some(ingress), egress: is_egress.then_some(egress) }
    }
}

impl<'a> Policy<'a> {
    pub(super) fn new(object: &'a NetworkPolicy, terms: &'a Terms) -> Policy<'a> {
        Policy { object, selector: &terms.selector, terms }
    }

    pub fn namespace(&self) -> &'a str {
        self.object.namespace()
    }

    pub fn name(&self) -> &'a str {
        self.object.name()
    }

    /// The rules of a direction; `None` where the policy does not apply to it.
    pub fn rules(&self, direction: Direction) -> Option<&'a [Rule]> {
        match direction {
            Direction::Ingress => self.terms.ingress.as_deref(),
            Direction::Egress => self.terms.egress.as_deref(),
        }
    }

    pub fn selects(&self, pod: &PodEnd) -> bool {
        pod.namespace == self.namespace() && !pod.spec.host_network && self.selector.matches(pod.labels)
    }
}

impl Rule {
    fn new(peers: Option<&[NetworkPolicyPeer]>, ports: Option<&[NetworkPolicyPort]>) -> Rule {
        Rule {
            peers: peers.unwrap_or_default().iter().map(Peer::new).collect(),
            ports: ports.unwrap_or_default().iter().map(PortMatch::new).collect(),
        }
    }

    /// Whether a port of the destination is among the rule's.
    pub fn allows_port(&self, port: Port, destination: &Endpoint) -> Answer {
        if self.ports.is_empty() {
            return Answer::Yes;
        }
        Answer::any(self.ports.iter().map(|p| p.matches(port, destination).into()))
    }

    /// Whether the other end is among the rule's peers.
    pub fn allows_peer(&self, set: &PolicySet, own_namespace: &str, other: &Endpoint) -> Answer {
        if self.peers.is_empty() {
            return Answer::Yes;
        }
        Answer::any(self.peers.iter().map(|peer| peer.matches(set, own_namespace, other)))
    }
}

impl Peer {
    fn new(peer: &NetworkPolicyPeer) -> Peer {
        match (&peer.ip_block, &peer.namespace_selector, &peer.pod_selector) {
            (Some(block), None, None) => Peer::block(block),
            (None, None, None) | (Some(_), _, _) => Peer::Nothing,
            (None, namespaces, pods) => Peer::Selected {
                namespaces: namespaces.as_ref().map(Selector::new),
                pods: pods.as_ref().map(Selector::new).unwrap_or_default(),
            },
        }
    }

    fn block(block: &IPBlock) -> Peer {
        let Ok(cidr) = block.cidr.parse() else { return Peer::Nothing };
        Peer::Block { cidr, except: block.except.iter().flatten().filter_map(|e| e.parse().ok()).collect() }
    }

    pub fn matches(&self, set: &PolicySet, own_namespace: &str, other: &Endpoint) -> Answer {
        match (self, other) {
            (Peer::Nothing, _) => Answer::No,
            (Peer::Selected { namespaces, pods }, Endpoint::Pod(pod)) => {
                if !pods.matches(pod.labels) {
                    return Answer::No;
                }
                let namespace = match namespaces {
                    None => Answer::from(pod.namespace == own_namespace),
                    Some(selector) => set.namespace_matches(selector, pod.namespace),
                };
                // A pod on the host network has the address of its node, by which most plugins identify it.
                if pod.spec.host_network { namespace.and(Answer::Unknown) } else { namespace }
            }
            (Peer::Selected { .. }, _) => Answer::No,
            (Peer::Block { cidr, except }, Endpoint::Pod(pod)) => {
                let mut addresses = pod.addresses().peekable();
                if addresses.peek().is_none() {
                    return if is_everywhere(cidr) && except.is_empty() { Answer::Yes } else { Answer::Unknown };
                }
                addresses.any(|ip| cidr.contains(&ip) && !except.iter().any(|e| e.contains(&ip))).into()
            }
            (Peer::Block { cidr, except }, Endpoint::Address(ip)) => {
                (cidr.contains(ip) && !except.iter().any(|e| e.contains(ip))).into()
            }
            (Peer::Block { cidr, except }, Endpoint::Internet) => {
                // The exceptions of an all-address range are usually the private ranges.
                let is_public = |block: &IpNet| !is_private(block);
                if is_everywhere(cidr) && !except.iter().any(is_public) {
                    Answer::Yes
                } else if is_private(cidr) {
                    Answer::No
                } else {
                    Answer::Unknown
                }
            }
        }
    }
}

/// Whether a range is within the private ranges, which are not routed on the Internet.
pub fn is_private(block: &IpNet) -> bool {
    const PRIVATE: [&str; 7] =
        ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "fc00::/7", "fe80::/10"];
    PRIVATE.iter().filter_map(|range| range.parse::<IpNet>().ok()).any(|range| range.contains(block))
}

/// `80`, `8000-8080`, `UDP 53`, `http`.
impl fmt::Display for PortMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(protocol) = self.protocol.filter(|protocol| *protocol != Protocol::Tcp) {
            write!(f, "{protocol} ")?;
        }
        match &self.ports {
            Ports::All => f.write_str("any"),
            Ports::None => f.write_str("none"),
            Ports::Range(first, last) if first == last => first.fmt(f),
            Ports::Range(first, last) => write!(f, "{first}-{last}"),
            Ports::Named(name) => f.write_str(name),
        }
    }
}

impl PortMatch {
    fn new(port: &NetworkPolicyPort) -> PortMatch {
        let protocol = Protocol::parse(port.protocol.as_deref().unwrap_or_default());
        let ports = match &port.port {
            _ if protocol.is_none() => Ports::None,
            None => Ports::All,
            Some(IntOrString::Int(number)) => Ports::Range(*number, port.end_port.unwrap_or(*number)),
            Some(IntOrString::String(name)) => Ports::Named(name.clone()),
        };
        PortMatch { protocol, ports }
    }

    /// A port name is resolved by the destination's containers, pod by pod.
    pub fn matches(&self, port: Port, destination: &Endpoint) -> bool {
        if self.protocol.is_some_and(|protocol| protocol != port.protocol) {
            return false;
        }
        match (&self.ports, destination) {
            (Ports::All, _) => true,
            (Ports::None, _) => false,
            (Ports::Range(first, last), _) => (*first..=*last).contains(&port.number),
            (Ports::Named(name), Endpoint::Pod(pod)) => pod.named_ports(name).any(|p| p == port),
            (Ports::Named(_), _) => false,
        }
    }
}
