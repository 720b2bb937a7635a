use crate::kubernetes::workloads::job::JobExt;
use std::time::Duration;

use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::time;
use crate::rules::job::failure::Failure;
use crate::snapshot::model::{CronJob, Job};
use crate::snapshot::{Cluster, Kind, Object};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for Jobs with condition `Failed`: too many failed pods (`BackoffLimitExceeded`), a deadline
    /// (`DeadlineExceeded`), a pod failure policy (`PodFailurePolicy`) or failed indexes. The last run of a CronJob is
    /// reported on the CronJob, as a warning, because the next run may succeed.
    ///
    /// ## Why it matters
    ///
    /// Kubernetes does not retry a failed Job: its work (a migration, an import, a backup) is not done.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe job NAME` shows the condition. `kubectl -n NAMESPACE logs job/NAME` shows the log
    /// of its pod, if the pod still exists.
    ///
    /// ## How to fix
    ///
    /// Fix the error reported by the container, then recreate the Job; failed Jobs are not retried. Run a CronJob
    /// immediately with `kubectl create job NAME --from=cronjob/NAME`. If the Job only needs more time or retries,
    /// raise `activeDeadlineSeconds` or `backoffLimit`. Delete Jobs that are no longer needed, or set
    /// `ttlSecondsAfterFinished` to delete them automatically.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire if:
    ///
    /// - a retry succeeded;
    /// - a later Job with the same containers succeeded;
    /// - a later run of the CronJob succeeded, or the CronJob is suspended;
    /// - the runs of the CronJob keep failing (see `cronjob/failing`).
    ///
    /// The severity is `warning` for a Job that failed more than a day ago.
    "job/failed": Error,
    "a Job failed",
    needs: [Job],
    optional: [CronJob, Pod, ReplicaSet, Service, EndpointSlice, Namespace, ConfigMap, Secret, NetworkPolicy, PersistentVolumeClaim, CustomResourceDefinition],
    explained_by: ["pod/*", "workload/cannot-create-pods", "service/no-ready-endpoints", "service/no-endpoints", "service/target-port", "service/selector-matches-nothing", "service/peers-not-published", "network-policy/*", "dns/*", "configmap/tunnel-mtu", "service/silent-workload", "namespace/sidecar-injector"],
}

/// An older failure is a warning.
const FRESH: Duration = Duration::from_secs(86_400);

fn check(cluster: &Cluster, report: &mut Report) {
    report.not_read(cluster, &[Kind::CronJob]);
    for job in cluster.all::<Job>() {
        let of_cron = job.controller().is_some_and(|owner| owner.is(Kind::CronJob));
        if !of_cron
            && job.deleted().is_none()
            && let Some(failure) = Failure::of(cluster, job)
            && !succeeded_later(cluster, job)
        {
            report.add(standalone(cluster, job, &failure));
        }
    }
    for cron in cluster.all::<CronJob>() {
        if let Some(finding) = last_run(cluster, cron) {
            report.add(finding);
        }
    }
}

fn standalone(cluster: &Cluster, job: &Job, failure: &Failure) -> Finding {
    let old = failure.since().is_some_and(|since| time::age(cluster.now(), since) > FRESH);
    let severity = if old { Severity::Warning } else { Severity::Error };
    let message = format!("Job {} failed: {}", job.name(), failure.text());
    let finding = Finding::new(severity, job.reference(), message).since(failure.since()).pods(failure.pods);
    let finding = failure
        .prove(cluster, finding)
        .fix_command(
            "Check the container's logs, if the pod still exists",
            kubectl(["-n", job.namespace(), "logs", &format!("job/{}", job.name())]),
        )
        .fix_command(
            "Fix the cause, then recreate the Job; failed Jobs are not retried",
            kubectl(["-n", job.namespace(), "delete", "job", job.name()]),
        );
    failure.diagnose(cluster, finding)
}

/// Whether a later Job with the same containers succeeded.
fn succeeded_later(cluster: &Cluster, job: &Job) -> bool {
    let containers = |job: &Job| -> Vec<_> {
        let containers = job.spec.template.spec.containers.iter();
        containers.map(|c| (c.name.clone(), c.image.clone(), c.command.clone(), c.args.clone())).collect()
    };
    let own = containers(job);
    let others = cluster.in_namespace::<Job>(job.namespace()).iter();
    let mut later = others.filter(|other| other.is_complete() && other.created() > job.created());
    !own.is_empty() && later.any(|other| containers(other) == own)
}

/// The last run of a CronJob, if it failed and the runs do not keep failing.
fn last_run(cluster: &Cluster, cron: &CronJob) -> Option<Finding> {
    if cron.spec.suspend || cron.deleted().is_some() {
        return None;
    }
    let runs = cluster.runs_of(cron);
    let run = runs.iter().find(|run| run.is_over())?;
    let failure = Failure::of(cluster, run)?;
    if crate::kubernetes::workloads::job::keeps_failing(cluster, cron).is_some() || succeeded_later(cluster, run) {
        return None;
    }
    let message = format!("last finished run of CronJob {} failed: {}", cron.name(), failure.text());
    let finding = Finding::warning(cron.reference(), message).since(failure.since()).pods(failure.pods);
    Some(failure.prove(cluster, finding).fix_command(
        "Check the container's logs, if the pod still exists",
        kubectl(["-n", run.namespace(), "logs", &format!("job/{}", run.name())]),
    ))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::{TestCluster, check};

    fn job(name: &str, created: &str, more: &str, condition: &str) -> String {
        format!(
            "
            apiVersion: batch/v1
            kind: Job
            metadata: {{name: {name}, namespace: shop, creationTimestamp: '{created}'{more}}}
            spec:
              backoffLimit: 1
              activeDeadlineSeconds: 60
              template: {{spec: {{containers: [{{name: app, image: 'import:1'}}]}}}}
            status:
              failed: 2
              conditions: [{{{condition}, status: 'True', lastTransitionTime: '{created}'}}]"
        )
    }

    const BACKOFF: &str =
        "type: Failed, reason: BackoffLimitExceeded, message: Job has reached the specified backoff limit";
    const POD: &str = "
        apiVersion: v1
        kind: Pod
        metadata:
          name: import-x
          namespace: shop
          ownerReferences: [{apiVersion: batch/v1, kind: Job, name: import, controller: true}]
        status:
          phase: Failed
          containerStatuses: [{name: app, state: {terminated: {exitCode: 3, reason: Error}}}]";

    #[test]
    fn fires_with_exit_code_and_log() {
        let job = job("import", "2026-11-21T11:00:00Z", "", BACKOFF);
        let said = TestCluster::new(&[&job, POD]).log("shop", "import-x", "app", &["no such table"]).check(&RULE);
        said.finds(&[
            "error Job shop/import: Job import failed: BackoffLimitExceeded: container app ended with exit code 3 \
             (application error), 2 failed pods, backoffLimit 1",
        ]);
        assert!(said.text().contains("log of app: no such table"));
        assert_eq!(said.finding().pods, 1);
    }

    #[test]
    fn fires_with_the_main_container_and_not_with_the_sidecar_killed_after_it() {
        let pod = POD.replace(
            "        status:\n",
            "        spec: {initContainers: [{name: proxy, restartPolicy: Always}]}\n        status:\n",
        ) + "\n          initContainerStatuses: [{name: proxy, state: {terminated: {exitCode: 137, reason: Error}}}]";
        let said = check(&RULE, &[&job("import", "2026-11-21T11:00:00Z", "", BACKOFF), &pod]);
        assert!(said.text().contains("container app ended with exit code 3"), "{}", said.text());
    }

    #[test]
    fn fires_without_its_pods_and_as_a_warning_when_old() {
        let deadline = "type: Failed, reason: DeadlineExceeded, message: Job was active longer than specified deadline";
        check(&RULE, &[&job("import", "2026-11-19T11:00:00Z", "", deadline)])
            .finds(&["warning Job shop/import: Job import failed: DeadlineExceeded: still active after \
             activeDeadlineSeconds 60"]);
        check(&RULE, &[&job("import", "2026-11-21T11:00:00Z", "", "type: Failed")])
            .finds(&["error Job shop/import: Job import failed: no reason reported"]);
    }

    #[test]
    fn quiet_when_a_retry_succeeded() {
        check(&RULE, &[&job("import", "2026-11-21T11:00:00Z", "", "type: Complete"), POD]).finds_nothing();
    }

    #[test]
    fn quiet_when_the_same_job_succeeded_later() {
        let failed = job("import", "2026-11-21T11:00:00Z", "", BACKOFF);
        let again = job("import-2", "2026-11-21T11:30:00Z", "", "type: Complete");
        check(&RULE, &[&failed, &again]).finds_nothing();
        let before = job("import-0", "2026-11-21T10:30:00Z", "", "type: Complete");
        assert_eq!(check(&RULE, &[&failed, &before]).0.findings.len(), 1);
    }

    const CRON: &str = "
        apiVersion: batch/v1
        kind: CronJob
        metadata: {name: nightly, namespace: shop}
        spec: {schedule: '0 3 * * *'}";
    const OF_CRON: &str = ", ownerReferences: [{apiVersion: batch/v1, kind: CronJob, name: nightly, controller: true}]";

    #[test]
    fn fires_on_the_cron_job_for_its_last_run() {
        let good = job("nightly-1", "2026-11-20T03:00:00Z", OF_CRON, "type: Complete");
        let bad = job("nightly-2", "2026-11-21T03:00:00Z", OF_CRON, BACKOFF);
        check(&RULE, &[CRON, &good, &bad]).finds(&[
            "warning CronJob shop/nightly: last finished run of CronJob nightly failed: BackoffLimitExceeded: 2 \
             failed pods, backoffLimit 1",
        ]);
        let suspended = CRON.replace("schedule:", "suspend: true, schedule:");
        check(&RULE, &[&suspended, &good, &bad]).finds_nothing();
    }

    #[test]
    fn quiet_when_a_later_run_succeeded() {
        let bad = job("nightly-1", "2026-11-20T03:00:00Z", OF_CRON, BACKOFF);
        let good = job("nightly-2", "2026-11-21T03:00:00Z", OF_CRON, "type: Complete");
        check(&RULE, &[CRON, &good, &bad]).finds_nothing();
    }

    #[test]
    fn quiet_without_status() {
        check(&RULE, &["{apiVersion: batch/v1, kind: Job, metadata: {name: a, namespace: b}}", CRON]).finds_nothing();
    }
}
