use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::time::{self, SCHEDULE};
use crate::kubernetes::workloads::autoscaler::{Target, condition, target, target_reference};
use crate::snapshot::model::HorizontalPodAutoscaler;
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that `spec.scaleTargetRef` of a HorizontalPodAutoscaler references an existing workload. For kinds that
    /// the rule does not read (custom resources) it uses the controller's condition: `AbleToScale` is False with reason
    /// `FailedGetScale` and a not-found message.
    ///
    /// ## Why it matters
    ///
    /// The autoscaler does not scale. The intended workload keeps its number of replicas under any load.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe hpa NAME` shows the reference and the condition `AbleToScale`.
    ///
    /// ## How to fix
    ///
    /// Correct kind, name or apiVersion in `spec.scaleTargetRef`, or delete the autoscaler if its workload no longer
    /// exists.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire in the first minute of an autoscaler, if the workloads could not be read, or for custom
    /// resources for which the controller reports no error.
    "hpa/target-missing": Error,
    "the target of a HorizontalPodAutoscaler does not exist",
    needs: [HorizontalPodAutoscaler],
    optional: [Deployment, StatefulSet, ReplicaSet, ReplicationController],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    report.not_read(cluster, &[Kind::Deployment, Kind::StatefulSet]);
    for hpa in cluster.all::<HorizontalPodAutoscaler>() {
        let young = hpa.created().is_some_and(|created| time::age(cluster.now(), created) < SCHEDULE);
        if young || hpa.deleted().is_some() {
            continue;
        }
        let reported = not_found(hpa);
        match target(cluster, hpa) {
            Target::Missing => report.add(finding(cluster, hpa).rests_on_absence()),
            Target::Unknown if reported.is_some() => report.add(finding(cluster, hpa)),
            _ => {}
        }
    }
}

/// The controller's message, if it did not find the target.
fn not_found(hpa: &HorizontalPodAutoscaler) -> Option<&str> {
    let able = condition(hpa, "AbleToScale").filter(|c| c.status == "False")?;
    let message = able.message.as_deref().unwrap_or_default();
    let is_not_found = message.contains("not found") || message.contains("no matches for kind");
    (able.reason.as_deref() == Some("FailedGetScale") && is_not_found).then_some(message)
}

fn finding(cluster: &Cluster, hpa: &HorizontalPodAutoscaler) -> Finding {
    let object = hpa.reference();
    let target = target_reference(hpa);
    let namesake = namesake(cluster, &target);
    let hint = namesake.as_ref().map(|other| format!(", but a {} with that name exists", other.kind));
    let message = format!(
        "HorizontalPodAutoscaler {} targets {} {}, which does not exist{}",
        hpa.name(),
        target.kind,
        target.name,
        hint.unwrap_or_default()
    );
    let mut finding = Finding::error(object.clone(), message)
        .evidence(
            format!("spec.scaleTargetRef is {} {} {}", target.api_version, target.kind, target.name),
            &object,
            "spec.scaleTargetRef",
        )
        .since(condition(hpa, "AbleToScale").and_then(|c| c.last_transition_time.as_ref()).map(|t| t.0));
    if let Some(message) = not_found(hpa) {
        finding = finding.evidence(words::shorten(message, 300), &object, "status.conditions[AbleToScale]");
    }
    finding
        .fix_command(
            "Set spec.scaleTargetRef to an existing workload",
            kubectl(["-n", hpa.namespace(), "edit", "hpa", hpa.name()]),
        )
        .fix_command(
            "Or delete the autoscaler, if its workload was removed permanently",
            kubectl(["-n", hpa.namespace(), "delete", "hpa", hpa.name()]),
        )
}

/// A workload of another kind (or API group) with the name of the target.
fn namesake(cluster: &Cluster, target: &ObjectRef) -> Option<ObjectRef> {
    let workloads = cluster.workloads_in(target.namespace());
    let scalable = |object: &ObjectRef| [Kind::Deployment, Kind::StatefulSet].iter().any(|kind| object.is(*kind));
    workloads.into_iter().map(|w| w.object).find(|object| object.name == target.name && scalable(object))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    fn hpa(api: &str, kind: &str, more: &str) -> String {
        format!(
            "
            apiVersion: autoscaling/v2
            kind: HorizontalPodAutoscaler
            metadata: {{name: web, namespace: shop, creationTimestamp: '2026-11-21T11:00:00Z'}}
            spec:
              maxReplicas: 3
              scaleTargetRef: {{apiVersion: {api}, kind: {kind}, name: web}}{more}"
        )
    }

    const WEB: &str = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop}}";
    const NOT_FOUND: &str = "
            status:
              desiredReplicas: 0
              conditions:
              - type: AbleToScale
                status: 'False'
                reason: FailedGetScale
                message: 'the HPA controller was unable to get the target''s current scale: rollouts.argoproj.io \"web\" not found'";

    #[test]
    fn fires_when_the_target_does_not_exist() {
        check(&RULE, &[&hpa("apps/v1", "Deployment", "")]).finds(&[
            "error HorizontalPodAutoscaler shop/web: HorizontalPodAutoscaler web targets Deployment web, which does \
             not exist",
        ]);
        check(&RULE, &[&hpa("apps/v1", "StatefulSet", ""), WEB]).finds(&[
            "error HorizontalPodAutoscaler shop/web: HorizontalPodAutoscaler web targets StatefulSet web, which does \
             not exist, but a Deployment with that name exists",
        ]);
    }

    #[test]
    fn fires_for_a_custom_resource_when_the_controller_reports_it() {
        check(&RULE, &[&hpa("argoproj.io/v1alpha1", "Rollout", NOT_FOUND)]).finds(&[
            "error HorizontalPodAutoscaler shop/web: HorizontalPodAutoscaler web targets Rollout web, which does not \
             exist",
        ]);
    }

    #[test]
    fn quiet_when_it_exists() {
        check(&RULE, &[&hpa("apps/v1", "Deployment", ""), WEB]).finds_nothing();
        check(&RULE, &[&hpa("apps/v1", "Deployment", NOT_FOUND), WEB]).finds_nothing();
    }

    #[test]
    fn quiet_for_a_custom_resource_without_an_error() {
        check(&RULE, &[&hpa("argoproj.io/v1alpha1", "Rollout", "")]).finds_nothing();
    }

    #[test]
    fn quiet_when_deployments_cannot_be_read() {
        let said = TestCluster::new(&[&hpa("apps/v1", "Deployment", "")]).forbid(Kind::Deployment).check(&RULE);
        said.finds_nothing();
        assert_eq!(said.gaps(), ["Deployment forbidden"]);
    }

    #[test]
    fn quiet_in_its_first_minute() {
        TestCluster::new(&[&hpa("apps/v1", "Deployment", "")]).now("2026-11-21T11:00:30Z").check(&RULE).finds_nothing();
    }
}
