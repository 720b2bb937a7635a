use std::time::Duration;

use serde_json::Value;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::admission::webhooks::configurations;
use crate::kubernetes::time::{PROVISION, RECENT, age};
use crate::snapshot::model::{Container, CustomResource, Pod, condition};
use crate::snapshot::{Amount, Cluster, Object, ObjectRef};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for VerticalPodAutoscalers whose recommendation is not applied to new pods: pods of the last hour have
    /// requests outside of its bounds, and their annotations show that the admission controller did not change them.
    ///
    /// ## Why it matters
    ///
    /// The updater evicts pods whose requests are outside of the bounds. If the admission controller does not set the
    /// requests of the pods that replace them, it evicts those as well, again and again, without an error: the
    /// webhook usually fails open.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get events --field-selector reason=EvictedByVPA` shows the evictions. `kubectl -n NAMESPACE
    /// get pods -o yaml` shows the requests, and no annotation `vpaUpdates`. The log of vpa-admission-controller shows
    /// why.
    ///
    /// ## How to fix
    ///
    /// Make the admission controller work: its pods, its certificate and the `caBundle` of its webhook. Until then, set
    /// `updateMode: Initial` to stop the evictions.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire in the modes `Off` and `Initial`, for pods that were created before the recommendation,
    /// for pods with requests within the bounds, or for pods that are more than an hour old.
    "vpa/not-applied": Warning,
    "a VerticalPodAutoscaler evicts pods, but new pods do not get its recommendation",
    needs: [Pod],
    optional: [Deployment, StatefulSet, DaemonSet, ReplicaSet, MutatingWebhookConfiguration],
    reads_custom: true,
    explained_by: ["webhook/unreachable"],
}

/// The webhook's name in all installations: it is set by the admission controller itself.
const WEBHOOK: &str = "vpa.k8s.io";
/// The annotation of pods that the admission controller changed.
const UPDATES: &str = "vpaUpdates";

fn check(cluster: &Cluster, report: &mut Report) {
    let all =
        cluster.custom().iter().filter(|c| c.kind == "VerticalPodAutoscaler" && c.group() == "autoscaling.k8s.io");
    for autoscaler in all.filter(|vpa| vpa.metadata.deletion_timestamp.is_none() && evicts(vpa)) {
        if let Some(finding) = finding(cluster, autoscaler) {
            report.add(finding);
        }
    }
}

fn evicts(vpa: &CustomResource) -> bool {
    let mode = vpa.spec.pointer("/updatePolicy/updateMode").and_then(Value::as_str).unwrap_or("Auto");
    matches!(mode, "Auto" | "Recreate")
}

/// A container with a request that is outside of the bounds.
struct Deviation {
    container: String,
    resource: &'static str,
    request: Amount,
    target: Amount,
}

fn finding(cluster: &Cluster, vpa: &CustomResource) -> Option<Finding> {
    let conditions = vpa.conditions();
    let provided = condition(&conditions, "RecommendationProvided").filter(|c| c.is_true())?.last_transition_time?;
    let text = |path: &str| vpa.spec.pointer(path).and_then(Value::as_str);
    let target = ObjectRef {
        api_version: text("/targetRef/apiVersion")?.to_string().into(),
        kind: text("/targetRef/kind")?.to_string().into(),
        namespace: Some(vpa.metadata.namespace.to_string()),
        name: text("/targetRef/name")?.to_string(),
    };
    let pods: Vec<&Pod> = cluster.pods_of(cluster.group_of_owner(&target)?).filter(|pod| pod.is_active()).collect();
    let since = provided.max(vpa.metadata.creation_timestamp.unwrap_or(provided));
    let is_new = |pod: &&Pod| {
        let created = pod.metadata.creation_timestamp;
        created.is_some_and(|created| {
            age(cluster.now(), created) < RECENT && created > since && age(created, since) >= PROVISION
        })
    };
    // A pod that was replaced shows that the updater works; one that lasts does not.
    let is_evicted = |pod: &&Pod| is_new(pod) && pod.metadata.annotations.get(UPDATES).is_none();
    let found: Vec<(&Pod, Deviation)> =
        pods.iter().copied().filter(is_evicted).filter_map(|pod| Some((pod, deviation(vpa, pod)?))).collect();
    let (pod, first) = found.first()?;
    // A rollout may have replaced all pods at once; the updater evicts one after the other.
    if found.len() < pods.len() || !is_staggered(&pods) {
        return None;
    }
    let Deviation { container, resource, request, target: wanted } = first;
    let amounts = format!("{} instead of {}", request.text(resource), wanted.text(resource));
    let message = format!(
        "VerticalPodAutoscaler {} evicts pods of {} again and again: new pods do not get its recommendation ({resource} \
         request of container {container} is {amounts})",
        vpa.metadata.name,
        target.title(),
    );
    let mut finding = Finding::warning(vpa.reference(), message)
        .pods(found.len())
        .evidence(
            format!("recommended {resource} request of container {container}: {}", wanted.text(resource)),
            &vpa.reference(),
            "status.recommendation.containerRecommendations",
        )
        .evidence(
            format!("{resource} request is {}, no annotation {UPDATES}", request.text(resource)),
            &pod.reference(),
            &format!("spec.containers[{container}].resources.requests.{resource}"),
        );
    let mut command = kubectl(["get", "mutatingwebhookconfigurations"]);
    for configuration in configurations(cluster).iter().filter(|c| c.webhooks.iter().any(|w| w.name == WEBHOOK)) {
        finding = finding.because(configuration.object.clone());
        let service = configuration.webhooks.iter().find_map(|webhook| webhook.client_config.service.as_ref());
        if let Some(service) = service {
            command = kubectl(["-n", &service.namespace, "describe", "service", &service.name]);
        }
    }
    Some(finding.fix_command(
        "Make the admission controller of the VerticalPodAutoscaler work: check its pods and their log",
        command,
    ))
}

/// Whether the pods were created one after the other.
fn is_staggered(pods: &[&Pod]) -> bool {
    let created = || pods.iter().filter_map(|pod| pod.metadata.creation_timestamp);
    let (Some(first), Some(last)) = (created().min(), created().max()) else { return false };
    age(last, first) >= Duration::from_secs(30)
}

fn deviation(vpa: &CustomResource, pod: &Pod) -> Option<Deviation> {
    let recommended = vpa.status.pointer("/recommendation/containerRecommendations").and_then(Value::as_array)?;
    recommended.iter().find_map(|recommended| {
        let name = recommended.get("containerName").and_then(Value::as_str)?;
        let container = pod.spec.containers.iter().find(|container| container.name == name)?;
        ["cpu", "memory"].into_iter().filter(|resource| controls(vpa, name, resource)).find_map(|resource| {
            let bound =
                |bound: &str| recommended.get(bound)?.get(resource).and_then(Value::as_str).and_then(Amount::parse);
            let request = request(container, resource)?;
            let (low, high, target) = (bound("lowerBound")?, bound("upperBound")?, bound("target")?);
            let is_outside = request < low || request > high;
            is_outside.then(|| Deviation { container: name.to_string(), resource, request, target })
        })
    })
}

fn request(container: &Container, resource: &str) -> Option<Amount> {
    container.resources.requests.get(resource).and_then(Amount::of)
}

/// Whether the autoscaler sets the requests of a container for a resource.
fn controls(vpa: &CustomResource, container: &str, resource: &str) -> bool {
    let policies = vpa.spec.pointer("/resourcePolicy/containerPolicies").and_then(Value::as_array);
    let policies: Vec<&Value> = policies.into_iter().flatten().collect();
    let of = |name: &str| {
        policies.iter().find(|policy| policy.get("containerName").and_then(Value::as_str) == Some(name)).copied()
    };
    let Some(policy) = of(container).or_else(|| of("*")) else { return true };
    let is_off = policy.get("mode").and_then(Value::as_str) == Some("Off");
    let controlled = policy.get("controlledResources").and_then(Value::as_array);
    !is_off && controlled.is_none_or(|all| all.iter().any(|known| known.as_str() == Some(resource)))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    const VPA: &str = "
        apiVersion: autoscaling.k8s.io/v1
        kind: VerticalPodAutoscaler
        metadata: {name: index, namespace: shop, uid: u, creationTimestamp: '2026-11-01T10:00:00Z'}
        spec: {targetRef: {apiVersion: apps/v1, kind: StatefulSet, name: index}, updatePolicy: {updateMode: Recreate}}
        status: {conditions: [{type: RecommendationProvided, status: 'True', lastTransitionTime: '2026-11-01T10:05:00Z'}],
          recommendation: {containerRecommendations: [{containerName: app, target: {cpu: 500m}, lowerBound: {cpu: 400m}, upperBound: {cpu: '1'}}]}}";

    fn pod(name: &str, created: &str, request: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: shop, uid: u, creationTimestamp: '2026-11-21T{created}Z',
            ownerReferences: [{{apiVersion: apps/v1, kind: StatefulSet, name: index, controller: true}}]}},
            spec: {{containers: [{{name: app, resources: {{requests: {{cpu: {request}}}}}}}]}}, status: {{phase: Running}}}}"
        )
    }

    #[test]
    fn fires_when_new_pods_do_not_get_the_recommendation() {
        check(&RULE, &[VPA, &pod("index-0", "11:58:00", "100m"), &pod("index-1", "11:59:00", "100m")]).finds(&[
            "warning VerticalPodAutoscaler shop/index: VerticalPodAutoscaler index evicts pods of StatefulSet index again and \
             again: new pods do not get its recommendation (cpu request of container app is 100m instead of 500m)",
        ]);
    }

    #[test]
    fn quiet_when_the_recommendation_is_applied_or_nothing_is_evicted() {
        let (one, two) = (pod("index-0", "11:58:00", "100m"), pod("index-1", "11:59:00", "100m"));
        let applied =
            |pod: &str| pod.replace("uid: u,", "uid: u, annotations: {vpaUpdates: 'Pod resources updated by index'},");
        check(&RULE, &[VPA, &applied(&one), &applied(&two)]).finds_nothing();
        check(&RULE, &[VPA, &pod("index-0", "11:58:00", "500m"), &pod("index-1", "11:59:00", "450m")]).finds_nothing();
        check(&RULE, &[VPA, &pod("index-0", "08:58:00", "100m"), &pod("index-1", "08:59:00", "100m")]).finds_nothing();
        check(&RULE, &[&VPA.replace("Recreate", "Initial"), &one, &two]).finds_nothing();
        check(&RULE, &[VPA, &one, &pod("index-1", "11:58:01", "100m")]).finds_nothing();
    }
}
