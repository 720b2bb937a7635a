//! Refusals in words: nodes that refuse for the same reason share a clause.

use std::collections::BTreeSet;

use super::{Refusal, Shortage};
use crate::snapshot::model::Node;
use crate::snapshot::{Amount, Object};
use crate::text::words;

/// Nodes that refuse for the same reason.
#[derive(Debug)]
pub struct Clause<'a> {
    /// In the order of their names.
    pub nodes: Vec<(&'a Node, &'a Refusal)>,
}

/// The decisive reason of every node, the most frequent first: the one that all nodes share, if it is one that more room
/// would not cure, else each node's first in the scheduler's order.
pub fn clauses<'a>(nodes: &'a [(&'a Node, Vec<Refusal>)]) -> Vec<Clause<'a>> {
    let shared = |refusal: &&Refusal| {
        let is_lasting = match refusal {
            Refusal::NodeAffinity(_) | Refusal::PodAffinity(_) | Refusal::NoSpreadLabel(_) => true,
            Refusal::Lacks(shortages) => shortages.iter().any(|s| s.requested > s.allocatable),
            _ => false,
        };
        is_lasting && nodes.iter().all(|(_, why)| why.iter().any(|other| refusal.is_like(other)))
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
    /// Whether two nodes refuse for the same reason, if perhaps not by the same amount.
    fn is_like(&self, other: &Refusal) -> bool {
        match (self, other) {
            (Refusal::Lacks(a), Refusal::Lacks(b)) => {
                let names = |shortages: &[Shortage]| shortages.iter().map(|s| s.resource.clone()).collect::<Vec<_>>();
                let too_big = |shortages: &[Shortage]| shortages.iter().any(|s| s.requested > s.allocatable);
                names(a) == names(b) && too_big(a) == too_big(b)
            }
            (a, b) if a.is_not_ready() && b.is_not_ready() => true,
            (a, b) => a == b,
        }
    }
}

impl<'a> Clause<'a> {
    pub fn refusal(&self) -> Option<&'a Refusal> {
        self.nodes.first().map(|(_, refusal)| *refusal)
    }

    /// The node to name as an example: the one with the most room where room is what lacks, else the first.
    pub fn example(&self) -> Option<&'a Node> {
        let room = |(_, refusal): &&(&Node, &Refusal)| match refusal {
            Refusal::Lacks(shortages) => shortages.first().map(|s| s.free),
            _ => None,
        };
        // Of equals the first.
        self.nodes.iter().rev().max_by_key(room).map(|(node, _)| *node)
    }

    /// `lacks 4 cpu (2.1 of 8 free)`, `are tainted dedicated=db:NoSchedule`: what follows the node's name or their number.
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
                _ if value.is_empty() => format!("{is} tainted {key}:{effect}"),
                _ => format!("{is} tainted {key}={value}:{effect}"),
            },
            Some(Refusal::NodeAffinity(asked)) => format!("{does} not match {asked}"),
            Some(Refusal::HostPort(port)) => format!("{has} host port {port} in use"),
            Some(Refusal::TooManyPods) => format!("{has} no room for one more pod (maximum reached)"),
            Some(Refusal::Lacks(shortages)) => self.lacks(shortages, many),
            Some(Refusal::Volume(cannot)) => cannot.clone(),
            Some(Refusal::NoSpreadLabel(key)) => format!("{has} no label {key}, over which its pods must spread"),
            Some(Refusal::Spread { topology_key, max_skew }) => {
                format!("would exceed maxSkew {max_skew} over {topology_key}")
            }
            Some(Refusal::PodAffinity(asked)) => format!("{has} no pod with {asked}, which its pod affinity asks for"),
            Some(Refusal::AntiAffinity(excluded)) => {
                format!("already {has} a pod with {excluded}, which its anti-affinity excludes")
            }
            Some(Refusal::ExcludedBy(owner)) => format!("{is} closed by the anti-affinity of {owner}"),
        }
    }

    fn lacks(&self, shortages: &[Shortage], many: bool) -> String {
        let all: Vec<&Shortage> = self.nodes.iter().flat_map(|(_, refusal)| refusal.shortages()).collect();
        if all.iter().all(|shortage| shortage.allocatable.is_zero()) {
            let names: BTreeSet<&str> = all.iter().map(|s| s.resource.as_str()).collect();
            let names: Vec<&str> = names.into_iter().collect();
            return format!("{} no {}", if many { "have" } else { "has" }, words::list(&names, 3));
        }
        let wanted: Vec<String> = shortages.iter().map(Shortage::wanted).collect();
        let verb = if many { "lack" } else { "lacks" };
        let text = format!("{verb} {}", words::list(&wanted, 3));
        let ([wanted], Some(node)) = (shortages, self.example()) else { return text };
        let Some(best) = self.nodes.iter().find(|(n, _)| n.name() == node.name()) else { return text };
        let Some(best) = best.1.shortages().first() else { return text };
        let amount = |amount: Amount| amount.text(&wanted.resource);
        let largest = all.iter().map(|shortage| shortage.allocatable).max().unwrap_or_default();
        match (wanted.requested > largest, many) {
            (true, false) => format!("{text} (it has {} in all)", amount(best.allocatable)),
            (true, true) => format!("{text} (the largest has {} in all)", amount(largest)),
            (false, false) => format!("{text} ({} of {} free)", amount(best.free), amount(best.allocatable)),
            (false, true) => format!("{text} (largest free {} on {})", amount(best.free), node.name()),
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
    /// `4 cpu`, `8Gi memory`.
    pub fn wanted(&self) -> String {
        format!("{} {}", self.requested.text(&self.resource), self.resource)
    }
}

/// All clauses in one go, after a colon: `7 lack 4 cpu (largest free 2.1 on worker-3), 3 are cordoned`.
pub fn sentence(clauses: &[Clause]) -> String {
    const MOST: usize = 4;
    let total: usize = clauses.iter().map(|clause| clause.nodes.len()).sum();
    if let [clause] = clauses
        && let (Some(Refusal::NodeAffinity(asked)), true) = (clause.refusal(), total > 1)
    {
        return format!("none of {total} matches {asked}");
    }
    let parts = clauses.iter().take(MOST).map(|clause| {
        let subject = match clause.nodes.as_slice() {
            [(node, _)] if total <= 3 || clauses.len() == 1 => node.name().to_string(),
            nodes if clauses.len() == 1 => format!("all {}", nodes.len()),
            nodes => nodes.len().to_string(),
        };
        format!("{subject} {}", clause.verb())
    });
    let mut parts: Vec<String> = parts.collect();
    if clauses.len() > MOST {
        let rest: usize = clauses.iter().skip(MOST).map(|clause| clause.nodes.len()).sum();
        parts.push(format!("{rest} refuse for other reasons"));
    }
    parts.join(", ")
}
