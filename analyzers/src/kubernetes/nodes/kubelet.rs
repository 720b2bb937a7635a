//! Whether the kubelets of nodes are reporting, and how that affects the pods on them.

use std::time::Duration;

use crate::kubernetes::nodes::lease;
use crate::kubernetes::time::{SCHEDULE, START, age};
use crate::snapshot::model::{Condition, Lease, Node, Pod, Timestamp};
use crate::snapshot::{Cluster, Object};
use crate::text::kubectl;

/// What releases the pods and volumes of a node that is lost (KEP-2268), with [`out_of_service`].
pub const OUT_OF_SERVICE: &str = "Recover the node; or, once the machine is certainly off, set the out-of-service taint to \
                                  delete its pods and detach its volumes, or delete the Node";

/// The command that marks a node as shut down.
pub fn out_of_service(node: &str) -> String {
    kubectl(["taint", "node", node, "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"])
}

const PRESSURES: [&str; 3] = ["MemoryPressure", "DiskPressure", "PIDPressure"];

/// A node that is not ready for another reason than being new or a kubelet restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Down {
    pub since: Option<Timestamp>,
}

/// The state of kubelets, according to their leases and the status of their nodes.
pub trait KubeletExt {
    /// The lease that the node's kubelet renews.
    fn node_lease(&self, node: &Node) -> Option<&Lease>;
    /// When the kubelet of a node last reported: it renews the node's lease every ten seconds, but updates the node's
    /// status only every five minutes or when it changes.
    fn last_sign_of_life(&self, node: &Node) -> Option<Timestamp>;
    /// A restarting kubelet reports `False` for some seconds. The control plane sets `Unknown` after 40 seconds without
    /// a heartbeat.
    fn down(&self, node: &Node) -> Option<Down>;
    fn is_on_down_node(&self, pod: &Pod) -> bool;
    /// Since when the pod's node has been ready, if it is ready.
    fn node_ready_since(&self, pod: &Pod) -> Option<Timestamp>;
}

impl KubeletExt for Cluster {
    fn node_lease(&self, node: &Node) -> Option<&Lease> {
        self.get("kube-node-lease", node.name()).found()
    }

    fn last_sign_of_life(&self, node: &Node) -> Option<Timestamp> {
        // The control plane changes the status of Ready but keeps the kubelet's last heartbeat.
        let status = node.condition("Ready").and_then(|ready| ready.last_update_time);
        let lease = self.node_lease(node).and_then(lease::renewed);
        status.max(lease)
    }

    fn down(&self, node: &Node) -> Option<Down> {
        let ready = node.condition("Ready").filter(|ready| !ready.is_true())?;
        let since = ready.last_transition_time;
        let is_new = node.created().is_some_and(|created| age(self.now(), created) < START);
        let restarts = ready.is_false()
            && since.is_some_and(|since| age(self.now(), since) < SCHEDULE && !was_silent_until(node, since));
        (!is_new && !restarts).then_some(Down { since })
    }

    fn is_on_down_node(&self, pod: &Pod) -> bool {
        node_of(self, pod).is_some_and(|node| self.down(node).is_some())
    }

    fn node_ready_since(&self, pod: &Pod) -> Option<Timestamp> {
        node_of(self, pod)?.condition("Ready").filter(|ready| ready.is_true())?.last_transition_time
    }
}

fn node_of<'a>(cluster: &'a Cluster, pod: &Pod) -> Option<&'a Node> {
    cluster.get::<Node>("", &pod.spec.node_name).found()
}

/// Whether the kubelet of a node resumed reporting at this time after a period in which all conditions were `Unknown`.
/// A kubelet that restarts leaves the other conditions unchanged; one that recovers updates them within a few seconds.
fn was_silent_until(node: &Node, time: Timestamp) -> bool {
    const TOGETHER: Duration = Duration::from_secs(2);
    let updated_then = |condition: &Condition| {
        condition.last_transition_time.is_some_and(|at| at.duration_since(time).unsigned_abs() <= TOGETHER)
    };
    let mut others = PRESSURES.iter().filter_map(|type_| node.condition(type_)).peekable();
    others.peek().is_some() && others.all(|condition| condition.status == "Unknown" || updated_then(condition))
}

/// Whether a pod is not ready only because the control plane marked it when its node went down. The other conditions
/// keep the state that the kubelet last reported.
pub fn is_marked_not_ready(pod: &Pod) -> bool {
    let is = |type_: &str, what: fn(&Condition) -> bool| pod.condition(type_).is_some_and(what);
    pod.spec.readiness_gates.is_empty() && is("Ready", Condition::is_false) && is("ContainersReady", Condition::is_true)
}
