use crate::rules::container::ContainerReport;
use std::time::Duration;

use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::time::{START, human};
use crate::kubernetes::workloads::exit::describe;
use crate::kubernetes::workloads::log_lines::last_lines;
use crate::kubernetes::workloads::restarts::{Affected, PodContainer, affected, unsteady_groups};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef, PodGroup};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for init containers that fail repeatedly or have been running for more than two minutes. The containers
    /// of a pod start only after all its init containers have exited with code 0.
    ///
    /// ## Why it matters
    ///
    /// The pod stays in `Init:…` and does no work. An init container that does not complete is usually waiting for a
    /// dependency: a Service without endpoints, a name that does not resolve, a database migration that holds a lock.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pod POD` shows `Init:0/1` or `Init:CrashLoopBackOff`.
    /// `kubectl -n NAMESPACE logs POD -c INIT_CONTAINER` shows the error or what the init container is waiting for.
    ///
    /// ## How to fix
    ///
    /// Fix the error in the log, and check the findings about the dependency it waits for.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for a single failure, for native sidecars (they run for the lifetime of the pod), or for
    /// init containers that cannot start (see `pod/cannot-start`). The severity is `warning` if the init container has
    /// been running for less than five minutes, belongs to a Job, or belongs to a workload with other ready pods.
    "pod/init-stuck": Error,
    "an init container fails repeatedly or does not complete",
    needs: [Pod],
    optional: [Event, ReplicaSet, Job],
    explained_by: ["pod/oom-killed", "rbac/denied"],
}

/// An init container that runs longer than this counts as failed.
const INIT_TIMEOUT: Duration = Duration::from_secs(300);

fn check(cluster: &Cluster, report: &mut Report) {
    for group in unsteady_groups(cluster) {
        let stuck = |c: &PodContainer| c.is_init && (fails(cluster, c) || runs_long(cluster, group, c));
        for affected in affected(cluster, cluster.pods_of(group), stuck) {
            report.add(finding(cluster, group, &affected));
        }
    }
}

fn fails(cluster: &Cluster, container: &PodContainer) -> bool {
    container.loops(cluster) && !container.cannot_start(cluster)
}

fn runs_long(cluster: &Cluster, group: &PodGroup, container: &PodContainer) -> bool {
    let allowed = if is_batch(&group.owner) { INIT_TIMEOUT } else { START };
    container.pod.is_active() && container.runs_for(cluster).is_some_and(|run| run >= allowed)
}

/// The init containers of batch work often run for a long time.
fn is_batch(owner: &ObjectRef) -> bool {
    owner.is(Kind::Job) || owner.is(Kind::CronJob)
}

fn finding(cluster: &Cluster, group: &PodGroup, affected: &Affected) -> Finding {
    let owner = &group.owner;
    let failing = affected.containers.iter().find(|c| fails(cluster, c));
    let container = failing.copied().unwrap_or(affected.sample());
    let any_ready = cluster.pods_of(group).any(|pod| pod.is_active() && pod.is_ready());
    let (severity, problem) = match failing {
        Some(container) => {
            let end = container.last_end().map_or_else(|| "an unknown exit code".to_string(), describe);
            let output = container.quoted(cluster);
            (Severity::Error, format!("fails repeatedly: {end}, {}{output}", container.restarts()))
        }
        None => {
            let run = container.runs_for(cluster).unwrap_or_default();
            let is_tolerable = run < INIT_TIMEOUT || any_ready || is_batch(owner);
            let output = last_lines(cluster, &container).pop().map(|line| format!(": \"{line}\""));
            let severity = if is_tolerable { Severity::Warning } else { Severity::Error };
            (severity, format!("has been running for {}{}", human(run), output.unwrap_or_default()))
        }
    };
    let since = match failing {
        Some(container) => container.loops_since(cluster),
        None => container.status.state.running().and_then(|state| state.started_at),
    };
    let message = format!("{} of {} {problem}", container.described(), owner.title());
    let finding =
        Finding::new(severity, owner.clone(), message).container(container.name()).pods(affected.pods()).since(since);
    let finding = if let Some(container) = failing {
        container.report_end(cluster, finding)
    } else {
        let start = since.map(|t| t.to_string()).unwrap_or_default();
        let text = format!("{} has been running since {start}", container.described());
        let path = format!("{}.state.running", container.status_path());
        container.report_log(cluster, finding.evidence(text, &container.pod.reference(), &path))
    };
    finding.fix_command(
        "Check the init container's logs, and fix the error or the dependency it waits for",
        container.log_command(owner),
    )
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::{TestCluster, check};

    fn pod(init: &str, restarts: u32, state: &str, last: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: Pod
            metadata: {{name: db-0, namespace: shop, creationTimestamp: '2026-11-21T11:50:00Z', ownerReferences: [
              {{apiVersion: apps/v1, kind: StatefulSet, name: db, controller: true}}]}}
            spec: {{initContainers: [{init}], containers: [{{name: db}}]}}
            status: {{phase: Pending, initContainerStatuses: [{{name: setup, restartCount: {restarts}, state: {state}, lastState: {last}}}],
              containerStatuses: [{{name: db, state: {{waiting: {{reason: PodInitializing}}}}}}]}}"
        )
    }

    const SETUP: &str = "{name: setup}";
    const WAITING: &str = "{waiting: {reason: CrashLoopBackOff}}";
    const ENDED: &str = "{terminated: {exitCode: 2, reason: Error, startedAt: '2026-11-21T11:59:40Z', finishedAt: '2026-11-21T11:59:45Z'}}";

    #[test]
    fn fires_for_repeated_failures_in_every_state() {
        let found =
            ["error StatefulSet shop/db: init container setup of StatefulSet db fails repeatedly: exit code 2 \
                      (incorrect usage or Go panic), 3 restarts"];
        let runs = "{running: {startedAt: '2026-11-21T11:59:58Z'}}";
        for state in [WAITING, ENDED, runs] {
            check(&RULE, &[&pod(SETUP, 3, state, ENDED)]).finds(&found);
        }
    }

    #[test]
    fn fires_when_it_does_not_complete() {
        let runs = pod(SETUP, 0, "{running: {startedAt: '2026-11-21T11:50:00Z'}}", "{}");
        let said = TestCluster::new(&[&runs]).log("shop", "db-0", "setup", &["waiting for redis", ""]).check(&RULE);
        said.finds(&["error StatefulSet shop/db: init container setup of StatefulSet db has been running for \
                      10m: \"waiting for redis\""]);
        assert_eq!(said.finding().fix[0].command.as_deref(), Some("kubectl -n shop logs statefulset/db -c setup"));
        check(&RULE, &[&runs.replace("startedAt: '2026-11-21T11:50:00Z'", "startedAt: '2026-11-21T11:57:00Z'")])
            .finds(&["warning StatefulSet shop/db: init container setup of StatefulSet db has been running for 3m"]);
    }

    #[test]
    fn quiet_within_the_startup_time() {
        check(&RULE, &[&pod(SETUP, 0, "{running: {startedAt: '2026-11-21T11:58:30Z'}}", "{}")]).finds_nothing();
        check(&RULE, &[&pod(SETUP, 0, ENDED, "{}")]).finds_nothing();
    }

    #[test]
    fn quiet_after_success_and_for_sidecars() {
        let done = "{terminated: {exitCode: 0, reason: Completed, finishedAt: '2026-11-21T11:59:59Z'}}";
        check(&RULE, &[&pod(SETUP, 3, done, ENDED)]).finds_nothing();
        check(
            &RULE,
            &[&pod("{name: setup, restartPolicy: Always}", 0, "{running: {startedAt: '2026-11-21T11:50:00Z'}}", "{}")],
        )
        .finds_nothing();
    }

    #[test]
    fn quiet_for_a_long_preparation_of_a_job_and_for_bare_manifests() {
        let job = pod(SETUP, 0, "{running: {startedAt: '2026-11-21T11:57:00Z'}}", "{}")
            .replace("apps/v1, kind: StatefulSet", "batch/v1, kind: Job");
        check(&RULE, &[&job]).finds_nothing();
        check(&RULE, &["{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {initContainers: [{name: setup}]}}"])
            .finds_nothing();
    }
}
