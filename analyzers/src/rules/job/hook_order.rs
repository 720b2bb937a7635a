use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::workloads::references::{Reference, references};
use crate::snapshot::model::{ConfigMap, PersistentVolumeClaim, Secret, ServiceAccount};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef, Workload};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks rendered Helm charts for Jobs that are `pre-install` hooks (annotation `helm.sh/hook`) and require a
    /// ConfigMap, Secret, ServiceAccount or claim of the same chart that is not a hook, or a hook with a higher weight.
    ///
    /// ## Why it matters
    ///
    /// Helm runs the hook and waits for it before it creates the other objects of the chart. The pod of the hook cannot
    /// start without them, and the installation times out: "failed pre-install". Upgrades work, because the objects
    /// then exist.
    ///
    /// ## How to confirm
    ///
    /// `helm template` shows the annotations of both objects.
    ///
    /// ## How to fix
    ///
    /// Make the required object a `pre-install` hook with a lower `helm.sh/hook-weight`, or make the Job a
    /// `post-install` hook.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for objects of a cluster (see `pod/missing-reference`), for optional references, for
    /// hooks that run after the installation or before upgrades only, or for objects that the files do not contain.
    "job/hook-order": Warning,
    "a Helm pre-install hook requires an object that is created after it",
    needs: [Job],
    optional: [ConfigMap, Secret, ServiceAccount, PersistentVolumeClaim],
    explained_by: [],
}

const HOOK: &str = "helm.sh/hook";
const WEIGHT: &str = "helm.sh/hook-weight";
const PHASE: &str = "pre-install";

fn check(cluster: &Cluster, report: &mut Report) {
    for workload in cluster.workloads() {
        if workload.metadata.is_live() || !is_hook(cluster, &workload.object) {
            continue;
        }
        let mut seen: Vec<ObjectRef> = Vec::new();
        for reference in references(&workload.template.spec).into_iter().filter(|reference| !reference.optional) {
            let object = reference.object(workload.object.namespace());
            if is_later(cluster, &workload.object, &reference) && !seen.contains(&object) {
                report.add(finding(cluster, &workload, &reference, &object));
                seen.push(object);
            }
        }
    }
}

fn is_hook(cluster: &Cluster, object: &ObjectRef) -> bool {
    let hook = cluster.annotation_of(object, HOOK);
    hook.is_some_and(|hook| hook.split(',').any(|phase| phase.trim() == PHASE))
}

fn weight(cluster: &Cluster, object: &ObjectRef) -> i64 {
    cluster.annotation_of(object, WEIGHT).and_then(|weight| weight.trim().parse().ok()).unwrap_or(0)
}

/// Whether the files contain the object, and Helm creates it after the hook.
fn is_later(cluster: &Cluster, hook: &ObjectRef, reference: &Reference) -> bool {
    fn is_rendered<T: Object>(cluster: &Cluster, namespace: &str, name: &str) -> bool {
        cluster.get::<T>(namespace, name).found().is_some_and(|object| !object.is_live())
    }
    let (namespace, name) = (hook.namespace(), reference.name);
    let rendered = match reference.kind {
        Kind::ConfigMap => is_rendered::<ConfigMap>(cluster, namespace, name),
        Kind::Secret => is_rendered::<Secret>(cluster, namespace, name),
        Kind::ServiceAccount => is_rendered::<ServiceAccount>(cluster, namespace, name),
        Kind::PersistentVolumeClaim => is_rendered::<PersistentVolumeClaim>(cluster, namespace, name),
        _ => false,
    };
    let object = reference.object(namespace);
    // Hooks of the same weight are sorted by kind: a Job comes after all of these kinds.
    rendered && (!is_hook(cluster, &object) || weight(cluster, &object) > weight(cluster, hook))
}

fn finding(cluster: &Cluster, workload: &Workload, reference: &Reference, object: &ObjectRef) -> Finding {
    let hook = &workload.object;
    let weights = (weight(cluster, hook), weight(cluster, object));
    let when = if is_hook(cluster, object) {
        format!("is a hook of weight {}, after this one of weight {}", weights.1, weights.0)
    } else {
        "is created after the hooks".to_string()
    };
    let message = format!("{} is a Helm {PHASE} hook and requires {}, which {when}", hook.title(), object.title());
    Finding::warning(hook.clone(), message)
        .key(object.to_string())
        .evidence(format!("{HOOK} contains {PHASE}"), hook, "metadata.annotations")
        .evidence(
            format!("{} references {}", reference.place(), object.title()),
            hook,
            &format!("spec.template.{}", reference.path()),
        )
        .fix(format!(
            "Make {} a hook of the same phase with a lower weight ({HOOK}: {PHASE}, {WEIGHT}: \"{}\")",
            object.title(),
            weights.0.saturating_sub(1)
        ))
        .fix(format!("Or make {} a post-install hook", hook.title()))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Origin;
    use crate::testing::{Findings, TestCluster};

    const JOB: &str = "
        apiVersion: batch/v1
        kind: Job
        metadata: {name: migrate, namespace: shop, annotations: {helm.sh/hook: 'pre-install,pre-upgrade', helm.sh/hook-weight: '-2'}}
        spec: {template: {spec: {containers: [{name: c, envFrom: [{configMapRef: {name: env}}]}]}}}";
    const CONFIG: &str = "{apiVersion: v1, kind: ConfigMap, metadata: {name: env, namespace: shop, annotations: {}}}";

    fn said(documents: &[&str]) -> Findings {
        TestCluster::new(documents).origin(Origin::Manifests).check(&RULE)
    }

    #[test]
    fn fires_when_the_object_is_created_after_the_hook() {
        said(&[JOB, CONFIG]).finds(&[
            "warning Job shop/migrate: Job migrate is a Helm pre-install hook and requires ConfigMap env, which is created after \
             the hooks",
        ]);
        let later = CONFIG.replace("annotations: {}", "annotations: {helm.sh/hook: pre-install}");
        said(&[JOB, &later]).finds(&[
            "warning Job shop/migrate: Job migrate is a Helm pre-install hook and requires ConfigMap env, which is a hook of \
             weight 0, after this one of weight -2",
        ]);
    }

    #[test]
    fn quiet_when_it_is_created_before_or_not_part_of_the_chart() {
        let before =
            CONFIG.replace("annotations: {}", "annotations: {helm.sh/hook: pre-install, helm.sh/hook-weight: '-5'}");
        said(&[JOB, &before]).finds_nothing();
        said(&[JOB]).finds_nothing();
        said(&[&JOB.replace("pre-install,pre-upgrade", "post-install"), CONFIG]).finds_nothing();
        said(&[&JOB.replace("name: env}", "name: env, optional: true}"), CONFIG]).finds_nothing();
    }
}
