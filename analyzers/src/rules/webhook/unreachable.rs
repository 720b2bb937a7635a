use std::collections::BTreeMap;
use std::time::Duration;

use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::admission::call::{CallFailure, FailedCall, failed_calls};
use crate::kubernetes::admission::webhooks::{Configuration, Webhook, configurations, what};
use crate::kubernetes::manager::manager;
use crate::kubernetes::nodes::platform::PlatformExt;
use crate::kubernetes::time;
use crate::kubernetes::workloads::references::references;
use crate::rules::answers::{Answers, NoAnswer, NoAnswerKind};
use crate::snapshot::model::{Labels, Node, Pod, Secret, Service};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef, Selector};
use crate::text::kubectl;
use crate::text::words::{list, plain, shorten};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that the Service behind each admission webhook exists, has the port that is called and has a ready
    /// endpoint, and that the webhook has a `caBundle`. If endpoints are ready, it checks whether events of the last 20
    /// minutes report failed calls: an address that the API server may not connect to, a timeout, a certificate that it
    /// does not trust, a path that does not exist. For webhooks that fail open, which cause no events, it checks the log
    /// of the pods for rejected certificates.
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
    /// `failurePolicy` to `Ignore` until they run, and exempt their namespace with a `namespaceSelector`. The same
    /// applies to webhooks that block each other's pods.
    ///
    /// Managed control planes (EKS) reach only addresses of their network, not those of an overlay network: run the
    /// webhook with `hostNetwork: true`. Private clusters need a firewall rule for the webhook's port.
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
        Job, CronJob, Node, Event, Secret
    ],
    in_terminating_namespaces: true,
    explained_by: [
        "service/*", "workload/*", "pod/*", "deployment/*", "daemonset/*", "node/*", "rbac/denied", "certificate/*"
    ],
}

/// Why some webhooks of one configuration cannot be called.
struct Problem<'a> {
    why: String,
    key: String,
    service: (&'a str, &'a str),
    /// `None` for an empty `caBundle`, or if calls fail although there are endpoints.
    no_answer: Option<NoAnswer>,
    call: Option<Broken>,
    webhooks: Vec<&'a Webhook<'a>>,
    /// The configurations that block its pods and whose pods it blocks, each with the namespace of its pods.
    circle: Vec<(ObjectRef, String)>,
}

fn check(cluster: &Cluster, report: &mut Report) {
    let calls = failed_calls(cluster);
    let configurations = configurations(cluster);
    let mut found: Vec<(&Configuration, Problem)> = Vec::new();
    for configuration in &configurations {
        if configuration.created.is_some_and(|created| time::age(cluster.now(), created) < time::START) {
            continue;
        }
        let mut problems: Vec<Problem> = Vec::new();
        for webhook in configuration.webhooks.iter().filter(|webhook| !webhook.rules.is_empty()) {
            let Some(problem) = problem(cluster, report, &calls, configuration, webhook) else {
                continue;
            };
            // Webhooks that fail closed and those that fail open differ in severity.
            let same = |known: &&mut Problem| known.why == problem.why && known.webhooks[0].fails == webhook.fails;
            match problems.iter_mut().find(same) {
                Some(known) => known.webhooks.push(webhook),
                None => problems.push(problem),
            }
        }
        found.extend(problems.into_iter().map(|problem| (configuration, problem)));
    }
    find_circles(cluster, &mut found);
    for (configuration, problem) in &found {
        report.add(finding(cluster, configuration, problem));
    }
}

/// The maximum number of unreachable webhooks to search for circles.
const MAX_CIRCLE: usize = 50;

/// Finds webhooks that block each other's pods: none of their pods exist, and each rejects those of the next one.
fn find_circles(cluster: &Cluster, found: &mut [(&Configuration, Problem)]) {
    let is_down = |problem: &Problem| {
        problem.webhooks[0].fails
            && problem.no_answer.as_ref().is_some_and(|answer| answer.kind == NoAnswerKind::NoEndpoint)
            && own_pods(cluster, problem).is_empty()
    };
    let down: Vec<usize> = (0..found.len()).filter(|n| is_down(&found[*n].1)).take(MAX_CIRCLE).collect();
    let blocks = |by: usize, of: usize| {
        let webhooks = &found[by].1.webhooks;
        webhooks.iter().any(|webhook| webhook.fails && blocks_pods_of(cluster, webhook, found[of].1.service))
    };
    // blocked_by[a][b]: b blocks the pods of a, directly or through others.
    let mut blocked_by: Vec<Vec<bool>> =
        down.iter().map(|of| down.iter().map(|by| of != by && blocks(*by, *of)).collect()).collect();
    for through in 0..down.len() {
        for of in 0..down.len() {
            for by in 0..down.len() {
                blocked_by[of][by] |= blocked_by[of][through] && blocked_by[through][by];
            }
        }
    }
    let circles: Vec<Vec<(ObjectRef, String)>> = (0..down.len())
        .map(|n| {
            let partners =
                (0..down.len()).filter(|other| *other != n && blocked_by[n][*other] && blocked_by[*other][n]);
            let partners = partners.map(|other| &found[down[other]]);
            partners.map(|(with, problem)| (with.object.clone(), problem.service.0.to_string())).collect()
        })
        .collect();
    for (n, circle) in down.into_iter().zip(circles) {
        found[n].1.circle = circle;
    }
}

fn problem<'a>(
    cluster: &Cluster,
    report: &mut Report,
    calls: &BTreeMap<String, FailedCall>,
    configuration: &Configuration,
    webhook: &'a Webhook<'a>,
) -> Option<Problem<'a>> {
    let service = webhook.client_config.service.as_ref()?;
    let port = service.port.unwrap_or(443);
    let policy = if webhook.fails { "Fail" } else { "Ignore" };
    let key = format!("{}/{}:{port} {policy}", service.namespace, service.name);
    let target = (service.namespace.as_str(), service.name.as_str());
    let problem = |why: String, key: String| Problem {
        why,
        key,
        service: target,
        no_answer: None,
        call: None,
        webhooks: vec![webhook],
        circle: Vec::new(),
    };
    match cluster.answers(&service.namespace, &service.name, Some(port)) {
        Answers::Not(outage) => Some(Problem { no_answer: Some(outage.clone()), ..problem(outage.why, key) }),
        Answers::Unread(gap) => {
            report.not_evaluated(&configuration.object, gap.reason, gap.message);
            None
        }
        Answers::Likely if lacks_ca(cluster, configuration, webhook) => {
            let (namespace, name) = target;
            let why = format!("its caBundle is empty, so the certificate of Service {namespace}/{name} is not trusted");
            Some(problem(why, format!("{key} caBundle")))
        }
        Answers::Likely => {
            let broken = Broken::of(cluster, calls.get(webhook.name), webhook)?;
            Some(Problem { call: Some(broken.clone()), ..problem(broken.why, format!("{key} call")) })
        }
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
    let partners: Vec<String> = problem.circle.iter().map(|(object, _)| object.title()).collect();
    let circle = match partners.len() {
        0 => String::new(),
        _ => format!("; it and {} block each other's pods", list(&partners, 3)),
    };
    let message = message + &circle;
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
    for evidence in problem.call.iter().flat_map(|call| &call.evidence) {
        let (text, object, path) = evidence;
        finding = finding.evidence(text.clone(), object, path);
    }
    let is_down = problem.call.is_none();
    let is_deadlock = is_down
        && problem.webhooks.iter().any(|webhook| webhook.fails && blocks_pods_of(cluster, webhook, problem.service));
    for (partner, namespace) in &problem.circle {
        let text =
            format!("{partner} rejects the pods in namespace {}, it rejects those in {namespace}", problem.service.0);
        finding = finding.evidence(text, partner, "");
    }
    if is_deadlock {
        let text = format!(
            "pods in its own namespace {} are not exempt and cannot be created while it fails",
            problem.service.0
        );
        finding = finding.evidence(text, object, "");
    }
    // Where the webhook blocks its own pods, it is the cause of their absence and not the consequence.
    let has_pods = !own_pods(cluster, problem).is_empty();
    if problem.no_answer.is_none() && is_down {
        finding = injector(cluster, object).into_iter().fold(finding, Finding::because);
    }
    finding = problem.call.iter().flat_map(|call| call.because.clone()).fold(finding, Finding::because);
    if problem.circle.is_empty() && (!is_deadlock || has_pods) {
        let causes = problem.no_answer.iter().flat_map(|answer| &answer.because);
        finding = causes.cloned().fold(finding, Finding::because);
    }
    with_fixes(cluster, finding, object, problem)
}

fn with_fixes(cluster: &Cluster, finding: Finding, object: &ObjectRef, problem: &Problem) -> Finding {
    let kind = object.kind.to_lowercase();
    let (namespace, service) = problem.service;
    if let Some(call) = &problem.call {
        let commands = call.command.iter();
        let finding =
            commands.fold(finding, |finding, (text, command)| finding.fix_command(text.clone(), command.clone()));
        let finding = call.fix.iter().fold(finding, |finding, text| finding.fix(text.clone()));
        return if problem.webhooks[0].fails { fail_open(finding, object, problem) } else { finding };
    }
    if !problem.circle.is_empty() {
        let finding = fail_open(finding, object, problem);
        return problem.circle.iter().fold(finding, |finding, (partner, place)| {
            finding.fix(format!(
                "Then exempt namespace {place}, where the pods behind {partner} run, from {}, with a namespaceSelector",
                object.title()
            ))
        });
    }
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
        None => match injector(cluster, object) {
            Some(injector) => finding.fix_command(
                format!("Check why {injector} (cainjector) does not set the caBundle"),
                kubectl(["-n", injector.namespace(), "logs", &injector.target(), "--tail=50"]),
            ),
            None => finding.fix(
                "Check the logs of the software that owns the webhook, or of cert-manager's cainjector, which set the \
                 caBundle",
            ),
        },
    };
    if !problem.webhooks[0].fails || problem.no_answer.is_none() {
        return finding;
    }
    fail_open(finding, object, problem)
}

/// Advises to set `failurePolicy: Ignore` until the problem is solved.
fn fail_open(finding: Finding, object: &ObjectRef, problem: &Problem) -> Finding {
    let kind = object.kind.to_lowercase();
    let text = if problem.circle.is_empty() { "Until then, set" } else { "To break the cycle, set" };
    let patches: Vec<String> = problem
        .webhooks
        .iter()
        .map(|webhook| format!(r#"{{"op":"add","path":"/webhooks/{}/failurePolicy","value":"Ignore"}}"#, webhook.index))
        .collect();
    finding.fix_command(
        format!("{text} failurePolicy to Ignore, if the webhook enforces nothing critical"),
        kubectl(["patch", &kind, &object.name, "--type=json", "-p", &format!("[{}]", patches.join(","))]),
    )
}

fn applies_to_kube_system(cluster: &Cluster, webhook: &Webhook) -> bool {
    !webhook.has_match_conditions && webhook.sees_pods(cluster, "kube-system", &Labels::default())
}

/// The cainjector of cert-manager, if it sets the caBundle of this configuration:
/// <https://cert-manager.io/docs/concepts/ca-injector/>
fn injector(cluster: &Cluster, object: &ObjectRef) -> Option<ObjectRef> {
    let keys = ["inject-ca-from", "inject-ca-from-secret", "inject-apiserver-ca"];
    let is_injected = |key: &str| cluster.annotation_of(object, &format!("cert-manager.io/{key}")).is_some();
    keys.iter().find(|key| is_injected(key))?;
    if let Some(pod) = cluster.pods_of_app("cainjector").find(|pod| pod.is_active()) {
        return Some(cluster.owner_of(pod).into_owned());
    }
    let runs = |pod: &Pod| pod.spec.containers.iter().any(|container| container.image.contains("cainjector"));
    let group = cluster.pod_groups().iter().find(|group| cluster.pods_of(group).next().is_some_and(runs))?;
    Some(group.owner.clone())
}

/// Whether the webhook applies to the pods behind a Service, by namespace and name.
fn blocks_pods_of(cluster: &Cluster, webhook: &Webhook, (namespace, name): (&str, &str)) -> bool {
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
fn own_pods<'a>(cluster: &'a Cluster, problem: &Problem) -> Vec<&'a Pod> {
    pods_behind(cluster, problem.service)
}

/// The active pods that a Service selects.
fn pods_behind<'a>(cluster: &'a Cluster, (namespace, name): (&str, &str)) -> Vec<&'a Pod> {
    let Some(service) = cluster.get::<Service>(namespace, name).found() else { return Vec::new() };
    if service.spec.selector.is_empty() || !cluster.covers(Kind::Pod, service.namespace()) {
        return Vec::new();
    }
    let pods = cluster.pods_matching(namespace, &Selector::equals(&service.spec.selector));
    pods.into_iter().filter(|pod| pod.is_active()).collect()
}

/// How recent a failed call must be to show that the webhook is still unreachable. Controllers retry after up to 16
/// minutes.
const STILL: Duration = Duration::from_secs(1200);
/// The lines of a log in which rejected certificates count, and how many of them must report one.
const LOG_LINES: usize = 20;
const MIN_REJECTED: usize = 3;

/// Calls that fail although the Service has endpoints.
#[derive(Clone, Debug, Default)]
struct Broken {
    why: String,
    evidence: Vec<(String, ObjectRef, String)>,
    because: Vec<ObjectRef>,
    fix: Vec<String>,
    command: Vec<(String, String)>,
}

impl Broken {
    fn of(cluster: &Cluster, call: Option<&FailedCall>, webhook: &Webhook) -> Option<Broken> {
        let service = webhook.client_config.service.as_ref()?;
        let pods = pods_behind(cluster, (&service.namespace, &service.name));
        if !webhook.fails {
            return pods.iter().find_map(|pod| rejected_certificate(cluster, pod));
        }
        let call = call.filter(|call| call.is_current(cluster, STILL))?;
        let place = format!("Service {}/{}", service.namespace, service.name);
        let mut broken = Broken::default();
        let pod = pods.first().copied();
        let owner = pod.map(|pod| cluster.owner_of(pod).into_owned());
        let at = owner.as_ref().map_or_else(|| place.clone(), ObjectRef::to_string);
        let error = shorten(&call.message, 160);
        match call.failure {
            CallFailure::NotAllowed => broken.outside(cluster, pod, &at, &error),
            CallFailure::Timeout if pod.is_some_and(|pod| overlay_of(cluster, pod).is_some()) => {
                broken.outside(cluster, pod, &at, &error);
            }
            CallFailure::Timeout => {
                let port = port_of(cluster, &service.namespace, &service.name, service.port);
                broken.why = format!("calls to {place} time out ({error})");
                let only = if cluster.is_gke() { ": private GKE clusters allow only ports 443 and 10250" } else { "" };
                broken.fix.push(format!(
                    "Allow connections from the control plane to port {port} of {at} (firewall rules, security groups, \
                     NetworkPolicies){only}"
                ));
            }
            CallFailure::NoConnection => {
                let port = port_of(cluster, &service.namespace, &service.name, service.port);
                broken.why = format!("connections to {place} fail ({error})");
                broken.fix.push(format!("Check that {at} listens on port {port}, the targetPort of {place}"));
            }
            CallFailure::UnknownAuthority => {
                broken.why = format!("its caBundle is not the CA of the certificate that {place} serves ({error})");
                broken
                    .fix
                    .push(format!("Restart {at} so that it serves its current certificate, or update the caBundle"));
            }
            CallFailure::Expired => {
                broken.why = format!("the certificate that {place} serves has expired ({error})");
                broken.fix.push(format!("Renew the certificate, then restart {at} if it does not reload it"));
            }
            CallFailure::WrongName => {
                let name = format!("{}.{}.svc", service.name, service.namespace);
                broken.why = format!("the certificate that {place} serves is not valid for {name} ({error})");
                broken.fix.push(format!("Issue the certificate for the DNS name {name}"));
            }
            CallFailure::NoPath => {
                let path = service.path.as_deref().unwrap_or("/");
                broken.why = format!("{place} does not serve path {path} ({error})");
                broken.fix.push(
                    "Correct clientConfig.service.path, or run the version of the webhook that has it".to_string(),
                );
            }
            CallFailure::NoBackend | CallFailure::Other => return None,
        }
        broken.evidence.push((error, call.event.clone(), "message".to_string()));
        Some(broken)
    }

    /// The API server cannot connect to the pod's address because it is not an address of the control plane's network.
    fn outside(&mut self, cluster: &Cluster, pod: Option<&Pod>, at: &str, error: &str) {
        let Some(pod) = pod.filter(|pod| !pod.spec.host_network) else {
            self.why = format!("the API server cannot connect to {at} ({error})");
            self.fix.push(format!("Check why the control plane may not connect to the address of {at}"));
            return;
        };
        let address = &pod.status.pod_ip;
        let network = overlay(cluster).map(|name| format!(" ({name})")).unwrap_or_default();
        self.why = format!(
            "the API server cannot connect to address {address} of Pod {} ({error}): managed control planes reach only \
             addresses of their VPC, not those of an overlay network{network}",
            pod.metadata.name
        );
        let text = format!("Pod {} has address {address}, without hostNetwork", pod.metadata.name);
        self.evidence.push((text, pod.reference(), "status.podIP".to_string()));
        let owner = cluster.owner_of(pod);
        let via = manager(cluster, &owner).map(|manager| format!(" (through {manager})")).unwrap_or_default();
        self.fix.push(format!(
            "Set hostNetwork: true and dnsPolicy: ClusterFirstWithHostNet in the pod template of {at}{via}, with a port \
             that is free on the nodes"
        ));
    }
}

/// The port that the pods behind a Service are called on.
fn port_of(cluster: &Cluster, namespace: &str, name: &str, port: Option<i32>) -> String {
    let number = port.unwrap_or(443);
    let service = cluster.get::<Service>(namespace, name).found();
    let port = service.and_then(|service| service.port(number));
    port.map_or_else(|| number.to_string(), |port| crate::snapshot::model::port_text(&port.target()))
}

/// The overlay network of the cluster, if it runs one instead of the cloud's own network.
fn overlay(cluster: &Cluster) -> Option<&'static str> {
    const OVERLAYS: [(&str, &str); 5] = [
        ("cilium", "Cilium"),
        ("calico/node", "Calico"),
        ("flannel", "Flannel"),
        ("weave", "Weave Net"),
        ("antrea", "Antrea"),
    ];
    let has_cloud_network = cluster.cloud() == Some("aws") && cluster.runs(&["amazon-k8s-cni"]);
    let found = OVERLAYS.iter().filter(|_| !has_cloud_network).find(|(image, _)| cluster.runs(&[image]));
    found.map(|(_, name)| *name)
}

/// The overlay network that a pod is in, on a cloud whose control plane is outside of it: its address is in another
/// network than those of all nodes.
fn overlay_of(cluster: &Cluster, pod: &Pod) -> Option<&'static str> {
    let network = |address: &str| address.split('.').take(2).map(str::to_string).collect::<Vec<String>>();
    let is_outside = !pod.spec.host_network && pod.status.pod_ip.contains('.');
    let own = network(&pod.status.pod_ip);
    let mut nodes = cluster.all::<Node>().iter().flat_map(|node| &node.status.addresses);
    let is_eks = cluster.cloud() == Some("aws") && !cluster.all::<Node>().is_empty() && runs_eks(cluster);
    (is_eks && is_outside && !nodes.any(|address| network(&address.address) == own)).then(|| overlay(cluster))?
}

fn runs_eks(cluster: &Cluster) -> bool {
    let nodes = cluster.all::<Node>().iter();
    let mut labels = nodes.flat_map(|node| node.metadata.labels.iter());
    labels.any(|(key, _)| key.starts_with("eks.amazonaws.com/"))
        || cluster.all::<Node>().iter().any(|node| node.status.node_info.kubelet_version.contains("-eks-"))
}

/// A pod whose clients do not trust its certificate, from its log: the API server is the client of a webhook.
fn rejected_certificate(cluster: &Cluster, pod: &Pod) -> Option<Broken> {
    let is_rejection = |line: &&String| {
        line.contains("TLS handshake error")
            && ["tls: bad certificate", "tls: unknown certificate"].iter().any(|alert| line.contains(alert))
    };
    let meta = &pod.metadata;
    let (container, line) = pod.spec.containers.iter().find_map(|container| {
        let lines = &cluster.log(&meta.namespace, &meta.name, &container.name)?.lines;
        let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
        let rejected: Vec<&String> = last.iter().filter(is_rejection).collect();
        (rejected.len() >= MIN_REJECTED).then(|| Some((&container.name, *rejected.last()?)))?
    })?;
    let owner = cluster.owner_of(pod).into_owned();
    let started = pod.created();
    let newer =
        references(&pod.spec).into_iter().filter(|reference| reference.kind == Kind::Secret).find_map(|reference| {
            let secret = cluster.get::<Secret>(&meta.namespace, reference.name).found()?;
            (secret.created() > started && started.is_some()).then_some(secret)
        });
    let since = newer.map(|secret| {
        let created = secret.created().map(|created| format!(" at {created:.0}")).unwrap_or_default();
        format!(": Secret {} was replaced{created}, after the pod started", secret.name())
    });
    let mut broken = Broken {
        why: format!(
            "the API server rejects the certificate that {owner} serves (tls: bad certificate){}",
            since.unwrap_or_default()
        ),
        ..Broken::default()
    };
    let text = format!("log of {container}: {}", shorten(&plain(line), 200));
    broken.evidence.push((text, pod.reference(), String::new()));
    if let Some(secret) = newer {
        let text = format!("Secret {} is newer than Pod {}", secret.name(), meta.name);
        broken.evidence.push((text, secret.reference(), "metadata.creationTimestamp".to_string()));
    }
    broken.command.push((
        "Restart it, so that it serves the certificate that matches the caBundle".to_string(),
        kubectl(["-n", owner.namespace(), "rollout", "restart", &owner.target()]),
    ));
    broken.fix.push(
        "Let it reload its certificate in future, if it has an option for that (for example --reload-cert)".to_string(),
    );
    Some(broken)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::Origin;
    use crate::kubernetes::certificate::made::Made;
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

    const REJECTED: &str = "
        apiVersion: v1
        kind: Event
        metadata: {name: e, namespace: shop}
        type: Warning
        reason: FailedCreate
        count: 9
        involvedObject: {kind: ReplicaSet, namespace: shop, name: web-1}
        lastTimestamp: '2026-11-21T11:55:00Z'
        message: 'Error creating: Internal error occurred: failed calling webhook \"validate.policy.io\": failed to call webhook:
          Post \"https://webhook.policy.svc:443/?timeout=10s\": ERROR'";

    fn called(error: &str) -> Findings {
        let pod = POD
            .replace("status: {", "spec: {containers: [{name: c}]}\n        status: {podIP: 10.0.0.1, ")
            .replace("'False'", "'True'");
        with(&[SERVICE, DEPLOYMENT, &pod, &SLICE.replace("READY", "true"), &REJECTED.replace("ERROR", error)])
    }

    #[test]
    fn fires_when_calls_fail_although_endpoints_are_ready() {
        let said = called("Address is not allowed");
        let message = &said.finding().message;
        assert!(
            message.contains("cannot connect to address 10.0.0.1 of Pod webhook-0 (Address is not allowed)"),
            "{message}"
        );
        assert!(said.text().contains("Set hostNetwork: true"));
        assert!(!said.text().contains("Restore the pods"));
        let said = called("context deadline exceeded");
        assert!(said.finding().fix[0].text.contains("port 8443"), "{}", said.text());
        let said = called("tls: failed to verify certificate: x509: certificate signed by unknown authority");
        assert!(said.finding().message.contains("its caBundle is not the CA of the certificate"));
    }

    #[test]
    fn quiet_when_the_failed_call_is_old_or_was_a_single_one() {
        let pod = POD.replace("'False'", "'True'");
        let old = REJECTED.replace("ERROR", "context deadline exceeded").replace("11:55", "11:20");
        with(&[SERVICE, DEPLOYMENT, &pod, &SLICE.replace("READY", "true"), &old]).finds_nothing();
        let single = REJECTED.replace("ERROR", "context deadline exceeded").replace("count: 9", "count: 1");
        with(&[SERVICE, DEPLOYMENT, &pod, &SLICE.replace("READY", "true"), &single]).finds_nothing();
    }

    fn other(metadata: &str) -> String {
        let all = [SERVICE, DEPLOYMENT].map(|document| document.replace("policy", "mesh"));
        let configuration = configuration().replace("policy", "mesh").replace("u1", metadata);
        [&configuration, &all[0], &all[1]].map(String::as_str).join("\n---\n")
    }

    #[test]
    fn fires_when_two_webhooks_block_each_other() {
        let said = with(&[SERVICE, DEPLOYMENT, &other("u9")]);
        let messages: Vec<&str> = said.0.findings.iter().map(|f| f.message.as_str()).collect();
        assert!(
            messages[0].ends_with("it and ValidatingWebhookConfiguration policy block each other's pods"),
            "{messages:?}"
        );
        assert!(
            messages[1].ends_with("it and ValidatingWebhookConfiguration mesh block each other's pods"),
            "{messages:?}"
        );
        assert!(said.text().contains("Then exempt namespace mesh") && !said.text().contains("Restore the pods"));
    }

    #[test]
    fn quiet_about_a_circle_when_one_webhook_exempts_the_pods_of_the_other() {
        let exempt = configuration()
            + "\n          namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: [mesh]}]}";
        let said = check(&RULE, &[&exempt, SERVICE, DEPLOYMENT, &other("u9")]);
        assert!(!said.text().contains("block each other"));
    }

    #[test]
    fn fires_when_the_log_shows_that_its_certificate_is_rejected() {
        let ignore = configuration().replace("failurePolicy: Fail", "failurePolicy: Ignore");
        let pod =
            POD.replace("status: {", "spec: {containers: [{name: c}]}\n        status: {").replace("'False'", "'True'");
        let slice = SLICE.replace("READY", "true");
        let line = "http: TLS handshake error from 10.0.0.9:1: remote error: tls: bad certificate";
        let world = |lines: &[&str]| {
            TestCluster::new(&[&ignore, SERVICE, DEPLOYMENT, &pod, &slice])
                .log("policy", "webhook-0", "c", lines)
                .check(&RULE)
        };
        let said = world(&[line, line, line]);
        assert!(
            said.finding().message.contains("rejects the certificate that Pod policy/webhook-0 serves"),
            "{}",
            said.text()
        );
        world(&[line, "ok"]).finds_nothing();
    }
}
