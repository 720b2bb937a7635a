//! Affinity and anti-affinity between pods.
//!
//! Source:
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#inter-pod-affinity-and-anti-affinity>

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::PodAffinityTerm;

use super::{Refusal, Scheduler};
use crate::snapshot::model::{LabelSet, Namespace, Node, Pod};
use crate::snapshot::{Cluster, Object, Selector};

/// A compiled required term.
pub(super) struct Term {
    topology_key: String,
    /// `None` selects nothing.
    selector: Option<Selector>,
    namespaces: BTreeSet<String>,
    /// Labels that the other pod must have with the same value (`matchLabelKeys`), or must not (`mismatchLabelKeys`).
    like: Vec<(String, String)>,
    unlike: Vec<(String, String)>,
}

impl Term {
    fn new(cluster: &Cluster, pod: &Pod, term: &PodAffinityTerm) -> Term {
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        match &term.namespace_selector {
            Some(selector) => {
                let selector = Selector::new(selector);
                let matching = cluster.all::<Namespace>().iter().filter(|n| selector.matches(n.labels()));
                namespaces.extend(matching.map(|namespace| namespace.name().to_string()));
            }
            None if namespaces.is_empty() => {
                namespaces.insert(pod.metadata.namespace.to_string());
            }
            None => {}
        }
        let own = |keys: &Option<Vec<String>>| {
            let keys = keys.iter().flatten();
            let pairs = keys.filter_map(|key| Some((key.clone(), pod.metadata.labels.get(key)?.to_string())));
            pairs.collect::<Vec<_>>()
        };
        Term {
            topology_key: term.topology_key.clone(),
            selector: term.label_selector.as_ref().map(Selector::new),
            namespaces,
            like: own(&term.match_label_keys),
            unlike: own(&term.mismatch_label_keys),
        }
    }

    fn selects(&self, pod: &Pod) -> bool {
        let labels = &pod.metadata.labels;
        self.namespaces.contains(&*pod.metadata.namespace)
            && self.selector.as_ref().is_some_and(|selector| selector.matches(labels))
            && self.like.iter().all(|(key, value)| labels.get(key) == Some(value.as_str()))
            && self.unlike.iter().all(|(key, value)| labels.get(key) != Some(value.as_str()))
    }

    fn text(&self) -> String {
        match &self.selector {
            Some(selector) if !selector.is_empty() => selector.to_string(),
            Some(_) => "any label".to_string(),
            None => "no selector".to_string(),
        }
    }
}

/// The terms of a pod's required affinity.
fn affinity(cluster: &Cluster, pod: &Pod) -> Vec<Term> {
    let affinity = pod.spec.affinity.as_ref().and_then(|affinity| affinity.pod_affinity.as_ref());
    let terms = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    terms.into_iter().flatten().map(|term| Term::new(cluster, pod, term)).collect()
}

/// The terms of a pod's required anti-affinity.
pub(super) fn anti_affinity(cluster: &Cluster, pod: &Pod) -> Vec<Term> {
    let affinity = pod.spec.affinity.as_ref().and_then(|affinity| affinity.pod_anti_affinity.as_ref());
    let terms = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    terms.into_iter().flatten().map(|term| Term::new(cluster, pod, term)).collect()
}

/// Topology domains by key and value.
type Places<T> = BTreeMap<(String, String), T>;

/// The inter-pod affinity of one pod, evaluated against the existing pods.
pub(super) struct Neighbours {
    /// The required affinity terms, and the domains of pods that match all of them.
    wanted: Vec<Term>,
    met_at: Places<()>,
    /// No existing pod matches the affinity, but the pod matches its own terms. The first pod of a group may run
    /// anywhere.
    is_first_of_its_group: bool,
    /// The domains that its anti-affinity excludes, and by which term.
    unwanted_at: Places<String>,
    /// The domains that the anti-affinity of another pod excludes, and whose.
    excluded_at: Places<String>,
}

impl Neighbours {
    pub(super) fn new(scheduler: &Scheduler, pod: &Pod) -> Neighbours {
        let wanted = affinity(scheduler.cluster, pod);
        let unwanted = anti_affinity(scheduler.cluster, pod);
        let (mut met_at, mut unwanted_at, mut excluded_at) = (Places::new(), Places::new(), Places::new());
        if !wanted.is_empty() || !unwanted.is_empty() {
            for state in &scheduler.nodes {
                for other in &state.pods {
                    if !wanted.is_empty() && wanted.iter().all(|term| term.selects(other)) {
                        met_at.extend(wanted.iter().filter_map(|term| Some((place(term, state.node)?, ()))));
                    }
                    let hits = unwanted.iter().filter(|term| term.selects(other));
                    unwanted_at.extend(hits.filter_map(|term| Some((place(term, state.node)?, term.text()))));
                }
            }
        }
        for (other, terms, at) in &scheduler.repelling {
            let Some(state) = scheduler.nodes.get(*at) else { continue };
            for term in terms.iter().filter(|term| term.selects(pod)) {
                let owner = scheduler.cluster.owner_of(other);
                let whose = format!("{} {}", owner.kind, owner.name);
                excluded_at.extend(place(term, state.node).map(|place| (place, whose)));
            }
        }
        let is_first_of_its_group = met_at.is_empty() && wanted.iter().all(|term| term.selects(pod));
        Neighbours { wanted, met_at, is_first_of_its_group, unwanted_at, excluded_at }
    }

    pub(super) fn check(&self, node: &Node, why: &mut Vec<Refusal>) {
        let has_all_keys = self.wanted.iter().all(|term| place(term, node).is_some());
        let unmet = self.wanted.iter().find(|term| !place(term, node).is_some_and(|p| self.met_at.contains_key(&p)));
        if let Some(term) = unmet
            && !(self.is_first_of_its_group && has_all_keys)
        {
            why.push(Refusal::PodAffinity(term.text()));
        }
        let labels = &node.metadata.labels;
        let here = |places: &Places<String>| {
            let found = places.iter().find(|((key, value), _)| labels.value(key) == Some(value.as_str()));
            found.map(|(_, what)| what.clone())
        };
        match here(&self.unwanted_at) {
            Some(what) => why.push(Refusal::AntiAffinity(what)),
            // Replicas of one workload exclude each other in both directions; report it once.
            None => why.extend(here(&self.excluded_at).map(Refusal::ExcludedBy)),
        }
    }
}

fn place(term: &Term, node: &Node) -> Option<(String, String)> {
    let value = node.metadata.labels.value(&term.topology_key)?;
    Some((term.topology_key.clone(), value.to_string()))
}
