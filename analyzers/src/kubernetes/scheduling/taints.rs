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

/// `dedicated=db:NoSchedule`.
pub(crate) fn text(taint: &Taint) -> String {
    let value = if taint.value.is_empty() { String::new() } else { format!("={}", taint.value) };
    format!("{}{value}:{}", taint.key, taint.effect)
}

/// What a well-known taint means: who adds it, and who removes it.
/// Source: <https://kubernetes.io/docs/reference/labels-annotations-taints/>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The cloud controller manager removes it when it has initialized the node.
    Uninitialized,
    /// The cloud controller manager found that the machine is shut down.
    ShutDown,
    /// An administrator declared the node lost, to release its volumes.
    OutOfService,
    /// An agent of the node (network plugin, CSI driver) removes it when it is ready.
    AwaitsAgent,
    /// Karpenter removes it when the node has registered.
    Unregistered,
    /// An autoscaler or the cloud is about to remove the node.
    BeingRemoved,
    /// Nodes of the control plane, and nodes reserved for cluster add-ons.
    ControlPlane,
    /// Machines that the cloud may take back at short notice.
    Spot,
    /// Nodes reserved for pods that request a device.
    Accelerator,
    Other,
}

/// The meaning of a taint by its key and value.
pub(crate) fn meaning(key: &str, value: &str) -> Meaning {
    match key {
        "node.cloudprovider.kubernetes.io/uninitialized" => Meaning::Uninitialized,
        "node.cloudprovider.kubernetes.io/shutdown" => Meaning::ShutDown,
        "node.kubernetes.io/out-of-service" => Meaning::OutOfService,
        "karpenter.sh/unregistered" => Meaning::Unregistered,
        "karpenter.sh/disrupted"
        | "karpenter.sh/disruption"
        | "ToBeDeletedByClusterAutoscaler"
        | "DeletionCandidateOfClusterAutoscaler"
        | "cloud.google.com/impending-node-termination" => Meaning::BeingRemoved,
        "node-role.kubernetes.io/control-plane"
        | "node-role.kubernetes.io/controlplane"
        | "node-role.kubernetes.io/master"
        | "node-role.kubernetes.io/etcd"
        | "node-role.kubernetes.io/infra"
        | "CriticalAddonsOnly" => Meaning::ControlPlane,
        "kubernetes.azure.com/scalesetpriority" | "cloud.google.com/gke-spot" | "cloud.google.com/gke-preemptible" => {
            Meaning::Spot
        }
        "google.com/tpu" => Meaning::Accelerator,
        _ if key.ends_with("/agent-not-ready") => Meaning::AwaitsAgent,
        _ if key.starts_with("aws-node-termination-handler/") => Meaning::BeingRemoved,
        _ if key.ends_with("/gpu") || (key == "sku" && value == "gpu") => Meaning::Accelerator,
        _ => Meaning::Other,
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
