use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::admission::webhooks::{Configuration, Webhook, configurations, what};
use crate::kubernetes::time;
use crate::rules::answers::{Answers, NoAnswer, NoAnswerKind};
use crate::snapshot::model::{Labels, Service};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef, Selector};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that the Service behind each admission webhook exists, has the port that is called and has a ready
    /// endpoint, and that the webhook has a `caBundle`.
    ///
    /// ## Why it matters
    ///
    /// With `failurePolicy: Fail` (the default) the API server rejects every request that the webhook should review: no
    /// pod can be created, no Deployment changed. If the webhook applies to all pods, it may also block the pods that
    /// would restore it, or those of kube-system. With `Ignore`, requests pass unvalidated or unmodified: sidecars are
    /// missing, policies are not applied.
    ///
    /// ## How to confirm
    ///
    /// `kubectl describe validatingwebhookconfiguration NAME` (or `mutatingwebhookconfiguration`) shows the Service,
    /// the port and the rules; `kubectl -n NAMESPACE get endpointslices -l kubernetes.io/service-name=SERVICE` shows
    /// the endpoints. Rejected requests report "failed calling webhook".
    ///
    /// ## How to fix
    ///
    /// Restore the pods behind the Service. If the software was uninstalled, delete its leftover configuration:
    /// `kubectl delete validatingwebhookconfiguration NAME`. If the webhook blocks its own pods, set its
    /// `failurePolicy` to `Ignore` until they run, and exempt their namespace with a `namespaceSelector`.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for webhooks that are called by URL, for webhooks without rules, while the configuration
    /// or the pods are still starting, or where the Service or its endpoints could not be read.
    "webhook/unreachable": Error,
    "an admission webhook is unreachable, so requests are rejected or pass unchecked",
    needs: [ValidatingWebhookConfiguration, MutatingWebhookConfiguration, Service],
    optional: [
        EndpointSlice, Endpoints, Pod, Namespace, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController,
        Job, CronJob, Node
    ],
    in_terminating_namespaces: true,
    explained_by: ["service/*", "workload/*", "pod/*", "deployment/*", "daemonset/*", "node/*"],
}

/// Why some webhooks of one configuration cannot be called.
struct Problem<'a> {
    why: String,
    key: String,
    service: (&'a str, &'a str),
    /// `None` for an empty `caBundle`.
    no_answer: Option<NoAnswer>,
    webhooks: Vec<&'a Webhook<'a>>,
}

fn check(cluster: &Cluster, report: &mut Report) {
    for configuration in configurations(cluster) {
        if configuration.created.is_some_and(|created| time::age(cluster.now(), created) < time::START) {
            continue;
        }
        let mut problems: Vec<Problem> = Vec::new();
        for webhook in configuration.webhooks.iter().filter(|webhook| !webhook.rules.is_empty()) {
            let Some(problem) = problem(cluster, report, &configuration, webhook) else { continue };
            // Webhooks that fail closed and those that fail open differ in severity.
            let same = |known: &&mut Problem| known.why == problem.why && known.webhooks[0].fails == webhook.fails;
            match problems.iter_mut().find(same) {
                Some(known) => known.webhooks.push(webhook),
                None => problems.push(problem),
            }
        }
        for problem in &problems {
            report.add(finding(cluster, &configuration, problem));
        }
    }
}

fn problem<'a>(
    cluster: &Cluster,
    report: &mut Report,
    configuration: &Configuration,
    webhook: &'a Webhook<'a>,
) -> Option<Problem<'a>> {
    let service = webhook.client_config.service.as_ref()?;
    let port = service.port.unwrap_or(443);
    let policy = if webhook.fails { "Fail" } else { "Ignore" };
    let key = format!("{}/{}:{port} {policy}", service.namespace, service.name);
    let target = (service.namespace.as_str(), service.name.as_str());
    match cluster.answers(&service.namespace, &service.name, Some(port)) {
        Answers::Not(outage) => Some(Problem {
            why: outage.why.clone(),
            key,
            service: target,
            no_answer: Some(outage),
            webhooks: vec![webhook],
        }),
        Answers::Unread(gap) => {
            report.not_evaluated(&configuration.object, gap.reason, gap.message);
            None
        }
        Answers::Likely if lacks_ca(cluster, configuration, webhook) => Some(Problem {
            why: format!(
                "its caBundle is empty, so the certificate of Service {}/{} is not trusted",
                target.0, target.1
            ),
            key: format!("{key} caBundle"),
            service: target,
            no_answer: None,
            webhooks: vec![webhook],
        }),
        Answers::Likely => None,
    }
}

/// Many programs set the `caBundle` themselves after they start, and manifests never contain it.
fn lacks_ca(cluster: &Cluster, configuration: &Configuration, webhook: &Webhook) -> bool {
    let is_settled = configuration.created.is_some_and(|created| time::age(cluster.now(), created) >= time::PROVISION);
    let is_blank = |bundle: &k8s_openapi::ByteString| bundle.0.iter().all(u8::is_ascii_whitespace);
    is_settled && webhook.client_config.ca_bundle.as_ref().is_none_or(is_blank)
}

fn finding(cluster: &Cluster, configuration: &Configuration, problem: &Problem) -> Finding {
    let object = &configuration.object;
    let fails = problem.webhooks[0].fails;
    let (severity, effect) = if fails { (Severity::Error, "blocks") } else { (Severity::Warning, "is skipped for") };
    let scopes: Vec<String> = problem.webhooks.iter().map(|webhook| webhook.scope()).collect();
    let scope = scopes.first().filter(|first| scopes.iter().all(|scope| scope == *first)).cloned().unwrap_or_default();
    let conditions = if problem.webhooks.iter().all(|webhook| webhook.has_match_conditions) {
        " (subject to its matchConditions)"
    } else {
        ""
    };
    let message = format!(
        "{} {} {effect} {}{scope}{conditions}: {}",
        object.kind,
        object.name,
        what(&problem.webhooks),
        problem.why
    );
    let mut finding = Finding::new(severity, object.clone(), message).key(&problem.key);
    if problem.no_answer.as_ref().is_some_and(|answer| answer.kind == NoAnswerKind::NoService) {
        finding = finding.rests_on_absence();
    }
    for webhook in problem.webhooks.iter().take(5) {
        let policy = if webhook.fails { "Fail" } else { "Ignore" };
        let text = format!("failurePolicy {policy}: {}{}", what(&[webhook]), webhook.scope());
        finding = finding.evidence(text, object, &format!("webhooks[{}]", webhook.name));
    }
    if problem.webhooks.iter().any(|webhook| webhook.fails && applies_to_kube_system(cluster, webhook)) {
        finding = finding.evidence("pods in kube-system are not exempt", object, "");
    }
    let is_deadlock =
        problem.webhooks.iter().any(|webhook| webhook.fails && blocks_own_pods(cluster, webhook, problem));
    if is_deadlock {
        let text = format!(
            "pods in its own namespace {} are not exempt and cannot be created while it fails",
            problem.service.0
        );
        finding = finding.evidence(text, object, "");
    }
    // Where the webhook blocks its own pods, it is the cause of their absence and not the consequence.
    let has_pods = !own_pods(cluster, problem).is_empty();
    if !is_deadlock || has_pods {
        let causes = problem.no_answer.iter().flat_map(|answer| &answer.because);
        finding = causes.cloned().fold(finding, Finding::because);
    }
    with_fixes(finding, object, problem)
}

fn with_fixes(finding: Finding, object: &ObjectRef, problem: &Problem) -> Finding {
    let kind = object.kind.to_lowercase();
    let (namespace, service) = problem.service;
    let finding = match problem.no_answer.as_ref().map(|answer| (answer.kind, answer)) {
        Some((NoAnswerKind::NoService, _)) => finding.fix_command(
            "If the software was uninstalled, delete its leftover configuration; otherwise reinstall it",
            kubectl(["delete", &kind, &object.name]),
        ),
        Some((NoAnswerKind::NoPort, _)) => finding.fix_command(
            "Set the port of the webhook to a port of the Service",
            kubectl(["edit", &kind, &object.name]),
        ),
        Some((NoAnswerKind::NoEndpoint, answer)) => answer.fix(finding, namespace, service),
        None => finding.fix(
            "Check the logs of the software that owns the webhook, or of cert-manager's cainjector, which set the caBundle",
        ),
    };
    if !problem.webhooks[0].fails || problem.no_answer.is_none() {
        return finding;
    }
    let patches: Vec<String> = problem
        .webhooks
        .iter()
        .map(|webhook| format!(r#"{{"op":"add","path":"/webhooks/{}/failurePolicy","value":"Ignore"}}"#, webhook.index))
        .collect();
    finding.fix_command(
        "Until then, set failurePolicy to Ignore, if the webhook enforces nothing critical",
        kubectl(["patch", &kind, &object.name, "--type=json", "-p", &format!("[{}]", patches.join(","))]),
    )
}

fn applies_to_kube_system(cluster: &Cluster, webhook: &Webhook) -> bool {
    !webhook.has_match_conditions && webhook.sees_pods(cluster, "kube-system", &Labels::default())
}

/// Whether the webhook applies to the pods behind it.
fn blocks_own_pods(cluster: &Cluster, webhook: &Webhook, problem: &Problem) -> bool {
    let (namespace, name) = problem.service;
    if webhook.has_match_conditions {
        return false;
    }
    let Some(service) = cluster.get::<Service>(namespace, name).found() else {
        return webhook.sees_pods(cluster, namespace, &Labels::default());
    };
    let selector = Selector::equals(&service.spec.selector);
    let workloads = cluster.workloads_matching(namespace, &selector);
    workloads
        .iter()
        .filter(|_| !selector.is_empty())
        .any(|workload| webhook.sees_pods(cluster, namespace, &workload.template.metadata.labels))
}

/// The pods behind the Service, ready or not.
fn own_pods<'a>(cluster: &'a Cluster, problem: &Problem) -> Vec<&'a crate::snapshot::model::Pod> {
    let (namespace, name) = problem.service;
    let Some(service) = cluster.get::<Service>(namespace, name).found() else { return Vec::new() };
    if service.spec.selector.is_empty() || !cluster.covers(Kind::Pod, service.namespace()) {
        return Vec::new();
    }
    let pods = cluster.pods_matching(namespace, &Selector::equals(&service.spec.selector));
    pods.into_iter().filter(|pod| pod.is_active()).collect()
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::Origin;
    use crate::kubernetes::network::certificate::made::Made;
    use crate::snapshot::Kind;
    use crate::testing::{Findings, TestCluster, check};

    const CONFIGURATION: &str = "
        apiVersion: admissionregistration.k8s.io/v1
        kind: ValidatingWebhookConfiguration
        metadata: {name: policy, uid: u1, creationTimestamp: '2026-11-21T10:00:00Z'}
        webhooks:
        - name: validate.policy.io
          admissionReviewVersions: [v1]
          sideEffects: None
          failurePolicy: Fail
          clientConfig: {caBundle: CA, service: {namespace: policy, name: webhook}}
          rules: [{operations: [CREATE, UPDATE], apiGroups: [''], apiVersions: [v1], resources: [pods, configmaps]}]";
    const SERVICE: &str = "
        apiVersion: v1
        kind: Service
        metadata: {name: webhook, namespace: policy, uid: u2, creationTimestamp: '2026-11-21T10:00:00Z'}
        spec: {selector: {app: webhook}, ports: [{port: 443, targetPort: 8443}]}";
    const DEPLOYMENT: &str = "
        apiVersion: apps/v1
        kind: Deployment
        metadata: {name: webhook, namespace: policy, uid: u3, creationTimestamp: '2026-11-21T10:00:00Z'}
        spec:
          replicas: 1
          selector: {matchLabels: {app: webhook}}
          template: {metadata: {labels: {app: webhook}}}";
    const POD: &str = "
        apiVersion: v1
        kind: Pod
        metadata: {name: webhook-0, namespace: policy, uid: u4, labels: {app: webhook}, creationTimestamp: '2026-11-21T10:00:00Z'}
        status: {phase: Running, conditions: [{type: Ready, status: 'False'}]}";
    const SLICE: &str = "
        apiVersion: discovery.k8s.io/v1
        kind: EndpointSlice
        metadata: {name: webhook-1, namespace: policy, labels: {kubernetes.io/service-name: webhook}}
        endpoints: [{addresses: [10.0.0.1], conditions: {ready: READY}}]
        ports: [{port: 8443}]";

    fn configuration() -> String {
        CONFIGURATION.replace("CA", &Made::ca("ca").base64())
    }

    fn with(documents: &[&str]) -> Findings {
        check(&RULE, &[&[configuration().as_str()], documents].concat())
    }

    #[test]
    fn fires_when_the_service_is_gone() {
        let said = with(&[]);
        said.finds(&[
            "error ValidatingWebhookConfiguration policy: ValidatingWebhookConfiguration policy blocks CREATE and UPDATE \
             of pods and configmaps: Service policy/webhook does not exist",
        ]);
        let text = said.text();
        assert!(text.contains("kubectl delete validatingwebhookconfiguration policy"));
        assert!(text.contains("pods in kube-system are not exempt"));
        assert!(text.contains("pods in its own namespace policy are not exempt"));
    }

    #[test]
    fn fires_when_nothing_is_ready() {
        let said = with(&[SERVICE, DEPLOYMENT, POD, &SLICE.replace("READY", "false")]);
        said.finds(&[
            "error ValidatingWebhookConfiguration policy: ValidatingWebhookConfiguration policy blocks CREATE and UPDATE \
             of pods and configmaps: Service policy/webhook has no ready endpoints: Pod webhook-0 is not ready",
        ]);
        let because: Vec<String> = said.finding().because.iter().map(ToString::to_string).collect();
        assert_eq!(because, ["Service policy/webhook", "Pod policy/webhook-0"]);
    }

    #[test]
    fn fires_when_scaled_to_zero_and_is_a_cause_where_it_blocks_own_pods() {
        let said = with(&[SERVICE, &DEPLOYMENT.replace("replicas: 1", "replicas: 0")]);
        assert!(said.finding().message.ends_with("Deployment webhook is scaled to zero"));
        assert!(said.finding().because.is_empty());
    }

    #[test]
    fn fires_as_a_warning_for_ignore() {
        let ignore = configuration().replace("failurePolicy: Fail", "failurePolicy: Ignore");
        let said = check(&RULE, &[&ignore]);
        said.finds(&[
            "warning ValidatingWebhookConfiguration policy: ValidatingWebhookConfiguration policy is skipped for CREATE and \
             UPDATE of pods and configmaps: Service policy/webhook does not exist",
        ]);
        assert!(!said.text().contains("kube-system"));
    }

    #[test]
    fn fires_for_a_wrong_port() {
        let said = with(&[&SERVICE.replace("port: 443", "port: 9443"), POD, &SLICE.replace("READY", "true")]);
        assert!(said.finding().message.ends_with("Service policy/webhook has no port 443, only 9443"));
    }

    #[test]
    fn fires_for_an_empty_ca_bundle() {
        let bare = CONFIGURATION.replace("caBundle: CA", "caBundle: Cg==");
        let said = check(&RULE, &[&bare, SERVICE, DEPLOYMENT, POD, &SLICE.replace("READY", "true")]);
        assert!(
            said.finding()
                .message
                .ends_with("its caBundle is empty, so the certificate of Service policy/webhook is not trusted")
        );
    }

    #[test]
    fn fires_naming_the_namespaces_that_it_is_limited_to() {
        let limited = configuration() + "\n          namespaceSelector: {matchLabels: {policy: 'on'}}";
        let said = check(&RULE, &[&limited]);
        assert!(said.finding().message.contains("pods and configmaps in namespaces with policy=on: Service"));
        assert!(!said.text().contains("exempt"));
    }

    #[test]
    fn quiet_when_it_answers() {
        with(&[SERVICE, DEPLOYMENT, POD, &SLICE.replace("READY", "true")]).finds_nothing();
    }

    #[test]
    fn quiet_while_its_pod_starts() {
        let young = POD.replace("10:00:00", "11:59:00");
        with(&[SERVICE, DEPLOYMENT, &young, &SLICE.replace("READY", "false")]).finds_nothing();
        check(&RULE, &[&configuration().replace("10:00:00", "11:59:00")]).finds_nothing();
        let empty = CONFIGURATION.replace("caBundle: CA, ", "").replace("10:00:00", "11:56:00");
        check(&RULE, &[&empty, SERVICE, DEPLOYMENT, POD, &SLICE.replace("READY", "true")]).finds_nothing();
    }

    #[test]
    fn quiet_for_a_url_and_without_rules() {
        let url =
            configuration().replace("service: {namespace: policy, name: webhook}", "url: 'https://policy.example'");
        check(&RULE, &[&url]).finds_nothing();
        let bare = configuration();
        check(&RULE, &[bare.split_once("rules:").unwrap().0]).finds_nothing();
    }

    #[test]
    fn quiet_about_what_could_not_be_read() {
        let world = TestCluster::new(&[&configuration(), SERVICE, POD]).forbid(Kind::EndpointSlice).check(&RULE);
        assert_eq!(world.finds_nothing().gaps(), ["ValidatingWebhookConfiguration forbidden"]);
        let world = TestCluster::new(&[&configuration()]).forbid(Kind::Service).check(&RULE);
        assert_eq!(world.finds_nothing().gaps(), ["Service forbidden"]);
    }

    #[test]
    fn quiet_for_manifests_beyond_a_hint() {
        let said =
            TestCluster::new(&[&CONFIGURATION.replace("caBundle: CA, ", "")]).origin(Origin::Manifests).check(&RULE);
        assert_eq!(said.finding().severity, crate::Severity::Info);
        let bare = CONFIGURATION
            .replace("caBundle: CA, ", "")
            .replace(", uid: u1, creationTimestamp: '2026-11-21T10:00:00Z'", "");
        let service = SERVICE.replace(", uid: u2, creationTimestamp: '2026-11-21T10:00:00Z'", "");
        TestCluster::new(&[&bare, &service]).origin(Origin::Manifests).check(&RULE).finds_nothing();
    }
}
