//! Since when a pod has been ready or not ready, and whether it is overdue.

use crate::kubernetes::nodes::kubelet::KubeletExt;
use std::time::Duration;

use crate::kubernetes::nodes::kubelet;
use crate::kubernetes::time;
use crate::kubernetes::workloads::restarts;
use crate::snapshot::Cluster;
use crate::snapshot::model::{Pod, Timestamp};

/// Waiting reasons that indicate a failure. Crash loops are detected separately, because between two waits the
/// container runs.
const TROUBLE: [&str; 10] = [
    "ImagePullBackOff",
    "ErrImagePull",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "StartError",
    "PreStartHookError",
    "PostStartHookError",
];

/// When a pod last became ready or not ready; its creation if it has never changed.
pub fn since(pod: &Pod) -> Option<Timestamp> {
    let changed = pod.condition("Ready").and_then(|condition| condition.last_transition_time);
    changed.or(pod.metadata.creation_timestamp)
}

/// Whether the state of the pod is unknown because its node stopped reporting.
pub fn is_lost(pod: &Pod) -> bool {
    pod.condition("Ready").is_some_and(|ready| ready.status == "Unknown" || ready.reason == "NodeLost")
        || pod.status.phase == "Unknown"
}

/// When its time to become ready started: when it became not ready, when its containers were restarted, or when its
/// node recovered and the kubelet reports its pods again.
pub fn awaited_since(cluster: &Cluster, pod: &Pod) -> Option<Timestamp> {
    let changed = ["Ready", "ContainersReady"].map(|type_| pod.condition(type_)?.last_transition_time);
    let returned = if kubelet::is_marked_not_ready(pod) { cluster.node_ready_since(pod) } else { None };
    changed.into_iter().chain([returned, pod.metadata.creation_timestamp]).max().flatten()
}

/// Whether a terminating pod should have been deleted by now.
pub fn is_overdue_to_go(cluster: &Cluster, pod: &Pod) -> bool {
    let (now, Some(deleted)) = (cluster.now(), pod.metadata.deletion_timestamp) else { return false };
    if cluster.is_on_down_node(pod) {
        return deleted <= now; // No kubelet is running that could stop it.
    }
    // A kubelet that was down starts to stop the pod only when it is back.
    let seconds = pod.metadata.deletion_grace_period_seconds.or(pod.spec.termination_grace_period_seconds);
    let grace = Duration::from_secs(u64::try_from(seconds.unwrap_or(30)).unwrap_or_default());
    let returned = cluster.node_ready_since(pod).and_then(|since| since.checked_add(grace).ok());
    time::age(now, returned.map_or(deleted, |returned| deleted.max(returned))) > time::DELETE
}

/// Whether a pod that is not ready should be ready by now, or evidently will not become ready.
pub fn is_overdue(cluster: &Cluster, pod: &Pod) -> bool {
    let now = cluster.now();
    if pod.is_terminating() {
        return is_overdue_to_go(cluster, pod);
    }
    let waiting = pod.container_statuses().filter_map(|status| status.state.waiting());
    let has_failed = waiting.into_iter().any(|state| TROUBLE.contains(&state.reason.as_str()))
        || restarts::containers(pod).any(|container| container.loops(cluster));
    let unscheduled = pod.condition("PodScheduled").filter(|condition| condition.is_false());
    let unplaced = unscheduled.and_then(|condition| condition.last_transition_time.or(pod.metadata.creation_timestamp));
    has_failed
        || is_lost(pod)
        || cluster.is_on_down_node(pod)
        || unplaced.is_some_and(|since| time::age(now, since) >= time::SCHEDULE)
        || awaited_since(cluster, pod).is_some_and(|since| time::age(now, since) >= time::to_start(&pod.spec))
}

#[cfg(test)]
mod tests {
    use super::is_overdue;
    use crate::snapshot::model::Pod;
    use crate::testing::TestCluster;

    fn overdue(status: &str) -> bool {
        let pod = format!("{{apiVersion: v1, kind: Pod, metadata: {{name: p, namespace: shop}}, status: {status}}}");
        let cluster = TestCluster::new(&[&pod]).build();
        is_overdue(&cluster, cluster.get::<Pod>("shop", "p").found().unwrap())
    }

    #[test]
    fn pods_have_time_to_start() {
        let unready = |at: &str| {
            overdue(&format!("{{conditions: [{{type: Ready, status: 'False', lastTransitionTime: '{at}'}}]}}"))
        };
        assert!(unready("2026-11-21T11:58:00Z"));
        assert!(!unready("2026-11-21T11:58:01Z"));
        assert!(!overdue("{}"));
    }

    #[test]
    fn failed_pods_are_overdue_immediately() {
        let waiting =
            |reason: &str| overdue(&format!("{{containerStatuses: [{{state: {{waiting: {{reason: {reason}}}}}}}]}}"));
        assert!(waiting("ImagePullBackOff"));
        assert!(!waiting("ContainerCreating"));
    }
}
