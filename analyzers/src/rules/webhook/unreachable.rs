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
    /// That the Service behind each admission webhook exists, has the port that is called and a ready endpoint, and that
    /// the webhook has a `caBundle` to trust it by.
    ///
    /// ## Why it matters
    ///
    /// With `failurePolicy: Fail` (the default) the API server refuses every request that the webhook should have looked
    /// at: no pod can be created, no Deployment changed. If it looks at pods everywhere, the pods that would bring it
    /// back, or those of kube-system, may be locked out as well. With `Ignore` the requests pass unchecked or unchanged:
    /// sidecars are missing, policies are not applied.
    ///
    /// ## How to confirm
    ///
    /// `kubectl describe validatingwebhookconfiguration NAME` (or `mutatingwebhookconfiguration`) shows Service, port and
    /// rules; `kubectl -n NAMESPACE get endpointslices -l kubernetes.io/service-name=SERVICE` shows who answers. Refused
    /// requests say "failed calling webhook".
    ///
    /// ## How to fix
    ///
    /// Bring back the pods behind the Service. If the software is gone, delete what it left behind: `kubectl delete
    /// validatingwebhookconfiguration NAME`. If the webhook locks out its own pods, set its `failurePolicy` to `Ignore`
    /// until they run, and exempt their namespace with a `namespaceSelector`.
    ///
    /// ## Exceptions
    ///
    /// For webhooks that are called by URL, that have no rules, whose configuration or pods are just starting, and where
    /// the Service or its endpoints could not be read.
    "webhook/unreachable": Error,
    "an admission webhook cannot be reached, so requests are refused or pass unchecked",
    needs: [ValidatingWebhookConfiguration, MutatingWebhookConfiguration, Service],
    optional: [
        EndpointSlice, Endpoints, Pod, Namespace, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController,
        Job, CronJob, Node
    ],
    explained_by: ["service/*", "workload/*", "pod/*", "deployment/*", "daemonset/*", "node/*"],
}

/// Why webhooks of one configuration cannot be called, and which of them.
struct Trouble<'a> {
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
        let mut troubles: Vec<Trouble> = Vec::new();
        for webhook in configuration.webhooks.iter().filter(|webhook| !webhook.rules.is_empty()) {
            let Some(trouble) = trouble(cluster, report, &configuration, webhook) else { continue };
            // Webhooks that fail closed and those that fail open are different troubles of different weight.
            let same = |known: &&mut Trouble| known.why == trouble.why && known.webhooks[0].fails == webhook.fails;
            match troubles.iter_mut().find(same) {
                Some(known) => known.webhooks.push(webhook),
                None => troubles.push(trouble),
            }
        }
        for trouble in &troubles {
            report.add(finding(cluster, &configuration, trouble));
        }
    }
}

fn trouble<'a>(
    cluster: &Cluster,
    report: &mut Report,
    configuration: &Configuration,
    webhook: &'a Webhook<'a>,
) -> Option<Trouble<'a>> {
    let service = webhook.client_config.service.as_ref()?;
    let port = service.port.unwrap_or(443);
    let policy = if webhook.fails { "Fail" } else { "Ignore" };
    let key = format!("{}/{}:{port} {policy}", service.namespace, service.name);
    let whom = (service.namespace.as_str(), service.name.as_str());
    match cluster.answers(&service.namespace, &service.name, Some(port)) {
        Answers::Not(outage) => Some(Trouble {
            why: outage.why.clone(),
            key,
            service: whom,
            no_answer: Some(outage),
            webhooks: vec![webhook],
        }),
        Answers::Unread(gap) => {
            report.not_evaluated(&configuration.object, gap.reason, gap.message);
            None
        }
        Answers::Likely if lacks_ca(cluster, configuration, webhook) => Some(Trouble {
            why: format!("its caBundle is empty, so the certificate of Service {}/{} is not trusted", whom.0, whom.1),
            key: format!("{key} caBundle"),
            service: whom,
            no_answer: None,
            webhooks: vec![webhook],
        }),
        Answers::Likely => None,
    }
}

/// Many programs write the `caBundle` themselves once they run, so it gets time; a manifest never has it.
fn lacks_ca(cluster: &Cluster, configuration: &Configuration, webhook: &Webhook) -> bool {
    let is_settled = configuration.created.is_some_and(|created| time::age(cluster.now(), created) >= time::PROVISION);
    let is_blank = |bundle: &k8s_openapi::ByteString| bundle.0.iter().all(u8::is_ascii_whitespace);
    is_settled && webhook.client_config.ca_bundle.as_ref().is_none_or(is_blank)
}

fn finding(cluster: &Cluster, configuration: &Configuration, trouble: &Trouble) -> Finding {
    let object = &configuration.object;
    let fails = trouble.webhooks[0].fails;
    let (severity, effect) = if fails { (Severity::Error, "blocks") } else { (Severity::Warning, "is skipped for") };
    let scopes: Vec<String> = trouble.webhooks.iter().map(|webhook| webhook.scope()).collect();
    let scope = scopes.first().filter(|first| scopes.iter().all(|scope| scope == *first)).cloned().unwrap_or_default();
    let conditions = if trouble.webhooks.iter().all(|webhook| webhook.has_match_conditions) {
        " (by its matchConditions)"
    } else {
        ""
    };
    let message = format!(
        "{} {} {effect} {}{scope}{conditions}: {}",
        object.kind,
        object.name,
        what(&trouble.webhooks),
        trouble.why
    );
    let mut finding = Finding::new(severity, object.clone(), message).key(&trouble.key);
    if trouble.no_answer.as_ref().is_some_and(|answer| answer.kind == NoAnswerKind::NoService) {
        finding = finding.rests_on_absence();
    }
    for webhook in trouble.webhooks.iter().take(5) {
        let policy = if webhook.fails { "Fail" } else { "Ignore" };
        let text = format!("failurePolicy {policy}: {}{}", what(&[webhook]), webhook.scope());
        finding = finding.evidence(text, object, &format!("webhooks[{}]", webhook.name));
    }
    if trouble.webhooks.iter().any(|webhook| webhook.fails && sees_kube_system(cluster, webhook)) {
        finding = finding.evidence("pods of kube-system are not exempt", object, "");
    }
    let is_deadlock =
        trouble.webhooks.iter().any(|webhook| webhook.fails && locks_itself_out(cluster, webhook, trouble));
    if is_deadlock {
        let text = format!(
            "pods of its own namespace {} are not exempt: while it fails they cannot be created",
            trouble.service.0
        );
        finding = finding.evidence(text, object, "");
    }
    // Where its own pods cannot be created for it, it is the cause of their absence and not the other way round.
    let has_pods = !own_pods(cluster, trouble).is_empty();
    if !is_deadlock || has_pods {
        let causes = trouble.no_answer.iter().flat_map(|answer| &answer.because);
        finding = causes.cloned().fold(finding, Finding::because);
    }
    with_fixes(finding, object, trouble)
}

fn with_fixes(finding: Finding, object: &ObjectRef, trouble: &Trouble) -> Finding {
    let kind = object.kind.to_lowercase();
    let (namespace, service) = trouble.service;
    let finding = match trouble.no_answer.as_ref().map(|answer| (answer.kind, answer)) {
        Some((NoAnswerKind::NoService, _)) => finding.fix_command(
            "If the software behind it is gone, delete what it left behind; otherwise install it again",
            kubectl(["delete", &kind, &object.name]),
        ),
        Some((NoAnswerKind::NoPort, _)) => finding.fix_command(
            "Make the port of the webhook and of the Service the same",
            kubectl(["edit", &kind, &object.name]),
        ),
        Some((NoAnswerKind::NoEndpoint, answer)) => answer.fix(finding, namespace, service),
        None => finding.fix(
            "Let the software that it belongs to, or cert-manager's cainjector, write the caBundle: look at its logs",
        ),
    };
    if !trouble.webhooks[0].fails || trouble.no_answer.is_none() {
        return finding;
    }
    let patches: Vec<String> = trouble
        .webhooks
        .iter()
        .map(|webhook| format!(r#"{{"op":"add","path":"/webhooks/{}/failurePolicy","value":"Ignore"}}"#, webhook.index))
        .collect();
    finding.fix_command(
        "Until then, let requests pass without it, if it enforces nothing that you cannot do without",
        kubectl(["patch", &kind, &object.name, "--type=json", "-p", &format!("[{}]", patches.join(","))]),
    )
}

fn sees_kube_system(cluster: &Cluster, webhook: &Webhook) -> bool {
    !webhook.has_match_conditions && webhook.sees_pods(cluster, "kube-system", &Labels::default())
}

/// Whether the pods behind the webhook have to pass it themselves.
fn locks_itself_out(cluster: &Cluster, webhook: &Webhook, trouble: &Trouble) -> bool {
    let (namespace, name) = trouble.service;
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
fn own_pods<'a>(cluster: &'a Cluster, trouble: &Trouble) -> Vec<&'a crate::snapshot::model::Pod> {
    let (namespace, name) = trouble.service;
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
    use crate::testing::{Said, World, check};

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

    fn with(documents: &[&str]) -> Said {
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
        assert!(text.contains("pods of kube-system are not exempt"));
        assert!(text.contains("pods of its own namespace policy are not exempt"));
    }

    #[test]
    fn fires_when_nothing_is_ready() {
        let said = with(&[SERVICE, DEPLOYMENT, POD, &SLICE.replace("READY", "false")]);
        said.finds(&[
            "error ValidatingWebhookConfiguration policy: ValidatingWebhookConfiguration policy blocks CREATE and UPDATE \
             of pods and configmaps: Service policy/webhook has no ready endpoint: Pod webhook-0 is not ready",
        ]);
        let because: Vec<String> = said.finding().because.iter().map(ToString::to_string).collect();
        assert_eq!(because, ["Service policy/webhook", "Pod policy/webhook-0"]);
    }

    #[test]
    fn fires_when_scaled_to_zero_and_is_a_cause_where_it_locks_itself_out() {
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
        let world = World::new(&[&configuration(), SERVICE, POD]).forbid(Kind::EndpointSlice).check(&RULE);
        assert_eq!(world.finds_nothing().gaps(), ["ValidatingWebhookConfiguration forbidden"]);
        let world = World::new(&[&configuration()]).forbid(Kind::Service).check(&RULE);
        assert_eq!(world.finds_nothing().gaps(), ["Service forbidden"]);
    }

    #[test]
    fn quiet_for_manifests_beyond_a_hint() {
        let said = World::new(&[&CONFIGURATION.replace("caBundle: CA, ", "")]).origin(Origin::Manifests).check(&RULE);
        assert_eq!(said.finding().severity, crate::Severity::Info);
        let bare = CONFIGURATION
            .replace("caBundle: CA, ", "")
            .replace(", uid: u1, creationTimestamp: '2026-11-21T10:00:00Z'", "");
        let service = SERVICE.replace(", uid: u2, creationTimestamp: '2026-11-21T10:00:00Z'", "");
        World::new(&[&bare, &service]).origin(Origin::Manifests).check(&RULE).finds_nothing();
    }
}
