use crate::engine::{Report, declare_rule};
use crate::rules::admission;
use crate::snapshot::{Cluster, Kind};

declare_rule! {
    /// ## What it checks
    ///
    /// That the ServiceAccount in a workload's pod template exists in its namespace.
    ///
    /// ## Why it matters
    ///
    /// The API server rejects a pod whose ServiceAccount does not exist. No pod exists that could show the error: only
    /// the ReplicaSet, StatefulSet, DaemonSet or Job has a `FailedCreate` event. Running pods lose access to the API
    /// when their tokens expire.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get serviceaccount NAME` returns NotFound. `kubectl -n NAMESPACE get events
    /// --field-selector reason=FailedCreate` shows `error looking up service account`.
    ///
    /// ## How to fix
    ///
    /// Create the ServiceAccount and its role bindings, or correct `serviceAccountName` in the pod template.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire
    ///
    /// - in the first minute of the workload,
    /// - for `default` while no pod needs it (a controller recreates it) or in a new namespace,
    /// - in a namespace that is being deleted,
    /// - for finished Jobs,
    /// - where ServiceAccounts could not be read.
    ///
    /// The severity is `warning` for a workload that has all its pods, and `info` for one that is scaled to zero.
    "serviceaccount/missing": Error,
    "the ServiceAccount of a workload does not exist",
    needs: [ServiceAccount],
    optional: [Namespace, Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for finding in admission::missing(cluster, Kind::ServiceAccount) {
        report.add(finding);
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::{Kind, Origin};
    use crate::testing::{TestCluster, check};

    fn deployment(replicas: i32) -> String {
        format!(
            "
            apiVersion: apps/v1
            kind: Deployment
            metadata: {{name: web, namespace: shop, uid: d, creationTimestamp: '2026-11-21T11:50:00Z'}}
            spec: {{replicas: {replicas}, template: {{spec: {{serviceAccountName: robot, containers: [{{name: app}}]}}}}}}"
        )
    }

    const OTHER: &str = "{apiVersion: v1, kind: ServiceAccount, metadata: {name: robots, namespace: shop}}";
    const MISSING: &str =
        "error Deployment shop/web: Deployment web cannot create pods: ServiceAccount robot does not exist";

    #[test]
    fn fires_when_it_is_missing() {
        let said = check(&RULE, &[&deployment(1), OTHER]);
        said.finds(&[MISSING]);
        assert!(said.text().contains("to robots, if that is the intended ServiceAccount"));
    }

    #[test]
    fn quiet_when_it_exists() {
        check(&RULE, &[&deployment(1), &OTHER.replace("robots", "robot")]).finds_nothing();
    }

    #[test]
    fn quiet_in_the_first_minute_and_when_forbidden() {
        TestCluster::new(&[&deployment(1), OTHER]).now("2026-11-21T11:50:30Z").check(&RULE).finds_nothing();
        TestCluster::new(&[&deployment(1)]).forbid(Kind::ServiceAccount).check(&RULE).finds_nothing();
    }

    #[test]
    fn fires_at_a_lower_severity_when_no_pods_are_missing() {
        check(&RULE, &[&deployment(0)]).finds(&[
            "info Deployment shop/web: Deployment web cannot create pods when it is scaled up: ServiceAccount robot does not exist",
        ]);
        let pod = "
            apiVersion: v1
            kind: Pod
            metadata: {name: web-1-a, namespace: shop, labels: {pod-template-hash: '1'}, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-1, controller: true}]}
            status: {phase: Running}";
        check(&RULE, &[&deployment(1), pod]).finds(&[
            "warning Deployment shop/web: Deployment web cannot create new pods: ServiceAccount robot does not exist",
        ]);
    }

    #[test]
    fn quiet_for_default_while_no_pod_needs_it() {
        let has_its_pods = deployment(0).replace("serviceAccountName: robot, ", "");
        check(&RULE, &[&has_its_pods]).finds_nothing();
    }

    #[test]
    fn quiet_for_default_in_a_new_namespace() {
        let namespace =
            "{apiVersion: v1, kind: Namespace, metadata: {name: shop, creationTimestamp: '2026-11-21T11:59:00Z'}}";
        check(&RULE, &[&deployment(1).replace("serviceAccountName: robot, ", ""), namespace]).finds_nothing();
    }

    #[test]
    fn fires_as_info_for_manifests() {
        let manifest = deployment(1).replace(", uid: d, creationTimestamp: '2026-11-21T11:50:00Z'", "");
        TestCluster::new(&[&manifest])
            .origin(Origin::Manifests)
            .check(&RULE)
            .finds(&[&MISSING.replace("error", "info")]);
    }
}
