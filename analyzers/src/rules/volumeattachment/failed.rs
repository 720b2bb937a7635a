use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::storage::csi::{CsiExt, Sidecar};
use crate::kubernetes::time::{START, age};
use crate::snapshot::model::VolumeAttachment;
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::shorten;

declare_rule! {
    /// ## What it checks
    ///
    /// That volumes are attached to and detached from nodes: no VolumeAttachment has had an `attachError` or
    /// `detachError` for more than two minutes.
    ///
    /// ## Why it matters
    ///
    /// A pod that needs the volume does not start. A volume that is not detached cannot be attached to another node.
    ///
    /// ## How to confirm
    ///
    /// `kubectl describe volumeattachment NAME` shows the driver's error.
    ///
    /// ## How to fix
    ///
    /// Resolve the driver's error: permissions of the driver, the maximum number of volumes per node, zones, or a node
    /// that no longer exists. The driver retries on its own. If the driver is not registered on the node, make its node
    /// plugin run there (see `csinode/driver-missing`).
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire in the first two minutes, or for volumes that have been attached since.
    "volumeattachment/failed": Error,
    "a volume cannot be attached to or detached from a node",
    needs: [VolumeAttachment],
    optional: [CSINode, CSIDriver, StorageClass, Deployment, StatefulSet, DaemonSet, Pod, Lease],
    explained_by: [
        "node/not-ready", "csinode/driver-missing", "workload/*", "pod/*", "deployment/*", "statefulset/*", "rbac/denied",
    ],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for attachment in cluster.all::<VolumeAttachment>() {
        let Some(status) = &attachment.status else { continue };
        let (error, verb, path, began) = match (&status.attach_error, &status.detach_error, attachment.deleted()) {
            (_, Some(error), Some(deleted)) => (error, "detached from", "status.detachError", Some(deleted)),
            (Some(error), _, None) if !status.attached => {
                (error, "attached to", "status.attachError", attachment.created())
            }
            _ => continue,
        };
        if began.is_some_and(|began| age(cluster.now(), began) < START) {
            continue;
        }
        let (name, node) = (attachment.name(), attachment.spec.node_name.as_str());
        let volume = attachment.spec.source.persistent_volume_name.as_deref().unwrap_or("(inline)");
        let text = error.message.as_deref().unwrap_or_default();
        let core = text.split_once("desc = ").map_or(text, |(_, desc)| desc);
        let why = if core.is_empty() { String::new() } else { format!(": {}", shorten(core, 200)) };
        let message = format!("PersistentVolume {volume} cannot be {verb} node {node}{why}");
        let mut finding = Finding::error(attachment.reference(), message)
            .since(began)
            .evidence(shorten(text, 300), &attachment.reference(), path)
            .because(ObjectRef::new(Kind::Node, "", node))
            .because(ObjectRef::new(Kind::CSINode, "", node))
            .fix_command("Resolve the driver's error", kubectl(["describe", "volumeattachment", name]));
        if let Some(attacher) = cluster.csi().running(&attachment.spec.attacher, Sidecar::Attacher) {
            finding = finding.because(attacher.object.clone());
        }
        report.add(finding);
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn attachment(metadata: &str, status: &str) -> String {
        format!(
            "
            apiVersion: storage.k8s.io/v1
            kind: VolumeAttachment
            metadata: {{name: csi-1, {metadata}}}
            spec: {{attacher: x.io/y, nodeName: w1, source: {{persistentVolumeName: pv-7}}}}
            status: {{{status}}}"
        )
    }

    const ERROR: &str = "{message: 'rpc error: code = Internal desc = too many volumes', time: '2026-11-21T11:59:00Z'}";

    #[test]
    fn fires_when_it_cannot_be_attached_or_detached() {
        check(
            &RULE,
            &[&attachment(
                "creationTimestamp: '2026-11-21T11:50:00Z'",
                &format!("attached: false, attachError: {ERROR}"),
            )],
        )
        .finds(&[
            "error VolumeAttachment csi-1: PersistentVolume pv-7 cannot be attached to node w1: too many volumes",
        ]);
        check(
            &RULE,
            &[&attachment(
                "deletionTimestamp: '2026-11-21T11:50:00Z'",
                &format!("attached: true, detachError: {ERROR}"),
            )],
        )
        .finds(&[
            "error VolumeAttachment csi-1: PersistentVolume pv-7 cannot be detached from node w1: too many volumes",
        ]);
    }

    #[test]
    fn quiet_when_young_or_attached() {
        check(
            &RULE,
            &[&attachment(
                "creationTimestamp: '2026-11-21T11:59:00Z'",
                &format!("attached: false, attachError: {ERROR}"),
            )],
        )
        .finds_nothing();
        check(&RULE, &[&attachment("creationTimestamp: '2026-11-21T11:50:00Z'", "attached: true")]).finds_nothing();
    }
}
