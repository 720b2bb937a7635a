use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::storage::{class_of, phase, volume_of, waits_for_consumer};
use crate::kubernetes::time::{START, age};
use crate::rules::user_managed::{Specified, specified};
use crate::snapshot::model::{PersistentVolumeClaim, StorageClass};
use crate::snapshot::{Cluster, Kind, Object, Origin};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for pod templates with `nodeName` that use a claim that is not bound and whose StorageClass has
    /// `volumeBindingMode: WaitForFirstConsumer`.
    ///
    /// ## Why it matters
    ///
    /// `nodeName` bypasses the scheduler, and only the scheduler requests the volume of such a claim. The claim stays
    /// `Pending` and the pod `ContainerCreating`, without an error of a provisioner.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe pvc NAME` shows `waiting for first consumer to be created before binding`, although
    /// `kubectl -n NAMESPACE get pod -o wide` shows the pod on a node.
    ///
    /// ## How to fix
    ///
    /// Replace `nodeName` with `nodeSelector: {kubernetes.io/hostname: NODE}` or node affinity.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for claims that are bound or name a volume, for other or unknown classes, and in the first
    /// two minutes.
    "workload/node-name": Error,
    "nodeName bypasses the scheduler, so a claim that waits for it is never bound",
    needs: [PersistentVolumeClaim, StorageClass],
    optional: [Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob, Pod],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for specified in specified(cluster) {
        let node = if specified.object.is(Kind::Pod) {
            bound_node(cluster, &specified)
        } else {
            specified.spec.node_name.to_string()
        };
        if !node.is_empty()
            && let Some(claim) = waiting(cluster, &specified)
        {
            report.add(finding(&specified, &node, claim));
        }
    }
}

fn bound_node(cluster: &Cluster, specified: &Specified) -> String {
    let pod = cluster.get::<crate::snapshot::model::Pod>(specified.object.namespace(), &specified.object.name).found();
    pod.map(|pod| pod.spec.node_name.to_string()).unwrap_or_default()
}

/// A claim that the scheduler has to bind.
fn waiting<'a>(cluster: &'a Cluster, specified: &Specified) -> Option<&'a PersistentVolumeClaim> {
    let names = specified.spec.volumes.iter().filter_map(|volume| volume.persistent_volume_claim.as_ref());
    names
        .filter_map(|source| {
            cluster.get::<PersistentVolumeClaim>(specified.object.namespace(), &source.claim_name).found()
        })
        .find(|claim| {
            let class = class_of(claim).and_then(|class| cluster.get::<StorageClass>("", class).found());
            let is_pending = phase(claim) == "Pending" || cluster.origin() == Origin::Manifests;
            let is_young = claim.created().is_some_and(|created| age(cluster.now(), created) < START);
            is_pending && !is_young && volume_of(claim).is_none() && class.is_some_and(waits_for_consumer)
        })
}

fn finding(specified: &Specified, node: &str, claim: &PersistentVolumeClaim) -> Finding {
    let (object, path) = (&specified.object, specified.path);
    let message = format!(
        "{} sets nodeName {node}, which bypasses the scheduler, so claim {} (WaitForFirstConsumer) is never bound",
        object.title(),
        claim.name()
    );
    Finding::error(object.clone(), message)
        .since(claim.created())
        .evidence(format!("nodeName is {node}"), object, &format!("{path}.nodeName"))
        .evidence("the claim has no volume", &claim.reference(), "spec.volumeName")
        .fix(format!("Replace {path}.nodeName with nodeSelector kubernetes.io/hostname: {node}, so that the scheduler binds the claim"))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::{Findings, check};

    fn said(node: &str, mode: &str, claim: &str) -> Findings {
        let objects = format!(
            "
            apiVersion: apps/v1
            kind: Deployment
            metadata: {{name: web, namespace: shop}}
            spec: {{template: {{spec: {{{node}volumes: [{{name: d, persistentVolumeClaim: {{claimName: data}}}}]}}}}}}
            ---
            apiVersion: storage.k8s.io/v1
            kind: StorageClass
            metadata: {{name: fast}}
            provisioner: x
            volumeBindingMode: {mode}
            ---
            apiVersion: v1
            kind: PersistentVolumeClaim
            metadata: {{name: data, namespace: shop}}
            spec: {{storageClassName: fast{claim}}}
            status: {{phase: Pending}}"
        );
        check(&RULE, &[&objects])
    }

    #[test]
    fn fires_for_an_unbound_claim() {
        said("nodeName: n1, ", "WaitForFirstConsumer", "").finds(&[
            "error Deployment shop/web: Deployment web sets nodeName n1, which bypasses the scheduler, so claim data \
             (WaitForFirstConsumer) is never bound",
        ]);
    }

    #[test]
    fn quiet_if_the_scheduler_is_not_needed() {
        said("", "WaitForFirstConsumer", "").finds_nothing();
        said("nodeName: n1, ", "Immediate", "").finds_nothing();
        said("nodeName: n1, ", "WaitForFirstConsumer", ", volumeName: pv1").finds_nothing();
    }
}
