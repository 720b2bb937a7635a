use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::storage::is_default;
use crate::snapshot::model::{PersistentVolumeClaim, StatefulSet, StorageClass};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::list;

declare_rule! {
    /// ## What it checks
    ///
    /// That exactly one StorageClass is the default: not several, and not none where a StatefulSet needs one for claims
    /// that it has yet to create.
    ///
    /// ## Why it matters
    ///
    /// With several defaults Kubernetes uses the newest (before 1.26 it rejected the claim), so claims get the class
    /// that was created last. Without a default, claims that set no class stay Pending forever.
    ///
    /// ## How to confirm
    ///
    /// `kubectl get storageclass` marks the default classes.
    ///
    /// ## How to fix
    ///
    /// Set the annotation `storageclass.kubernetes.io/is-default-class` to `true` on one class and to `false` on the
    /// others.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire where no claim needs a default class. `pvc/pending` reports existing claims that wait for
    /// one.
    "storageclass/default": Warning,
    "several default StorageClasses, or none although one is needed",
    needs: [StorageClass],
    optional: [PersistentVolumeClaim, StatefulSet],
    explained_by: ["pvc/pending"],
}

const ANNOTATION: &str = "storageclass.kubernetes.io/is-default-class";

fn check(cluster: &Cluster, report: &mut Report) {
    let mut defaults: Vec<&StorageClass> = cluster.all::<StorageClass>().iter().filter(|c| is_default(c)).collect();
    // The newest one wins, then the first by name (DefaultStorageClass admission).
    defaults.sort_by(|a, b| b.created().cmp(&a.created()).then_with(|| a.name().cmp(b.name())));
    match defaults.as_slice() {
        [] if cluster.covers_all(Kind::StorageClass) => without(cluster, report),
        [winner, others @ ..] if !others.is_empty() => report.add(several(winner, others)),
        _ => {}
    }
}

fn several(winner: &StorageClass, others: &[&StorageClass]) -> Finding {
    let mut names: Vec<&str> = others.iter().map(|class| class.name()).chain([winner.name()]).collect();
    names.sort_unstable();
    let message = format!(
        "StorageClasses {} are all marked as default: claims without a class use {}, the newest",
        list(&names, 4),
        winner.name()
    );
    let mut finding = Finding::warning(winner.reference(), message);
    for class in [winner].into_iter().chain(others.iter().copied()) {
        let text = format!("StorageClass {} is marked as default", class.name());
        finding = finding.evidence(text, &class.reference(), &format!("metadata.annotations[{ANNOTATION}]"));
    }
    for class in others {
        finding = finding.fix_command(
            format!("To make {} the default, remove the default annotation from {}", winner.name(), class.name()),
            kubectl(["annotate", "--overwrite", "storageclass", class.name(), &format!("{ANNOTATION}=false")]),
        );
    }
    finding
}

/// StatefulSets whose next claim needs a default class.
fn without(cluster: &Cluster, report: &mut Report) {
    for set in cluster.all::<StatefulSet>().iter().filter(|set| set.metadata.is_live()) {
        let (namespace, name) = (&set.metadata.namespace, &set.metadata.name);
        if set.spec.replicas == Some(0) || set.metadata.deletion_timestamp.is_some() {
            continue;
        }
        for template in set.spec.volume_claim_templates.iter().filter(|t| t.spec.storage_class_name.is_none()) {
            let annotated = template.metadata.annotations.get("volume.beta.kubernetes.io/storage-class").is_some();
            let first = format!("{}-{name}-{}", template.metadata.name, set.spec.ordinals.start);
            // A first claim that is bound without a class shows that volumes are created manually.
            let claim = cluster.get::<PersistentVolumeClaim>(namespace, &first).found();
            if annotated || claim.is_some_and(|claim| crate::kubernetes::storage::phase(claim) == "Bound") {
                continue;
            }
            let object = set.reference();
            let message = format!(
                "StatefulSet {name} needs a default StorageClass, but none exists: volumeClaimTemplate {} sets no \
                 storageClassName",
                template.metadata.name
            );
            report.add(
                Finding::warning(object.clone(), message)
                    .key(template.metadata.name.as_str())
                    .evidence(
                        "storageClassName is not set",
                        &object,
                        &format!("spec.volumeClaimTemplates[{}].spec.storageClassName", template.metadata.name),
                    )
                    .because(ObjectRef::new(Kind::PersistentVolumeClaim, namespace, &first))
                    .fix_command(
                        "Make a StorageClass the default",
                        kubectl(["annotate", "--overwrite", "storageclass", "NAME", &format!("{ANNOTATION}=true")]),
                    )
                    .rests_on_absence(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    fn class(name: &str, created: &str, default: bool) -> String {
        format!(
            "
            apiVersion: storage.k8s.io/v1
            kind: StorageClass
            metadata:
              name: {name}
              creationTimestamp: '{created}'
              annotations: {{storageclass.kubernetes.io/is-default-class: '{default}'}}
            provisioner: x.io/y"
        )
    }

    const SET: &str = "
        apiVersion: apps/v1
        kind: StatefulSet
        metadata: {name: db, namespace: shop, uid: s}
        spec: {volumeClaimTemplates: [{metadata: {name: data}, spec: {}}]}";

    #[test]
    fn fires_for_two_defaults() {
        check(&RULE, &[&class("old", "2026-01-01T00:00:00Z", true), &class("new", "2026-02-01T00:00:00Z", true)]).finds(&[
            "warning StorageClass new: StorageClasses new and old are all marked as default: claims without a class use new, \
             the newest",
        ]);
    }

    #[test]
    fn quiet_for_one_default() {
        check(&RULE, &[&class("old", "2026-01-01T00:00:00Z", true), &class("new", "2026-02-01T00:00:00Z", false), SET])
            .finds_nothing();
    }

    #[test]
    fn fires_when_a_stateful_set_needs_one() {
        let other = class("other", "2026-01-01T00:00:00Z", false);
        check(&RULE, &[SET, &other])
            .finds(&["warning StatefulSet shop/db: StatefulSet db needs a default StorageClass, but \
            none exists: volumeClaimTemplate data sets no storageClassName"]);
    }

    #[test]
    fn quiet_when_none_is_needed_or_known() {
        check(&RULE, &[&SET.replace("spec: {}", "spec: {storageClassName: other}")]).finds_nothing();
        TestCluster::new(&[SET]).forbid(Kind::StorageClass).check(&RULE).finds_nothing();
        let bound = "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data-db-0, namespace: shop}, status: {phase: Bound}}";
        check(&RULE, &[SET, bound]).finds_nothing();
    }
}
