use std::collections::BTreeSet;

use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscalerCondition, MetricSpec};

use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::time::{self, START};
use crate::kubernetes::workloads::autoscaler::{Target, condition, target, target_reference};
use crate::snapshot::model::{APIService, HorizontalPodAutoscaler, LimitRange, Pod, PodSpec, PodTemplate};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for HorizontalPodAutoscalers without the metrics they scale on: the condition `ScalingActive` has been
    /// False for more than two minutes, or the autoscaler uses utilization and a container of its pods has no request
    /// for that resource.
    ///
    /// ## Why it matters
    ///
    /// Without metrics the autoscaler does not scale. If one of several metrics fails, it still scales up on the others
    /// but never scales down.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe hpa NAME` shows the condition and `<unknown>` as the metric. `kubectl top pods`
    /// and `kubectl get apiservice v1beta1.metrics.k8s.io` show whether a metrics server is available.
    ///
    /// ## How to fix
    ///
    /// Install or fix the metrics server (or the adapter for custom or external metrics). Utilization is a percentage
    /// of the request: set a request for that resource on every container of the pod, including sidecars, or scale on
    /// `ContainerResource` or `averageValue`.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire if the target is scaled to zero (`ScalingDisabled`) or does not exist (see
    /// `hpa/target-missing`), or in the first two minutes. Requests are read from the pods, because a LimitRange may
    /// have set them.
    "hpa/no-metrics": Error,
    "a HorizontalPodAutoscaler has no metrics",
    needs: [HorizontalPodAutoscaler],
    optional: [
        Deployment, StatefulSet, ReplicaSet, ReplicationController, Pod, LimitRange, APIService,
    ],
    explained_by: [
        "apiservice/unavailable", "apiservice/taken-over", "hpa/ambiguous-selector", "pod/*",
        "workload/cannot-create-pods", "workload/unavailable"
    ],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for hpa in cluster.all::<HorizontalPodAutoscaler>().iter().filter(|hpa| hpa.deleted().is_none()) {
        let target = target(cluster, hpa);
        let scaled_to_zero = matches!(target, Target::Found { replicas: 0, .. });
        let unable = condition(hpa, "AbleToScale").is_some_and(|c| c.status == "False");
        if scaled_to_zero || unable || matches!(target, Target::Missing) {
            continue;
        }
        if let Some(finding) = judge(cluster, hpa, &target) {
            report.add(finding);
        }
    }
}

fn judge(cluster: &Cluster, hpa: &HorizontalPodAutoscaler, target: &Target) -> Option<Finding> {
    let active = condition(hpa, "ScalingActive");
    let failed = active.filter(|c| c.status == "False" && c.reason.as_deref() != Some("ScalingDisabled"));
    let metrics = hpa.spec.metrics.as_deref().unwrap_or_default();
    let missing = missing_requests(cluster, hpa, target, metrics);
    if let Some(failed) = failed {
        let since = failed.last_transition_time.as_ref().map(|t| t.0).max(hpa.created());
        let young = since.is_some_and(|since| time::age(cluster.now(), since) < START);
        return (!young).then(|| {
            let finding = without_metrics(cluster, hpa, failed, missing.as_ref());
            prove(finding.since(since), hpa, missing.as_ref(), Some(failed))
        });
    }
    // Other metrics keep the condition True. With a single metric a True condition contradicts the missing request.
    let missing = missing?;
    if active.is_some() && metrics.len() < 2 || active.is_none() && hpa.is_live() {
        return None;
    }
    let message = format!("{} cannot compute {} utilization: {}", subject(hpa), missing.resource, missing.text(hpa));
    Some(prove(Finding::new(Severity::Warning, hpa.reference(), message), hpa, Some(&missing), None))
}

fn subject(hpa: &HorizontalPodAutoscaler) -> String {
    format!("HorizontalPodAutoscaler {}", hpa.name())
}

fn without_metrics(
    cluster: &Cluster,
    hpa: &HorizontalPodAutoscaler,
    failed: &HorizontalPodAutoscalerCondition,
    missing: Option<&MissingRequest>,
) -> Finding {
    let error = failed.message.as_deref().unwrap_or_default();
    let subject = subject(hpa);
    if let Some(group) = absent_api(cluster, error) {
        let also = missing.map(|missing| format!("; also, {}", missing.text(hpa))).unwrap_or_default();
        let message = format!("{subject} has no metrics: API {group} is not served{also}");
        return because_of_api(cluster, Finding::error(hpa.reference(), message), &group);
    }
    if let Some(missing) = missing {
        let message = format!("{subject} cannot compute {} utilization: {}", missing.resource, missing.text(hpa));
        return Finding::error(hpa.reference(), message);
    }
    let reason = failed.reason.as_deref().unwrap_or_default();
    if reason == "AmbiguousSelector" {
        let message = format!("{subject} does not scale ({reason}): {}", words::shorten(error, 250));
        let finding = Finding::error(hpa.reference(), message).because(target_reference(hpa));
        return sharing_pods(cluster, hpa, error).into_iter().fold(finding, Finding::because);
    }
    // The name of a single pod is noise: it differs from pod to pod.
    let core = error.split(" of Pod ").next().unwrap_or(error);
    let core = core.strip_prefix("the HPA was unable to compute the replica count: ").unwrap_or(core);
    let core = without_selector(if core.is_empty() { reason } else { core });
    let state =
        if reason.contains("Metric") { "has no metrics".to_string() } else { format!("does not scale ({reason})") };
    let state = if reason.is_empty() { "has no metrics".to_string() } else { state };
    let mut finding = Finding::error(hpa.reference(), format!("{subject} {state}: {}", words::shorten(&core, 250)));
    if let Some(group) = api_in(error).or_else(|| api_of(reason).map(str::to_string)) {
        finding = because_of_api(cluster, finding, &group);
    }
    let unready = error.contains("unready") || error.contains("did not receive metrics");
    if unready { finding.because(target_reference(hpa)) } else { finding }
}

fn prove(
    mut finding: Finding,
    hpa: &HorizontalPodAutoscaler,
    missing: Option<&MissingRequest>,
    failed: Option<&HorizontalPodAutoscalerCondition>,
) -> Finding {
    let object = hpa.reference();
    if let Some(failed) = failed {
        let (reason, message) = (failed.reason.as_deref(), failed.message.as_deref());
        let text = format!("{}: {}", reason.unwrap_or_default(), words::shorten(message.unwrap_or_default(), 400));
        finding = finding.evidence(text, &object, "status.conditions[ScalingActive]");
    }
    let Some(missing) = missing else {
        return fix_api(finding, failed);
    };
    if failed.and_then(|failed| failed.message.as_deref()).is_some_and(is_not_served) {
        finding = fix_api(finding, failed);
    }
    let target = target_reference(hpa);
    for container in &missing.containers {
        let path = format!("spec.containers[{container}].resources.requests");
        finding = finding.evidence(format!("no {} request", missing.resource), &missing.seen_in, &path);
    }
    finding.fix_command(
        format!("Set resources.requests.{} on every container of the pod", missing.resource),
        kubectl(["-n", hpa.namespace(), "edit", &target.kind.to_lowercase(), &target.name]),
    )
}

/// Advice about the API that serves the metric; none if the metric is not the problem.
fn fix_api(finding: Finding, failed: Option<&HorizontalPodAutoscalerCondition>) -> Finding {
    let reason = failed.and_then(|failed| failed.reason.as_deref()).unwrap_or_default();
    let message = failed.and_then(|failed| failed.message.as_deref()).unwrap_or_default();
    if !reason.is_empty() && !reason.contains("Metric") {
        return match reason {
            "AmbiguousSelector" => {
                finding.fix("Give the targets of the named autoscalers selectors that match only their own pods")
            }
            "InvalidSelector" => finding.fix("Correct spec.selector of the target"),
            _ => finding,
        };
    }
    let group = api_in(message).or_else(|| api_of(reason).map(str::to_string));
    let api = match group.as_deref() {
        Some(group @ ("custom.metrics.k8s.io" | "external.metrics.k8s.io")) => format!("v1beta1.{group}"),
        _ => "v1beta1.metrics.k8s.io".to_string(),
    };
    let text = if api.starts_with("v1beta1.metrics") {
        "Check whether the metrics API is available"
    } else {
        "Check which server provides the metrics API, and whether it knows this metric"
    };
    finding.fix_command(text, kubectl(["get", "apiservices", &api]))
}

/// The API that serves the metrics of a failure: <https://github.com/kubernetes/metrics>.
fn api_of(reason: &str) -> Option<&'static str> {
    match reason {
        "FailedGetResourceMetric" | "FailedGetContainerResourceMetric" => Some("metrics.k8s.io"),
        "FailedGetPodsMetric" | "FailedGetObjectMetric" => Some("custom.metrics.k8s.io"),
        "FailedGetExternalMetric" => Some("external.metrics.k8s.io"),
        _ => None,
    }
}

/// A message without the Go notation of a label selector: `external metric shop/orders/&LabelSelector{…}: reason`.
fn without_selector(message: &str) -> String {
    let Some((before, rest)) = message.split_once("/&LabelSelector{") else { return message.to_string() };
    rest.rsplit_once("}: ").map_or_else(|| before.to_string(), |(_, after)| format!("{before}: {after}"))
}

/// The targets of the other autoscalers in `… are controlled by multiple HPAs: [shop/web shop/worker]`.
fn sharing_pods(cluster: &Cluster, hpa: &HorizontalPodAutoscaler, message: &str) -> Vec<ObjectRef> {
    let names = message.rsplit_once('[').map_or("", |(_, names)| names).trim_end_matches(']').split_whitespace();
    let names = names.filter_map(|name| name.split_once('/')).filter(|(namespace, _)| *namespace == hpa.namespace());
    let others = names.filter_map(|(namespace, name)| cluster.get::<HorizontalPodAutoscaler>(namespace, name).found());
    others.flat_map(|other| [target_reference(other), other.reference()]).collect()
}

/// Containers without the request that a metric is a percentage of.
struct MissingRequest {
    resource: String,
    containers: BTreeSet<String>,
    seen_in: ObjectRef,
}

impl MissingRequest {
    fn text(&self, hpa: &HorizontalPodAutoscaler) -> String {
        let target = target_reference(hpa);
        let names: Vec<&String> = self.containers.iter().collect();
        let (noun, verb) = if names.len() == 1 { ("container", "has") } else { ("containers", "have") };
        let names = words::list(&names, 4);
        format!("{noun} {names} of {} {} {verb} no {} request", target.kind, target.name, self.resource)
    }
}

fn missing_requests(
    cluster: &Cluster,
    hpa: &HorizontalPodAutoscaler,
    target: &Target,
    metrics: &[MetricSpec],
) -> Option<MissingRequest> {
    let reference = target_reference(hpa);
    let sample: Option<&Pod> = cluster
        .group_of_owner(&reference)
        .and_then(|group| cluster.pods_of(group).find(|pod| pod.is_active() && pod.is_ready()));
    let (spec, seen_in): (&PodSpec, ObjectRef) = match (sample, target) {
        (Some(pod), _) => (&pod.spec, pod.reference()),
        (None, Target::Found { template, .. }) if is_final(cluster, hpa, template) => (&template.spec, reference),
        _ => return None,
    };
    metrics.iter().find_map(|metric| {
        let (resource, container) = utilization(metric)?;
        let lacks = |requests: &crate::snapshot::model::ResourceRequirements| {
            !requests.requests.contains_key(resource) && !requests.limits.contains_key(resource)
        };
        // Pod-level requests replace those of the containers (KEP-2837).
        if !lacks(&spec.resources) {
            return None;
        }
        let containers = spec.containers.iter().filter(|c| container.is_none_or(|name| c.name == name));
        let containers: BTreeSet<String> =
            containers.filter(|c| lacks(&c.resources)).map(|c| c.name.to_string()).collect();
        (!containers.is_empty()).then(|| MissingRequest {
            resource: resource.to_string(),
            containers,
            seen_in: seen_in.clone(),
        })
    })
}

/// Whether the template has the final requests of its pods: no LimitRange in the namespace sets defaults.
fn is_final(cluster: &Cluster, hpa: &HorizontalPodAutoscaler, template: &PodTemplate) -> bool {
    let namespace = hpa.namespace();
    !template.spec.containers.is_empty()
        && cluster.covers(Kind::LimitRange, namespace)
        && cluster.in_namespace::<LimitRange>(namespace).is_empty()
}

/// Resource and container of a metric that is a percentage of requests.
fn utilization(metric: &MetricSpec) -> Option<(&str, Option<&str>)> {
    if let Some(resource) = &metric.resource {
        return (resource.target.type_ == "Utilization").then_some((resource.name.as_str(), None));
    }
    let resource = metric.container_resource.as_ref()?;
    (resource.target.type_ == "Utilization").then_some((resource.name.as_str(), Some(resource.container.as_str())))
}

const METRICS_APIS: [&str; 3] = ["custom.metrics.k8s.io", "external.metrics.k8s.io", "metrics.k8s.io"];

/// The metrics API in a message.
fn api_in(message: &str) -> Option<String> {
    let named = METRICS_APIS.iter().find(|group| message.contains(*group));
    let described = [
        ("resource metrics API", "metrics.k8s.io"),
        ("custom metrics API", "custom.metrics.k8s.io"),
        ("external metrics API", "external.metrics.k8s.io"),
    ];
    let described = described.iter().find(|(words, _)| message.contains(words)).map(|(_, group)| *group);
    named.copied().or(described).map(str::to_string)
}

/// The metrics API in a message, if the API server does not serve it.
fn absent_api(cluster: &Cluster, message: &str) -> Option<String> {
    let group = api_in(message)?;
    let served = cluster.all::<APIService>().iter().any(|service| group_of(service) == Some(&group));
    (cluster.covers_all(Kind::APIService) && !served && is_not_served(message)).then_some(group)
}

/// Whether a message is a client's error for an API that the server does not serve.
fn is_not_served(message: &str) -> bool {
    message.contains("could not find the requested resource") || message.contains("no matches for")
}

fn because_of_api(cluster: &Cluster, finding: Finding, group: &str) -> Finding {
    let services = cluster.all::<APIService>().iter().filter(|service| group_of(service) == Some(group));
    services.fold(finding, |finding, service| finding.because(service.reference()))
}

fn group_of(service: &APIService) -> Option<&str> {
    service.spec.as_ref()?.group.as_deref()
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    fn hpa(metrics: &str, status: &str) -> String {
        format!(
            "
            apiVersion: autoscaling/v2
            kind: HorizontalPodAutoscaler
            metadata: {{name: web, namespace: shop, uid: u, creationTimestamp: '2026-11-21T11:00:00Z'}}
            spec:
              maxReplicas: 3
              scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: web}}
              metrics: [{metrics}]
            status: {{desiredReplicas: 0, conditions: [{status}]}}"
        )
    }

    fn inactive(since: &str, reason: &str, message: &str) -> String {
        format!(
            "{{type: ScalingActive, status: 'False', reason: {reason}, lastTransitionTime: '{since}', message: '{message}'}}"
        )
    }

    const CPU: &str = "{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 60}}}";
    const REQUESTS: &str = "{}";
    const ABSENT: &str = "the HPA was unable to compute the replica count: failed to get cpu utilization: unable to get \
                          metrics for resource cpu: unable to fetch metrics from resource metrics API: the server could \
                          not find the requested resource (get pods.metrics.k8s.io)";
    const NO_REQUEST: &str = "the HPA was unable to compute the replica count: failed to get cpu utilization: missing \
                              request for cpu in container app of Pod web-x";

    fn deployment(replicas: i32, requests: &str) -> String {
        format!(
            "
            apiVersion: apps/v1
            kind: Deployment
            metadata: {{name: web, namespace: shop}}
            spec:
              replicas: {replicas}
              template: {{spec: {{containers: [{{name: app, resources: {{requests: {requests}}}}}]}}}}"
        )
    }

    #[test]
    fn fires_without_a_metrics_api() {
        let condition = inactive("2026-11-21T11:01:00Z", "FailedGetResourceMetric", ABSENT);
        check(&RULE, &[&hpa(CPU, &condition), &deployment(1, "{cpu: 100m}")]).finds(&[
            "error HorizontalPodAutoscaler shop/web: HorizontalPodAutoscaler web has no metrics: API metrics.k8s.io \
             is not served",
        ]);
        let api = "
            apiVersion: apiregistration.k8s.io/v1
            kind: APIService
            metadata: {name: v1beta1.metrics.k8s.io}
            spec: {group: metrics.k8s.io, version: v1beta1, groupPriorityMinimum: 1, versionPriority: 1}";
        let said = check(&RULE, &[&hpa(CPU, &condition), &deployment(1, "{cpu: 100m}"), api]);
        assert_eq!(said.finding().because[0].to_string(), "APIService v1beta1.metrics.k8s.io");
    }

    #[test]
    fn fires_with_both_reasons_where_there_are_two() {
        let condition = inactive("2026-11-21T11:01:00Z", "FailedGetResourceMetric", ABSENT);
        check(&RULE, &[&hpa(CPU, &condition), &deployment(1, REQUESTS)]).finds(&[
            "error HorizontalPodAutoscaler shop/web: HorizontalPodAutoscaler web has no metrics: API metrics.k8s.io \
             is not served; also, container app of Deployment web has no cpu request",
        ]);
    }

    #[test]
    fn fires_when_a_container_has_no_request() {
        let condition = inactive("2026-11-21T11:01:00Z", "FailedGetResourceMetric", NO_REQUEST);
        check(&RULE, &[&hpa(CPU, &condition), &deployment(1, REQUESTS)]).finds(&[
            "error HorizontalPodAutoscaler shop/web: HorizontalPodAutoscaler web cannot compute cpu utilization: \
             container app of Deployment web has no cpu request",
        ]);
        // If the objects cannot be read, the condition is sufficient.
        TestCluster::new(&[&hpa(CPU, &condition)])
            .forbid(Kind::Deployment)
            .forbid(Kind::LimitRange)
            .check(&RULE)
            .finds(&[
                "error HorizontalPodAutoscaler shop/web: HorizontalPodAutoscaler web has no metrics: failed to get cpu \
             utilization: missing request for cpu in container app",
            ]);
    }

    #[test]
    fn fires_as_a_warning_when_one_of_two_metrics_fails() {
        let two = format!(
            "{CPU}, {{type: Pods, pods: {{metric: {{name: rps}}, target: {{type: AverageValue, averageValue: 5}}}}}}"
        );
        let active = "{type: ScalingActive, status: 'True', reason: ValidMetricFound}";
        let said = check(&RULE, &[&hpa(&two, active), &deployment(1, REQUESTS)]);
        assert_eq!(said.finding().severity.to_string(), "warning");
        check(&RULE, &[&hpa(CPU, active), &deployment(1, REQUESTS)]).finds_nothing();
    }

    #[test]
    fn quiet_in_the_first_minutes() {
        let condition = inactive("2026-11-21T11:59:00Z", "FailedGetResourceMetric", ABSENT);
        check(&RULE, &[&hpa(CPU, &condition), &deployment(1, REQUESTS)]).finds_nothing();
    }

    #[test]
    fn quiet_when_scaled_to_zero_or_without_a_target() {
        let condition = inactive("2026-11-21T11:01:00Z", "FailedGetResourceMetric", ABSENT);
        check(&RULE, &[&hpa(CPU, &condition), &deployment(0, REQUESTS)]).finds_nothing();
        check(&RULE, &[&hpa(CPU, &condition)]).finds_nothing();
        let disabled = inactive("2026-11-21T11:01:00Z", "ScalingDisabled", "scaling is disabled");
        check(&RULE, &[&hpa(CPU, &disabled), &deployment(1, REQUESTS)]).finds_nothing();
    }

    #[test]
    fn quiet_before_the_controller_has_set_conditions() {
        check(&RULE, &[&hpa(CPU, ""), &deployment(1, REQUESTS)]).finds_nothing();
    }
}
