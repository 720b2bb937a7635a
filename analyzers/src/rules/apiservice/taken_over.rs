use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::time;
use crate::kubernetes::workloads::autoscaler::condition;
use crate::snapshot::model::{APIService, HorizontalPodAutoscaler, Pod, Service};
use crate::snapshot::{Cluster, Object, ObjectRef, Selector};
use crate::text::kubectl;
use crate::text::words::{list, shorten};

declare_rule! {
    /// ## What it checks
    ///
    /// Whether the APIService for `external.metrics.k8s.io` refers to a server other than the metrics server of KEDA
    /// while HorizontalPodAutoscalers of KEDA's ScaledObjects do not get their metrics.
    ///
    /// ## Why it matters
    ///
    /// A cluster has only one APIService per API version. If another adapter (prometheus-adapter, Datadog) is
    /// installed, it replaces the Service in the APIService, and requests for KEDA's metrics go to an adapter that does
    /// not know them. All components look healthy, and nothing scales.
    ///
    /// ## How to confirm
    ///
    /// `kubectl get apiservice v1beta1.external.metrics.k8s.io` shows the Service that serves the API.
    ///
    /// ## How to fix
    ///
    /// Disable external metrics in the other adapter and point the APIService at the Service of KEDA's metrics server
    /// again, by an upgrade of KEDA's Helm release.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire if the APIService refers to KEDA, if no autoscaler of a ScaledObject fails, or in the
    /// first two minutes.
    "apiservice/taken-over": Error,
    "the APIService for external metrics refers to an adapter that does not serve KEDA's metrics",
    needs: [APIService, HorizontalPodAutoscaler],
    optional: [Service, Pod],
    explained_by: [],
}

const GROUP: &str = "external.metrics.k8s.io";

fn check(cluster: &Cluster, report: &mut Report) {
    let starved: Vec<&HorizontalPodAutoscaler> =
        cluster.all::<HorizontalPodAutoscaler>().iter().filter(|hpa| is_starved(cluster, hpa)).collect();
    if starved.is_empty() {
        return;
    }
    for api in cluster.all::<APIService>() {
        if let Some(finding) = finding(cluster, api, &starved) {
            report.add(finding);
        }
    }
}

/// Whether KEDA manages the autoscaler and its external metrics are missing.
fn is_starved(cluster: &Cluster, hpa: &HorizontalPodAutoscaler) -> bool {
    let is_of_keda = hpa.controller().is_some_and(|owner| owner.kind == "ScaledObject" && owner.group() == "keda.sh");
    let failed = condition(hpa, "ScalingActive").filter(|c| c.status == "False");
    is_of_keda
        && failed.is_some_and(|c| {
            let since = c.last_transition_time.as_ref().map(|t| t.0);
            c.reason.as_deref() == Some("FailedGetExternalMetric")
                && since.is_none_or(|since| time::age(cluster.now(), since) >= time::START)
        })
}

fn finding(cluster: &Cluster, api: &APIService, starved: &[&HorizontalPodAutoscaler]) -> Option<Finding> {
    let spec = api.spec.as_ref().filter(|spec| spec.group.as_deref() == Some(GROUP))?;
    let service = spec.service.as_ref()?;
    let (namespace, name) = (service.namespace.as_deref()?, service.name.as_deref()?);
    let serves = cluster.get::<Service>(namespace, name).found();
    let looks_like_keda = name.contains("keda") || namespace.contains("keda");
    if looks_like_keda || serves.is_some_and(|service| is_keda(cluster, service)) {
        return None;
    }
    let keda = cluster.all::<Service>().iter().find(|service| is_keda(cluster, service));
    let object = api.reference();
    let metrics: Vec<&str> = starved.iter().flat_map(|hpa| external_metrics(hpa)).collect();
    let of = keda.map_or_else(|| "KEDA".to_string(), |keda| format!("KEDA ({}/{})", keda.namespace(), keda.name()));
    let message = format!(
        "APIService {} refers to Service {namespace}/{name} instead of the metrics server of {of}, so metric{} {} \
         not found",
        api.name(),
        if metrics.len() == 1 { "" } else { "s" },
        match metrics.len() {
            1 => format!("{} is", metrics[0]),
            _ => format!("{} are", list(&metrics, 3)),
        },
    );
    let mut finding = Finding::error(object.clone(), message).evidence(
        format!("spec.service is {namespace}/{name}"),
        &object,
        "spec.service",
    );
    for hpa in starved.iter().take(3) {
        let text = condition(hpa, "ScalingActive").and_then(|c| c.message.as_deref()).unwrap_or_default();
        finding = finding.evidence(shorten(text, 300), &hpa.reference(), "status.conditions[ScalingActive]");
    }
    let release = ["meta.helm.sh/release-namespace", "meta.helm.sh/release-name"].map(|key| api.annotation(key));
    if let [Some(place), Some(release)] = release {
        let text = format!("Helm release {place}/{release} manages it");
        finding = finding.evidence(text, &object, "metadata.annotations").fix(format!(
            "Disable external metrics in Helm release {release} of namespace {place}, so that it no longer creates this \
             APIService"
        ));
    } else {
        finding = finding.fix(format!("Disable external metrics in the adapter behind Service {namespace}/{name}"));
    }
    Some(point_at_keda(finding, &object, keda))
}

fn point_at_keda(finding: Finding, object: &ObjectRef, keda: Option<&Service>) -> Finding {
    let Some(keda) = keda else {
        return finding
            .fix("Upgrade the Helm release of KEDA, which points the APIService at its metrics server again");
    };
    let port = keda.spec.ports.first().map_or(443, |port| port.port);
    let patch = format!(
        r#"{{"spec":{{"service":{{"namespace":"{}","name":"{}","port":{port}}}}}}}"#,
        keda.namespace(),
        keda.name()
    );
    finding.fix_command(
        "Point the APIService at KEDA again (an upgrade of KEDA's Helm release does the same, and sets the caBundle)",
        kubectl(["patch", "apiservice", &object.name, "--type=merge", "-p", &patch]),
    )
}

fn external_metrics(hpa: &HorizontalPodAutoscaler) -> impl Iterator<Item = &str> {
    let metrics = hpa.spec.metrics.iter().flatten();
    metrics.filter_map(|metric| Some(metric.external.as_ref()?.metric.name.as_str()))
}

/// Whether a Service belongs to KEDA's metrics server: by its name, or by the image of its pods.
fn is_keda(cluster: &Cluster, service: &Service) -> bool {
    let named = service.name().contains("keda") && service.name().contains("metrics");
    named || {
        let selector = Selector::equals(&service.spec.selector);
        let is_server = |pod: &Pod| pod.spec.containers.iter().any(|c| c.image.contains("keda-metrics-apiserver"));
        let speaks_of_keda = selector.equalities().any(|(_, value)| value.contains("keda"));
        speaks_of_keda && cluster.pods_matching(service.namespace(), &selector).into_iter().any(is_server)
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    const HPA: &str = "
        apiVersion: autoscaling/v2
        kind: HorizontalPodAutoscaler
        metadata: {name: keda-hpa-mail, namespace: shop, uid: u, ownerReferences: [
          {apiVersion: keda.sh/v1alpha1, kind: ScaledObject, name: mail, uid: u, controller: true}]}
        spec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: mail},
          metrics: [{type: External, external: {metric: {name: s0-redis}, target: {type: Value}}}]}
        status: {conditions: [{type: ScalingActive, status: 'False', reason: FailedGetExternalMetric, message: 'no metric',
          lastTransitionTime: '2026-11-21T10:00:00Z'}]}";
    const SERVICE: &str = "{apiVersion: v1, kind: Service, metadata: {name: keda-metrics, namespace: scaling}, spec: {ports: [{port: 443}]}}";

    fn api(namespace: &str, name: &str) -> String {
        format!(
            "{{apiVersion: apiregistration.k8s.io/v1, kind: APIService, metadata: {{name: v1beta1.external.metrics.k8s.io,
            annotations: {{meta.helm.sh/release-name: adapter, meta.helm.sh/release-namespace: monitoring}}}},
            spec: {{group: external.metrics.k8s.io, version: v1beta1, groupPriorityMinimum: 1, versionPriority: 1,
            service: {{namespace: {namespace}, name: {name}}}}}}}"
        )
    }

    #[test]
    fn fires_when_another_adapter_serves_external_metrics() {
        let said = check(&RULE, &[HPA, SERVICE, &api("monitoring", "adapter")]);
        said.finds(&[
            "error APIService v1beta1.external.metrics.k8s.io: APIService v1beta1.external.metrics.k8s.io refers to Service \
             monitoring/adapter instead of the metrics server of KEDA (scaling/keda-metrics), so metric s0-redis is not found",
        ]);
        let text = said.text();
        assert!(
            text.contains("Disable external metrics in Helm release adapter") && text.contains("keda-metrics"),
            "{text}"
        );
    }

    #[test]
    fn quiet_when_keda_serves_them_or_the_autoscaler_works() {
        check(&RULE, &[HPA, SERVICE, &api("scaling", "keda-metrics")]).finds_nothing();
        check(&RULE, &[&HPA.replace("'False'", "'True'"), SERVICE, &api("monitoring", "adapter")]).finds_nothing();
    }
}
