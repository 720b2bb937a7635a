use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::storage::{phase, volume_of};
use crate::snapshot::model::PersistentVolumeClaim;
use crate::snapshot::{Cluster, Object};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// That no claim is `Lost`: bound to a PersistentVolume that was deleted or bound to another claim.
    ///
    /// ## Why it matters
    ///
    /// The data may be gone. Pods that use the claim can no longer be scheduled, and the claim does not recover on its
    /// own.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pvc NAME` shows `Lost`. `kubectl get pv VOLUME` returns NotFound or shows another
    /// claim.
    ///
    /// ## How to fix
    ///
    /// If the storage still exists, create a PersistentVolume with the same name for it, with a `claimRef` to this
    /// claim. Otherwise restore a backup into a new claim and delete this one.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for claims in any other phase, or for claims that are being deleted.
    "pvc/lost": Error,
    "a PersistentVolumeClaim has lost its volume",
    needs: [PersistentVolumeClaim],
    optional: [],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for claim in cluster.all::<PersistentVolumeClaim>() {
        if phase(claim) != "Lost" || claim.deleted().is_some() {
            continue;
        }
        let (namespace, name) = (claim.namespace(), claim.name());
        let volume =
            volume_of(claim).map_or_else(|| "its PersistentVolume".to_string(), |v| format!("PersistentVolume {v}"));
        let message =
            format!("PersistentVolumeClaim {name} is Lost: {volume} does not exist or is bound to another claim");
        report.add(
            Finding::error(claim.reference(), message)
                .evidence("status.phase is Lost", &claim.reference(), "status.phase")
                .fix_command(
                    "Recreate the PersistentVolume if its storage still exists, or restore a backup into a new claim",
                    kubectl(["-n", namespace, "describe", "persistentvolumeclaim", name]),
                ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    #[test]
    fn fires_when_lost() {
        check(&RULE, &["{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data, namespace: shop}, spec: {volumeName: pv-7}, status: {phase: Lost}}"])
            .finds(&["error PersistentVolumeClaim shop/data: PersistentVolumeClaim data is Lost: PersistentVolume pv-7 \
                does not exist or is bound to another claim"]);
    }

    #[test]
    fn quiet_when_bound() {
        check(&RULE, &["{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data, namespace: shop}, spec: {volumeName: pv-7}, status: {phase: Bound}}"])
            .finds_nothing();
    }
}
