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
    /// Whether a controller works on Deployments, StatefulSets, DaemonSets and ReplicaSets: `status.observedGeneration`
    /// is behind `metadata.generation` for five minutes. When somebody changed an object is written nowhere, so it
    /// counts where the object was never observed at all since it was made, or where kube-controller-manager has not
    /// renewed its lease for so long.
    ///
    /// ## Why it matters
    ///
    /// Changes are accepted and nothing comes of them: no rollout, no scaling, no replacement of lost pods.
    ///
    /// ## How to confirm
    ///
    /// Compare `kubectl -n NAMESPACE get deployment NAME -o jsonpath='{.metadata.generation} {.status.observedGeneration}'`;
    /// look at `kubectl -n kube-system get lease kube-controller-manager` and the pod of that name.
    ///
    /// ## How to fix
    ///
    /// Bring kube-controller-manager back to work: its log tells why it does not lead or cannot reach the API server.
    ///
    /// ## Exceptions
    ///
    /// For changes that may be younger than five minutes, and for manifests that nobody applied yet.
    "workload/not-observed": Error,
    "no controller works on a workload",
    needs: [],
    optional: [Deployment, StatefulSet, DaemonSet, ReplicaSet, Lease],
    explained_by: ["controlplane/*"],
}

/// A healthy controller takes seconds.
const LASTING: Duration = Duration::from_secs(300);

fn check(cluster: &Cluster, report: &mut Report) {
    report.not_read(cluster, &[Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet]);
    let asleep = controller_manager_asleep(cluster);
    let mut judge = |object: ObjectRef, meta: &Meta, observed: i64| {
        if meta.deletion_timestamp.is_some() || meta.generation <= observed {
            return;
        }
        let Some(created) = meta.creation_timestamp else { return };
        // Files may hold live objects from which somebody cut the status.
        let never = observed == 0 && cluster.origin() == Origin::Cluster && age(cluster.now(), created) >= LASTING;
        let since = if never { Some(created) } else { asleep };
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

/// Since when kube-controller-manager has given no sign of life, if that is too long and others do give signs.
fn controller_manager_asleep(cluster: &Cluster) -> Option<Timestamp> {
    let last = cluster.get::<Lease>("kube-system", "kube-controller-manager").found().and_then(renewed)?;
    (cluster.has_a_fresh_lease() && age(cluster.now(), last) >= LASTING).then_some(last)
}

fn finding(object: ObjectRef, meta: &Meta, observed: i64, since: Timestamp) -> Finding {
    let what = if observed == 0 {
        "was never seen by its controller".to_string()
    } else {
        format!("was changed (generation {}), and its controller only knows generation {observed}", meta.generation)
    };
    let message = format!("{} {} {what}", object.kind, object.name);
    let text = format!("metadata.generation is {}, status.observedGeneration is {observed}", meta.generation);
    Finding::error(object.clone(), message)
        .evidence(text, &object, "status.observedGeneration")
        .since(Some(since))
        .because(ObjectRef::new(Kind::Lease, "kube-system", "kube-controller-manager"))
        .fix_command(
            "See whether kube-controller-manager leads and works",
            kubectl(["-n", "kube-system", "get", "lease", "kube-controller-manager", "-o", "yaml"]),
        )
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Origin;
    use crate::testing::{World, check};

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
            .finds(&["error Deployment shop/web: Deployment web was never seen by its controller"]);
    }

    #[test]
    fn fires_when_the_controller_manager_is_asleep() {
        let asleep = lease("kube-system", "kube-controller-manager", "2026-11-21T11:40:00");
        let node = lease("kube-node-lease", "n1", "2026-11-21T11:59:55");
        check(&RULE, &[&deployment("2026-11-21T08:00:00Z", 2), &asleep, &node]).finds(&[
            "error Deployment shop/web: Deployment web was changed (generation 3), and its controller only knows \
             generation 2",
        ]);
    }

    #[test]
    fn quiet_when_the_change_may_be_new() {
        let awake = lease("kube-system", "kube-controller-manager", "2026-11-21T11:59:55");
        check(&RULE, &[&deployment("2026-11-21T08:00:00Z", 2), &awake]).finds_nothing();
        check(&RULE, &[&deployment("2026-11-21T11:58:00Z", 0)]).finds_nothing();
        let old = deployment("2026-11-21T11:50:00Z", 0);
        World::new(&[&old]).origin(Origin::Extract).check(&RULE).finds_nothing();
    }

    #[test]
    fn quiet_when_it_is_observed_or_a_manifest() {
        check(&RULE, &[&deployment("2026-11-21T08:00:00Z", 3)]).finds_nothing();
        check(&RULE, &["{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, namespace: b, generation: 1}}"])
            .finds_nothing();
    }
}
