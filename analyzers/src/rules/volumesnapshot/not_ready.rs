use std::time::Duration;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::storage::csi::{CsiExt, Sidecar, snapshots, unhandled_snapshots};
use crate::kubernetes::time::{age, human};
use crate::snapshot::model::{CustomResource, Timestamp};
use crate::snapshot::{Cluster, Kind};
use crate::text::kubectl;
use crate::text::words::{plain, shorten};

declare_rule! {
    /// ## What it checks
    ///
    /// That VolumeSnapshots are handled and become ready: each has a status five minutes after its creation, and its
    /// `status.error` is gone after five minutes. Where a snapshot has no status at all, the rule looks for the
    /// snapshot-controller.
    ///
    /// ## Why it matters
    ///
    /// No snapshot is taken: the backup does not exist, and claims that are to be restored from it stay pending. The
    /// snapshot-controller creates the VolumeSnapshotContent of each VolumeSnapshot. It is not part of CSI drivers: their
    /// sidecar csi-snapshotter only handles VolumeSnapshotContents.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get volumesnapshot NAME -o yaml` shows the status, and `kubectl get pods -A | grep
    /// snapshot-controller` the controller.
    ///
    /// ## How to fix
    ///
    /// Install the snapshot-controller of the Kubernetes distribution (on EKS, the add-on of that name), or check its
    /// log. For an error, follow its message: a VolumeSnapshotClass that does not exist, a driver without snapshots.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire in the first five minutes, for snapshots that are ready or being deleted, and while a
    /// snapshot with a status and without an error is being taken.
    "volumesnapshot/not-ready": Error,
    "a VolumeSnapshot is not handled or fails",
    needs: [],
    optional: [Pod, Deployment, StatefulSet, DaemonSet],
    reads_custom: true,
    explained_by: ["workload/*", "pod/*", "deployment/*", "rbac/denied"],
}

/// How long an error may last: the controller retries.
const RETRY: Duration = Duration::from_secs(300);

fn check(cluster: &Cluster, report: &mut Report) {
    for snapshot in unhandled_snapshots(cluster) {
        report.add(unhandled(cluster, snapshot));
    }
    for snapshot in snapshots(cluster) {
        if let Some(finding) = failed(cluster, snapshot) {
            report.add(finding);
        }
    }
}

fn unhandled(cluster: &Cluster, snapshot: &CustomResource) -> Finding {
    let (object, name) = (snapshot.reference(), &snapshot.metadata.name);
    let created = snapshot.metadata.creation_timestamp;
    let waited = created.map_or(String::new(), |created| format!(" for {}", human(age(cluster.now(), created))));
    let controllers: Vec<_> = cluster.csi().snapshot_controllers().collect();
    let message = format!("VolumeSnapshot {name} has had no status{waited}");
    let finding = |why: &str| {
        let finding = Finding::error(object.clone(), format!("{message}: {why}"));
        finding.since(created).evidence("status is not set", &object, "status")
    };
    let Some(controller) = controllers.first() else {
        let is_known = cluster.covers_all(Kind::Pod) && cluster.covers_all(Kind::Deployment);
        let why = if is_known {
            "no snapshot-controller runs in the cluster"
        } else {
            "no snapshot-controller has handled it"
        };
        return finding(why).fix(
            "Install the snapshot-controller: the add-on of that name on EKS, elsewhere deploy/kubernetes/snapshot-controller \
             of kubernetes-csi/external-snapshotter; the CRDs and the csi-snapshotter sidecar are not enough",
        );
    };
    let (namespace, target) = (controller.object.namespace(), controller.object.target());
    let title = controller.object.title();
    let mut finding = if controller.is_scaled_to_zero {
        finding(&format!("snapshot-controller ({title}) is scaled to zero")).fix_command(
            "Scale up the snapshot-controller",
            kubectl(["-n", namespace, "scale", &target, "--replicas=1"]),
        )
    } else {
        let container = controller.container(Sidecar::SnapshotController).unwrap_or_default();
        finding(&format!("snapshot-controller ({title}) has not handled it")).fix_command(
            "Check the log of the snapshot-controller",
            kubectl(["-n", namespace, "logs", &target, "-c", container]),
        )
    };
    for controller in controllers {
        finding = finding.because(controller.object.clone());
    }
    finding
}

/// A snapshot whose controller or driver has been reporting an error.
fn failed(cluster: &Cluster, snapshot: &CustomResource) -> Option<Finding> {
    let status = &snapshot.status;
    let is_ready = status.get("readyToUse").and_then(serde_json::Value::as_bool) == Some(true);
    let error = status.get("error").filter(|error| error.is_object())?;
    if is_ready || snapshot.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let text = |field: &str| error.get(field).and_then(serde_json::Value::as_str).unwrap_or_default();
    let created = snapshot.metadata.creation_timestamp?;
    let since = text("time").parse::<Timestamp>().unwrap_or(created);
    if age(cluster.now(), created) < RETRY {
        return None;
    }
    let (object, name) = (snapshot.reference(), &snapshot.metadata.name);
    let message = plain(text("message"));
    let core = message.split_once("desc = ").map_or(message.as_str(), |(_, desc)| desc);
    let finding = Finding::error(object.clone(), format!("VolumeSnapshot {name} failed: {}", shorten(core, 200)))
        .since(Some(since))
        .evidence(shorten(&message, 400), &object, "status.error.message");
    let namespace = object.namespace();
    Some(
        finding
            .fix_command("Resolve the reported error", kubectl(["-n", namespace, "describe", "volumesnapshot", name])),
    )
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    fn snapshot(status: &str) -> String {
        format!(
            "{{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshot, metadata: {{name: nightly, namespace: shop, \
             creationTimestamp: '2026-11-21T02:00:00Z'}}, spec: {{}}{status}}}"
        )
    }

    fn controller(replicas: u32) -> String {
        format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: snapshots, namespace: kube-system}}, spec: \
             {{replicas: {replicas}, template: {{spec: {{containers: [{{name: c, image: \
             'registry.k8s.io/sig-storage/snapshot-controller:v8.4.0'}}]}}}}}}}}"
        )
    }

    const SIDECAR: &str = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: ebs, namespace: kube-system}, spec: \
        {template: {spec: {containers: [{name: csi-snapshotter}]}}}}";

    #[test]
    fn fires_without_a_snapshot_controller() {
        let found = "error VolumeSnapshot shop/nightly: VolumeSnapshot nightly has had no status for 10h:";
        check(&RULE, &[&snapshot(""), SIDECAR])
            .finds(&[&format!("{found} no snapshot-controller runs in the cluster")]);
        TestCluster::new(&[&snapshot("")])
            .forbid(Kind::Pod)
            .check(&RULE)
            .finds(&[&format!("{found} no snapshot-controller has handled it")]);
    }

    #[test]
    fn fires_because_of_the_snapshot_controller() {
        let found = "error VolumeSnapshot shop/nightly: VolumeSnapshot nightly has had no status for 10h:";
        let said = check(&RULE, &[&snapshot(""), &controller(1)]);
        said.finds(&[&format!("{found} snapshot-controller (Deployment snapshots) has not handled it")]);
        assert_eq!(said.finding().because[0].to_string(), "Deployment kube-system/snapshots");
        check(&RULE, &[&snapshot(""), &controller(0)])
            .finds(&[&format!("{found} snapshot-controller (Deployment snapshots) is scaled to zero")]);
    }

    #[test]
    fn fires_with_the_error() {
        let error = ", status: {readyToUse: false, error: {time: '2026-11-21T02:00:05Z', message: 'rpc error: code = \
                     Internal desc = quota exceeded'}}";
        check(&RULE, &[&snapshot(error)])
            .finds(&["error VolumeSnapshot shop/nightly: VolumeSnapshot nightly failed: quota exceeded"]);
        check(&RULE, &[&snapshot(&error.replace("false", "true"))]).finds_nothing();
    }

    #[test]
    fn quiet_while_it_is_taken_and_in_the_first_minutes() {
        check(&RULE, &[&snapshot(", status: {readyToUse: false, boundVolumeSnapshotContentName: c}")]).finds_nothing();
        TestCluster::new(&[&snapshot("")]).now("2026-11-21T02:04:00Z").check(&RULE).finds_nothing();
    }
}
