use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::time::{RECENT, age, human};
use crate::kubernetes::workloads::exit::describe;
use crate::kubernetes::workloads::probe;
use crate::kubernetes::workloads::restarts::{Affected, PodContainer, affected, unsteady_groups};
use crate::rules::container::ContainerReport;
use crate::rules::diagnosis::diagnose;
use crate::snapshot::{Cluster, ObjectRef};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for running containers that were restarted three or more times within the last hour, or at that rate over
    /// the lifetime of the pod and again recently, without being in a crash loop.
    ///
    /// ## Why it matters
    ///
    /// The container works most of the time, so the restarts go unnoticed. Each restart interrupts work in progress,
    /// and the cause often develops into a crash loop: a slow memory leak, a lost connection that the application does
    /// not recover from, a probe close to its timeout.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pod POD` shows the restart count and the time of the last restart, `(5m ago)`.
    /// `kubectl -n NAMESPACE logs POD -c CONTAINER --previous` shows how the last run ended.
    ///
    /// ## How to fix
    ///
    /// Fix the error in the log of the previous run.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for:
    ///
    /// - restarts that `pod/crash-loop`, `pod/oom-killed`, `pod/liveness-kills` or `pod/cannot-start` explains;
    /// - restarts at the start of a pod that has been running well since;
    /// - restarts of the node.
    ///
    /// Kubernetes records only the restart count and the last termination, so the rule cannot tell whether a few
    /// restarts of an old pod happened within the last hour.
    "pod/restarting": Warning,
    "a container was restarted three or more times in an hour",
    needs: [Pod],
    optional: [
        Event, ReplicaSet, Job, Service, EndpointSlice, Namespace, ConfigMap, Secret, NetworkPolicy,
        PersistentVolumeClaim, CustomResourceDefinition,
    ],
    explained_by: [
        "rbac/denied", "service/no-ready-endpoints", "service/no-endpoints", "service/target-port",
        "service/selector-matches-nothing", "service/peers-not-published", "network-policy/*", "dns/*",
        "pod/unauthorized", "configmap/tunnel-mtu",
    ],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for group in unsteady_groups(cluster) {
        for affected in affected(cluster, cluster.pods_of(group), |c| restarts_often(cluster, c)) {
            report.add(finding(cluster, &group.owner, &affected));
        }
    }
}

fn restarts_often(cluster: &Cluster, container: &PodContainer) -> bool {
    if container.status.restart_count < 3 || !container.runs() || !container.pod.is_active() || container.is_init {
        return false;
    }
    let Some(end) = container.last_end().filter(|end| end.reason != "Unknown") else { return false };
    let (Some(ended), Some(started)) = (end.finished_at, container.pod.status.start_time) else { return false };
    let lifetime = age(cluster.now(), started);
    let per_hour =
        u64::try_from(container.status.restart_count).unwrap_or(0).saturating_mul(3600) / lifetime.as_secs().max(3600);
    let at_its_start =
        age(ended, started) < crate::kubernetes::workloads::restarts::FORGIVEN && container.has_recovered(cluster);
    let explained = container.loops(cluster)
        || container.was_oom_killed()
        || container.cannot_start(cluster)
        || probe::kills(cluster, container).is_some();
    age(cluster.now(), ended) < RECENT && per_hour >= 3 && !at_its_start && !explained
}

fn finding(cluster: &Cluster, owner: &ObjectRef, affected: &Affected) -> Finding {
    let container = affected.sample();
    let lifetime = container.pod.status.start_time.map(|since| human(age(cluster.now(), since))).unwrap_or_default();
    let ago = container.ended_ago(cluster).map(human).unwrap_or_default();
    let end = container.last_end().map(describe).unwrap_or_default();
    let message = format!(
        "{} of {} was restarted {} times in {lifetime}, most recently {ago} ago after {end}{}",
        container.described(),
        owner.title(),
        container.status.restart_count,
        container.quoted(cluster)
    );
    let finding = Finding::warning(owner.clone(), message)
        .container(container.name())
        .pods(affected.pods())
        .since(container.loops_since(cluster));
    let finding = container.report_end(cluster, finding);
    let finding = finding.fix_command("Check the previous container's logs", container.log_command(owner));
    diagnose(cluster, &container).apply(finding)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    /// The last run lasted from `from` to `to`; the container has been running since.
    fn pod(restarts: u32, created: &str, from: &str, to: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: Pod
            metadata: {{name: web, namespace: shop}}
            spec: {{containers: [{{name: app}}]}}
            status: {{phase: Running, startTime: '{created}', containerStatuses: [{{name: app, ready: true, restartCount: {restarts},
              state: {{running: {{startedAt: '{to}'}}}},
              lastState: {{terminated: {{exitCode: 1, reason: Error, startedAt: '{from}', finishedAt: '{to}'}}}}}}]}}"
        )
    }

    #[test]
    fn fires_for_a_container_that_restarts_every_quarter_of_an_hour() {
        let said = check(&RULE, &[&pod(3, "2026-11-21T11:05:00Z", "2026-11-21T11:35:00Z", "2026-11-21T11:50:00Z")]);
        said.finds(&[
            "warning Pod shop/web: container app of Pod web was restarted 3 times in 55m, most recently 10m ago after \
                      exit code 1 (application error)",
        ]);
        check(&RULE, &[&pod(40, "2026-11-21T02:00:00Z", "2026-11-21T11:35:00Z", "2026-11-21T11:50:00Z")]).finds(&[
            "warning Pod shop/web: container app of Pod web was restarted 40 times in 10h, most recently 10m ago after \
             exit code 1 (application error)",
        ]);
    }

    #[test]
    fn quiet_for_restarts_at_the_start_of_a_healthy_pod() {
        check(&RULE, &[&pod(4, "2026-11-21T11:30:00Z", "2026-11-21T11:31:20Z", "2026-11-21T11:31:30Z")])
            .finds_nothing();
    }

    #[test]
    fn quiet_for_few_or_old_restarts() {
        check(&RULE, &[&pod(2, "2026-11-21T11:05:00Z", "2026-11-21T11:35:00Z", "2026-11-21T11:50:00Z")])
            .finds_nothing();
        check(&RULE, &[&pod(9, "2026-11-11T11:05:00Z", "2026-11-21T11:35:00Z", "2026-11-21T11:50:00Z")])
            .finds_nothing();
        check(&RULE, &[&pod(9, "2026-11-21T09:00:00Z", "2026-11-21T09:35:00Z", "2026-11-21T10:50:00Z")])
            .finds_nothing();
        let lost =
            pod(3, "2026-11-21T11:05:00Z", "2026-11-21T11:35:00Z", "2026-11-21T11:50:00Z").replace("Error", "Unknown");
        check(&RULE, &[&lost]).finds_nothing();
    }

    #[test]
    fn quiet_where_another_rule_explains_it() {
        let oom = pod(3, "2026-11-21T11:05:00Z", "2026-11-21T11:35:00Z", "2026-11-21T11:50:00Z")
            .replace("Error", "OOMKilled");
        check(&RULE, &[&oom]).finds_nothing();
        check(&RULE, &[&pod(3, "2026-11-21T11:55:00Z", "2026-11-21T11:59:35Z", "2026-11-21T11:59:50Z")])
            .finds_nothing();
    }
}
