use crate::engine::{Report, declare_rule};
use crate::rules::admission;
use crate::snapshot::{Cluster, Kind};

declare_rule! {
    /// ## What it checks
    ///
    /// That the PriorityClass in a workload's pod template exists.
    ///
    /// ## Why it matters
    ///
    /// The API server rejects a pod whose PriorityClass does not exist. No pod exists that could show the error: only
    /// the ReplicaSet, StatefulSet, DaemonSet or Job has a `FailedCreate` event.
    ///
    /// ## How to confirm
    ///
    /// `kubectl get priorityclass NAME` returns NotFound. `kubectl -n NAMESPACE get events --field-selector
    /// reason=FailedCreate` shows `no PriorityClass with name NAME was found`.
    ///
    /// ## How to fix
    ///
    /// Create the PriorityClass, or correct `priorityClassName` in the pod template.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire
    ///
    /// - in the first minute of the workload,
    /// - for the built-in classes (`system-…`),
    /// - for finished Jobs,
    /// - where PriorityClasses could not be read.
    ///
    /// The severity is `warning` for a workload that has all its pods, and `info` for one that is scaled to zero.
    "priorityclass/missing": Error,
    "the PriorityClass of a workload does not exist",
    needs: [PriorityClass],
    optional: [Namespace, Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for finding in admission::missing(cluster, Kind::PriorityClass) {
        report.add(finding);
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    const STATEFUL_SET: &str = "
        apiVersion: apps/v1
        kind: StatefulSet
        metadata: {name: db, namespace: shop, uid: d, creationTimestamp: '2026-11-21T11:50:00Z'}
        spec: {template: {spec: {priorityClassName: high, containers: [{name: app}]}}}";

    #[test]
    fn fires_when_it_is_missing() {
        check(&RULE, &[STATEFUL_SET]).finds(&[
            "error StatefulSet shop/db: StatefulSet db cannot create pods: PriorityClass high does not exist",
        ]);
    }

    #[test]
    fn quiet_when_it_exists() {
        check(
            &RULE,
            &[
                STATEFUL_SET,
                "{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: high}, value: 1}",
            ],
        )
        .finds_nothing();
    }

    #[test]
    fn quiet_for_built_in_classes_and_when_forbidden() {
        check(&RULE, &[&STATEFUL_SET.replace("high", "system-node-critical")]).finds_nothing();
        TestCluster::new(&[STATEFUL_SET]).forbid(Kind::PriorityClass).check(&RULE).finds_nothing();
    }

    #[test]
    fn quiet_for_a_finished_job() {
        let job = |status: &str| {
            format!(
                "
                apiVersion: batch/v1
                kind: Job
                metadata: {{name: once, namespace: shop, uid: j, creationTimestamp: '2026-11-21T11:50:00Z'}}
                spec: {{template: {{spec: {{priorityClassName: high, containers: [{{name: app}}]}}}}}}
                status: {{{status}}}"
            )
        };
        check(&RULE, &[&job("conditions: [{type: Complete, status: 'True'}]")]).finds_nothing();
        check(&RULE, &[&job("")])
            .finds(&["error Job shop/once: Job once cannot create pods: PriorityClass high does not exist"]);
    }
}
