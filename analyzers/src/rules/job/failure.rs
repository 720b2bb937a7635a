//! Why a Job failed, and the evidence for it.

use crate::engine::Finding;
use crate::kubernetes::network::unreachable;
use crate::kubernetes::workloads::exit;
use crate::kubernetes::workloads::job::JobExt;
use crate::kubernetes::workloads::log_lines::last_lines_of;
use crate::kubernetes::workloads::restarts::containers;
use crate::rules::diagnosis;
use crate::snapshot::model::{Condition, ContainerStateTerminated, Job, Pod, Timestamp};
use crate::snapshot::{Cluster, Object, ObjectRef};
use crate::text::words;

/// Why a Job failed.
pub(crate) struct Failure<'a> {
    job: &'a Job,
    condition: &'a Condition,
    /// The last pod with a failed container, if one still exists.
    ended: Option<(&'a Pod, &'a str, &'a ContainerStateTerminated)>,
    /// How many pods have such a container.
    pub pods: usize,
}

impl<'a> Failure<'a> {
    /// `None` for a Job that did not fail.
    pub(crate) fn of(cluster: &'a Cluster, job: &'a Job) -> Option<Failure<'a>> {
        let condition = job.failure()?;
        let ended: Vec<_> = cluster.pods_of_job(job).into_iter().filter_map(failed_container).collect();
        Some(Failure { job, condition, pods: ended.len(), ended: ended.first().copied() })
    }

    pub(crate) fn since(&self) -> Option<Timestamp> {
        self.condition.last_transition_time
    }

    /// `BackoffLimitExceeded: container app ended with exit code 3`.
    pub(crate) fn text(&self) -> String {
        let reason = if self.condition.reason.is_empty() { "no reason reported" } else { &self.condition.reason };
        match (self.end(), self.limit()) {
            (Some(end), Some(limit)) => format!("{reason}: {end}, {limit}"),
            (Some(text), None) | (None, Some(text)) => format!("{reason}: {text}"),
            (None, None) => reason.to_string(),
        }
    }

    fn end(&self) -> Option<String> {
        let (_, container, state) = self.ended?;
        let times = if self.pods > 1 { format!(" in {} pods", self.pods) } else { String::new() };
        Some(format!("container {container} ended with {}{times}", exit::describe(state)))
    }

    /// The exceeded limit, from the condition's reason (kubernetes.io/docs/concepts/workloads/controllers/job).
    fn limit(&self) -> Option<String> {
        let spec = &self.job.spec;
        match self.condition.reason.as_str() {
            "BackoffLimitExceeded" => {
                let failed = match self.job.status.failed {
                    n @ 1.. => words::count(n as usize, "failed pod"),
                    _ => "no retries left".to_string(),
                };
                Some(format!("{failed}, backoffLimit {}", spec.backoff_limit.unwrap_or(6)))
            }
            "DeadlineExceeded" => {
                let seconds = spec.active_deadline_seconds?;
                Some(format!("still active after activeDeadlineSeconds {seconds}"))
            }
            "PodFailurePolicy" => Some("podFailurePolicy failed the Job".to_string()),
            "FailedIndexes" | "MaxFailedIndexesExceeded" => Some(words::shorten(&self.condition.message, 200)),
            _ if self.ended.is_none() => {
                (!self.condition.message.is_empty()).then(|| words::shorten(&self.condition.message, 200))
            }
            _ => None,
        }
    }

    /// Adds what the container's log names as the cause.
    pub(crate) fn diagnose(&self, cluster: &Cluster, finding: Finding) -> Finding {
        let Some((pod, name, _)) = self.ended else { return finding };
        let container = containers(pod).find(|container| container.name() == name);
        container.map(|container| diagnosis::diagnose(cluster, &container)).unwrap_or_default().apply(finding)
    }

    /// Adds the evidence: the condition, the container's termination and its last log lines.
    pub(crate) fn prove(&self, cluster: &Cluster, finding: Finding) -> Finding {
        let job = self.job.reference();
        let text = format!("Job {}: {}", self.job.name(), words::shorten(&self.condition.message, 300));
        let mut finding = finding.evidence(text, &job, &format!("status.conditions[{}]", self.condition.type_));
        let Some((pod, container, state)) = self.ended else { return finding };
        let sample: ObjectRef = pod.reference();
        finding = unreachable::suspects(cluster, pod).into_iter().fold(finding, Finding::because);
        let mut text = exit::describe(state);
        if !state.message.is_empty() {
            text = format!("{text}: {}", words::shorten(&words::plain(&state.message), 300));
        }
        finding = finding.evidence(text, &sample, &format!("status.containerStatuses[{container}].state.terminated"));
        for line in last_lines_of(cluster, pod.namespace(), pod.name(), container) {
            finding = finding.evidence(format!("log of {container}: {line}"), &sample, "");
        }
        finding
    }
}

/// The container of a pod with an exit code other than 0, in the current or the last state.
fn failed_container(pod: &Pod) -> Option<(&Pod, &str, &ContainerStateTerminated)> {
    let statuses = || pod.container_statuses();
    let now = statuses().filter_map(|s| Some((s.name.as_str(), s.state.terminated()?)));
    let before = statuses().filter_map(|s| Some((s.name.as_str(), s.last_state.terminated()?)));
    let ended: Vec<_> = now.chain(before).filter(|(_, state)| state.exit_code != 0).collect();
    // Native sidecars are killed after the main containers have terminated, so their exit codes are not relevant.
    let is_sidecar = |name: &str| pod.spec.init_containers.iter().any(|c| c.name == name && c.is_sidecar());
    let main = ended.iter().find(|(name, _)| !is_sidecar(name)).or(ended.first());
    let (container, state) = *main?;
    Some((pod, container, state))
}
