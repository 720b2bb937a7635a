use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::time::{self, SCHEDULE};
use crate::kubernetes::workloads::autoscaler::{Target, condition, target, target_reference};
use crate::snapshot::model::HorizontalPodAutoscaler;
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// That `spec.scaleTargetRef` of a HorizontalPodAutoscaler names a workload that exists. For kinds that are not known
    /// here (custom resources) the controller's own words decide: `AbleToScale` False with `FailedGetScale`, not found.
    ///
    /// ## Why it matters
    ///
    /// The autoscaler does nothing. Whatever was meant to be scaled keeps its number of replicas under any load.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe hpa NAME` shows the reference and the condition `AbleToScale`.
    ///
    /// ## How to fix
    ///
    /// Correct kind, name or apiVersion in `spec.scaleTargetRef`, or delete an autoscaler whose workload is gone.
    ///
    /// ## Exceptions
    ///
    /// In the first minute of an autoscaler, where the workloads could not be read, and for custom resources of which the
    /// controller does not complain.
    "hpa/target-missing": Error,
    "a HorizontalPodAutoscaler scales something that does not exist",
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
        let said = not_found(hpa);
        match target(cluster, hpa) {
            Target::Missing => report.add(finding(cluster, hpa).rests_on_absence()),
            Target::Unknown if said.is_some() => report.add(finding(cluster, hpa)),
            _ => {}
        }
    }
}

/// The controller's words, if it did not find the target.
fn not_found(hpa: &HorizontalPodAutoscaler) -> Option<&str> {
    let able = condition(hpa, "AbleToScale").filter(|c| c.status == "False")?;
    let message = able.message.as_deref().unwrap_or_default();
    let says = message.contains("not found") || message.contains("no matches for kind");
    (able.reason.as_deref() == Some("FailedGetScale") && says).then_some(message)
}

fn finding(cluster: &Cluster, hpa: &HorizontalPodAutoscaler) -> Finding {
    let object = hpa.reference();
    let target = target_reference(hpa);
    let namesake = namesake(cluster, &target);
    let hint = namesake.as_ref().map(|other| format!(", but there is a {} of that name", other.kind));
    let message = format!(
        "HorizontalPodAutoscaler {} scales {} {}, which does not exist{}",
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
            "Name the workload that is to be scaled",
            kubectl(["-n", hpa.namespace(), "edit", "hpa", hpa.name()]),
        )
        .fix_command(
            "Or delete the autoscaler, if its workload is gone for good",
            kubectl(["-n", hpa.namespace(), "delete", "hpa", hpa.name()]),
        )
}

/// A workload of another kind (or API group) with the name that was asked for.
fn namesake(cluster: &Cluster, target: &ObjectRef) -> Option<ObjectRef> {
    let workloads = cluster.workloads_in(target.namespace());
    let scalable = |object: &ObjectRef| [Kind::Deployment, Kind::StatefulSet].iter().any(|kind| object.is(*kind));
    workloads.into_iter().map(|w| w.object).find(|object| object.name == target.name && scalable(object))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{World, check};

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
            "error HorizontalPodAutoscaler shop/web: HorizontalPodAutoscaler web scales Deployment web, which does not exist",
        ]);
        check(&RULE, &[&hpa("apps/v1", "StatefulSet", ""), WEB]).finds(&[
            "error HorizontalPodAutoscaler shop/web: HorizontalPodAutoscaler web scales StatefulSet web, which does not \
             exist, but there is a Deployment of that name",
        ]);
    }

    #[test]
    fn fires_for_a_custom_resource_when_the_controller_says_so() {
        check(&RULE, &[&hpa("argoproj.io/v1alpha1", "Rollout", NOT_FOUND)]).finds(&[
            "error HorizontalPodAutoscaler shop/web: HorizontalPodAutoscaler web scales Rollout web, which does not exist",
        ]);
    }

    #[test]
    fn quiet_when_it_exists() {
        check(&RULE, &[&hpa("apps/v1", "Deployment", ""), WEB]).finds_nothing();
        check(&RULE, &[&hpa("apps/v1", "Deployment", NOT_FOUND), WEB]).finds_nothing();
    }

    #[test]
    fn quiet_for_a_custom_resource_without_complaint() {
        check(&RULE, &[&hpa("argoproj.io/v1alpha1", "Rollout", "")]).finds_nothing();
    }

    #[test]
    fn quiet_when_deployments_cannot_be_read() {
        let said = World::new(&[&hpa("apps/v1", "Deployment", "")]).forbid(Kind::Deployment).check(&RULE);
        said.finds_nothing();
        assert_eq!(said.gaps(), ["Deployment forbidden"]);
    }

    #[test]
    fn quiet_in_its_first_minute() {
        World::new(&[&hpa("apps/v1", "Deployment", "")]).now("2026-11-21T11:00:30Z").check(&RULE).finds_nothing();
    }
}
