//! The outcome of Jobs and of the runs of CronJobs.

use crate::kubernetes::workloads::schedule::Schedule;
use crate::snapshot::model::{Condition, CronJob, Job, Pod, Timestamp, condition};
use crate::snapshot::{Cluster, Kind, Object, PodGroup};

impl Job {
    /// The condition of a failed Job. `FailureTarget` is set before `Failed`, while pods are still terminating.
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

    /// When the Job finished.
    pub(crate) fn finished(&self) -> Option<Timestamp> {
        let failed = self.failure().and_then(|c| c.last_transition_time);
        let complete = condition(&self.status.conditions, "Complete").filter(|c| c.is_true());
        failed.or(self.status.completion_time).or_else(|| complete.and_then(|c| c.last_transition_time))
    }
}

/// The last failed attempt of a Job that failed, or of the last run of a CronJob.
pub(crate) fn failed_attempt<'a>(cluster: &'a Cluster, group: &'a PodGroup) -> Option<&'a Pod> {
    if !group.owner.is(Kind::Job) && !group.owner.is(Kind::CronJob) {
        return None;
    }
    let last = cluster.pods_of(group).max_by_key(|pod| (pod.metadata.creation_timestamp, &pod.metadata.name))?;
    let job = last.controller().and_then(|job| cluster.get::<Job>(job.namespace(), &job.name).found())?;
    let complete =
        condition(&job.status.conditions, "Complete").is_some_and(crate::snapshot::model::Condition::is_true);
    (last.status.phase == "Failed" && !complete).then_some(last)
}

/// The runs of Jobs and CronJobs.
pub trait JobExt {
    /// The retained Jobs of a CronJob, newest first.
    fn runs_of(&self, cron: &CronJob) -> Vec<&Job>;
    /// The pods of one Job, newest first.
    fn pods_of_job(&self, job: &Job) -> Vec<&Pod>;
}

impl JobExt for Cluster {
    fn runs_of(&self, cron: &CronJob) -> Vec<&Job> {
        let owner = cron.reference();
        let jobs = self.in_namespace::<Job>(cron.namespace()).iter();
        let mut runs: Vec<&Job> = jobs.filter(|job| job.controller().as_ref() == Some(&owner)).collect();
        runs.sort_by(|a, b| {
            let start = |job: &Job| job.created().or(job.status.start_time);
            start(b).cmp(&start(a)).then_with(|| b.name().cmp(a.name()))
        });
        runs
    }

    fn pods_of_job(&self, job: &Job) -> Vec<&Pod> {
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
    /// All retained runs, or all runs ever.
    All(usize),
    InARow(usize),
    /// Only the newest failed runs are retained (`failedJobsHistoryLimit`), but the last success is old.
    Since(Timestamp),
}

/// This many runs or scheduled times without a success count as repeated failure.
const REPEATED: usize = 3;

/// How the runs of a CronJob fail, if more than one failed.
pub(crate) fn keeps_failing(cluster: &Cluster, cron: &CronJob) -> Option<Failing> {
    let runs: Vec<&Job> = cluster.runs_of(cron).into_iter().filter(|run| run.is_over()).collect();
    let failed = runs.iter().take_while(|run| run.failure().is_some()).count();
    let newest = runs.first().filter(|_| failed > 0)?;
    let success = cron.status.last_successful_time;
    if failed == runs.len() && (success.is_none() || failed > 1) {
        return Some(Failing::All(failed));
    }
    if failed >= REPEATED {
        return Some(Failing::InARow(failed));
    }
    let schedule = Schedule::of(cron)?;
    let missed = schedule.times(success?, newest.created()?, REPEATED);
    (missed >= REPEATED).then_some(Failing::Since(success?))
}
