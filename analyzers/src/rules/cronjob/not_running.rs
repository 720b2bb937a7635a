use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::time::{self, START};
use crate::kubernetes::workloads::schedule::Schedule;
use crate::snapshot::model::{CronJob, Job, Timestamp};
use crate::snapshot::{Cluster, Object};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Whether a CronJob misses its times: two or more have passed since its last start (or its making), by its schedule
    /// and time zone. Also whether the controller says that it cannot read the schedule or the time zone.
    ///
    /// ## Why it matters
    ///
    /// Nothing fails, so nothing alarms: the work is just not done. Usual reasons are a run that hangs while
    /// `concurrencyPolicy` is `Forbid`, a `startingDeadlineSeconds` that is too short, or a controller manager that does
    /// not work.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get cronjob NAME` shows LAST SCHEDULE and ACTIVE, `kubectl -n NAMESPACE describe cronjob
    /// NAME` the events (`JobAlreadyActive`, `MissSchedule`, `FailedNeedsStart`).
    ///
    /// ## How to fix
    ///
    /// Delete the Job that hangs, and give the Job template an `activeDeadlineSeconds`, so that it ends by itself next
    /// time. Give `startingDeadlineSeconds` at least some minutes. Start what was missed with `kubectl create job NAME
    /// --from=cronjob/NAME`.
    ///
    /// ## Exceptions
    ///
    /// When the CronJob is suspended, when fewer than two times were missed, when the schedule is not understood here, and
    /// where the missed times may lie before somebody resumed or changed it (with a `startingDeadlineSeconds`, missed
    /// runs are not made up for). Without `timeZone` a time counts as missed only if it is so in every time zone.
    "cronjob/not-running": Warning,
    "a CronJob has missed two or more of its times",
    needs: [CronJob],
    optional: [Job, Event],
    explained_by: ["workload/cannot-create-pods", "pod/*", "controlplane/*"],
}

/// From here on the exact number says nothing more.
const MANY: usize = 100;

fn check(cluster: &Cluster, report: &mut Report) {
    for cron in cluster.all::<CronJob>().iter().filter(|cron| !cron.spec.suspend && cron.deleted().is_none()) {
        if let Some(finding) = not_understood(cluster, cron).or_else(|| late(cluster, cron)) {
            report.add(finding);
        }
    }
}

/// The controller says that it cannot read schedule or time zone; both are checked when they are written, but by the
/// time zones of the API server, not of the controller manager.
fn not_understood(cluster: &Cluster, cron: &CronJob) -> Option<Finding> {
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
    // Missed runs are made up for as soon as a CronJob is resumed or the controller is back, unless a deadline forbids
    // it: then nothing tells a CronJob that was just resumed from one that does not run.
    if cron.spec.starting_deadline_seconds.is_some() && cron.metadata.generation > 1 && hung.is_none() {
        return None;
    }
    let until = cluster.now().checked_sub(jiff::SignedDuration::try_from(START).ok()?).ok()?;
    let missed = schedule.times(base, until, MANY);
    if missed < 2 {
        return None;
    }
    let object = cron.reference();
    let times = if missed == MANY { format!("{MANY} times or more") } else { format!("{missed} times") };
    let since = match last {
        Some(last) => format!("has not started since {last:.0} and missed its time {times}"),
        None => format!("has never started and missed its time {times}"),
    };
    let why = why(cluster, cron, hung).map(|why| format!(": {why}")).unwrap_or_default();
    let mut finding = Finding::warning(object.clone(), format!("CronJob {} {since}{why}", cron.name()))
        .since(schedule.next_after(base))
        .evidence(format!("schedule {}", words::shorten(&cron.spec.schedule, 100)), &object, "spec.schedule");
    if let Some(next) = schedule.next_after(cluster.now()) {
        finding = finding.evidence(format!("the next time is {next:.0}"), &object, "spec.schedule");
    }
    Some(with_fix(finding, cron, hung))
}

/// The run that is still active and for which `Forbid` makes the others wait.
fn hung_run<'a>(cluster: &Cluster, cron: &'a CronJob) -> Option<(&'a str, Option<Timestamp>)> {
    let active = cron.status.active.first().filter(|_| cron.spec.concurrency_policy == "Forbid")?;
    let job = cluster.get::<Job>(cron.namespace(), &active.name).found();
    Some((&active.name, job.and_then(|job| job.status.start_time.or(job.created()))))
}

fn why(cluster: &Cluster, cron: &CronJob, hung: Option<(&str, Option<Timestamp>)>) -> Option<String> {
    if let Some((job, start)) = hung {
        let age = start.map(|start| format!(" after {}", time::human(time::age(cluster.now(), start))));
        return Some(format!(
            "its Job {job} is still active{} and concurrencyPolicy is Forbid",
            age.unwrap_or_default()
        ));
    }
    // The controller looks every 10 seconds at the latest (kubernetes.io/docs/concepts/workloads/controllers/cron-jobs).
    let deadline = cron.spec.starting_deadline_seconds.filter(|seconds| *seconds < 10)?;
    Some(format!("startingDeadlineSeconds is {deadline}, and the controller may look only every 10 seconds"))
}

fn with_fix(finding: Finding, cron: &CronJob, hung: Option<(&str, Option<Timestamp>)>) -> Finding {
    let namespace = cron.namespace();
    match hung {
        Some((job, _)) => finding
            .fix_command("See what the run waits for", kubectl(["-n", namespace, "logs", &format!("job/{job}")]))
            .fix_command("If it hangs, delete it", kubectl(["-n", namespace, "delete", "job", job]))
            .fix_command(
                "Give the Job template an activeDeadlineSeconds, so that a run ends by itself",
                kubectl(["-n", namespace, "edit", "cronjob", cron.name()]),
            ),
        None => finding.fix_command(
            "Look at its events; if there are none, see whether kube-controller-manager works",
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
            "warning CronJob shop/report: CronJob report has not started since 2026-11-21T09:00:00Z and missed its time 2 \
             times: its Job report-1 is still active after 3h and concurrencyPolicy is Forbid",
        ]);
        assert!(said.text().contains("the next time is 2026-11-21T13:00:00Z"));
    }

    #[test]
    fn fires_when_it_never_started() {
        check(&RULE, &[&cron(OLD, "schedule: '0 3 * * *', timeZone: Europe/Berlin, startingDeadlineSeconds: 5", "")])
            .finds(&["warning CronJob shop/report: CronJob report has never started and missed its time 52 times: \
                      startingDeadlineSeconds is 5, and the controller may look only every 10 seconds"]);
    }

    #[test]
    fn quiet_when_one_time_was_missed() {
        let cron = cron(OLD, "schedule: '@hourly'", "lastScheduleTime: '2026-11-21T10:00:00Z'");
        check(&RULE, &[&cron]).finds_nothing();
    }

    #[test]
    fn quiet_when_suspended_or_not_understood_or_not_live() {
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
