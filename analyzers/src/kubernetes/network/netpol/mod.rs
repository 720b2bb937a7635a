//! NetworkPolicy semantics: which connections are allowed, and by which policy.
//!
//! A pod is isolated in a direction if at least one NetworkPolicy that selects it applies to that direction. Then only
//! connections that a rule of such a policy allows are possible, and both ends must allow a connection
//! (<https://kubernetes.io/docs/concepts/services-networking/network-policies/>). AdminNetworkPolicy precedes that, and
//! BaselineAdminNetworkPolicy applies to pods that are not isolated (<https://network-policy-api.sigs.k8s.io/>).
//!
//! Answers are three-valued. An answer that depends on unknown addresses, on namespaces that were not read, on pods on the
//! host network, or on another policy engine's objects is [`Answer::Unknown`].

mod admin;
pub mod connections;
mod dns;
mod endpoint;
mod foreign;
pub mod host;
mod index;
mod policy;

#[cfg(test)]
mod tests;

pub use foreign::GROUPS as FOREIGN_GROUPS;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::snapshot::model::{LabelSet, Labels, Namespace, NetworkPolicy, Pod};
use crate::snapshot::{Cluster, Extent, Gap, Kind, Lookup, Object, ObjectRef, Reason, Selector, Workload};

pub use dns::{NODE_LOCAL, dns_targets};
pub use endpoint::{Endpoint, PodEnd, Port, Protocol, Subject};
pub(crate) use index::Index;
pub use policy::{Peer, Policy, PortMatch, Ports, Rule, is_private};

/// A value of three-valued logic (Kleene).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Yes,
    No,
    Unknown,
}

impl Answer {
    pub fn and(self, other: Answer) -> Answer {
        match (self, other) {
            (Answer::No, _) | (_, Answer::No) => Answer::No,
            (Answer::Yes, Answer::Yes) => Answer::Yes,
            _ => Answer::Unknown,
        }
    }

    pub fn or(self, other: Answer) -> Answer {
        match (self, other) {
            (Answer::Yes, _) | (_, Answer::Yes) => Answer::Yes,
            (Answer::No, Answer::No) => Answer::No,
            _ => Answer::Unknown,
        }
    }

    /// The best of several; `No` if there is none.
    pub fn any(answers: impl IntoIterator<Item = Answer>) -> Answer {
        let mut best = Answer::No;
        for answer in answers {
            best = best.or(answer);
            if best == Answer::Yes {
                break;
            }
        }
        best
    }
}

impl From<bool> for Answer {
    fn from(yes: bool) -> Answer {
        if yes { Answer::Yes } else { Answer::No }
    }
}

/// One of the two directions, seen from the pod that a policy selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    Ingress,
    Egress,
}

/// The result of the policies for one connection.
#[derive(Clone, Debug)]
pub struct Verdict<'a> {
    pub allowed: Answer,
    /// At the source.
    pub egress: Side<'a>,
    /// At the destination.
    pub ingress: Side<'a>,
}

/// The result of the policies that select one end.
#[derive(Clone, Debug)]
pub struct Side<'a> {
    pub answer: Answer,
    /// The NetworkPolicies that isolate this end, by name.
    pub isolated_by: Vec<&'a NetworkPolicy>,
    /// The policy that allows it, or an administrator's policy that denies it.
    pub decided_by: Option<Decider<'a>>,
}

/// The policy that decided.
#[derive(Clone, Copy, Debug)]
pub enum Decider<'a> {
    NetworkPolicy(&'a NetworkPolicy),
    /// An administrator's policy.
    Admin(&'a ObjectRef),
}

impl Decider<'_> {
    pub fn reference(self) -> ObjectRef {
        match self {
            Decider::NetworkPolicy(policy) => policy.reference(),
            Decider::Admin(policy) => policy.clone(),
        }
    }
}

impl<'a> Side<'a> {
    fn open() -> Self {
        Side { answer: Answer::Yes, isolated_by: Vec::new(), decided_by: None }
    }

    fn by_admin(answer: Answer, policy: &'a ObjectRef) -> Self {
        Side { answer, isolated_by: Vec::new(), decided_by: Some(Decider::Admin(policy)) }
    }
}

/// A connection, seen from one of its ends.
struct Attempt<'e, 'a> {
    direction: Direction,
    subject: &'e Endpoint<'a>,
    /// The subject, which is a pod.
    pod: &'e PodEnd<'a>,
    peer: &'e Endpoint<'a>,
    /// The port of the destination.
    port: Port,
}

impl<'e, 'a> Attempt<'e, 'a> {
    fn destination(&self) -> &'e Endpoint<'a> {
        match self.direction {
            Direction::Ingress => self.subject,
            Direction::Egress => self.peer,
        }
    }
}

/// All policies of a cluster, compiled and indexed by what they select.
#[derive(Debug)]
pub struct PolicySet<'a> {
    cluster: &'a Cluster,
    index: &'a Index,
    policies: Vec<Policy<'a>>,
    /// Whether cluster-wide policies of another kind may decide otherwise.
    undecided: bool,
    workloads: OnceCell<BTreeMap<&'a str, Vec<Workload<'a>>>>,
    subjects: OnceCell<Vec<Subject<'a>>>,
    templates: OnceCell<BTreeMap<&'a str, Vec<Labels>>>,
    namespaces: OnceCell<Vec<&'a str>>,
}

impl<'a> PolicySet<'a> {
    /// The kinds, besides NetworkPolicy, that allow or deny traffic. Rules list them as optional.
    pub const OTHER_POLICIES: &'static [Kind] = &[
        Kind::AdminNetworkPolicy,
        Kind::BaselineAdminNetworkPolicy,
        Kind::ClusterNetworkPolicy,
        Kind::CiliumNetworkPolicy,
        Kind::CiliumClusterwideNetworkPolicy,
        Kind::GlobalNetworkPolicy,
    ];

    pub fn new(cluster: &'a Cluster) -> PolicySet<'a> {
        let index = cluster.derived(|| Index::new(cluster));
        let objects = cluster.all::<NetworkPolicy>().iter();
        let policies = objects.zip(&index.terms).map(|(object, terms)| Policy::new(object, terms)).collect();
        let admin_unread = Self::OTHER_POLICIES.iter().any(|kind| withheld(cluster, *kind).is_some());
        PolicySet {
            cluster,
            index,
            policies,
            undecided: admin_unread,
            workloads: OnceCell::new(),
            subjects: OnceCell::new(),
            templates: OnceCell::new(),
            namespaces: OnceCell::new(),
        }
    }

    pub fn cluster(&self) -> &'a Cluster {
        self.cluster
    }

    pub fn policies(&self) -> &[Policy<'a>] {
        &self.policies
    }

    pub fn in_namespace(&self, namespace: &str) -> &[Policy<'a>] {
        &self.policies[self.cluster.objects().range(Kind::NetworkPolicy, namespace)]
    }

    /// The policies that select a pod and apply to a direction, by name. None select a pod on the host network: their
    /// effect on it is undefined, and most plugins ignore it.
    pub fn isolating(&self, direction: Direction, pod: &PodEnd<'a>) -> Vec<&Policy<'a>> {
        let candidates = self.index.by_selector.candidates(pod.namespace, pod.labels).into_iter();
        let policies = candidates.map(|n| &self.policies[n as usize]);
        policies.filter(|policy| policy.rules(direction).is_some() && policy.selects(pod)).collect()
    }

    /// Whether objects of another policy engine, or policies that could not be read, may allow the pods of a namespace
    /// what NetworkPolicies block.
    pub fn is_undecided(&self, namespace: &str) -> bool {
        self.undecided || self.index.foreign.acts_in(namespace)
    }

    /// Whether a connection is allowed.
    pub fn verdict(&self, from: &Endpoint<'a>, to: &Endpoint<'a>, port: Port) -> Verdict<'a> {
        if let (Endpoint::Pod(a), Endpoint::Pod(b)) = (from, to)
            && a.is_same_pod(b)
        {
            // A pod cannot block access to itself.
            return Verdict { allowed: Answer::Yes, egress: Side::open(), ingress: Side::open() };
        }
        let egress = self.side(Direction::Egress, from, to, port);
        let ingress = self.side(Direction::Ingress, to, from, port);
        Verdict { allowed: egress.answer.and(ingress.answer), egress, ingress }
    }

    /// The result of the policies of one end for a connection with the other end. The port is always that of the
    /// destination, after the Service's translation.
    pub fn side(&self, direction: Direction, subject: &Endpoint<'a>, peer: &Endpoint<'a>, port: Port) -> Side<'a> {
        let Endpoint::Pod(pod) = subject else { return Side::open() };
        if pod.spec.host_network || pod.is_on_node_of(peer) {
            return Side::open();
        }
        let attempt = Attempt { direction, subject, pod, peer, port };
        let admin = self.index.admin.decide(self, &attempt);
        let isolating = self.isolating(direction, pod);
        let mut side = match admin.decision {
            Some((answer, policy)) => Side::by_admin(answer, policy),
            None if isolating.is_empty() => match self.index.admin.baseline(self, &attempt) {
                Some((answer, policy)) => Side::by_admin(answer, policy),
                None => Side::open(),
            },
            None => self.by_network_policies(&isolating, &attempt),
        };
        if admin.is_uncertain || (side.answer == Answer::No && self.is_undecided(pod.namespace)) {
            side.answer = Answer::Unknown;
        }
        side
    }

    fn by_network_policies(&self, isolating: &[&Policy<'a>], attempt: &Attempt<'_, 'a>) -> Side<'a> {
        let mut side = Side {
            answer: Answer::No,
            isolated_by: isolating.iter().map(|policy| policy.object).collect(),
            decided_by: None,
        };
        for policy in isolating {
            let rules = policy.rules(attempt.direction).unwrap_or_default().iter();
            let answer = Answer::any(rules.map(|rule| {
                let ports = rule.allows_port(attempt.port, attempt.destination());
                // Peers are more expensive to match.
                if ports == Answer::No {
                    Answer::No
                } else {
                    ports.and(rule.allows_peer(self, policy.namespace(), attempt.peer))
                }
            }));
            if answer == Answer::Yes {
                return Side { answer, decided_by: Some(Decider::NetworkPolicy(policy.object)), ..side };
            }
            side.answer = side.answer.or(answer);
        }
        side
    }

    /// Whether a selector matches the labels of a namespace.
    pub fn namespace_matches(&self, selector: &Selector, namespace: &str) -> Answer {
        if let Lookup::Found(found) = self.cluster.get::<Namespace>("", namespace) {
            return selector.matches(&NamespaceLabels { name: namespace, labels: Some(&found.metadata.labels) }).into();
        }
        // Every namespace carries its name as a label (KEP-2161), which is known even if the namespace was not read.
        let known = NamespaceLabels { name: namespace, labels: None };
        let by_name_only = selector.keys().all(|key| key == NAME_LABEL);
        if by_name_only { selector.matches(&known).into() } else { Answer::Unknown }
    }

    /// The topmost workloads of a namespace.
    pub fn workloads_in(&self, namespace: &str) -> &[Workload<'a>] {
        let workloads = self.workloads.get_or_init(|| {
            let namespaces = self.cluster.workload_namespaces();
            namespaces.into_iter().map(|namespace| (namespace, self.cluster.workloads_in(namespace))).collect()
        });
        workloads.get(namespace).map_or(&[], Vec::as_slice)
    }

    /// One pod per owner of pods in a namespace, or the pod template of a workload that has no pods yet.
    pub fn subjects_in(&self, namespace: &str) -> &[Subject<'a>] {
        &self.subjects()[self.index.subjects(self.cluster).range(namespace)]
    }

    fn subjects(&self) -> &[Subject<'a>] {
        self.subjects.get_or_init(|| self.index.subjects(self.cluster).all(self.cluster))
    }

    /// The subjects of a namespace that a selector matches, by their owners.
    pub fn subjects_matching(&self, namespace: &str, selector: &Selector) -> impl Iterator<Item = &Subject<'a>> {
        let candidates = self.candidates(Some(namespace), selector).map(|n| &self.subjects()[n]);
        candidates.filter(move |s| s.end.namespace == namespace && selector.matches(s.end.labels))
    }

    /// The subjects that a policy selects.
    pub fn selected_by(&self, policy: &Policy<'a>) -> impl Iterator<Item = &Subject<'a>> {
        let subjects = self.subjects_matching(policy.namespace(), policy.selector);
        subjects.filter(|subject| policy.selects(&subject.end))
    }

    /// The indices of the subjects of a namespace, or of all, that a selector may match; in order.
    fn candidates(&self, namespace: Option<&str>, selector: &Selector) -> impl Iterator<Item = usize> + use<'_, 'a> {
        let index = self.index.subjects(self.cluster);
        let by_label = match namespace {
            Some(_) => &index.by_label,
            None => index.by_label_anywhere(self.cluster),
        };
        let found = selector.candidates(namespace.unwrap_or_default(), by_label);
        let everyone = match (&found, namespace) {
            (Some(_), _) => 0..0,
            (None, Some(namespace)) => index.range(namespace),
            (None, None) => 0..self.subjects().len(),
        };
        let found = found.unwrap_or_default();
        (0..found.len()).map(move |n| found[n] as usize).chain(everyone)
    }

    /// Whether a selector matches any pod of a namespace, or the pod template of a workload in it.
    pub fn selects_any(&self, namespace: &str, selector: &Selector) -> bool {
        self.cluster.any_pod_matches(namespace, selector)
            || !self.cluster.workloads_matching(namespace, selector).is_empty()
            || self.custom_templates(namespace).iter().any(|labels| selector.matches(labels))
    }

    fn custom_templates(&self, namespace: &str) -> &[Labels] {
        let templates = self.templates.get_or_init(|| foreign::templates(self.cluster));
        templates.get(namespace).map_or(&[], Vec::as_slice)
    }

    /// The namespaces that are known to exist or contain pods or workloads.
    pub fn namespaces(&self) -> &[&'a str] {
        self.namespaces.get_or_init(|| {
            let pods = self.cluster.all::<Pod>().iter().map(|pod| pod.metadata.namespace.as_str());
            let known = self.cluster.all::<Namespace>().iter().map(Object::name);
            let mut namespaces: Vec<&str> = known.chain(self.cluster.workload_namespaces()).collect();
            // Pods are sorted by namespace.
            let mut last = "";
            namespaces.extend(pods.filter(|namespace| std::mem::replace(&mut last, namespace) != *namespace));
            namespaces.sort_unstable();
            namespaces.dedup();
            namespaces
        })
    }

    /// The workloads among the peers of a rule whose peers are all selectors; none for any other rule.
    pub fn peers_of<'s>(
        &'s self,
        policy: &Policy<'a>,
        rule: &'s Rule,
    ) -> impl Iterator<Item = &'s Subject<'a>> + use<'s, 'a> {
        let own = policy.namespace();
        let is_pods = |peer: &Peer| matches!(peer, Peer::Selected { .. });
        let candidates = move |peer: &'s Peer| match peer {
            Peer::Selected { namespaces: None, pods } => Some(self.candidates(Some(own), pods)),
            Peer::Selected { namespaces: Some(_), pods } => Some(self.candidates(None, pods)),
            _ => None,
        };
        let places: Box<dyn Iterator<Item = usize> + 's> = match rule.peers.as_slice() {
            [only] => Box::new(candidates(only).into_iter().flatten()),
            peers if peers.iter().all(is_pods) => {
                Box::new(peers.iter().filter_map(candidates).flatten().collect::<BTreeSet<usize>>().into_iter())
            }
            _ => Box::new(std::iter::empty()),
        };
        let subjects = places.map(|n| &self.subjects()[n]);
        subjects.filter(move |s| rule.allows_peer(self, own, &Endpoint::Pod(s.end)) == Answer::Yes)
    }
}

/// Why objects of a kind that may exist were not read; `None` if the files merely do not contain them.
pub fn withheld(cluster: &Cluster, kind: Kind) -> Option<&Gap> {
    match cluster.coverage().extent(kind) {
        Extent::Failed(gap) | Extent::Partly(_, gap) if gap.reason != Reason::NotInInput => Some(gap),
        _ => None,
    }
}

/// The label by which every namespace carries its name.
pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A namespace's labels, including the name label, which the API server sets and manifests omit.
pub struct NamespaceLabels<'a> {
    pub name: &'a str,
    pub labels: Option<&'a dyn LabelSet>,
}

impl LabelSet for NamespaceLabels<'_> {
    fn value(&self, key: &str) -> Option<&str> {
        if key == NAME_LABEL { Some(self.name) } else { self.labels?.value(key) }
    }

    fn pairs(&self) -> Box<dyn Iterator<Item = (&str, &str)> + '_> {
        let own = self.labels.into_iter().flat_map(|labels| labels.pairs()).filter(|(key, _)| *key != NAME_LABEL);
        Box::new(std::iter::once((NAME_LABEL, self.name)).chain(own))
    }
}

/// Whether a range contains all addresses.
pub(crate) fn is_everywhere(block: &ipnet::IpNet) -> bool {
    block.prefix_len() == 0
}

/// An address as the API writes it.
fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}
