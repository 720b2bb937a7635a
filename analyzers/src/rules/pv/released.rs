use std::collections::BTreeSet;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::storage::{phase, phase_changed, phase_of_volume, volume_of};
use crate::kubernetes::time::{RECENT, age};
use crate::snapshot::model::{PersistentVolume, PersistentVolumeClaim};
use crate::snapshot::{Cluster, Object};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// PersistentVolumes with the reclaim policy `Retain` whose claim was deleted (phase `Released`).
    ///
    /// ## Why it matters
    ///
    /// Kubernetes keeps such a volume and its data, and never binds it again on its own. It costs money until somebody
    /// deletes or reuses it.
    ///
    /// ## How to confirm
    ///
    /// `kubectl get pv` shows `Released` and the former claim.
    ///
    /// ## How to fix
    ///
    /// If the data is no longer needed, delete the PersistentVolume and the storage behind it. To reuse the volume,
    /// remove `spec.claimRef`.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for other reclaim policies and phases, in the first hour, or while a claim names the volume
    /// or a pending claim has the name of the deleted one (see `pvc/pending`).
    "pv/released": Info,
    "a retained PersistentVolume whose claim was deleted",
    needs: [PersistentVolume],
    optional: [PersistentVolumeClaim],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    let requested: BTreeSet<&str> = cluster.all::<PersistentVolumeClaim>().iter().filter_map(volume_of).collect();
    for volume in cluster.all::<PersistentVolume>() {
        let spec = volume.spec.clone().unwrap_or_default();
        let is_fresh = phase_changed(volume).is_some_and(|since| age(cluster.now(), since) < RECENT);
        let is_retained = spec.persistent_volume_reclaim_policy.as_deref() == Some("Retain");
        if phase_of_volume(volume) != "Released" || !is_retained || is_fresh || volume.deleted().is_some() {
            continue;
        }
        if requested.contains(volume.name()) || has_successor(cluster, volume) {
            continue;
        }
        let owner =
            spec.claim_ref.as_ref().and_then(|c| Some(format!("{}/{}", c.namespace.as_deref()?, c.name.as_deref()?)));
        let owner = owner.map_or_else(|| "its claim".to_string(), |owner| format!("claim {owner}"));
        let name = volume.name();
        report.add(
            Finding::info(volume.reference(), format!("PersistentVolume {name} is retained after {owner} was deleted"))
                .since(phase_changed(volume))
                .evidence(
                    "persistentVolumeReclaimPolicy is Retain",
                    &volume.reference(),
                    "spec.persistentVolumeReclaimPolicy",
                )
                .fix_command("Delete it if its data is no longer needed", kubectl(["delete", "persistentvolume", name]))
                .fix_command(
                    "Or make it available to another claim, including its data",
                    kubectl(["patch", "persistentvolume", name, "--type=merge", "-p", r#"{"spec":{"claimRef":null}}"#]),
                ),
        );
    }
}

/// Whether a pending claim has the name of the deleted one: it is meant to use the volume.
fn has_successor(cluster: &Cluster, volume: &PersistentVolume) -> bool {
    let owner = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    let owner = owner.and_then(|owner| Some((owner.namespace.as_deref()?, owner.name.as_deref()?)));
    let Some((namespace, name)) = owner else { return false };
    let claim = cluster.get::<PersistentVolumeClaim>(namespace, name).found();
    claim.is_some_and(|claim| phase(claim) == "Pending")
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn volume(policy: &str, since: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: PersistentVolume
            metadata: {{name: pv-7}}
            spec: {{persistentVolumeReclaimPolicy: {policy}, claimRef: {{namespace: shop, name: data}}}}
            status: {{phase: Released, lastPhaseTransitionTime: '{since}'}}"
        )
    }

    #[test]
    fn fires_for_a_retained_volume() {
        check(&RULE, &[&volume("Retain", "2026-11-20T12:00:00Z")]).finds(&[
            "info PersistentVolume pv-7: PersistentVolume pv-7 is retained after claim shop/data was deleted",
        ]);
    }

    #[test]
    fn quiet_for_one_that_is_deleted_or_fresh() {
        check(&RULE, &[&volume("Delete", "2026-11-20T12:00:00Z")]).finds_nothing();
        check(&RULE, &[&volume("Retain", "2026-11-21T11:30:00Z")]).finds_nothing();
    }

    #[test]
    fn quiet_while_a_claim_is_meant_to_use_it() {
        let released = volume("Retain", "2026-11-20T12:00:00Z");
        let claim = |name: &str, spec: &str| {
            format!(
                "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: {name}, namespace: shop}}, spec: {spec}, \
                 status: {{phase: Pending}}}}"
            )
        };
        check(&RULE, &[&released, &claim("data", "{}")]).finds_nothing();
        check(&RULE, &[&released, &claim("other", "{volumeName: pv-7}")]).finds_nothing();
        check(&RULE, &[&released, &claim("other", "{}")]).finding();
    }
}
