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
    /// That no PersistentVolume is `Failed`, and that none whose reclaim policy is `Delete` stays `Released` because its
    /// deletion fails (`VolumeFailedDelete`).
    ///
    /// ## Why it matters
    ///
    /// Its claim is gone, but the storage behind it was not given back: it costs money and counts against quotas, and
    /// the same driver will fail for other volumes.
    ///
    /// ## How to confirm
    ///
    /// `kubectl describe pv NAME` shows phase, message and events.
    ///
    /// ## How to fix
    ///
    /// Do what the driver's message asks for (permissions, a snapshot or an attachment that still holds the
    /// disk); then it is deleted at the next try. If the storage is gone already, delete the PersistentVolume.
    ///
    /// ## Exceptions
    ///
    /// For volumes in any other phase, and for `Released` ones whose deletion did not fail for five minutes.
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
        let said = volume.status.as_ref().and_then(|status| status.message.as_deref()).filter(|said| !said.is_empty());
        let said = said.or(failed.map(|event| event.message.as_str()));
        let why = said.map_or_else(String::new, |said| {
            format!(": {}", shorten(said.split_once("desc = ").map_or(said, |(_, desc)| desc), 200))
        });
        let name = volume.name();
        let mut finding = Finding::error(
            volume.reference(),
            format!("PersistentVolume {name} is {phase} and cannot be reclaimed{why}"),
        )
        .since(phase_changed(volume))
        .evidence(format!("status.phase is {phase}"), &volume.reference(), "status.phase");
        if let Some(said) = said {
            finding = finding.evidence(shorten(said, 300), &volume.reference(), "status.message");
        }
        report
            .add(finding.fix_command("Do what the message asks for", kubectl(["describe", "persistentvolume", name])));
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
