//! Topology spread constraints with `whenUnsatisfiable: DoNotSchedule`.
//!
//! Source: <https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/>

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::TopologySpreadConstraint;

use super::{Refusal, Scheduler, node_affinity, taints};
use crate::snapshot::Selector;
use crate::snapshot::model::{LabelSet, Node, Pod};
use crate::text::words;

pub(super) struct Spread<'p> {
    constraints: Vec<Constraint<'p>>,
}

struct Constraint<'p> {
    spec: &'p TopologySpreadConstraint,
    domains: BTreeMap<String, Domain>,
    counts_itself: bool,
}

/// The nodes with the same value of the topology key.
#[derive(Default)]
struct Domain {
    /// The number of matching pods.
    matching: i64,
    /// Whether any node of the domain may run the pod, as far as taints and node affinity are concerned.
    is_open: bool,
    /// Why the first node may not.
    closed_by: Option<(String, Closed)>,
}

/// Why a domain counts although the pod cannot be scheduled there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Closed {
    /// An untolerated taint, with `nodeTaintsPolicy: Ignore`, the default.
    Taint(String),
    /// The node selector or node affinity, with `nodeAffinityPolicy: Ignore`.
    Affinity,
}

/// What determines the minimum that `maxSkew` refers to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Minimum {
    /// The domains with the fewest pods, where the pod could be scheduled.
    Open,
    /// A domain with the fewest pods is closed to the pod, and all other domains have more.
    Closed { domain: String, node: String, pods: i64, why: Closed },
    /// There are fewer domains than `minDomains`, so that the minimum is 0.
    TooFewDomains { domains: usize, min_domains: i32 },
}

impl Minimum {
    /// The addition to a clause: ` (cp-1 counts as a domain with 0 pods, but …)`.
    pub fn clause(&self) -> String {
        match self {
            Minimum::Open => String::new(),
            Minimum::Closed { domain, node, pods, why } => {
                let node = if node == domain { String::new() } else { format!("its node {node} ") };
                let refuses = match why {
                    Closed::Taint(taint) => format!("{node}has untolerated taint {taint}"),
                    Closed::Affinity => format!("{node}does not match the node affinity"),
                };
                format!(" ({domain} counts as a domain with {}, but {refuses})", pods_text(*pods))
            }
            Minimum::TooFewDomains { domains, min_domains } => {
                format!(" ({}, but minDomains is {min_domains}, so the minimum counts as 0)", domains_text(*domains))
            }
        }
    }
}

fn pods_text(pods: i64) -> String {
    words::count(usize::try_from(pods).unwrap_or(0), "pod")
}

fn domains_text(domains: usize) -> String {
    let verb = if domains == 1 { "exists" } else { "exist" };
    format!("only {} {verb}", words::count(domains, "domain"))
}

impl<'p> Spread<'p> {
    pub(super) fn new(scheduler: &Scheduler, pod: &'p Pod) -> Spread<'p> {
        let all = pod.spec.topology_spread_constraints.iter();
        let hard: Vec<_> = all.filter(|constraint| constraint.when_unsatisfiable == "DoNotSchedule").collect();
        let has_all_keys = |node: &Node| hard.iter().all(|c| node.metadata.labels.value(&c.topology_key).is_some());
        let constraints = hard.iter().map(|spec| {
            let mut domains: BTreeMap<String, Domain> = BTreeMap::new();
            for state in scheduler.nodes.iter().filter(|state| has_all_keys(state.node)) {
                if !counts_node(spec, pod, state.node) {
                    continue;
                }
                let domain = state.node.metadata.labels.value(&spec.topology_key).unwrap_or_default();
                let pods = state.pods.iter().filter(|other| {
                    !other.is_terminating()
                        && other.metadata.namespace == pod.metadata.namespace
                        && selects(spec, pod, other)
                });
                let domain = domains.entry(domain.to_string()).or_default();
                domain.matching += pods.count() as i64;
                domain.add(pod, state.node);
            }
            Constraint { spec, domains, counts_itself: selects(spec, pod, pod) }
        });
        Spread { constraints: constraints.collect() }
    }

    pub(super) fn check(&self, node: &Node, why: &mut Vec<Refusal>) {
        for constraint in &self.constraints {
            let spec = constraint.spec;
            let Some(domain) = node.metadata.labels.value(&spec.topology_key) else {
                why.push(Refusal::NoSpreadLabel(spec.topology_key.clone()));
                continue;
            };
            let here = constraint.domains.get(domain).map(|domain| domain.matching).unwrap_or_default();
            let skew = here + i64::from(constraint.counts_itself) - constraint.global_minimum();
            if skew > i64::from(spec.max_skew) {
                why.push(Refusal::Spread {
                    topology_key: spec.topology_key.clone(),
                    max_skew: spec.max_skew,
                    minimum: constraint.minimum(),
                });
            }
        }
    }
}

impl Constraint<'_> {
    /// The lowest number of pods in any domain; 0 while there are fewer domains than `minDomains` (KEP-3022).
    fn global_minimum(&self) -> i64 {
        if self.has_too_few_domains() {
            return 0;
        }
        self.lowest()
    }

    fn has_too_few_domains(&self) -> bool {
        let domains = i64::try_from(self.domains.len()).unwrap_or(i64::MAX);
        domains < i64::from(self.spec.min_domains.unwrap_or(1))
    }

    fn lowest(&self) -> i64 {
        self.domains.values().map(|domain| domain.matching).min().unwrap_or_default()
    }

    /// Why the minimum is what it is.
    fn minimum(&self) -> Minimum {
        if self.has_too_few_domains() && self.lowest() > 0 {
            return Minimum::TooFewDomains {
                domains: self.domains.len(),
                min_domains: self.spec.min_domains.unwrap_or(1),
            };
        }
        let lowest = self.lowest();
        let mut at_lowest = self.domains.iter().filter(|(_, domain)| domain.matching == lowest);
        if at_lowest.clone().any(|(_, domain)| domain.is_open) {
            return Minimum::Open;
        }
        let closed = at_lowest.find_map(|(name, domain)| Some((name, domain.closed_by.clone()?)));
        closed.map_or(Minimum::Open, |(name, (node, why))| Minimum::Closed {
            domain: name.clone(),
            node,
            pods: lowest,
            why,
        })
    }
}

impl Domain {
    fn add(&mut self, pod: &Pod, node: &Node) {
        let closed = match taints::untolerated(pod, node).next() {
            Some(taint) => Some(Closed::Taint(taints::text(taint))),
            None if !node_affinity::admits(pod, node) => Some(Closed::Affinity),
            None => None,
        };
        match closed {
            None => self.is_open = true,
            Some(closed) => {
                self.closed_by.get_or_insert((node.metadata.name.clone(), closed));
            }
        }
    }
}

/// Whether the pods of a node count. By default `nodeAffinityPolicy` is Honor and `nodeTaintsPolicy` Ignore (KEP-3094).
fn counts_node(spec: &TopologySpreadConstraint, pod: &Pod, node: &Node) -> bool {
    let honors_affinity = spec.node_affinity_policy.as_deref() != Some("Ignore");
    let honors_taints = spec.node_taints_policy.as_deref() == Some("Honor");
    (!honors_affinity || node_affinity::admits(pod, node))
        && (!honors_taints || taints::untolerated(pod, node).next().is_none())
}

/// An absent selector selects nothing; `matchLabelKeys` add the pod's own values (KEP-3243).
fn selects(spec: &TopologySpreadConstraint, pod: &Pod, other: &Pod) -> bool {
    let labels = &other.metadata.labels;
    let same = |key: &String| pod.metadata.labels.get(key).is_none_or(|value| labels.get(key) == Some(value));
    spec.label_selector.as_ref().is_some_and(|selector| Selector::new(selector).matches(labels))
        && spec.match_label_keys.iter().flatten().all(same)
}
