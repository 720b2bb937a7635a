use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::time;
use crate::rules::answers::{Answers, NoAnswerKind};
use crate::snapshot::model::APIService;
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::shorten;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks the condition `Available` of each APIService: whether the API server can reach the server behind an
    /// aggregated API.
    ///
    /// ## Why it matters
    ///
    /// The API group is unavailable as long as its server is: `kubectl top` and HorizontalPodAutoscalers fail without
    /// `metrics.k8s.io`, deleted namespaces stay in `Terminating` because not all of their contents can be listed, and
    /// discovery is slow or fails for every client.
    ///
    /// ## How to confirm
    ///
    /// `kubectl get apiservices` shows `False` with the reason; `kubectl describe apiservice NAME` shows the message.
    ///
    /// ## How to fix
    ///
    /// Restore the pods of the Service that the APIService refers to, or correct its port or `caBundle`. If the
    /// software was uninstalled, delete its leftover APIService.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for APIs that the API server serves itself, or in the first two minutes of an outage.
    "apiservice/unavailable": Error,
    "an aggregated API is unavailable",
    needs: [APIService],
    optional: [
        Service, EndpointSlice, Endpoints, Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job,
        CronJob, Node
    ],
    explained_by: [
        "certificate/expired", "service/*", "workload/*", "pod/*", "deployment/*", "daemonset/*", "node/*",
        "network-policy/*"
    ],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for api in cluster.all::<APIService>() {
        if let Some(finding) = finding(cluster, api) {
            report.add(finding);
        }
    }
}

fn finding(cluster: &Cluster, api: &APIService) -> Option<Finding> {
    let spec = api.spec.as_ref()?;
    let service = spec.service.as_ref()?;
    let conditions = api.status.as_ref()?.conditions.as_deref().unwrap_or_default();
    let available = conditions.iter().find(|c| c.type_ == "Available" && c.status == "False")?;
    let since = available.last_transition_time.as_ref().map(|t| t.0).or(api.created());
    if since.is_some_and(|since| time::age(cluster.now(), since) < time::START) {
        return None;
    }
    let (namespace, name) = (service.namespace.as_deref()?, service.name.as_deref()?);
    let object = api.reference();
    let reason = available.reason.as_deref().unwrap_or_default();
    let reported = shorten(available.message.as_deref().unwrap_or_default(), 200);
    let outage = match cluster.answers(namespace, name, Some(service.port.unwrap_or(443))) {
        Answers::Not(outage) => Some(outage),
        Answers::Likely | Answers::Unread(_) => None,
    };
    let why = match &outage {
        Some(outage) => outage.why.clone(),
        None if reported.is_empty() => format!("Service {namespace}/{name} does not respond ({reason})"),
        None => reported.clone(),
    };
    let group = spec.group.as_deref().unwrap_or_default();
    let version = spec.version.as_deref().unwrap_or_default();
    let message = format!("APIService {} is unavailable, {group}/{version} is not served: {why}", api.name());
    let status = if reported.is_empty() { reason.to_string() } else { format!("{reason}: {reported}") };
    let mut finding = Finding::error(object.clone(), message)
        .since(since)
        .evidence(format!("condition Available is False ({status})"), &object, "status.conditions[Available]")
        .evidence(format!("it is served by Service {namespace}/{name}"), &object, "spec.service")
        .because(ObjectRef::new(Kind::Service, namespace, name));
    for cause in outage.iter().flat_map(|outage| &outage.because) {
        finding = finding.because(cause.clone());
    }
    Some(match outage {
        Some(outage) if outage.kind == NoAnswerKind::NoService => finding.fix_command(
            "If the software was uninstalled, delete the APIService; otherwise reinstall it",
            kubectl(["delete", "apiservice", api.name()]),
        ),
        Some(outage) => outage.fix(finding, namespace, name),
        None => finding.fix_command(
            "Check the Service and the pods behind it",
            kubectl(["-n", namespace, "describe", "service", name]),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    const API: &str = "
        apiVersion: apiregistration.k8s.io/v1
        kind: APIService
        metadata: {name: v1beta1.metrics.k8s.io, uid: u1, creationTimestamp: '2026-11-20T10:00:00Z'}
        spec:
          group: metrics.k8s.io
          version: v1beta1
          groupPriorityMinimum: 100
          versionPriority: 100
          service: {namespace: kube-system, name: metrics-server, port: 443}
        status:
          conditions:
          - type: Available
            status: 'False'
            reason: MissingEndpoints
            message: endpoints for service/metrics-server in \"kube-system\" have no addresses
            lastTransitionTime: '2026-11-21T11:00:00Z'";
    const SERVICE: &str = "
        apiVersion: v1
        kind: Service
        metadata: {name: metrics-server, namespace: kube-system, uid: u2, creationTimestamp: '2026-11-20T10:00:00Z'}
        spec: {selector: {k8s-app: metrics-server}, ports: [{port: 443}]}";
    const SLICE: &str = "
        apiVersion: discovery.k8s.io/v1
        kind: EndpointSlice
        metadata: {name: m, namespace: kube-system, labels: {kubernetes.io/service-name: metrics-server}}
        endpoints: [{addresses: [10.0.0.1]}]
        ports: [{port: 443}]";

    #[test]
    fn fires_when_the_service_is_gone() {
        check(&RULE, &[API])
            .finds(&["error APIService v1beta1.metrics.k8s.io: APIService v1beta1.metrics.k8s.io is unavailable, \
             metrics.k8s.io/v1beta1 is not served: Service kube-system/metrics-server does not exist"]);
    }

    #[test]
    fn fires_when_nothing_is_ready() {
        let said = check(&RULE, &[API, SERVICE]);
        assert!(
            said.finding().message.ends_with("has no ready endpoints: its selector matches no pods"),
            "{:?}",
            said.finding()
        );
        assert_eq!(said.finding().since, Some("2026-11-21T11:00:00Z".parse().unwrap()));
    }

    #[test]
    fn fires_with_the_message_of_the_condition() {
        let discovery = API.replace("MissingEndpoints", "FailedDiscoveryCheck").replace(
            "message: endpoints for service/metrics-server in \"kube-system\" have no addresses",
            "message: 'failing or missing response from https://10.1.2.3:443/apis: x509: unknown authority'",
        );
        let said = check(&RULE, &[&discovery, SERVICE, SLICE]);
        assert!(said.finding().message.ends_with(
            "is not served: failing or missing response from \
             https://10.1.2.3:443/apis: x509: unknown authority"
        ));
    }

    #[test]
    fn fires_where_services_were_not_read() {
        let said = TestCluster::new(&[API]).forbid(Kind::Service).check(&RULE);
        assert!(said.finding().message.contains("have no addresses"));
    }

    #[test]
    fn quiet_when_available_or_only_just_unavailable() {
        check(&RULE, &[&API.replace("'False'", "'True'")]).finds_nothing();
        check(&RULE, &[&API.replace("11:00:00", "11:59:00")]).finds_nothing();
    }

    #[test]
    fn quiet_for_apis_of_the_api_server_and_for_manifests() {
        let local = API.replace("service: {namespace: kube-system, name: metrics-server, port: 443}", "");
        check(&RULE, &[&local]).finds_nothing();
        check(&RULE, &[API.split_once("status:").unwrap().0]).finds_nothing();
    }
}
