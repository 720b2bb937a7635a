//! AdminNetworkPolicy and BaselineAdminNetworkPolicy (KEP-2091): ordered rules, of which the first match decides.

use ipnet::IpNet;

use super::policy::{PortMatch, Ports};
use super::{Answer, Attempt, Direction, Endpoint, PodEnd, PolicySet, Protocol};
use crate::snapshot::model::{
    AdminNetworkPolicy, AdminNetworkPolicyPeer, AdminNetworkPolicyPort, AdminNetworkPolicyRule, AdminNetworkPolicySpec,
    AdminNetworkPolicySubject, BaselineAdminNetworkPolicy, NamespacedPod, Node,
};
use crate::snapshot::{Cluster, Object, ObjectRef, Selector};

#[derive(Debug)]
pub(super) struct AdminPolicies {
    /// By priority.
    admin: Vec<AdminPolicy>,
    baseline: Option<AdminPolicy>,
}

/// The decision of AdminNetworkPolicies, which precede NetworkPolicies.
pub(super) struct Decision<'p> {
    pub decision: Option<(Answer, &'p ObjectRef)>,
    /// Whether it is uncertain if an earlier rule matched.
    pub is_uncertain: bool,
}

#[derive(Debug)]
struct AdminPolicy {
    object: ObjectRef,
    priority: i32,
    subject: Pods,
    ingress: Vec<AdminRule>,
    egress: Vec<AdminRule>,
}

#[derive(Debug)]
struct AdminRule {
    action: Action,
    peers: Vec<AdminPeer>,
    ports: Vec<PortMatch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Allow,
    Deny,
    Pass,
}

#[derive(Debug)]
struct Pods {
    namespaces: Selector,
    pods: Selector,
}

#[derive(Debug)]
enum AdminPeer {
    Pods(Pods),
    Nodes(Selector),
    Networks(Vec<IpNet>),
    /// Host names, whose addresses are unknown here.
    Names,
}

impl AdminPolicies {
    pub(super) fn new(cluster: &Cluster) -> AdminPolicies {
        let policies = cluster.all::<AdminNetworkPolicy>().iter();
        let mut admin: Vec<AdminPolicy> = policies.filter_map(|p| AdminPolicy::new(p.reference(), &p.spec)).collect();
        admin.sort_by(|a, b| (a.priority, &a.object.name).cmp(&(b.priority, &b.object.name)));
        let baseline = cluster.all::<BaselineAdminNetworkPolicy>().first();
        AdminPolicies { admin, baseline: baseline.and_then(|p| AdminPolicy::new(p.reference(), &p.spec)) }
    }

    pub(super) fn decide(&self, set: &PolicySet, attempt: &Attempt) -> Decision<'_> {
        let mut is_uncertain = false;
        for policy in &self.admin {
            match policy.first_match(set, attempt) {
                Match::None => {}
                Match::Maybe => is_uncertain = true,
                Match::Rule(Action::Pass) => break,
                Match::Rule(action) => {
                    let answer = Answer::from(action == Action::Allow);
                    return Decision { decision: Some((answer, &policy.object)), is_uncertain };
                }
            }
        }
        Decision { decision: None, is_uncertain }
    }

    pub(super) fn baseline(&self, set: &PolicySet, attempt: &Attempt) -> Option<(Answer, &ObjectRef)> {
        let policy = self.baseline.as_ref()?;
        match policy.first_match(set, attempt) {
            Match::None | Match::Rule(Action::Pass) => None,
            Match::Maybe => Some((Answer::Unknown, &policy.object)),
            Match::Rule(action) => Some(((action == Action::Allow).into(), &policy.object)),
        }
    }
}

enum Match {
    None,
    /// It is uncertain whether an earlier rule matched.
    Maybe,
    Rule(Action),
}

impl AdminPolicy {
    fn new(object: ObjectRef, spec: &AdminNetworkPolicySpec) -> Option<AdminPolicy> {
        let rules = |rules: &[AdminNetworkPolicyRule]| rules.iter().filter_map(AdminRule::new).collect();
        Some(AdminPolicy {
            object,
            priority: spec.priority,
            subject: Pods::of_subject(&spec.subject)?,
            ingress: rules(&spec.ingress),
            egress: rules(&spec.egress),
        })
    }

    fn first_match(&self, set: &PolicySet, attempt: &Attempt) -> Match {
        let selected = self.subject.matches(set, attempt.pod);
        if selected == Answer::No {
            return Match::None;
        }
        let rules = match attempt.direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        };
        for rule in rules {
            let ports =
                rule.ports.is_empty() || rule.ports.iter().any(|p| p.matches(attempt.port, attempt.destination()));
            if !ports {
                continue;
            }
            match selected.and(Answer::any(rule.peers.iter().map(|p| p.matches(set, attempt.peer)))) {
                Answer::Yes => return Match::Rule(rule.action),
                Answer::Unknown => return Match::Maybe,
                Answer::No => {}
            }
        }
        Match::None
    }
}

impl AdminRule {
    fn new(rule: &AdminNetworkPolicyRule) -> Option<AdminRule> {
        let action = match rule.action.as_str() {
            "Allow" => Action::Allow,
            "Deny" => Action::Deny,
            "Pass" => Action::Pass,
            _ => return None,
        };
        let peers = rule.from.iter().chain(&rule.to).filter_map(AdminPeer::new).collect();
        Some(AdminRule { action, peers, ports: rule.ports.iter().filter_map(port_match).collect() })
    }
}

fn port_match(port: &AdminNetworkPolicyPort) -> Option<PortMatch> {
    if let Some(number) = &port.port_number {
        let ports = Ports::Range(number.port, number.port);
        return Some(PortMatch { protocol: Protocol::parse(&number.protocol), ports });
    }
    if let Some(range) = &port.port_range {
        let ports = Ports::Range(range.start, range.end);
        return Some(PortMatch { protocol: Protocol::parse(&range.protocol), ports });
    }
    // A named port implies the protocol of the declared port.
    let name = port.named_port.as_ref()?;
    Some(PortMatch { protocol: None, ports: Ports::Named(name.clone()) })
}

impl Pods {
    fn of_subject(subject: &AdminNetworkPolicySubject) -> Option<Pods> {
        Pods::new(subject.namespaces.as_ref(), subject.pods.as_ref())
    }

    fn new(namespaces: Option<&crate::snapshot::model::LabelSelector>, pods: Option<&NamespacedPod>) -> Option<Pods> {
        match (namespaces, pods) {
            (Some(namespaces), _) => Some(Pods { namespaces: Selector::new(namespaces), pods: Selector::default() }),
            (None, Some(pods)) => Some(Pods {
                namespaces: Selector::new(&pods.namespace_selector),
                pods: Selector::new(&pods.pod_selector),
            }),
            (None, None) => None,
        }
    }

    fn matches(&self, set: &PolicySet, pod: &PodEnd) -> Answer {
        // Pods on the host network are not selected.
        if pod.spec.host_network || !self.pods.matches(pod.labels) {
            return Answer::No;
        }
        set.namespace_matches(&self.namespaces, pod.namespace)
    }
}

impl AdminPeer {
    fn new(peer: &AdminNetworkPolicyPeer) -> Option<AdminPeer> {
        if let Some(pods) = Pods::new(peer.namespaces.as_ref(), peer.pods.as_ref()) {
            return Some(AdminPeer::Pods(pods));
        }
        if let Some(nodes) = &peer.nodes {
            return Some(AdminPeer::Nodes(Selector::new(nodes)));
        }
        if !peer.networks.is_empty() {
            return Some(AdminPeer::Networks(peer.networks.iter().filter_map(|n| n.parse().ok()).collect()));
        }
        (!peer.domain_names.is_empty()).then_some(AdminPeer::Names)
    }

    fn matches(&self, set: &PolicySet, other: &Endpoint) -> Answer {
        match (self, other) {
            (AdminPeer::Pods(pods), Endpoint::Pod(pod)) => pods.matches(set, pod),
            (AdminPeer::Networks(networks), Endpoint::Address(ip)) => networks.iter().any(|n| n.contains(ip)).into(),
            (AdminPeer::Networks(networks), Endpoint::Pod(pod)) => {
                let mut addresses = pod.addresses().peekable();
                if addresses.peek().is_none() {
                    return Answer::Unknown;
                }
                addresses.any(|ip| networks.iter().any(|n| n.contains(&ip))).into()
            }
            (AdminPeer::Networks(networks), Endpoint::Internet) => {
                let everywhere = networks.iter().any(super::is_everywhere);
                if everywhere { Answer::Yes } else { Answer::Unknown }
            }
            (AdminPeer::Nodes(selector), Endpoint::Pod(pod)) if pod.spec.host_network => {
                match set.cluster().get::<Node>("", pod.node_name()).found() {
                    Some(node) => selector.matches(node.labels()).into(),
                    None => Answer::Unknown,
                }
            }
            (AdminPeer::Nodes(_), Endpoint::Address(_))
            | (AdminPeer::Names, Endpoint::Address(_) | Endpoint::Internet) => Answer::Unknown,
            _ => Answer::No,
        }
    }
}
