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
    /// Whether an init container fails again and again, or runs for more than two minutes. The containers of a pod are only
    /// started after all its init containers have ended with exit code 0.
    ///
    /// ## Why it matters
    ///
    /// The pod stays in `Init:…` and does none of its work. An init container that does not end mostly waits for something
    /// that does not come: a Service without endpoints, a name that does not resolve, a migration that holds a lock.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pod POD` shows `Init:0/1` or `Init:CrashLoopBackOff`, and
    /// `kubectl -n NAMESPACE logs POD -c INIT_CONTAINER` what it says or waits for.
    ///
    /// ## How to fix
    ///
    /// Repair what the log names; look at the findings about whatever it waits for.
    ///
    /// ## Exceptions
    ///
    /// For one failure, for native sidecars (they are meant to run on), and for init containers that cannot even be
    /// started (`pod/cannot-start`). One that runs for less than five minutes, or belongs to a Job, or to a workload
    /// with other pods that are ready, is a warning.
    "pod/init-stuck": Error,
    "an init container fails, or runs past its time",
    needs: [Pod],
    optional: [Event, ReplicaSet, Job],
    explained_by: ["pod/oom-killed", "rbac/denied"],
}

/// Beyond this the wait of an init container counts as a failure.
const PATIENCE: Duration = Duration::from_secs(300);

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
    let allowed = if is_work(&group.owner) { PATIENCE } else { START };
    container.pod.is_active() && container.runs_for(cluster).is_some_and(|run| run >= allowed)
}

/// Work that ends may begin with a long preparation.
fn is_work(owner: &ObjectRef) -> bool {
    owner.is(Kind::Job) || owner.is(Kind::CronJob)
}

fn finding(cluster: &Cluster, group: &PodGroup, affected: &Affected) -> Finding {
    let owner = &group.owner;
    let failing = affected.containers.iter().find(|c| fails(cluster, c));
    let container = failing.copied().unwrap_or(affected.sample());
    let any_ready = cluster.pods_of(group).any(|pod| pod.is_active() && pod.is_ready());
    let (severity, what) = match failing {
        Some(container) => {
            let end = container.last_end().map(describe).unwrap_or_else(|| "an unknown exit code".to_string());
            let saying = container.saying(cluster);
            (Severity::Error, format!("it ends with {end}, {}{saying}", container.restarts()))
        }
        None => {
            let run = container.runs_for(cluster).unwrap_or_default();
            let patient = run < PATIENCE || any_ready || is_work(owner);
            let said = last_lines(cluster, &container).pop().map(|line| format!(", saying \"{line}\""));
            let severity = if patient { Severity::Warning } else { Severity::Error };
            (severity, format!("it has been running for {}{}", human(run), said.unwrap_or_default()))
        }
    };
    let since = match failing {
        Some(container) => container.loops_since(cluster),
        None => container.status.state.running().and_then(|state| state.started_at),
    };
    let message = format!("{} is stuck in {}: {what}", owner.title(), container.described());
    let finding =
        Finding::new(severity, owner.clone(), message).container(container.name()).pods(affected.pods()).since(since);
    let finding = match failing {
        Some(container) => container.tell_end(cluster, finding),
        None => {
            let text =
                format!("{} runs since {}", container.described(), since.map(|t| t.to_string()).unwrap_or_default());
            let path = format!("{}.state.running", container.status_path());
            container.tell_log(cluster, finding.evidence(text, &container.pod.reference(), &path))
        }
    };
    finding.fix_command("Read what it says, and repair what it names or waits for", container.log_command(owner))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::{World, check};

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
    const WAITS: &str = "{waiting: {reason: CrashLoopBackOff}}";
    const ENDED: &str = "{terminated: {exitCode: 2, reason: Error, startedAt: '2026-11-21T11:59:40Z', finishedAt: '2026-11-21T11:59:45Z'}}";

    #[test]
    fn fires_when_it_fails_whatever_the_moment() {
        let found =
            ["error StatefulSet shop/db: StatefulSet db is stuck in init container setup: it ends with exit code 2 \
                      (wrong usage, or a Go panic), 3 restarts"];
        let runs = "{running: {startedAt: '2026-11-21T11:59:58Z'}}";
        for state in [WAITS, ENDED, runs] {
            check(&RULE, &[&pod(SETUP, 3, state, ENDED)]).finds(&found);
        }
    }

    #[test]
    fn fires_when_it_runs_past_its_time() {
        let runs = pod(SETUP, 0, "{running: {startedAt: '2026-11-21T11:50:00Z'}}", "{}");
        let said = World::new(&[&runs]).log("shop", "db-0", "setup", &["waiting for redis", ""]).check(&RULE);
        said.finds(&[
            "error StatefulSet shop/db: StatefulSet db is stuck in init container setup: it has been running for \
                      10m, saying \"waiting for redis\"",
        ]);
        assert_eq!(said.finding().fix[0].command.as_deref(), Some("kubectl -n shop logs statefulset/db -c setup"));
        check(&RULE, &[&runs.replace("startedAt: '2026-11-21T11:50:00Z'", "startedAt: '2026-11-21T11:57:00Z'")])
            .finds(&["warning StatefulSet shop/db: StatefulSet db is stuck in init container setup: it has been running for 3m"]);
    }

    #[test]
    fn quiet_while_it_is_in_time() {
        check(&RULE, &[&pod(SETUP, 0, "{running: {startedAt: '2026-11-21T11:58:30Z'}}", "{}")]).finds_nothing();
        check(&RULE, &[&pod(SETUP, 0, ENDED, "{}")]).finds_nothing();
    }

    #[test]
    fn quiet_for_what_succeeded_in_the_end_and_for_sidecars() {
        let done = "{terminated: {exitCode: 0, reason: Completed, finishedAt: '2026-11-21T11:59:59Z'}}";
        check(&RULE, &[&pod(SETUP, 3, done, ENDED)]).finds_nothing();
        check(
            &RULE,
            &[&pod("{name: setup, restartPolicy: Always}", 0, "{running: {startedAt: '2026-11-21T11:50:00Z'}}", "{}")],
        )
        .finds_nothing();
    }

    #[test]
    fn quiet_for_a_job_that_prepares_and_for_bare_manifests() {
        let job = pod(SETUP, 0, "{running: {startedAt: '2026-11-21T11:57:00Z'}}", "{}")
            .replace("apps/v1, kind: StatefulSet", "batch/v1, kind: Job");
        check(&RULE, &[&job]).finds_nothing();
        check(&RULE, &["{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {initContainers: [{name: setup}]}}"])
            .finds_nothing();
    }
}
