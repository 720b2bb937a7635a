use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::time::{self, START};
use crate::kubernetes::workloads::schedule::Schedule;
use crate::snapshot::model::{CronJob, Job, Timestamp};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for CronJobs that miss their schedule: two or more scheduled times have passed since the last run (or
    /// since the CronJob was created), according to the schedule and time zone. The rule also fires if the controller
    /// reports that it cannot parse the schedule or the time zone.
    ///
    /// ## Why it matters
    ///
    /// Nothing fails, so nothing triggers an alert: the work is not done. Common causes are a hung run while
    /// `concurrencyPolicy` is `Forbid`, a `startingDeadlineSeconds` that is too short, or a kube-controller-manager
    /// that does not work.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get cronjob NAME` shows LAST SCHEDULE and ACTIVE.
    /// `kubectl -n NAMESPACE describe cronjob NAME` shows the events (`JobAlreadyActive`, `MissSchedule`,
    /// `FailedNeedsStart`).
    ///
    /// ## How to fix
    ///
    /// Delete the hung Job, and set `activeDeadlineSeconds` in the Job template, so that a hung run is terminated. Set
    /// `startingDeadlineSeconds` to several minutes or more. Start missed runs with
    /// `kubectl create job NAME --from=cronjob/NAME`.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire if:
    ///
    /// - the CronJob is suspended;
    /// - fewer than two scheduled times were missed;
    /// - the rule cannot parse the schedule;
    /// - the scheduled times may have been missed before the CronJob was resumed or changed (with
    ///   `startingDeadlineSeconds`, missed runs are not started later).
    ///
    /// Without `timeZone` a scheduled time counts as missed only if it was missed in every time zone.
    "cronjob/not-running": Warning,
    "a CronJob has missed two or more scheduled runs",
    needs: [CronJob],
    optional: [Job, Event],
    explained_by: ["workload/cannot-create-pods", "pod/*", "controlplane/*", "job/sidecar"],
}

/// Missed runs are counted up to this number.
const MAX_MISSED: usize = 100;

fn check(cluster: &Cluster, report: &mut Report) {
    for cron in cluster.all::<CronJob>().iter().filter(|cron| !cron.spec.suspend && cron.deleted().is_none()) {
        if let Some(finding) = unparsable(cluster, cron).or_else(|| late(cluster, cron)) {
            report.add(finding);
        }
    }
}

/// The controller reports that it cannot parse the schedule or the time zone. The API server validates both, but with
/// its own time zone database, not that of the controller manager.
fn unparsable(cluster: &Cluster, cron: &CronJob) -> Option<Finding> {
    let object = cron.reference();
    let reasons = ["UnknownTimeZone", "UnparseableSchedule", "InvalidSchedule"];
    let event = cluster.events(&object).into_iter().find(|event| reasons.contains(&event.reason.as_str()))?;
    let seen = event.last_seen()?;
    if cron.status.last_schedule_time > Some(seen) {
        return None;
    }
    let message = format!("CronJob {} never runs: {}", cron.name(), words::shorten(&event.message, 200));
    let edit = kubectl(["-n", cron.namespace(), "edit", "cronjob", cron.name()]);
    Some(
        Finding::warning(object.clone(), message)
            .evidence(format!("{}: {}", event.reason, words::shorten(&event.message, 300)), &object, "spec.schedule")
            .since(event.first_timestamp)
            .fix_command("Correct spec.schedule and spec.timeZone", edit),
    )
}

fn late(cluster: &Cluster, cron: &CronJob) -> Option<Finding> {
    let schedule = Schedule::of(cron)?;
    let last = cron.status.last_schedule_time;
    let base = last.or(cron.metadata.creation_timestamp)?;
    let hung = hung_run(cluster, cron);
    // A missed run starts as soon as the CronJob is resumed or the controller is back, unless the deadline has passed.
    // With a deadline a CronJob that was just resumed cannot be distinguished from one that does not run.
    if cron.spec.starting_deadline_seconds.is_some() && cron.metadata.generation > 1 && hung.is_none() {
        return None;
    }
    let until = cluster.now().checked_sub(jiff::SignedDuration::try_from(START).ok()?).ok()?;
    let missed = schedule.times(base, until, MAX_MISSED);
    if missed < 2 {
        return None;
    }
    let object = cron.reference();
    let or_more = if missed == MAX_MISSED { " or more" } else { "" };
    let problem = match last {
        Some(last) => format!("has not started since {last:.0} and missed {missed}{or_more} scheduled runs"),
        None => format!("has never started and missed {missed}{or_more} scheduled runs"),
    };
    let why = why(cluster, cron, hung).map(|why| format!(": {why}")).unwrap_or_default();
    let mut finding = Finding::warning(object.clone(), format!("CronJob {} {problem}{why}", cron.name()))
        .since(schedule.next_after(base))
        .evidence(format!("schedule {}", words::shorten(&cron.spec.schedule, 100)), &object, "spec.schedule");
    if let Some(next) = schedule.next_after(cluster.now()) {
        finding = finding.evidence(format!("next scheduled time is {next:.0}"), &object, "spec.schedule");
    }
    if let Some((job, _)) = hung {
        finding = finding.because(ObjectRef::new(Kind::Job, cron.namespace(), job));
    }
    Some(with_fix(finding, cron, hung))
}

/// The active run that blocks the others because `concurrencyPolicy` is `Forbid`.
fn hung_run<'a>(cluster: &Cluster, cron: &'a CronJob) -> Option<(&'a str, Option<Timestamp>)> {
    let active = cron.status.active.first().filter(|_| cron.spec.concurrency_policy == "Forbid")?;
    let job = cluster.get::<Job>(cron.namespace(), &active.name).found();
    Some((&active.name, job.and_then(|job| job.status.start_time.or(job.created()))))
}

fn why(cluster: &Cluster, cron: &CronJob, hung: Option<(&str, Option<Timestamp>)>) -> Option<String> {
    if let Some((job, start)) = hung {
        let age = start.map(|start| format!(" after {}", time::human(time::age(cluster.now(), start))));
        return Some(format!("Job {job} is still active{} and concurrencyPolicy is Forbid", age.unwrap_or_default()));
    }
    // The controller may check only every 10 seconds (kubernetes.io/docs/concepts/workloads/controllers/cron-jobs).
    let deadline = cron.spec.starting_deadline_seconds.filter(|seconds| *seconds < 10)?;
    Some(format!("startingDeadlineSeconds is {deadline}, but the controller may check only every 10 seconds"))
}

fn with_fix(finding: Finding, cron: &CronJob, hung: Option<(&str, Option<Timestamp>)>) -> Finding {
    let namespace = cron.namespace();
    match hung {
        Some((job, _)) => finding
            .fix_command("Check the logs of the active Job", kubectl(["-n", namespace, "logs", &format!("job/{job}")]))
            .fix_command("If the Job hangs, delete it", kubectl(["-n", namespace, "delete", "job", job]))
            .fix_command(
                "Set activeDeadlineSeconds in the Job template, so that hung runs are terminated",
                kubectl(["-n", namespace, "edit", "cronjob", cron.name()]),
            ),
        None => finding.fix_command(
            "Check its events; if there are none, check that kube-controller-manager is working",
            kubectl(["-n", namespace, "describe", "cronjob", cron.name()]),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn cron(created: &str, spec: &str, status: &str) -> String {
        format!(
            "
            apiVersion: batch/v1
            kind: CronJob
            metadata: {{name: report, namespace: shop, generation: 1, creationTimestamp: '{created}'}}
            spec: {{{spec}}}
            status: {{{status}}}"
        )
    }

    const OLD: &str = "2026-10-01T00:00:00Z";

    #[test]
    fn fires_when_a_hung_run_blocks_the_others() {
        let job = "
            apiVersion: batch/v1
            kind: Job
            metadata: {name: report-1, namespace: shop}
            status: {active: 1, startTime: '2026-11-21T09:00:00Z'}";
        let cron = cron(
            OLD,
            "schedule: '@hourly', concurrencyPolicy: Forbid",
            "lastScheduleTime: '2026-11-21T09:00:00Z', active: [{name: report-1}]",
        );
        let said = check(&RULE, &[&cron, job]);
        said.finds(&[
            "warning CronJob shop/report: CronJob report has not started since 2026-11-21T09:00:00Z and missed 2 \
             scheduled runs: Job report-1 is still active after 3h and concurrencyPolicy is Forbid",
        ]);
        assert!(said.text().contains("next scheduled time is 2026-11-21T13:00:00Z"));
    }

    #[test]
    fn fires_when_it_never_started() {
        check(&RULE, &[&cron(OLD, "schedule: '0 3 * * *', timeZone: Europe/Berlin, startingDeadlineSeconds: 5", "")])
            .finds(&["warning CronJob shop/report: CronJob report has never started and missed 52 scheduled \
                      runs: startingDeadlineSeconds is 5, but the controller may check only every 10 seconds"]);
    }

    #[test]
    fn quiet_when_one_run_was_missed() {
        let cron = cron(OLD, "schedule: '@hourly'", "lastScheduleTime: '2026-11-21T10:00:00Z'");
        check(&RULE, &[&cron]).finds_nothing();
    }

    #[test]
    fn quiet_when_suspended_or_unparsable_or_not_live() {
        check(&RULE, &[&cron(OLD, "schedule: '@hourly', suspend: true", "")]).finds_nothing();
        check(&RULE, &[&cron(OLD, "schedule: 'whenever'", "")]).finds_nothing();
        check(
            &RULE,
            &["{apiVersion: batch/v1, kind: CronJob, metadata: {name: a, namespace: b}, spec: {schedule: '@hourly'}}"],
        )
        .finds_nothing();
    }

    #[test]
    fn quiet_when_it_may_just_have_been_resumed() {
        let spec = "schedule: '0 3 * * *', timeZone: UTC, startingDeadlineSeconds: 300";
        let cron =
            cron(OLD, spec, "lastScheduleTime: '2026-11-01T03:00:00Z'").replace("generation: 1", "generation: 3");
        check(&RULE, &[&cron]).finds_nothing();
    }

    #[test]
    fn fires_when_the_controller_does_not_know_the_time_zone() {
        let event = "
            apiVersion: v1
            kind: Event
            metadata: {name: e, namespace: shop}
            reason: UnknownTimeZone
            type: Warning
            involvedObject: {kind: CronJob, namespace: shop, name: report}
            lastTimestamp: '2026-11-21T11:00:00Z'
            message: 'invalid timeZone: \"Mars/Olympus\": unknown time zone Mars/Olympus'";
        let cron = cron("2026-11-21T10:00:00Z", "schedule: '0 3 * * *', timeZone: Mars/Olympus", "");
        check(&RULE, &[&cron, event]).finds(&[
            "warning CronJob shop/report: CronJob report never runs: invalid timeZone: \"Mars/Olympus\": unknown time \
             zone Mars/Olympus",
        ]);
    }
}
