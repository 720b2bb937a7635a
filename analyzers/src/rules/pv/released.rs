use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::storage::{phase_changed, phase_of_volume};
use crate::kubernetes::time::{RECENT, age};
use crate::snapshot::model::PersistentVolume;
use crate::snapshot::{Cluster, Object};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// PersistentVolumes with the reclaim policy `Retain` that are left over: their claim was deleted, they are `Released`.
    ///
    /// ## Why it matters
    ///
    /// Kubernetes keeps such a volume with its data, as it was told to, and never binds it again by itself. Somebody
    /// has to look after it, and it costs money until then.
    ///
    /// ## How to confirm
    ///
    /// `kubectl get pv` shows `Released` and the claim it belonged to.
    ///
    /// ## How to fix
    ///
    /// If the data is not needed, delete the PersistentVolume and the storage behind it. To use it again,
    /// remove `spec.claimRef`.
    ///
    /// ## Exceptions
    ///
    /// For other reclaim policies and phases, and in the first hour.
    "pv/released": Info,
    "a PersistentVolume with the policy Retain is left over",
    needs: [PersistentVolume],
    optional: [],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for volume in cluster.all::<PersistentVolume>() {
        let spec = volume.spec.clone().unwrap_or_default();
        let is_fresh = phase_changed(volume).is_some_and(|since| age(cluster.now(), since) < RECENT);
        let is_retained = spec.persistent_volume_reclaim_policy.as_deref() == Some("Retain");
        if phase_of_volume(volume) != "Released" || !is_retained || is_fresh || volume.deleted().is_some() {
            continue;
        }
        let owner =
            spec.claim_ref.as_ref().and_then(|c| Some(format!("{}/{}", c.namespace.as_deref()?, c.name.as_deref()?)));
        let owner =
            owner.map_or_else(|| "a claim that it no longer names".to_string(), |owner| format!("claim {owner}"));
        let name = volume.name();
        report.add(
            Finding::info(volume.reference(), format!("PersistentVolume {name} is left over from {owner}"))
                .since(phase_changed(volume))
                .evidence(
                    "persistentVolumeReclaimPolicy is Retain",
                    &volume.reference(),
                    "spec.persistentVolumeReclaimPolicy",
                )
                .fix_command(
                    "If its data is not needed any more, delete it",
                    kubectl(["delete", "persistentvolume", name]),
                )
                .fix_command(
                    "To let another claim have it, data included",
                    kubectl(["patch", "persistentvolume", name, "--type=merge", "-p", r#"{"spec":{"claimRef":null}}"#]),
                ),
        );
    }
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
        check(&RULE, &[&volume("Retain", "2026-11-20T12:00:00Z")])
            .finds(&["info PersistentVolume pv-7: PersistentVolume pv-7 is left over from claim shop/data"]);
    }

    #[test]
    fn quiet_for_one_that_is_deleted_or_fresh() {
        check(&RULE, &[&volume("Delete", "2026-11-20T12:00:00Z")]).finds_nothing();
        check(&RULE, &[&volume("Retain", "2026-11-21T11:30:00Z")]).finds_nothing();
    }
}
