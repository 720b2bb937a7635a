//! Since when a pod has (not) been ready, and whether it should have been by now.

use std::time::Duration;

use crate::model::{Pod, Timestamp};
use crate::time;

/// What a container waits for when something is wrong, and not only when it has to wait its turn.
const TROUBLE: [&str; 11] = [
    "CrashLoopBackOff",
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

/// The longest that the kubelet waits between two restarts, twice.
const LOOP: Duration = Duration::from_secs(600);

/// When a pod became ready, or stopped being it; its creation if it never was.
pub fn since(pod: &Pod) -> Option<Timestamp> {
    let changed = pod.condition("Ready").and_then(|condition| condition.last_transition_time);
    changed.or(pod.metadata.creation_timestamp)
}

/// Nobody knows how it is, because its node does not report any more.
pub fn is_lost(pod: &Pod) -> bool {
    pod.condition("Ready").is_some_and(|ready| ready.status == "Unknown" || ready.reason == "NodeLost")
        || pod.status.phase == "Unknown"
}

/// Whether a pod that is not ready should be by now, or can be seen never to become it.
pub fn is_overdue(pod: &Pod, now: Timestamp) -> bool {
    if let Some(deleted) = pod.metadata.deletion_timestamp {
        return time::age(now, deleted) >= time::DELETE;
    }
    let waits = |reason: &str| TROUBLE.contains(&reason);
    let in_trouble = pod.container_statuses().any(|status| {
        let waiting = status.state.waiting.as_ref().is_some_and(|state| waits(&state.reason));
        // Between two restarts of a crash loop it is seen running or terminated.
        let ended = status.last_state.terminated.as_ref().and_then(|state| state.finished_at);
        waiting || (status.restart_count >= 3 && ended.is_some_and(|ended| time::age(now, ended) < LOOP))
    });
    let unscheduled = pod.condition("PodScheduled").filter(|condition| condition.is_false());
    let unplaced = unscheduled.and_then(|condition| condition.last_transition_time.or(pod.metadata.creation_timestamp));
    in_trouble
        || is_lost(pod)
        || unplaced.is_some_and(|since| time::age(now, since) >= time::SCHEDULE)
        || since(pod).is_some_and(|since| time::age(now, since) >= time::to_start(&pod.spec))
}

#[cfg(test)]
mod tests {
    use super::is_overdue;
    use crate::model::Pod;

    fn overdue(status: &str) -> bool {
        let pod: Pod = serde_json::from_str(&format!(r#"{{"metadata":{{"name":"p"}},"status":{status}}}"#)).unwrap();
        is_overdue(&pod, "2026-11-21T12:00:00Z".parse().unwrap())
    }

    #[test]
    fn gives_pods_their_time() {
        let unready = |at: &str| {
            overdue(&format!(r#"{{"conditions":[{{"type":"Ready","status":"False","lastTransitionTime":"{at}"}}]}}"#))
        };
        assert!(unready("2026-11-21T11:58:00Z"));
        assert!(!unready("2026-11-21T11:58:01Z"));
        assert!(!overdue("{}"));
    }

    #[test]
    fn does_not_wait_for_what_cannot_become_ready() {
        let waiting = |reason: &str| {
            overdue(&format!(r#"{{"containerStatuses":[{{"state":{{"waiting":{{"reason":"{reason}"}}}}}}]}}"#))
        };
        assert!(waiting("CrashLoopBackOff"));
        assert!(!waiting("ContainerCreating"));
    }
}
