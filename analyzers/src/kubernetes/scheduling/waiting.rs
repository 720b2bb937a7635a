//! Which pods are waiting to be scheduled, and since when.

use std::time::Duration;

use super::{Placement, Refusal, Scheduler, is_namespace_terminating};
use crate::kubernetes::time::{PROVISION, SCHEDULE, age};
use crate::snapshot::model::{Condition, Event, Node, Pod, Timestamp};
use crate::snapshot::{Cluster, Object, ObjectRef};

/// A pod that is not scheduled.
#[derive(Debug)]
pub struct Waiting<'a> {
    pub pod: &'a Pod,
    pub since: Option<Timestamp>,
    pub why: Why<'a>,
}

#[derive(Clone, Copy, Debug)]
pub enum Why<'a> {
    /// A scheduler tried and reported this condition.
    Refused(&'a Condition),
    /// It has scheduling gates.
    /// Source: <https://kubernetes.io/docs/concepts/scheduling-eviction/pod-scheduling-readiness/>
    Gated,
    /// No scheduler has tried to schedule it.
    Ignored,
}

impl<'a> Waiting<'a> {
    /// `None` for pods that have a node, are terminating, or come from a manifest.
    pub fn new(pod: &'a Pod) -> Option<Waiting<'a>> {
        let is_waiting = pod.spec.node_name.is_empty() && pod.is_active() && pod.is_live() && !pod.is_static();
        if !is_waiting || !matches!(pod.status.phase.as_str(), "" | "Pending") {
            return None;
        }
        let condition = pod.condition("PodScheduled");
        if condition.is_some_and(Condition::is_true) {
            return None; // Just bound: the pod was read before its node was set.
        }
        let why = match condition {
            Some(condition) if condition.reason == "SchedulingGated" => Why::Gated,
            Some(condition) => Why::Refused(condition),
            None if !pod.spec.scheduling_gates.is_empty() => Why::Gated,
            None => Why::Ignored,
        };
        let since = condition.and_then(|condition| condition.last_transition_time).or(pod.created());
        Some(Waiting { pod, since, why })
    }

    pub fn is_longer_than(&self, time: Duration, now: Timestamp) -> bool {
        self.since.is_none_or(|since| age(now, since) >= time)
    }
}

/// Evaluates pods that are waiting to be scheduled.
pub struct Judge<'a> {
    cluster: &'a Cluster,
    scheduler: Option<Scheduler<'a>>,
    /// Only if pods are terminating.
    later: Option<Scheduler<'a>>,
    grows: bool,
}

impl<'a> Judge<'a> {
    /// `None` if no pod is waiting.
    pub fn new(cluster: &'a Cluster) -> Option<Judge<'a>> {
        let pods = cluster.all::<Pod>();
        pods.iter().find_map(Waiting::new)?;
        let any_terminating = pods.iter().any(|pod| is_namespace_terminating(pod, cluster.now()));
        let later = if any_terminating { Scheduler::after_terminations(cluster) } else { None };
        Some(Judge { cluster, scheduler: Scheduler::new(cluster), later, grows: grows_by_itself(cluster) })
    }

    /// Whether a refused pod has waited too long to be scheduled without intervention.
    pub fn is_overdue(&self, waiting: &Waiting) -> bool {
        let expects_a_node = self.grows && !has_event(self.cluster, &waiting.pod.reference(), "NotTriggerScaleUp");
        let is_preempting = !waiting.pod.status.nominated_node_name.is_empty();
        let time = if expects_a_node || is_preempting { PROVISION } else { SCHEDULE };
        waiting.is_longer_than(time, self.cluster.now())
    }

    /// Whether the pod can be scheduled once the terminating pods are deleted.
    pub fn gets_room(&self, pod: &Pod) -> bool {
        self.later.as_ref().is_some_and(|later| !later.place(pod).is_explained())
    }

    /// Why a pod cannot be scheduled; `None` if not all nodes are known, or if it can be according to the snapshot.
    pub fn explain(&self, pod: &Pod) -> Option<Placement<'a>> {
        self.scheduler.as_ref().map(|scheduler| scheduler.place(pod)).filter(Placement::is_explained)
    }

    /// The first unschedulable pod of every owner, with its explanation.
    pub fn stuck(&self) -> impl Iterator<Item = (&'a Pod, Placement<'a>)> {
        let cluster = self.cluster;
        let first = |group| cluster.pods_of(group).filter_map(Waiting::new).find(|waiting| self.is_stuck(waiting));
        let stuck = cluster.pod_groups().iter().filter_map(first);
        stuck.filter_map(|waiting| Some((waiting.pod, self.explain(waiting.pod)?)))
    }

    fn is_stuck(&self, waiting: &Waiting) -> bool {
        matches!(waiting.why, Why::Refused(_)) && self.is_overdue(waiting) && !self.gets_room(waiting.pod)
    }
}

/// Whether an autoscaler adds nodes for unschedulable pods, which takes some minutes.
fn grows_by_itself(cluster: &Cluster) -> bool {
    let karpenter = |node: &Node| node.metadata.labels.get("karpenter.sh/nodepool").is_some();
    let names = ["cluster-autoscaler", "karpenter"];
    let is_autoscaler = |pod: &Pod| {
        let images = pod.spec.containers.iter().map(|container| container.image.as_str());
        pod.is_ready() && images.into_iter().any(|image| names.iter().any(|name| image.contains(name)))
    };
    cluster.all::<Node>().iter().any(karpenter) || cluster.all::<Pod>().iter().any(is_autoscaler)
}

fn has_event(cluster: &Cluster, object: &ObjectRef, reason: &str) -> bool {
    cluster.events(object).iter().any(|event: &&Event| event.reason == reason)
}

/// The nodes that refuse the pod only for one kind of reason.
pub fn blocked_only_by<'a, 'p>(
    placement: &'p Placement<'a>,
    only: impl Fn(&Refusal) -> bool + 'p,
) -> impl Iterator<Item = &'a Node> + 'p {
    let nodes = placement.nodes.iter().filter(move |(_, why)| !why.is_empty() && why.iter().all(&only));
    nodes.map(|(node, _)| *node).filter(|_| placement.obstacles.is_empty() && placement.is_complete)
}
