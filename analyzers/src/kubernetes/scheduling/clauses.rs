//! Refusals as text. Nodes that refuse a pod for the same reason share a clause.

use std::collections::BTreeSet;

use super::{Refusal, Shortage};
use crate::snapshot::model::Node;
use crate::snapshot::{Amount, Object};
use crate::text::words;

/// Nodes that refuse for the same reason.
#[derive(Debug)]
pub struct Clause<'a> {
    /// Sorted by name.
    pub nodes: Vec<(&'a Node, &'a Refusal)>,
}

/// The decisive reason of every node, the most frequent first. If all nodes share a reason that free capacity would not
/// resolve, it is decisive; otherwise each node's first reason in the scheduler's order is.
pub fn clauses<'a>(nodes: &'a [(&'a Node, Vec<Refusal>)]) -> Vec<Clause<'a>> {
    let shared = |refusal: &&Refusal| {
        let is_permanent = match refusal {
            Refusal::NodeAffinity(_) | Refusal::PodAffinity(_) | Refusal::NoSpreadLabel(_) => true,
            Refusal::Lacks(shortages) => shortages.iter().any(|s| s.requested > s.allocatable),
            _ => false,
        };
        is_permanent && nodes.iter().all(|(_, why)| why.iter().any(|other| refusal.is_like(other)))
    };
    let shared = nodes.first().and_then(|(_, why)| why.iter().find(shared));
    let mut clauses: Vec<Clause> = Vec::new();
    for (node, why) in nodes {
        let decisive = match shared {
            Some(shared) => why.iter().find(|refusal| shared.is_like(refusal)),
            None => why.first(),
        };
        let Some(refusal) = decisive else { continue };
        match clauses.iter_mut().find(|clause| clause.refusal().is_some_and(|known| known.is_like(refusal))) {
            Some(clause) => clause.nodes.push((node, refusal)),
            None => clauses.push(Clause { nodes: vec![(node, refusal)] }),
        }
    }
    clauses.sort_by_key(|clause| std::cmp::Reverse(clause.nodes.len()));
    clauses
}

impl Refusal {
    /// Whether two nodes refuse for the same reason. SharedResourceList may differ.
    fn is_like(&self, other: &Refusal) -> bool {
        match (self, other) {
            (Refusal::Lacks(a), Refusal::Lacks(b)) => {
                let names = |shortages: &[Shortage]| shortages.iter().map(|s| s.resource.clone()).collect::<Vec<_>>();
                let too_big = |shortages: &[Shortage]| shortages.iter().any(|s| s.requested > s.allocatable);
                names(a) == names(b) && too_big(a) == too_big(b)
            }
            (Refusal::HostPort { port: a, .. }, Refusal::HostPort { port: b, .. }) => a == b,
            (a, b) if a.is_not_ready() && b.is_not_ready() => true,
            (a, b) => a == b,
        }
    }
}

impl<'a> Clause<'a> {
    pub fn refusal(&self) -> Option<&'a Refusal> {
        self.nodes.first().map(|(_, refusal)| *refusal)
    }

    /// The node to name as an example: the one with the most free capacity for shortages, else the first.
    pub fn example(&self) -> Option<&'a Node> {
        let room = |(_, refusal): &&(&Node, &Refusal)| match refusal {
            Refusal::Lacks(shortages) => shortages.first().map(|s| s.free),
            _ => None,
        };
        // The first of equals.
        self.nodes.iter().rev().max_by_key(room).map(|(node, _)| *node)
    }

    /// The predicate after the node's name or the number of nodes: `has 2.1 of 8 CPUs free, 4 requested`, `have
    /// untolerated taint dedicated=db:NoSchedule`.
    pub fn verb(&self) -> String {
        let many = self.nodes.len() > 1;
        let (is, has, does) = if many { ("are", "have", "do") } else { ("is", "has", "does") };
        match self.refusal() {
            None => String::new(),
            Some(Refusal::Cordoned) => format!("{is} cordoned"),
            Some(refusal) if refusal.is_not_ready() => format!("{is} not ready"),
            Some(Refusal::Taint { key, value, effect }) => match key.strip_prefix("node.kubernetes.io/") {
                Some("network-unavailable") => format!("{has} no network"),
                Some("memory-pressure") => format!("{is} under memory pressure"),
                Some("disk-pressure") => format!("{is} under disk pressure"),
                Some("pid-pressure") => format!("{is} under PID pressure"),
                _ if value.is_empty() => format!("{has} untolerated taint {key}:{effect}"),
                _ => format!("{has} untolerated taint {key}={value}:{effect}"),
            },
            Some(Refusal::NodeAffinity(required)) => format!("{does} not match {required}"),
            Some(Refusal::HostPort { port, holder }) => {
                format!("{has} host port {port} in use by {}", holder.title())
            }
            Some(Refusal::TooManyPods) => format!("{has} reached the maximum number of pods"),
            Some(Refusal::Lacks(shortages)) => self.shortage(shortages, has),
            Some(Refusal::Volume(cannot)) => cannot.clone(),
            Some(Refusal::NoSpreadLabel(key)) => {
                format!("{has} no label {key} (required by a topology spread constraint)")
            }
            Some(Refusal::Spread { topology_key, max_skew, minimum }) => {
                format!("would exceed maxSkew {max_skew} for topology key {topology_key}{}", minimum.clause())
            }
            Some(Refusal::PodAffinity(required)) => format!("{has} no pod with {required} (required by pod affinity)"),
            Some(Refusal::AntiAffinity(excluded)) => {
                format!("already {has} a pod with {excluded} (excluded by pod anti-affinity)")
            }
            Some(Refusal::ExcludedBy(owner)) => format!("{is} excluded by the pod anti-affinity of {owner}"),
        }
    }

    fn shortage(&self, shortages: &[Shortage], has: &str) -> String {
        let all: Vec<&Shortage> = self.nodes.iter().flat_map(|(_, refusal)| refusal.shortages()).collect();
        if all.iter().all(|shortage| shortage.allocatable.is_zero()) {
            let names: BTreeSet<&str> = all.iter().map(|s| s.resource.as_str()).collect();
            let names: Vec<&str> = names.into_iter().collect();
            return format!("{has} no {}", words::list(&names, 3));
        }
        let names: Vec<&str> = shortages.iter().map(|shortage| shortage.resource.as_str()).collect();
        let requested: Vec<String> = shortages.iter().map(Shortage::wanted).collect();
        let text = format!("{has} insufficient {} ({} requested)", words::list(&names, 3), words::list(&requested, 3));
        let ([shortage], Some(node)) = (shortages, self.example()) else { return text };
        let Some(best) = self.nodes.iter().find(|(n, _)| n.name() == node.name()) else { return text };
        let Some(best) = best.1.shortages().first() else { return text };
        let resource = shortage.resource.as_str();
        let requested = shortage.requested.text(resource);
        let largest = all.iter().map(|shortage| shortage.allocatable).max().unwrap_or_default();
        let (free, name) = (best.free.text(resource), node.name());
        match (shortage.requested > largest, self.nodes.len() > 1) {
            (true, false) => format!("{has} {}, {requested} requested", with_unit(largest, resource)),
            (true, true) => format!("{has} at most {}, {requested} requested", with_unit(largest, resource)),
            (false, false) => {
                format!("{has} {free} of {} free, {requested} requested", with_unit(best.allocatable, resource))
            }
            (false, true) => {
                format!("{has} at most {} free (on {name}), {requested} requested", with_unit(best.free, resource))
            }
        }
    }
}

impl Refusal {
    pub fn shortages(&self) -> &[Shortage] {
        match self {
            Refusal::Lacks(shortages) => shortages,
            _ => &[],
        }
    }
}

impl Shortage {
    /// `4 CPUs`, `8Gi memory`.
    pub fn wanted(&self) -> String {
        with_unit(self.requested, &self.resource)
    }
}

/// `1 CPU`, `4 CPUs`, `500m CPU`, `8Gi memory`, `2 nvidia.com/gpu`.
fn with_unit(amount: Amount, resource: &str) -> String {
    let text = amount.text(resource);
    match resource {
        "cpu" if text == "1" || text.ends_with('m') => format!("{text} CPU"),
        "cpu" => format!("{text} CPUs"),
        _ => format!("{text} {resource}"),
    }
}

/// All clauses, to follow a colon: `7 nodes have at most 2.1 CPUs free (on worker-3), 4 requested; 3 nodes are
/// cordoned`.
pub fn sentence(clauses: &[Clause]) -> String {
    const MAX_CLAUSES: usize = 4;
    let total: usize = clauses.iter().map(|clause| clause.nodes.len()).sum();
    if let [clause] = clauses
        && let (Some(Refusal::NodeAffinity(required)), true) = (clause.refusal(), total > 1)
    {
        return format!("none of {total} nodes matches {required}");
    }
    let parts = clauses.iter().take(MAX_CLAUSES).map(|clause| {
        let subject = match clause.nodes.as_slice() {
            [(node, _)] if total <= 3 || clauses.len() == 1 => node.name().to_string(),
            nodes if clauses.len() == 1 => format!("all {}", words::count(nodes.len(), "node")),
            nodes => words::count(nodes.len(), "node"),
        };
        format!("{subject} {}", clause.verb())
    });
    let mut parts: Vec<String> = parts.collect();
    if clauses.len() > MAX_CLAUSES {
        let rest: usize = clauses.iter().skip(MAX_CLAUSES).map(|clause| clause.nodes.len()).sum();
        parts.push(format!("{} cannot run it for other reasons", words::count(rest, "node")));
    }
    parts.join("; ")
}
