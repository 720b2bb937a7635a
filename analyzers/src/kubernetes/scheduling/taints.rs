//! Taints and tolerations, and cordoned nodes.
//!
//! Source: <https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/>

use super::Refusal;
use crate::snapshot::model::{Node, Pod, Taint, Toleration};

/// The taint of cordoned nodes, in addition to `spec.unschedulable`.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

pub(crate) fn check(pod: &Pod, node: &Node, why: &mut Vec<Refusal>) {
    if node.spec.unschedulable {
        let taint = Taint { key: UNSCHEDULABLE.to_string(), effect: "NoSchedule".to_string(), ..Taint::default() };
        if !is_tolerated(pod, &taint) {
            why.push(Refusal::Cordoned);
        }
    }
    for taint in untolerated(pod, node) {
        let refusal = if taint.key == UNSCHEDULABLE { Refusal::Cordoned } else { Refusal::taint(taint) };
        // An unreachable node has the taint twice, for scheduling and for eviction. Report it once.
        let same = |known: &Refusal| match (known, &refusal) {
            (Refusal::Taint { key: a, value: v, .. }, Refusal::Taint { key: b, value: w, .. }) => a == b && v == w,
            (known, refusal) => known == refusal,
        };
        if !why.iter().any(same) {
            why.push(refusal);
        }
    }
}

/// The taints that prevent a pod from being scheduled. `PreferNoSchedule` does not.
pub(crate) fn untolerated<'a>(pod: &Pod, node: &'a Node) -> impl Iterator<Item = &'a Taint> {
    let taints = node.spec.taints.iter().filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"));
    taints.filter(|taint| !is_tolerated(pod, taint))
}

fn is_tolerated(pod: &Pod, taint: &Taint) -> bool {
    pod.spec.tolerations.iter().any(|toleration| tolerates(toleration, taint))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    if !toleration.effect.is_empty() && toleration.effect != taint.effect {
        return false;
    }
    if !toleration.key.is_empty() && toleration.key != taint.key {
        return false;
    }
    let number = |text: &str| text.parse::<i64>().ok();
    match toleration.operator.as_str() {
        "Exists" => true,
        "" | "Equal" => !toleration.key.is_empty() && toleration.value == taint.value,
        // KEP-5471: numeric comparison of the taint's value with the toleration's.
        "Gt" => number(&taint.value).zip(number(&toleration.value)).is_some_and(|(has, bound)| has > bound),
        "Lt" => number(&taint.value).zip(number(&toleration.value)).is_some_and(|(has, bound)| has < bound),
        _ => false,
    }
}
