use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::storage::{phase_changed, phase_of_volume};
use crate::kubernetes::time::{PROVISION, age};
use crate::snapshot::model::PersistentVolume;
use crate::snapshot::{Cluster, Object};
use crate::text::kubectl;
use crate::text::words::shorten;

declare_rule! {
    /// ## What it checks
    ///
    /// That no PersistentVolume is `Failed`, and that none with the reclaim policy `Delete` stays `Released` because
    /// its deletion fails (`VolumeFailedDelete`).
    ///
    /// ## Why it matters
    ///
    /// The claim is deleted but the storage is not released. It still costs money and counts against quotas, and the
    /// driver will probably fail for other volumes as well.
    ///
    /// ## How to confirm
    ///
    /// `kubectl describe pv NAME` shows phase, message and events.
    ///
    /// ## How to fix
    ///
    /// Resolve the driver's error (permissions, or a snapshot or attachment that still uses the disk); the next retry
    /// then deletes the volume. If the storage no longer exists, delete the PersistentVolume.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for volumes in any other phase, or for `Released` volumes whose deletion has been failing
    /// for less than five minutes.
    "pv/failed": Error,
    "a PersistentVolume could not be reclaimed",
    needs: [PersistentVolume],
    optional: [Event],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for volume in cluster.all::<PersistentVolume>() {
        let events = cluster.events(&volume.reference());
        let failed =
            events.iter().find(|event| matches!(event.reason.as_str(), "VolumeFailedDelete" | "VolumeFailedRecycle"));
        let phase = phase_of_volume(volume);
        let waited = phase_changed(volume).is_some_and(|since| age(cluster.now(), since) > PROVISION);
        if phase != "Failed" && !(phase == "Released" && failed.is_some() && waited) {
            continue;
        }
        let error =
            volume.status.as_ref().and_then(|status| status.message.as_deref()).filter(|error| !error.is_empty());
        let error = error.or(failed.map(|event| event.message.as_str()));
        let why = error.map_or_else(String::new, |error| {
            format!(": {}", shorten(error.split_once("desc = ").map_or(error, |(_, desc)| desc), 200))
        });
        let name = volume.name();
        let mut finding = Finding::error(
            volume.reference(),
            format!("PersistentVolume {name} is {phase} and cannot be reclaimed{why}"),
        )
        .since(phase_changed(volume))
        .evidence(format!("status.phase is {phase}"), &volume.reference(), "status.phase");
        if let Some(error) = error {
            finding = finding.evidence(shorten(error, 300), &volume.reference(), "status.message");
        }
        report.add(finding.fix_command("Resolve the driver's error", kubectl(["describe", "persistentvolume", name])));
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn volume(status: &str) -> String {
        format!("{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: pv-7}}, status: {{{status}}}}}")
    }

    const EVENT: &str = "
        apiVersion: v1
        kind: Event
        metadata: {name: e, namespace: default}
        reason: VolumeFailedDelete
        message: 'rpc error: code = Internal desc = the disk is attached'
        involvedObject: {kind: PersistentVolume, name: pv-7}";

    #[test]
    fn fires_when_failed() {
        check(&RULE, &[&volume("phase: Failed, message: 'rpc error: code = Internal desc = the disk is attached'")]).finds(&[
            "error PersistentVolume pv-7: PersistentVolume pv-7 is Failed and cannot be reclaimed: the disk is attached",
        ]);
        check(&RULE, &[&volume("phase: Released, lastPhaseTransitionTime: '2026-11-21T11:00:00Z'"), EVENT]).finds(&[
            "error PersistentVolume pv-7: PersistentVolume pv-7 is Released and cannot be reclaimed: the disk is attached",
        ]);
    }

    #[test]
    fn quiet_when_released_or_bound() {
        check(&RULE, &[&volume("phase: Released, lastPhaseTransitionTime: '2026-11-21T11:00:00Z'")]).finds_nothing();
        check(&RULE, &[&volume("phase: Released, lastPhaseTransitionTime: '2026-11-21T11:59:00Z'"), EVENT])
            .finds_nothing();
        check(&RULE, &[&volume("phase: Bound")]).finds_nothing();
    }
}
