use std::collections::BTreeMap;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::storage::csi::{CsiExt, Sidecar, is_unattended};
use crate::kubernetes::time::{age, human};
use crate::rules::csi::idle_sidecar;
use crate::snapshot::model::{CSIDriver, Timestamp, VolumeAttachment};
use crate::snapshot::{Cluster, Kind, Lookup, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::{count, list};

declare_rule! {
    /// ## What it checks
    ///
    /// That an external-attacher handles the VolumeAttachments of each CSI driver: five minutes after its creation, a
    /// VolumeAttachment is attached, has an error, or at least has the finalizer of the attacher. If not, the rule checks
    /// whether the driver needs to be attached at all: without a CSIDriver object, `attachRequired` defaults to true.
    ///
    /// ## Why it matters
    ///
    /// Kubernetes waits for the attacher (`timed out waiting for external-attacher`), and the pods stay in
    /// `ContainerCreating`.
    ///
    /// ## How to confirm
    ///
    /// `kubectl get csidriver DRIVER` shows `ATTACHREQUIRED`, `kubectl get volumeattachments` the attachments. The
    /// attacher is the container csi-attacher of the driver's controller.
    ///
    /// ## How to fix
    ///
    /// For a driver that does not attach volumes (most file systems: NFS, SMB, CephFS), create the CSIDriver with
    /// `attachRequired: false`, as the driver's chart or manifest does, then recreate the waiting pods. For other
    /// drivers, run csi-attacher in the driver's controller, or fix it.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for attachments that an attacher works on or reports an error for (see
    /// `volumeattachment/failed`), in the first five minutes, and for drivers with `attachRequired: false`.
    "csidriver/attach": Error,
    "no external-attacher handles the volumes of a CSI driver",
    needs: [VolumeAttachment],
    optional: [CSIDriver, CSINode, StorageClass, Deployment, StatefulSet, DaemonSet, Pod, Lease],
    explained_by: ["workload/*", "pod/*", "deployment/*", "statefulset/*", "rbac/denied"],
}

fn check(cluster: &Cluster, report: &mut Report) {
    let mut waiting: BTreeMap<&str, Vec<&VolumeAttachment>> = BTreeMap::new();
    for attachment in cluster.all::<VolumeAttachment>().iter().filter(|a| is_unattended(cluster, a)) {
        waiting.entry(&attachment.spec.attacher).or_default().push(attachment);
    }
    for (driver, attachments) in waiting {
        if let Some(finding) = finding(cluster, driver, &attachments) {
            report.add(finding);
        }
    }
}

fn finding(cluster: &Cluster, driver: &str, attachments: &[&VolumeAttachment]) -> Option<Finding> {
    let found = cluster.get::<CSIDriver>("", driver);
    if found.found().is_some_and(|driver| driver.spec.attach_required == Some(false)) {
        return None;
    }
    let since: Option<Timestamp> = attachments.iter().filter_map(|attachment| attachment.created()).min();
    let waited = since.map_or(String::new(), |since| format!(" for {}", human(age(cluster.now(), since))));
    let object = ObjectRef::new(Kind::CSIDriver, "", driver);
    let describe = |why: String| {
        let mut finding = Finding::error(object.clone(), why).since(since);
        for attachment in attachments.iter().take(3) {
            let text = format!("the volume has not been attached to node {}{waited}", attachment.spec.node_name);
            finding = finding.evidence(text, &attachment.reference(), "status.attached");
        }
        finding
    };
    let volumes = count(attachments.len(), "VolumeAttachment");
    if let Some(workload) = cluster.csi().running(driver, Sidecar::Attacher) {
        let why =
            format!("csi-attacher of CSI driver {driver} ({}) has not handled {volumes}", workload.object.title());
        return Some(idle_sidecar(describe(why), workload, Sidecar::Attacher));
    }
    if !cluster.covers_all(Kind::Pod) || cluster.csi().may_run(driver, Sidecar::Attacher) {
        return Some(
            describe(format!("no external-attacher has handled {volumes} of CSI driver {driver}")).fix_command(
                "Check the csi-attacher of the driver's controller",
                kubectl(["get", "volumeattachments"]),
            ),
        );
    }
    Some(match found {
        Lookup::Missing => without_object(describe, cluster, driver),
        _ => describe(format!("CSIDriver {driver} requires attaching volumes, but no csi-attacher for it was found")).fix(
            "Add csi-attacher to the driver's controller; if the driver does not attach volumes, recreate the CSIDriver \
             with attachRequired: false",
        ),
    })
}

/// Attaching is required only by default.
fn without_object(describe: impl Fn(String) -> Finding, cluster: &Cluster, driver: &str) -> Finding {
    let object = ObjectRef::new(Kind::CSIDriver, "", driver);
    let mut finding = describe(format!(
        "CSIDriver {driver} does not exist, so attaching is required by default, but no csi-attacher for it was found"
    ))
    .evidence(format!("CSIDriver {driver} does not exist"), &object, "");
    if let Some(controller) = cluster.csi().running(driver, Sidecar::Provisioner) {
        let text = format!("the driver's controller has only {}", list(&controller.sidecars(), 6));
        finding = finding.evidence(text, &controller.object, "spec.template.spec.containers");
    }
    finding.fix(format!(
        "Create CSIDriver {driver} with spec.attachRequired: false (as the driver's chart or manifest does), then recreate \
         the waiting pods"
    ))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    fn attachment(metadata: &str, status: &str) -> String {
        format!(
            "{{apiVersion: storage.k8s.io/v1, kind: VolumeAttachment, metadata: {{name: csi-1, creationTimestamp: \
             '2026-11-21T11:50:00Z'{metadata}}}, spec: {{attacher: files.x.io, nodeName: w1, source: \
             {{persistentVolumeName: pv-7}}}}, status: {{attached: false{status}}}}}"
        )
    }

    fn controller(containers: &str) -> String {
        format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: files, namespace: csi}}, spec: {{template: {{spec: \
             {{containers: [{containers}]}}}}}}}}"
        )
    }

    fn driver(required: bool) -> String {
        format!(
            "{{apiVersion: storage.k8s.io/v1, kind: CSIDriver, metadata: {{name: files.x.io}}, spec: {{attachRequired: {required}}}}}"
        )
    }

    #[test]
    fn fires_when_the_object_is_missing() {
        let said = check(&RULE, &[&attachment("", ""), &controller("{name: csi-provisioner}")]);
        said.finds(&[
            "error CSIDriver files.x.io: CSIDriver files.x.io does not exist, so attaching is required by default, \
                      but no csi-attacher for it was found",
        ]);
        assert!(said.text().contains("controller has only csi-provisioner"), "{}", said.text());
        let said = TestCluster::new(&[&attachment("", "")]).forbid(Kind::Pod).check(&RULE);
        said.finds(&["error CSIDriver files.x.io: no external-attacher has handled 1 VolumeAttachment of CSI driver \
                      files.x.io"]);
    }

    #[test]
    fn fires_when_the_attacher_is_missing_or_silent() {
        check(&RULE, &[&attachment("", ""), &driver(true)])
            .finds(&["error CSIDriver files.x.io: CSIDriver files.x.io \
            requires attaching volumes, but no csi-attacher for it was found"]);
        let said = check(&RULE, &[&attachment("", ""), &driver(true), &controller("{name: csi-attacher}")]);
        said.finds(&[
            "error CSIDriver files.x.io: csi-attacher of CSI driver files.x.io (Deployment files) has not handled \
                      1 VolumeAttachment",
        ]);
        assert_eq!(said.finding().because[0].to_string(), "Deployment csi/files");
    }

    #[test]
    fn quiet_when_an_attacher_handles_it_or_none_is_needed() {
        check(&RULE, &[&attachment(", finalizers: [external-attacher/files-x-io]", "")]).finds_nothing();
        check(&RULE, &[&attachment("", ", attachError: {message: full}")]).finds_nothing();
        check(&RULE, &[&attachment("", ""), &driver(false)]).finds_nothing();
        TestCluster::new(&[&attachment("", "")]).now("2026-11-21T11:54:00Z").check(&RULE).finds_nothing();
    }
}
