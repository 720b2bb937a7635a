use serde_json::Value;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::time::{self, RECENT};
use crate::kubernetes::workloads::autoscaler::{Target, target, target_reference};
use crate::snapshot::model::{CustomResource, HorizontalPodAutoscaler};
use crate::snapshot::{Cluster, Object, ObjectRef};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for Argo CD Applications that reset the replicas which a HorizontalPodAutoscaler sets: the Application
    /// has `selfHeal`, has repeatedly healed the target of an autoscaler, and does not ignore `spec.replicas`.
    ///
    /// ## Why it matters
    ///
    /// The manifest in Git has `spec.replicas`. Argo CD applies it whenever the autoscaler has changed the number, the
    /// autoscaler changes it again, and under load the workload loses pods every few minutes. Between two syncs
    /// everything is Synced and Healthy.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get events --field-selector reason=ScalingReplicaSet` shows the pods come and go.
    /// `status.operationState.operation.sync.autoHealAttemptsCount` of the Application grows.
    ///
    /// ## How to fix
    ///
    /// Remove `spec.replicas` from the manifest in Git, or add `/spec/replicas` of the workload to
    /// `spec.ignoreDifferences` of the Application, with the sync option `RespectIgnoreDifferences=true`.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire if the Application ignores differences of `spec.replicas`, does not heal itself, healed
    /// the workload fewer than three times, or if the autoscaler has not scaled in the last hour and agrees with the
    /// number of replicas.
    "hpa/replicas-reset": Warning,
    "Argo CD resets the replicas that a HorizontalPodAutoscaler sets",
    needs: [HorizontalPodAutoscaler],
    optional: [Deployment, StatefulSet, ReplicaSet],
    reads_custom: true,
    explained_by: ["hpa/replicas-reset"],
}

/// How many automated heals in a row are a conflict.
const HEALS: i64 = 3;

fn check(cluster: &Cluster, report: &mut Report) {
    let healing: Vec<&CustomResource> = cluster.custom().iter().filter(|custom| heals(custom) >= HEALS).collect();
    if healing.is_empty() {
        return;
    }
    for hpa in cluster.all::<HorizontalPodAutoscaler>().iter().filter(|hpa| hpa.deleted().is_none()) {
        let reference = target_reference(hpa);
        let Target::Found { replicas, .. } = target(cluster, hpa) else { continue };
        let Some(desired) = hpa.status.as_ref().map(|status| status.desired_replicas) else { continue };
        if replicas == 0 || !scales(cluster, hpa, desired, replicas) {
            continue;
        }
        for application in healing.iter().filter(|application| healed(application, &reference)) {
            report.add(of_application(application, hpa, &reference, desired, replicas));
            report.add(of_autoscaler(application, hpa, &reference, desired, replicas));
        }
    }
}

/// How often an Application with `selfHeal` has healed in a row; 0 for other resources.
fn heals(custom: &CustomResource) -> i64 {
    let is_application = custom.group() == "argoproj.io" && custom.kind == "Application";
    let self_heal = custom.spec.pointer("/syncPolicy/automated/selfHeal").and_then(Value::as_bool) == Some(true);
    let attempts = custom.status.pointer("/operationState/operation/sync/autoHealAttemptsCount");
    if is_application && self_heal { attempts.and_then(Value::as_i64).unwrap_or(0) } else { 0 }
}

/// Whether the autoscaler wants another number than the target has now, or has scaled recently.
fn scales(cluster: &Cluster, hpa: &HorizontalPodAutoscaler, desired: i32, replicas: i32) -> bool {
    let scaled = hpa.status.as_ref().and_then(|status| status.last_scale_time.as_ref());
    desired != replicas || scaled.is_some_and(|scaled| time::age(cluster.now(), scaled.0) < RECENT)
}

/// Whether the last heal of an Application applied this object, and its replicas are not ignored.
fn healed(application: &CustomResource, target: &ObjectRef) -> bool {
    let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).map(str::to_string);
    let resources = application.status.pointer("/operationState/operation/sync/resources").and_then(Value::as_array);
    let is_target = |resource: &Value| {
        text(resource, "kind").as_deref() == Some(target.kind.as_ref())
            && text(resource, "name").as_deref() == Some(target.name.as_str())
            && text(resource, "group").unwrap_or_default() == target.group()
            && text(resource, "namespace")
                .is_none_or(|namespace| namespace.is_empty() || namespace == target.namespace())
    };
    let ignored = application.spec.get("ignoreDifferences").and_then(Value::as_array);
    let ignores = |difference: &Value| {
        let applies = text(difference, "kind").is_none_or(|kind| kind == "*" || kind == target.kind.as_ref());
        // By path, by expression, or by the controller that owns the field.
        let what = difference.to_string();
        applies && (what.contains("replicas") || what.contains("managedFieldsManagers"))
    };
    resources.into_iter().flatten().any(is_target) && !ignored.into_iter().flatten().any(ignores)
}

fn of_application(
    application: &CustomResource,
    hpa: &HorizontalPodAutoscaler,
    target: &ObjectRef,
    desired: i32,
    replicas: i32,
) -> Finding {
    let object = application.reference();
    let message = format!(
        "Application {} resets the replicas of {target} (self-heal), which HorizontalPodAutoscaler {} sets",
        application.metadata.name,
        hpa.name()
    );
    Finding::warning(object.clone(), message)
        .key(target.to_string())
        .evidence("selfHeal applies every difference from Git", &object, "spec.syncPolicy.automated.selfHeal")
        .evidence(
            format!("{} automated heals in a row, the last one of {}", heals(application), target.title()),
            &object,
            "status.operationState.operation.sync.autoHealAttemptsCount",
        )
        .evidence(
            format!("desiredReplicas is {desired}, spec.replicas of {} is {replicas}", target.title()),
            &hpa.reference(),
            "status.desiredReplicas",
        )
        .fix(format!("Remove spec.replicas from the manifest of {} in Git, if it is set there", target.title()))
        .fix(format!(
            "Or add {{group: {}, kind: {}, name: {}, jsonPointers: [/spec/replicas]}} to spec.ignoreDifferences of the \
             Application, and RespectIgnoreDifferences=true to its syncOptions",
            target.group(),
            target.kind,
            target.name
        ))
}

fn of_autoscaler(
    application: &CustomResource,
    hpa: &HorizontalPodAutoscaler,
    target: &ObjectRef,
    desired: i32,
    replicas: i32,
) -> Finding {
    let object = hpa.reference();
    let message = format!(
        "HorizontalPodAutoscaler {} scales {} again and again: Application {} resets its replicas",
        hpa.name(),
        target.title(),
        application.metadata.name
    );
    Finding::warning(object.clone(), message)
        .key("reset")
        .evidence(
            format!("desiredReplicas is {desired}, spec.replicas of {} is {replicas}", target.title()),
            &object,
            "status.desiredReplicas",
        )
        .because(application.reference())
        .fix("Change it at its owner, the Application: the limits of the autoscaler are not the cause")
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    const WEB: &str =
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop, uid: u}, spec: {replicas: 2}}";
    const HPA: &str = "
        apiVersion: autoscaling/v2
        kind: HorizontalPodAutoscaler
        metadata: {name: web, namespace: shop, uid: u}
        spec: {maxReplicas: 9, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}}
        status: {currentReplicas: 5, desiredReplicas: 5, conditions: []}";
    const APPLICATION: &str = "
        apiVersion: argoproj.io/v1alpha1
        kind: Application
        metadata: {name: shop, namespace: argocd, uid: u}
        spec: {syncPolicy: {automated: {selfHeal: true}}}
        status: {operationState: {phase: Succeeded, operation: {sync: {autoHealAttemptsCount: 40,
          resources: [{group: apps, kind: Deployment, name: web}]}}}}";

    #[test]
    fn fires_when_self_heal_fights_the_autoscaler() {
        let said = check(&RULE, &[WEB, HPA, APPLICATION]);
        said.finds(&[
            "warning Application argocd/shop: Application shop resets the replicas of Deployment shop/web (self-heal), which \
             HorizontalPodAutoscaler web sets",
            "warning HorizontalPodAutoscaler shop/web: HorizontalPodAutoscaler web scales Deployment web again and again: \
             Application shop resets its replicas",
        ]);
        assert_eq!(said.0.findings[1].caused_by, [said.0.findings[0].id.clone()]);
    }

    #[test]
    fn quiet_when_the_field_is_ignored_or_not_healed() {
        let ignored = APPLICATION.replace(
            "spec: {",
            "spec: {ignoreDifferences: [{group: apps, kind: Deployment, jsonPointers: [/spec/replicas]}], ",
        );
        check(&RULE, &[WEB, HPA, &ignored]).finds_nothing();
        check(&RULE, &[WEB, HPA, &APPLICATION.replace("Count: 40", "Count: 1")]).finds_nothing();
        check(&RULE, &[WEB, HPA, &APPLICATION.replace("name: web}", "name: api}")]).finds_nothing();
        check(&RULE, &[&WEB.replace("replicas: 2", "replicas: 5"), HPA, APPLICATION]).finds_nothing();
    }
}
