use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::storage::csi::{CsiExt, Sidecar, waits_for_resizer};
use crate::kubernetes::storage::{capacity_of, driver_of, requested, users, volume_of};
use crate::kubernetes::time::{PROVISION, RECENT, age, human};
use crate::rules::csi::idle_sidecar;
use crate::snapshot::model::{Event, PersistentVolume, PersistentVolumeClaim, Pod, Timestamp};
use crate::snapshot::{Cluster, Kind, Object};
use crate::text::kubectl;
use crate::text::words::{list, shorten};

declare_rule! {
    /// ## What it checks
    ///
    /// That a claim that requests more space gets it: no resize error in its conditions, no infeasible resize in
    /// `status.allocatedResourceStatuses`, no `VolumeResizeFailed` or `FileSystemResizeFailed` event in the last hour,
    /// no pending file system resize while a pod uses the claim, and an external-resizer that starts the resize of a CSI
    /// volume within five minutes.
    ///
    /// ## Why it matters
    ///
    /// The volume keeps its old size and fills up earlier than expected.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe pvc NAME` shows requested size, capacity, conditions and events.
    ///
    /// ## How to fix
    ///
    /// Resolve the driver's error. An infeasible size can be lowered again, down to the current capacity (KEP-1790).
    /// Where the file system is expanded only at mount, restart the pod. Where the driver's controller runs without
    /// csi-resizer, add it with the driver's chart or operator (if the driver can expand volumes).
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire
    ///
    /// - when the capacity equals the requested size,
    /// - while a resize is in progress without an error,
    /// - for a driver whose controller runs outside the cluster or cannot be identified, and no resize has started,
    /// - for `FileSystemResizePending` without a pod: the file system is expanded when a pod mounts it.
    "pvc/resize": Error,
    "a PersistentVolumeClaim cannot be resized",
    needs: [PersistentVolumeClaim],
    optional: [
        Pod, Event, PersistentVolume, CSIDriver, CSINode, StorageClass, Deployment, StatefulSet, DaemonSet, Lease,
    ],
    explained_by: ["workload/*", "pod/*", "deployment/*", "statefulset/*", "rbac/denied"],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for claim in cluster.all::<PersistentVolumeClaim>() {
        let (Some(asked), Some(has)) = (requested(claim), capacity_of(claim)) else { continue };
        if claim.deleted().is_some() || asked <= has {
            continue;
        }
        let sizes = format!("from {} to {}", has.text("storage"), asked.text("storage"));
        if let Some((why, path, since)) = failure(cluster, claim) {
            let message = format!("PersistentVolumeClaim {} cannot be resized {sizes}: {why}", claim.name());
            report.add(describe(Finding::error(claim.reference(), message), claim, &why, path, since));
        } else if let Some(since) = waits_for_restart(cluster, claim) {
            let why = "the file system is expanded when its pod restarts";
            let message = format!("PersistentVolumeClaim {} has not been resized {sizes} yet: {why}", claim.name());
            let finding = Finding::warning(claim.reference(), message);
            report.add(describe(finding, claim, "FileSystemResizePending is True", "status.conditions", Some(since)));
        } else if let Some(finding) = not_started(cluster, claim, &sizes) {
            report.add(finding);
        }
    }
}

/// Nothing has started to expand the CSI volume of the claim.
fn not_started(cluster: &Cluster, claim: &PersistentVolumeClaim, sizes: &str) -> Option<Finding> {
    if !waits_for_resizer(claim) {
        return None;
    }
    let volume = cluster.get::<PersistentVolume>("", volume_of(claim)?).found()?;
    let driver = driver_of(volume)?;
    let handed_over = cluster.events(&claim.reference()).into_iter().find(|event| event.reason == "ExternalExpanding");
    let since = handed_over.and_then(|event| event.first_timestamp.or(event.last_seen()));
    let waited = since.map(|since| age(cluster.now(), since));
    if waited.is_some_and(|waited| waited < PROVISION) {
        return None;
    }
    let start = |why: &str| {
        let message = format!("PersistentVolumeClaim {} has not been resized {sizes}: {why}", claim.name());
        let finding = Finding::error(claim.reference(), message).since(since);
        let text = "no condition and no allocatedResourceStatuses: the resize has not started";
        finding.evidence(text, &claim.reference(), "status")
    };
    if let Some(workload) = cluster.csi().running(driver, Sidecar::Resizer) {
        // Without the event nobody knows since when.
        let waited = human(waited?);
        let title = workload.object.title();
        let finding = start(&format!("csi-resizer of {title} has not started it for {waited}"));
        return Some(idle_sidecar(finding, workload, Sidecar::Resizer));
    }
    let controller =
        [Sidecar::Provisioner, Sidecar::Attacher].into_iter().find_map(|s| cluster.csi().running(driver, s))?;
    if !cluster.covers_all(Kind::Pod) || cluster.csi().may_run(driver, Sidecar::Resizer) {
        return None;
    }
    let (object, sidecars) = (&controller.object, list(&controller.sidecars(), 6));
    let why =
        format!("no csi-resizer runs for CSI driver {driver}; its controller ({}) has only {sidecars}", object.title());
    let namespace = object.namespace();
    Some(
        start(&why)
            .evidence(format!("containers of CSI sidecars: {sidecars}"), object, "spec.template.spec.containers")
            .fix_command(
                format!(
                    "Add the csi-resizer sidecar to {} in namespace {namespace}, in the chart or operator that installs \
                     the driver, with its RBAC rules",
                    object.title()
                ),
                kubectl(["-n", namespace, "get", &object.target(), "-o", "yaml"]),
            ),
    )
}

fn describe(
    finding: Finding,
    claim: &PersistentVolumeClaim,
    why: &str,
    path: &str,
    since: Option<Timestamp>,
) -> Finding {
    let command = kubectl(["-n", claim.namespace(), "describe", "persistentvolumeclaim", claim.name()]);
    finding
        .since(since)
        .evidence(why, &claim.reference(), path)
        .fix_command("Resolve the error, or request a size that the driver supports", command)
}

/// The error, the field that reports it, and since when.
fn failure(cluster: &Cluster, claim: &PersistentVolumeClaim) -> Option<(String, &'static str, Option<Timestamp>)> {
    let status = claim.status.as_ref()?;
    let errors = status.conditions.iter().flatten();
    let mut errors = errors.filter(|c| c.status == "True" && c.type_.ends_with("ResizeError"));
    if let Some(error) = errors.next() {
        let text = error.message.as_deref().or(error.reason.as_deref()).unwrap_or(&error.type_);
        let since = error.last_transition_time.as_ref().map(|time| time.0);
        return Some((shorten(core(text), 200), "status.conditions", since));
    }
    let event = resize_event(cluster, claim);
    let error = event.map(|event| shorten(core(&event.message), 200));
    let infeasible = status.allocated_resource_statuses.iter().flatten().find(|(resource, state)| {
        *resource == "storage" && (state.ends_with("Infeasible") || state.ends_with("Failed"))
    });
    if let Some((_, state)) = infeasible {
        return Some((error.unwrap_or_else(|| state.clone()), "status.allocatedResourceStatuses", None));
    }
    error.map(|error| (error, "", event.and_then(|event| event.first_timestamp)))
}

fn resize_event<'a>(cluster: &'a Cluster, claim: &PersistentVolumeClaim) -> Option<&'a Event> {
    let events = cluster.events(&claim.reference());
    events.into_iter().find(|event| {
        matches!(event.reason.as_str(), "VolumeResizeFailed" | "FileSystemResizeFailed")
            && event.last_seen().is_some_and(|seen| age(cluster.now(), seen) < RECENT)
    })
}

fn core(message: &str) -> &str {
    message.split_once("desc = ").map_or(message, |(_, desc)| desc)
}

/// Since when a file system resize has been pending although a running pod uses the claim.
fn waits_for_restart(cluster: &Cluster, claim: &PersistentVolumeClaim) -> Option<Timestamp> {
    let conditions = claim.status.as_ref()?.conditions.iter().flatten();
    let pending = conditions.into_iter().find(|c| c.type_ == "FileSystemResizePending" && c.status == "True")?;
    let since = pending.last_transition_time.as_ref()?.0;
    let runs = |pod: &&Pod| pod.status.phase == "Running" && !pod.is_terminating();
    let is_used = users(cluster, claim).iter().any(runs);
    (is_used && age(cluster.now(), since) > PROVISION).then_some(since)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::{TestCluster, check};

    fn claim(status: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: PersistentVolumeClaim
            metadata: {{name: data, namespace: shop}}
            spec: {{resources: {{requests: {{storage: 10Gi}}}}}}
            status: {{phase: Bound, capacity: {{storage: 5Gi}}, {status}}}"
        )
    }

    const EVENT: &str = "
        apiVersion: v1
        kind: Event
        metadata: {name: e, namespace: shop}
        reason: VolumeResizeFailed
        message: 'resize volume \"pv-7\" failed: rpc error: code = Internal desc = quota of the pool is used up'
        lastTimestamp: '2026-11-21T11:50:00Z'
        involvedObject: {kind: PersistentVolumeClaim, namespace: shop, name: data}";
    const POD: &str = "
        apiVersion: v1
        kind: Pod
        metadata: {name: db, namespace: shop}
        spec: {volumes: [{name: d, persistentVolumeClaim: {claimName: data}}]}
        status: {phase: Running}";
    const PENDING: &str =
        "conditions: [{type: FileSystemResizePending, status: 'True', lastTransitionTime: '2026-11-21T11:00:00Z'}]";
    const EXPECTED: &str = "error PersistentVolumeClaim shop/data: PersistentVolumeClaim data cannot be resized from 5Gi \
        to 10Gi: quota of the pool is used up";

    #[test]
    fn fires_when_the_driver_fails() {
        check(&RULE, &[&claim(""), EVENT]).finds(&[EXPECTED]);
        check(&RULE, &[&claim("allocatedResourceStatuses: {storage: ControllerResizeInfeasible}"), EVENT])
            .finds(&[EXPECTED]);
        check(
            &RULE,
            &[&claim(
                "conditions: [{type: ControllerResizeError, status: 'True', message: quota of the pool is used up}]",
            )],
        )
        .finds(&[EXPECTED]);
    }

    #[test]
    fn quiet_when_resized_or_in_progress() {
        check(&RULE, &[&claim("").replace("5Gi", "10Gi"), EVENT]).finds_nothing();
        check(&RULE, &[&claim("conditions: [{type: Resizing, status: 'True'}]")]).finds_nothing();
    }

    #[test]
    fn quiet_while_no_pod_mounts_it() {
        check(&RULE, &[&claim(PENDING)]).finds_nothing();
    }

    #[test]
    fn fires_as_a_warning_when_a_restart_is_needed() {
        check(&RULE, &[&claim(PENDING), POD])
            .finds(&["warning PersistentVolumeClaim shop/data: PersistentVolumeClaim data \
            has not been resized from 5Gi to 10Gi yet: the file system is expanded when its pod restarts"]);
    }

    const VOLUME: &str =
        "{apiVersion: v1, kind: PersistentVolume, metadata: {name: pv-7}, spec: {csi: {driver: disk.x.io, \
        volumeHandle: a}}}
---
        {apiVersion: storage.k8s.io/v1, kind: CSIDriver, metadata: {name: disk.x.io}, spec: {}}";

    fn csi_claim() -> String {
        claim("").replace("spec: {", "spec: {volumeName: pv-7, ")
    }

    fn controller(name: &str, containers: &str) -> String {
        format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}, namespace: csi}}, spec: {{template: {{spec: \
             {{containers: [{containers}]}}}}}}}}"
        )
    }

    fn expanding(at: &str) -> String {
        EVENT.replace("VolumeResizeFailed", "ExternalExpanding").replace("2026-11-21T11:50:00Z", at)
    }

    const NOT_STARTED: &str = "error PersistentVolumeClaim shop/data: PersistentVolumeClaim data has not been resized from \
        5Gi to 10Gi:";

    #[test]
    fn fires_when_the_driver_has_no_resizer() {
        let controller = controller("disk", "{name: csi-provisioner}, {name: csi-attacher}");
        let event = expanding("2026-11-21T11:00:00Z");
        check(&RULE, &[&csi_claim(), VOLUME, &controller, &event]).finds(&[&format!(
            "{NOT_STARTED} no csi-resizer runs for CSI driver disk.x.io; its controller (Deployment disk) has only \
             csi-provisioner and csi-attacher"
        )]);
    }

    #[test]
    fn fires_when_the_resizer_does_nothing() {
        let controller = controller("disk", "{name: csi-provisioner}, {name: csi-resizer}");
        let event = expanding("2026-11-21T11:00:00Z");
        let said = check(&RULE, &[&csi_claim(), VOLUME, &controller, &event]);
        said.finds(&[&format!("{NOT_STARTED} csi-resizer of Deployment disk has not started it for 60m")]);
        assert_eq!(said.finding().because[0].to_string(), "Deployment csi/disk");
    }

    #[test]
    fn quiet_while_a_resizer_may_start() {
        let disk = controller("disk", "{name: csi-provisioner}");
        let young = expanding("2026-11-21T11:59:30Z");
        check(&RULE, &[&csi_claim(), VOLUME, &disk, &young]).finds_nothing();
        let event = expanding("2026-11-21T11:00:00Z");
        // A controller outside the cluster, and a resizer of an unknown driver.
        check(&RULE, &[&csi_claim(), VOLUME, &event]).finds_nothing();
        let other = controller("other", "{name: csi-resizer}");
        check(&RULE, &[&csi_claim(), VOLUME, &disk, &other, &event]).finds_nothing();
        TestCluster::new(&[&csi_claim(), VOLUME, &disk, &event]).forbid(crate::Kind::Pod).check(&RULE).finds_nothing();
    }
}
