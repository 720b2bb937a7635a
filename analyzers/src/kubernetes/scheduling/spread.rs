//! Topology spread constraints with `whenUnsatisfiable: DoNotSchedule`.
//!
//! Source: <https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/>

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::TopologySpreadConstraint;

use super::{Refusal, Scheduler, node_affinity, taints};
use crate::snapshot::Selector;
use crate::snapshot::model::{LabelSet, Node, Pod};

pub(super) struct Spread<'p> {
    constraints: Vec<Constraint<'p>>,
}

struct Constraint<'p> {
    spec: &'p TopologySpreadConstraint,
    /// The number of matching pods in each domain.
    matching: BTreeMap<String, i64>,
    counts_itself: bool,
}

impl<'p> Spread<'p> {
    pub(super) fn new(scheduler: &Scheduler, pod: &'p Pod) -> Spread<'p> {
        let all = pod.spec.topology_spread_constraints.iter();
        let hard: Vec<_> = all.filter(|constraint| constraint.when_unsatisfiable == "DoNotSchedule").collect();
        let has_all_keys = |node: &Node| hard.iter().all(|c| node.metadata.labels.value(&c.topology_key).is_some());
        let constraints = hard.iter().map(|spec| {
            let mut matching: BTreeMap<String, i64> = BTreeMap::new();
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
                *matching.entry(domain.to_string()).or_default() += pods.count() as i64;
            }
            Constraint { spec, matching, counts_itself: selects(spec, pod, pod) }
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
            let here = constraint.matching.get(domain).copied().unwrap_or_default();
            let skew = here + i64::from(constraint.counts_itself) - constraint.global_minimum();
            if skew > i64::from(spec.max_skew) {
                why.push(Refusal::Spread { topology_key: spec.topology_key.clone(), max_skew: spec.max_skew });
            }
        }
    }
}

impl Constraint<'_> {
    /// The lowest number of pods in any domain; 0 while there are fewer domains than `minDomains` (KEP-3022).
    fn global_minimum(&self) -> i64 {
        let domains = i64::try_from(self.matching.len()).unwrap_or(i64::MAX);
        if domains < i64::from(self.spec.min_domains.unwrap_or(1)) {
            return 0;
        }
        self.matching.values().copied().min().unwrap_or_default()
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
