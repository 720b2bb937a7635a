use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::workloads::job::{Failing, JobExt, keeps_failing};
use crate::rules::job::failure::Failure;
use crate::snapshot::model::CronJob;
use crate::snapshot::{Cluster, Object};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for CronJobs whose runs fail repeatedly: all retained Jobs failed, the last three failed, or three
    /// scheduled times have passed since the last success.
    ///
    /// ## Why it matters
    ///
    /// Failures of a CronJob are noticed late, often when the backup it should have created is needed.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get jobs` shows its Jobs with 0 of 1 completions. `kubectl -n NAMESPACE get cronjob NAME
    /// -o jsonpath='{.status.lastSuccessfulTime}'` shows the last success.
    ///
    /// ## How to fix
    ///
    /// Fix the error reported by the container, then run the CronJob immediately to verify: `kubectl -n NAMESPACE
    /// create job NAME-test --from=cronjob/NAME`.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for suspended CronJobs, if the last finished run succeeded, or after a single failed run
    /// (see `job/failed`).
    "cronjob/failing": Error,
    "the runs of a CronJob fail repeatedly",
    needs: [CronJob, Job],
    optional: [Pod, ReplicaSet, Service, EndpointSlice, Namespace, ConfigMap, Secret, NetworkPolicy, PersistentVolumeClaim, CustomResourceDefinition],
    explained_by: ["pod/*", "workload/cannot-create-pods", "rbac/denied", "service/no-ready-endpoints", "service/no-endpoints", "service/target-port", "service/selector-matches-nothing", "service/peers-not-published", "network-policy/*", "dns/*", "configmap/tunnel-mtu", "service/silent-workload", "namespace/sidecar-injector"],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for cron in cluster.all::<CronJob>().iter().filter(|cron| !cron.spec.suspend && cron.deleted().is_none()) {
        let Some(failing) = keeps_failing(cluster, cron) else { continue };
        let runs = cluster.runs_of(cron);
        let Some(run) = runs.iter().find(|run| run.is_over()) else { continue };
        let Some(failure) = Failure::of(cluster, run) else { continue };
        let name = cron.name();
        let subject = match failing {
            Failing::All(1) => format!("the only finished run of CronJob {name} failed"),
            Failing::All(n) => format!("all {n} finished runs of CronJob {name} failed"),
            Failing::InARow(n) => format!("the last {n} runs of CronJob {name} failed"),
            Failing::Since(success) => format!("CronJob {name} has not succeeded since {success:.0}"),
        };
        let object = cron.reference();
        let first = runs.iter().filter(|run| run.is_over()).take_while(|run| run.failure().is_some()).last();
        let since = first.and_then(|run| run.finished());
        let mut finding = Finding::error(object.clone(), format!("{subject}, last run: {}", failure.text()))
            .since(since)
            .pods(failure.pods);
        if let Failing::Since(success) = failing {
            finding = finding.evidence(format!("last success: {success:.0}"), &object, "status.lastSuccessfulTime");
        }
        let test = format!("{name}-test");
        let finding = failure.prove(cluster, finding).fix_command(
            "Fix the reported error, then run the CronJob immediately",
            kubectl(["-n", cron.namespace(), "create", "job", &test, &format!("--from=cronjob/{name}")]),
        );
        report.add(failure.diagnose(cluster, finding));
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn cron(spec: &str, success: &str) -> String {
        format!(
            "
            apiVersion: batch/v1
            kind: CronJob
            metadata: {{name: nightly, namespace: shop}}
            spec: {{schedule: '0 3 * * *'{spec}}}
            status: {{lastScheduleTime: '2026-11-21T03:00:00Z'{success}}}"
        )
    }

    fn run(day: u32, condition: &str) -> String {
        format!(
            "
            apiVersion: batch/v1
            kind: Job
            metadata:
              name: nightly-{day}
              namespace: shop
              creationTimestamp: '2026-11-{day}T03:00:00Z'
              ownerReferences: [{{apiVersion: batch/v1, kind: CronJob, name: nightly, controller: true}}]
            status:
              failed: 1
              conditions:
              - {{type: {condition}, status: 'True', reason: DeadlineExceeded, lastTransitionTime: '2026-11-{day}T03:10:00Z'}}"
        )
    }

    #[test]
    fn fires_when_all_runs_failed() {
        let said = check(&RULE, &[&cron("", ""), &run(20, "Failed"), &run(21, "Failed")]);
        said.finds(&[
            "error CronJob shop/nightly: all 2 finished runs of CronJob nightly failed, last run: DeadlineExceeded",
        ]);
        assert_eq!(said.finding().since.unwrap().to_string(), "2026-11-20T03:10:00Z");
    }

    #[test]
    fn fires_after_three_in_a_row() {
        let runs = [run(18, "Complete"), run(19, "Failed"), run(20, "Failed"), run(21, "Failed")];
        let mut world: Vec<&str> = runs.iter().map(String::as_str).collect();
        let cron = cron("", ", lastSuccessfulTime: '2026-11-18T03:01:00Z'");
        world.push(&cron);
        assert!(check(&RULE, &world).finding().message.starts_with("the last 3 runs of CronJob nightly failed"));
    }

    #[test]
    fn fires_when_only_one_failed_run_is_retained_and_the_last_success_is_old() {
        let cron = cron("", ", lastSuccessfulTime: '2026-11-17T03:01:00Z'");
        check(&RULE, &[&cron, &run(17, "Complete"), &run(21, "Failed")]).finds(&[
            "error CronJob shop/nightly: CronJob nightly has not succeeded since 2026-11-17T03:01:00Z, last run: \
             DeadlineExceeded",
        ]);
    }

    #[test]
    fn quiet_after_one_failure_and_after_a_success() {
        let cron = cron("", ", lastSuccessfulTime: '2026-11-20T03:01:00Z'");
        check(&RULE, &[&cron, &run(20, "Complete"), &run(21, "Failed")]).finds_nothing();
        check(&RULE, &[&cron, &run(19, "Failed"), &run(20, "Failed"), &run(21, "Complete")]).finds_nothing();
    }

    #[test]
    fn quiet_when_suspended() {
        check(&RULE, &[&cron(", suspend: true", ""), &run(20, "Failed"), &run(21, "Failed")]).finds_nothing();
    }
}
