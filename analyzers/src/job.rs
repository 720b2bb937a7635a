//! What became of Jobs and of the runs of CronJobs.

use crate::cluster::Cluster;
use crate::exit;
use crate::finding::{Finding, ObjectRef};
use crate::kind::{Kind, Object};
use crate::model::{Condition, ContainerStateTerminated, CronJob, Job, Pod, Timestamp, condition};
use crate::schedule::Schedule;
use crate::words;

impl Job {
    /// The condition that says that it failed for good. `FailureTarget` comes before `Failed`, while pods still end.
    pub(crate) fn failure(&self) -> Option<&Condition> {
        let conditions = &self.status.conditions;
        let failed = condition(conditions, "Failed").filter(|c| c.is_true());
        failed.or_else(|| condition(conditions, "FailureTarget").filter(|c| c.is_true()))
    }

    pub(crate) fn is_complete(&self) -> bool {
        condition(&self.status.conditions, "Complete").is_some_and(Condition::is_true)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_complete() || self.failure().is_some()
    }

    /// When it was over.
    pub(crate) fn finished(&self) -> Option<Timestamp> {
        let failed = self.failure().and_then(|c| c.last_transition_time);
        let complete = condition(&self.status.conditions, "Complete").filter(|c| c.is_true());
        failed.or(self.status.completion_time).or_else(|| complete.and_then(|c| c.last_transition_time))
    }
}

impl Cluster {
    /// The Jobs that a CronJob has made and that are still kept, the newest first.
    pub(crate) fn runs_of(&self, cron: &CronJob) -> Vec<&Job> {
        let owner = cron.reference();
        let jobs = self.in_namespace::<Job>(cron.namespace()).iter();
        let mut runs: Vec<&Job> = jobs.filter(|job| job.controller().as_ref() == Some(&owner)).collect();
        runs.sort_by(|a, b| {
            let start = |job: &Job| job.created().or(job.status.start_time);
            start(b).cmp(&start(a)).then_with(|| b.name().cmp(a.name()))
        });
        runs
    }

    /// The pods of one Job, the newest first.
    pub(crate) fn pods_of_job(&self, job: &Job) -> Vec<&Pod> {
        let reference = job.reference();
        let above = job.controller().filter(|owner| owner.is(Kind::CronJob));
        let group =
            above.as_ref().and_then(|owner| self.group_of_owner(owner)).or_else(|| self.group_of_owner(&reference));
        let Some(group) = group else { return Vec::new() };
        let mut pods: Vec<&Pod> =
            self.pods_of(group).filter(|pod| pod.controller().as_ref() == Some(&reference)).collect();
        pods.sort_by(|a, b| b.created().cmp(&a.created()).then_with(|| b.name().cmp(a.name())));
        pods
    }
}

/// How the runs of a CronJob keep failing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failing {
    /// All runs that are kept, or all that there ever were.
    All(usize),
    InARow(usize),
    /// Only the newest failed runs are kept (`failedJobsHistoryLimit`), but the last success is long ago.
    Since(Timestamp),
}

/// How many scheduled times without a success are a habit.
const HABIT: usize = 3;

/// Whether the runs of a CronJob fail again and again, and not just once.
pub(crate) fn keeps_failing(cluster: &Cluster, cron: &CronJob) -> Option<Failing> {
    let runs: Vec<&Job> = cluster.runs_of(cron).into_iter().filter(|run| run.is_over()).collect();
    let failed = runs.iter().take_while(|run| run.failure().is_some()).count();
    let newest = runs.first().filter(|_| failed > 0)?;
    let success = cron.status.last_successful_time;
    if failed == runs.len() && (success.is_none() || failed > 1) {
        return Some(Failing::All(failed));
    }
    if failed >= HABIT {
        return Some(Failing::InARow(failed));
    }
    let schedule = Schedule::of(cron)?;
    let missed = schedule.times(success?, newest.created()?, HABIT);
    (missed >= HABIT).then_some(Failing::Since(success?))
}

/// Why a Job failed.
pub(crate) struct Failure<'a> {
    job: &'a Job,
    condition: &'a Condition,
    /// The last pod with a container that ended badly, where one is still there.
    ended: Option<(&'a Pod, &'a str, &'a ContainerStateTerminated)>,
    /// How many pods have such a container.
    pub pods: usize,
}

impl<'a> Failure<'a> {
    /// `None` for a Job that did not fail.
    pub fn of(cluster: &'a Cluster, job: &'a Job) -> Option<Failure<'a>> {
        let condition = job.failure()?;
        let ended: Vec<_> = cluster.pods_of_job(job).into_iter().filter_map(bad_end).collect();
        Some(Failure { job, condition, pods: ended.len(), ended: ended.first().copied() })
    }

    pub fn since(&self) -> Option<Timestamp> {
        self.condition.last_transition_time
    }

    /// `BackoffLimitExceeded: container app ended with exit code 3`.
    pub fn text(&self) -> String {
        let reason = if self.condition.reason.is_empty() { "no reason given" } else { &self.condition.reason };
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

    /// The limit that was reached, by the condition's reason (kubernetes.io/docs/concepts/workloads/controllers/job).
    fn limit(&self) -> Option<String> {
        let spec = &self.job.spec;
        match self.condition.reason.as_str() {
            "BackoffLimitExceeded" => {
                let failed = match self.job.status.failed {
                    n @ 1.. => words::count(n as usize, "failed pod"),
                    _ => "no more retries".to_string(),
                };
                Some(format!("{failed} with backoffLimit {}", spec.backoff_limit.unwrap_or(6)))
            }
            "DeadlineExceeded" => {
                let seconds = spec.active_deadline_seconds?;
                Some(format!("it was still active after activeDeadlineSeconds {seconds}"))
            }
            "PodFailurePolicy" => Some("its podFailurePolicy ends the Job there".to_string()),
            "FailedIndexes" | "MaxFailedIndexesExceeded" => Some(words::shorten(&self.condition.message, 200)),
            _ if self.ended.is_none() => {
                (!self.condition.message.is_empty()).then(|| words::shorten(&self.condition.message, 200))
            }
            _ => None,
        }
    }

    /// Adds the facts: the condition, the container's end and the last lines of its log.
    pub fn prove(&self, cluster: &Cluster, finding: Finding) -> Finding {
        let job = self.job.reference();
        let text = format!("Job {}: {}", self.job.name(), words::shorten(&self.condition.message, 300));
        let mut finding = finding.evidence(text, &job, &format!("status.conditions[{}]", self.condition.type_));
        let Some((pod, container, state)) = self.ended else { return finding };
        let sample: ObjectRef = pod.reference();
        let mut text = exit::describe(state);
        if !state.message.is_empty() {
            text = format!("{text}: {}", words::shorten(&words::plain(&state.message), 300));
        }
        finding = finding.evidence(text, &sample, &format!("status.containerStatuses[{container}].state.terminated"));
        let log = cluster.log(pod.namespace(), pod.name(), container);
        let lines = log.map(|log| log.lines.as_slice()).unwrap_or_default();
        let last = &lines[lines.len().saturating_sub(5)..];
        for line in last.iter().filter(|line| !line.trim().is_empty()) {
            finding = finding.evidence(
                format!("log of {container}: {}", words::shorten(&words::plain(line), 300)),
                &sample,
                "",
            );
        }
        finding
    }
}

/// The container of a pod that ended with another exit code than 0: now, or before its last restart.
fn bad_end(pod: &Pod) -> Option<(&Pod, &str, &ContainerStateTerminated)> {
    let statuses = || pod.container_statuses();
    let now = statuses().filter_map(|s| Some((s.name.as_str(), s.state.terminated()?)));
    let before = statuses().filter_map(|s| Some((s.name.as_str(), s.last_state.terminated()?)));
    let ended: Vec<_> = now.chain(before).filter(|(_, state)| state.exit_code != 0).collect();
    // Native sidecars are killed after the containers that do the work have ended, so their exit codes say nothing.
    let is_sidecar = |name: &str| pod.spec.init_containers.iter().any(|c| c.name == name && c.is_sidecar());
    let work = ended.iter().find(|(name, _)| !is_sidecar(name)).or(ended.first());
    let (container, state) = *work?;
    Some((pod, container, state))
}
