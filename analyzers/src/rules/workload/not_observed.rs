use crate::kubernetes::nodes::lease::LeaseExt;
use std::time::Duration;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::nodes::lease::renewed;
use crate::kubernetes::time::age;
use crate::snapshot::model::{DaemonSet, Deployment, Lease, Meta, ReplicaSet, StatefulSet, Timestamp};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef, Origin};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that Deployments, StatefulSets, DaemonSets and ReplicaSets are processed by their controller:
    /// `status.observedGeneration` must not lag behind `metadata.generation` for five minutes. Kubernetes does not
    /// record when an object was changed. The rule therefore fires if the object has never been observed since its
    /// creation, or if kube-controller-manager has not renewed its lease for five minutes.
    ///
    /// ## Why it matters
    ///
    /// Changes are accepted but have no effect: no rollout, no scaling, no replacement of lost pods.
    ///
    /// ## How to confirm
    ///
    /// Compare the two numbers in `kubectl -n NAMESPACE get deployment NAME -o jsonpath='{.metadata.generation}
    /// {.status.observedGeneration}'`. Check `kubectl -n kube-system get lease kube-controller-manager` and the pod of
    /// that name.
    ///
    /// ## How to fix
    ///
    /// Restore kube-controller-manager: its log shows why it does not hold the lease or cannot reach the API server.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for changes that may be less than five minutes old, or for manifests that have not been
    /// applied.
    "workload/not-observed": Error,
    "a workload has not been observed by its controller",
    needs: [],
    optional: [Deployment, StatefulSet, DaemonSet, ReplicaSet, Lease],
    explained_by: ["controlplane/*"],
}

/// A healthy controller needs seconds.
const LASTING: Duration = Duration::from_secs(300);

fn check(cluster: &Cluster, report: &mut Report) {
    report.not_read(cluster, &[Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet]);
    let lapsed = controller_manager_lapsed(cluster);
    let mut judge = |object: ObjectRef, meta: &Meta, observed: i64| {
        if meta.deletion_timestamp.is_some() || meta.generation <= observed {
            return;
        }
        let Some(created) = meta.creation_timestamp else { return };
        // Files may contain live objects without their status.
        let never = observed == 0 && cluster.origin() == Origin::Cluster && age(cluster.now(), created) >= LASTING;
        let since = if never { Some(created) } else { lapsed };
        if let Some(since) = since {
            report.add(finding(object, meta, observed, since));
        }
    };
    for d in cluster.all::<Deployment>() {
        judge(d.reference(), &d.metadata, d.status.observed_generation);
    }
    for s in cluster.all::<StatefulSet>() {
        judge(s.reference(), &s.metadata, s.status.observed_generation);
    }
    for d in cluster.all::<DaemonSet>() {
        judge(d.reference(), &d.metadata, d.status.observed_generation);
    }
    for r in cluster.all::<ReplicaSet>().iter().filter(|r| r.metadata.controller().is_none()) {
        judge(r.reference(), &r.metadata, r.status.observed_generation);
    }
}

/// When kube-controller-manager last renewed its lease, if that is too long ago and other leases are fresh.
fn controller_manager_lapsed(cluster: &Cluster) -> Option<Timestamp> {
    let last = cluster.get::<Lease>("kube-system", "kube-controller-manager").found().and_then(renewed)?;
    (cluster.has_a_fresh_lease() && age(cluster.now(), last) >= LASTING).then_some(last)
}

fn finding(object: ObjectRef, meta: &Meta, observed: i64, since: Timestamp) -> Finding {
    let problem = if observed == 0 {
        "has not been observed by its controller".to_string()
    } else {
        format!("is at generation {}, but its controller has only observed generation {observed}", meta.generation)
    };
    let message = format!("{} {} {problem}", object.kind, object.name);
    let text = format!("metadata.generation is {}, status.observedGeneration is {observed}", meta.generation);
    Finding::error(object.clone(), message)
        .evidence(text, &object, "status.observedGeneration")
        .since(Some(since))
        .because(ObjectRef::new(Kind::Lease, "kube-system", "kube-controller-manager"))
        .fix_command(
            "Check that kube-controller-manager holds its lease and is working",
            kubectl(["-n", "kube-system", "get", "lease", "kube-controller-manager", "-o", "yaml"]),
        )
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Origin;
    use crate::testing::{TestCluster, check};

    fn deployment(created: &str, observed: i64) -> String {
        format!(
            "
            apiVersion: apps/v1
            kind: Deployment
            metadata: {{name: web, namespace: shop, generation: 3, creationTimestamp: '{created}'}}
            status: {{observedGeneration: {observed}}}"
        )
    }

    fn lease(namespace: &str, name: &str, renewed: &str) -> String {
        format!(
            "
            apiVersion: coordination.k8s.io/v1
            kind: Lease
            metadata: {{name: {name}, namespace: {namespace}}}
            spec: {{renewTime: '{renewed}.000000Z'}}"
        )
    }

    #[test]
    fn fires_when_it_was_never_observed() {
        check(&RULE, &[&deployment("2026-11-21T11:50:00Z", 0)])
            .finds(&["error Deployment shop/web: Deployment web has not been observed by its controller"]);
    }

    #[test]
    fn fires_when_the_controller_manager_does_not_renew_its_lease() {
        let lapsed = lease("kube-system", "kube-controller-manager", "2026-11-21T11:40:00");
        let node = lease("kube-node-lease", "n1", "2026-11-21T11:59:55");
        check(&RULE, &[&deployment("2026-11-21T08:00:00Z", 2), &lapsed, &node]).finds(&[
            "error Deployment shop/web: Deployment web is at generation 3, but its controller has only observed \
             generation 2",
        ]);
    }

    #[test]
    fn quiet_when_the_change_may_be_new() {
        let fresh = lease("kube-system", "kube-controller-manager", "2026-11-21T11:59:55");
        check(&RULE, &[&deployment("2026-11-21T08:00:00Z", 2), &fresh]).finds_nothing();
        check(&RULE, &[&deployment("2026-11-21T11:58:00Z", 0)]).finds_nothing();
        let old = deployment("2026-11-21T11:50:00Z", 0);
        TestCluster::new(&[&old]).origin(Origin::Extract).check(&RULE).finds_nothing();
    }

    #[test]
    fn quiet_when_it_is_observed_or_a_manifest() {
        check(&RULE, &[&deployment("2026-11-21T08:00:00Z", 3)]).finds_nothing();
        check(&RULE, &["{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, namespace: b, generation: 1}}"])
            .finds_nothing();
    }
}
