use std::time::Duration;

use serde_json::Value;

use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::admission::refusal::Refusal;
use crate::kubernetes::admission::webhooks::configurations_with;
use crate::kubernetes::time;
use crate::snapshot::model::{Condition, CustomResource, CustomResourceDefinition, Meta, Timestamp};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::shorten;

declare_rule! {
    /// ## What it checks
    ///
    /// The conditions of custom resources: `Ready`, `Available`, `Healthy`, `Synced`, `Reconciled` and similar types
    /// that have been False for more than five minutes, and `Stalled`, `Degraded`, `Failed` and similar types that have
    /// been True for as long. For Argo CD Applications, it checks health, sync status and the last operation.
    ///
    /// ## Why it matters
    ///
    /// The controller of the resource reports that it failed to reconcile it: a certificate was not issued, a release
    /// was not installed, a database was not created. Its message usually names the cause.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe KIND NAME` shows the conditions and events.
    ///
    /// ## How to fix
    ///
    /// Follow the message. If it names another object, that object usually has a finding of its own.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire
    ///
    /// - for unknown condition types,
    /// - in the first five minutes, or in the first 30 minutes while the reason shows that creation or an update is in
    ///   progress,
    /// - when the status belongs to an older generation,
    /// - for resources that are suspended, paused, switched off (no replicas, a halted virtual machine) or being
    ///   deleted,
    /// - for parts whose owner is ready (such as an old CertificateRequest that failed before a later one succeeded).
    ///
    /// `--crds` selects the API groups that are read from a cluster. All kinds that can be listed are found by
    /// discovery. Kinds that hold credentials (tokens, passwords), records such as vulnerability reports, and computed
    /// APIs such as metrics are skipped. If the first 1,000 objects of a kind have no conditions, the rest of that kind
    /// is not read. Of any other kind at most 5,000 objects are read. What is left out is listed under "not evaluated".
    "resource/not-ready": Warning,
    "a custom resource is not ready",
    needs: [],
    optional: [
        Deployment, StatefulSet, DaemonSet, Job, Pod, ValidatingWebhookConfiguration, MutatingWebhookConfiguration,
        CustomResourceDefinition
    ],
    reads_custom: true,
    explained_by: [
        "resource/not-ready", "workload/*", "pod/*", "statefulset/*", "deployment/*", "job/*", "webhook/*", "crd/*", "clusterqueue/*", "admissionpolicy/*", "certificate/solver-class",
    ],
}

/// The time that controllers normally need to reconcile a resource.
const SETTLE: Duration = Duration::from_secs(300);
/// The time to create a database, a machine or an image, while the controller reports progress.
const SETTLE_IN_PROGRESS: Duration = Duration::from_secs(1800);
/// Condition reasons that report progress: the whole reason, its prefix or its suffix.
const IN_PROGRESS: &[&str] = &[
    "Creating",
    "Provisioning",
    "Pending",
    "InProgress",
    "Progressing",
    "Initializing",
    "Starting",
    "Updating",
    "Upgrading",
    "Bootstrapping",
    "Scaling",
    "Deploying",
    "Installing",
    "Importing",
    "Transfer",
    "Waiting",
];
/// The time to reconcile a resource of which only the creation time is known.
const SETTLE_FROM_CREATION: Duration = Duration::from_secs(600);

/// Condition types that are True for a healthy resource, the most specific first (API conventions; kstatus; Crossplane;
/// Flux; Cluster API; Gateway API; OpenShift).
const GOOD: &[&str] = &[
    "Ready",
    "Available",
    "Healthy",
    "Synced",
    "Reconciled",
    "ReconcileSuccess",
    "Released",
    "Installed",
    "Programmed",
    "Accepted",
    "ResolvedRefs",
    "Established",
    "Deployed",
    "Valid",
    "InfrastructureReady",
    "ControlPlaneReady",
    "BootstrapReady",
];
/// Condition types that are True for a failed resource.
const BAD: &[&str] = &[
    "Stalled",
    "Degraded",
    "Failed",
    "Error",
    "ErrorOccurred",
    "NotReady",
    "ReconcileError",
    "ReconcileFailed",
    "InstallFailed",
    "ResolutionFailed",
    "ACK.Terminal",
];
/// Kinds that record a run: a failed one stays failed.
const RECORDS: &[&str] = &[
    "TaskRun",
    "PipelineRun",
    "Workflow",
    "AnalysisRun",
    "Backup",
    "Restore",
    "EphemeralReport",
    "PolicyReport",
    "ClusterPolicyReport",
];

/// A failure that a controller reports.
struct Trouble {
    severity: Severity,
    /// The predicate of the message: `is not ready`, `is degraded`.
    state: String,
    message: String,
    path: String,
    fact: String,
    since: Option<Timestamp>,
    /// How long the state may last before it is reported.
    settle: Duration,
}

fn check(cluster: &Cluster, report: &mut Report) {
    report.custom_not_read(cluster);
    let mut resources: Vec<&CustomResource> = cluster.custom().iter().filter(|resource| is_judged(resource)).collect();
    resources.sort_by_cached_key(|resource| resource.reference());
    for resource in resources {
        let Some(trouble) = trouble(resource) else { continue };
        if is_young(cluster, resource, trouble.since, trouble.settle) || owner_is_ready(cluster, resource) {
            continue;
        }
        report.add(finding(cluster, resource, trouble));
    }
}

fn is_judged(resource: &CustomResource) -> bool {
    let is_stale = resource
        .status
        .get("observedGeneration")
        .and_then(Value::as_i64)
        .is_some_and(|observed| observed < resource.metadata.generation);
    let is_record = RECORDS.contains(&resource.kind.as_str());
    let is_gone = resource.metadata.deletion_timestamp.is_some();
    // Built-in kinds in a version that the model does not read have rules of their own.
    let is_core = !resource.group().contains('.')
        || Kind::ALL.iter().any(|kind| kind.api().group == resource.group() && kind.api().kind == resource.kind);
    resource.metadata.is_live() && !is_stale && !is_record && !is_gone && !is_core && !is_suspended(resource)
}

/// `spec.suspend` (Flux, Argo), `spec.paused` (Cluster API, Argo Rollouts), and annotations of the same meaning
/// (Crossplane, Cluster API, KEDA, OpenShift, CloudNativePG).
fn is_suspended(resource: &CustomResource) -> bool {
    let is_true = |field: &str| resource.spec.get(field).and_then(Value::as_bool) == Some(true);
    let by_annotation = resource.metadata.annotations.iter().any(|(key, value)| {
        let name = key.rsplit('/').next().unwrap_or(key);
        let pauses =
            ["paused", "pause", "pause-reconciliation", "paused-replicas", "suspend", "skip-reconcile", "hibernation"];
        pauses.contains(&name) && !matches!(value, "false" | "off")
    });
    is_true("suspend") || is_true("suspended") || is_true("paused") || by_annotation || is_off(resource)
}

/// Whether it has zero replicas, or is a virtual machine that is switched off (KubeVirt).
fn is_off(resource: &CustomResource) -> bool {
    let field = |name: &str| resource.spec.get(name);
    field("replicas").and_then(Value::as_i64) == Some(0)
        || field("running").and_then(Value::as_bool) == Some(false)
        || matches!(text(&resource.spec, &["runStrategy"]), Some("Halted" | "Manual"))
}

fn trouble(resource: &CustomResource) -> Option<Trouble> {
    match (resource.group(), resource.kind.as_str()) {
        ("argoproj.io", "Application") => of_application(resource),
        // `Healthy` is False while a canary waits for promotion; only the phase distinguishes that from a failure.
        ("argoproj.io", "Rollout") => of_phase(resource, "Degraded"),
        _ => of_conditions(resource),
    }
}

fn of_conditions(resource: &CustomResource) -> Option<Trouble> {
    let conditions = resource.conditions();
    let is_current =
        |c: &&Condition| c.observed_generation == 0 || c.observed_generation >= resource.metadata.generation;
    let counts = |c: &&Condition| is_current(c) && !is_only_informative(resource, &c.type_);
    let find =
        |type_: &str, status: &str| conditions.iter().filter(counts).find(|c| c.type_ == type_ && c.status == status);
    let bad = || BAD.iter().find_map(|type_| find(type_, "True"));
    let found = GOOD.iter().find_map(|type_| find(type_, "False")).or_else(bad)?;
    let text = if found.message.trim().is_empty() { found.reason.as_str() } else { found.message.as_str() };
    let state = match (found.type_.as_str(), found.is_false()) {
        ("Ready", true) => "is not ready".to_string(),
        ("Available", true) => "is not available".to_string(),
        ("Synced", true) => "is not synced".to_string(),
        (type_, true) => format!("has condition {type_}=False"),
        (type_, false) => format!("has condition {type_}=True"),
    };
    Some(Trouble {
        severity: Severity::Warning,
        state,
        message: text.to_string(),
        path: format!("status.conditions[{}]", found.type_),
        fact: format!("condition {} is {} ({})", found.type_, found.status, found.reason),
        since: found.last_transition_time,
        settle: settle(&found.reason),
    })
}

/// How long a condition with this reason may last: longer for `Creating` or `WaitingForInfrastructure`, but not for
/// `CreatingFailed`.
fn settle(reason: &str) -> Duration {
    let has_failed = reason.contains("Fail") || reason.contains("Err");
    let is_in_progress = IN_PROGRESS.iter().any(|word| reason.starts_with(word) || reason.ends_with(word));
    if is_in_progress && !has_failed { SETTLE_IN_PROGRESS } else { SETTLE }
}

/// A condition with `severity: Info` (Knative, Cluster API v1beta1) is not a failure.
fn is_only_informative(resource: &CustomResource, type_: &str) -> bool {
    let conditions = resource.status.get("conditions").and_then(Value::as_array);
    conditions
        .into_iter()
        .flatten()
        .any(|condition| text(condition, &["type"]) == Some(type_) && text(condition, &["severity"]) == Some("Info"))
}

/// <https://argo-cd.readthedocs.io/en/stable/operator-manual/health/>
fn of_application(resource: &CustomResource) -> Option<Trouble> {
    let status = &resource.status;
    let time = |path: &[&str]| text(status, path).and_then(|text| text.parse().ok());
    let mut errors = status.get("conditions").and_then(Value::as_array).into_iter().flatten();
    let error = errors.rfind(|c| text(c, &["type"]).is_some_and(|type_| type_.ends_with("Error")));
    if let Some(error) = error {
        let type_ = text(error, &["type"]).unwrap_or_default();
        return Some(Trouble {
            severity: Severity::Warning,
            state: format!("has condition {type_}"),
            message: text(error, &["message"]).unwrap_or_default().to_string(),
            path: format!("status.conditions[{type_}]"),
            fact: format!("condition {type_} is set"),
            since: text(error, &["lastTransitionTime"]).and_then(|text| text.parse().ok()),
            settle: SETTLE,
        });
    }
    let phase = text(status, &["operationState", "phase"]).unwrap_or_default();
    if matches!(phase, "Failed" | "Error") {
        return Some(Trouble {
            severity: Severity::Warning,
            state: "failed to sync".to_string(),
            message: text(status, &["operationState", "message"]).unwrap_or_default().to_string(),
            path: "status.operationState".to_string(),
            fact: format!("the phase of the last operation is {phase}"),
            since: time(&["operationState", "finishedAt"]),
            settle: SETTLE,
        });
    }
    let health = text(status, &["health", "status"]).unwrap_or_default();
    if matches!(health, "Degraded" | "Missing") {
        return Some(Trouble {
            severity: Severity::Warning,
            state: format!("is {}", health.to_lowercase()),
            message: text(status, &["health", "message"]).unwrap_or_default().to_string(),
            path: "status.health".to_string(),
            fact: format!("health is {health}"),
            since: time(&["health", "lastTransitionTime"]),
            settle: SETTLE,
        });
    }
    (text(status, &["sync", "status"]) == Some("OutOfSync")).then(|| Trouble {
        severity: Severity::Info,
        state: "is out of sync".to_string(),
        message: String::new(),
        path: "status.sync".to_string(),
        fact: "the sync status is OutOfSync".to_string(),
        since: None,
        settle: SETTLE,
    })
}

fn of_phase(resource: &CustomResource, bad: &str) -> Option<Trouble> {
    let phase = text(&resource.status, &["phase"]).filter(|phase| *phase == bad)?;
    let progressing = resource.conditions().into_iter().find(|condition| condition.type_ == "Progressing");
    Some(Trouble {
        severity: Severity::Warning,
        state: format!("is {}", phase.to_lowercase()),
        message: text(&resource.status, &["message"]).unwrap_or_default().to_string(),
        path: "status.phase".to_string(),
        fact: format!("the phase is {phase}"),
        since: progressing.and_then(|condition| condition.last_transition_time),
        settle: SETTLE,
    })
}

fn text<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    path.iter().try_fold(value, |value, key| value.get(key))?.as_str()
}

fn is_young(cluster: &Cluster, resource: &CustomResource, since: Option<Timestamp>, settle: Duration) -> bool {
    match (since, resource.metadata.creation_timestamp) {
        (Some(since), _) => time::age(cluster.now(), since) < settle,
        (None, Some(created)) => time::age(cluster.now(), created) < settle.max(SETTLE_FROM_CREATION),
        (None, None) => false,
    }
}

/// The custom resource that controls this one, if it is known.
fn owner<'a>(cluster: &'a Cluster, resource: &CustomResource) -> Option<&'a CustomResource> {
    let owner = resource.metadata.controller()?;
    let is_owner = |candidate: &&CustomResource| {
        let same_place =
            candidate.metadata.namespace == resource.metadata.namespace || candidate.metadata.namespace.is_empty();
        candidate.kind == owner.kind && candidate.metadata.name == owner.name && same_place
    };
    cluster.custom().iter().find(is_owner)
}

/// Whether the owner is ready. A failed part of it is then outdated or does not matter.
fn owner_is_ready(cluster: &Cluster, resource: &CustomResource) -> bool {
    owner(cluster, resource).is_some_and(|owner| {
        trouble(owner).is_none() && owner.conditions().iter().any(|c| c.type_ == "Ready" && c.is_true())
    })
}

fn finding(cluster: &Cluster, resource: &CustomResource, trouble: Trouble) -> Finding {
    let object = resource.reference();
    let text = shorten(trouble.message.lines().next().unwrap_or_default(), 240);
    let why = if text.is_empty() { String::new() } else { format!(": {text}") };
    let message = format!("{} {} {}{why}", resource.kind, resource.metadata.name, trouble.state);
    let mut finding = Finding::new(trouble.severity, object.clone(), message).since(trouble.since).evidence(
        trouble.fact,
        &object,
        &trouble.path,
    );
    if trouble.message.trim() != text && !trouble.message.trim().is_empty() {
        finding = finding.evidence(shorten(&trouble.message, 600), &object, &trouble.path);
    }
    finding = behind(cluster, resource).into_iter().fold(finding, Finding::because);
    finding = named(cluster, &trouble.message).into_iter().fold(finding, Finding::because);
    let kind = match resource.group() {
        "" => resource.kind.to_lowercase(),
        group => format!("{}.{group}", resource.kind.to_lowercase()),
    };
    let command = match resource.metadata.namespace.as_str() {
        "" => kubectl(["describe", &kind, &resource.metadata.name]),
        namespace => kubectl(["-n", namespace, "describe", &kind, &resource.metadata.name]),
    };
    finding.fix_command("Check its conditions and events, and resolve the reported error", command)
}

/// What the resource consists of or depends on: its parts, its workloads, its issuer.
fn behind(cluster: &Cluster, resource: &CustomResource) -> Vec<ObjectRef> {
    let metadata = &resource.metadata;
    let is_part = |part: &&CustomResource| {
        part.metadata.controller().is_some_and(|o| o.kind == resource.kind && o.name == metadata.name)
            && (part.metadata.namespace == metadata.namespace || metadata.namespace.is_empty())
    };
    let mut behind: Vec<ObjectRef> = cluster.custom().iter().filter(is_part).map(CustomResource::reference).collect();
    let workloads = cluster.workloads_in(&metadata.namespace).into_iter();
    let owned = workloads.filter(|workload| {
        workload.metadata.controller().is_some_and(|o| o.kind == resource.kind && o.name == metadata.name)
            || is_of_release(resource, &workload.object, workload.metadata)
    });
    behind.extend(owned.map(|workload| workload.object));
    if let Some(name) = text(&resource.spec, &["issuerRef", "name"]) {
        let kind = text(&resource.spec, &["issuerRef", "kind"]).unwrap_or("Issuer");
        let issuers = cluster.custom().iter().filter(|c| c.kind == kind && c.metadata.name == name);
        let near = issuers.filter(|c| c.metadata.namespace.is_empty() || c.metadata.namespace == metadata.namespace);
        behind.extend(near.map(CustomResource::reference));
    }
    behind
}

/// Whether a workload belongs to the Helm release of a HelmRelease (Flux) in its own namespace.
fn is_of_release(resource: &CustomResource, workload: &ObjectRef, metadata: &Meta) -> bool {
    if resource.group() != "helm.toolkit.fluxcd.io" || workload.namespace() != resource.metadata.namespace.as_str() {
        return false;
    }
    let name = resource.metadata.name.as_str();
    let labels = &metadata.labels;
    let by_flux = labels.get("helm.toolkit.fluxcd.io/name") == Some(name);
    let by_chart = labels.get("app.kubernetes.io/managed-by") == Some("Helm")
        && labels.get("app.kubernetes.io/instance") == Some(name);
    by_flux || by_chart || metadata.annotations.get("meta.helm.sh/release-name") == Some(name)
}

/// The objects that an error message names: a webhook that could not be called, a CustomResourceDefinition that is
/// being deleted, and objects in the form `Kind/namespace/name` (health checks of Flux).
fn named(cluster: &Cluster, message: &str) -> Vec<ObjectRef> {
    let mut found = Vec::new();
    if let Refusal::WebhookFailed { webhook, .. } = Refusal::read(message) {
        found.extend(configurations_with(cluster, &webhook));
    }
    let words = || message.split(|c: char| c.is_whitespace() || matches!(c, '\'' | '"' | ',' | ';' | '[' | ']'));
    let parts = || words().filter_map(|word| word.trim_end_matches(':').split_once('/'));
    if message.contains("custom resource definition is terminating") {
        let crds = cluster.all::<CustomResourceDefinition>().iter().filter(|crd| crd.deleted().is_some());
        let is_named = |crd: &&CustomResourceDefinition| {
            parts().any(|(kind, _)| kind == crd.spec.names.kind) || words().any(|word| word == crd.name())
        };
        found.extend(crds.filter(is_named).map(Object::reference));
    }
    for (kind, rest) in parts().take(50) {
        let known = Kind::ALL.iter().find(|known| known.api().kind == kind && known.api().namespaced);
        if let (Some(kind), Some((namespace, name))) = (known, rest.split_once('/')) {
            found.push(ObjectRef::new(*kind, namespace, name));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    const CERTIFICATE: &str = "
        apiVersion: cert-manager.io/v1
        kind: Certificate
        metadata: {name: shop, namespace: web, uid: u1, generation: 2, creationTimestamp: '2026-11-20T10:00:00Z'}
        spec: {secretName: shop-tls, issuerRef: {name: letsencrypt, kind: ClusterIssuer}}
        status:
          conditions:
          - {type: Issuing, status: 'True'}
          - {type: TYPE, status: STATUS, reason: DoesNotExist, message: 'Secret does not exist', observedGeneration: 2,
             lastTransitionTime: '2026-11-21T11:00:00Z'}";

    fn with(type_: &str, status: &str) -> String {
        CERTIFICATE.replace("TYPE", type_).replace("STATUS", &format!("'{status}'"))
    }

    #[test]
    fn fires_with_the_message_of_the_condition() {
        check(&RULE, &[&with("Ready", "False")])
            .finds(&["warning Certificate web/shop: Certificate shop is not ready: Secret does not exist"]);
        check(&RULE, &[&with("Stalled", "True")]).finds(&[
            "warning Certificate web/shop: Certificate shop has condition Stalled=True: Secret does not exist",
        ]);
    }

    #[test]
    fn fires_as_a_consequence_of_its_parts_and_its_issuer() {
        let request = "
            apiVersion: cert-manager.io/v1
            kind: CertificateRequest
            metadata: {name: shop-1, namespace: web, uid: u2, creationTimestamp: '2026-11-20T10:00:00Z',
                       ownerReferences: [{apiVersion: cert-manager.io/v1, kind: Certificate, name: shop, controller: true}]}
            status: {conditions: [{type: Ready, status: 'False', reason: Failed, message: refused}]}";
        let issuer = "
            apiVersion: cert-manager.io/v1
            kind: ClusterIssuer
            metadata: {name: letsencrypt, uid: u3, creationTimestamp: '2026-11-20T10:00:00Z'}
            status: {conditions: [{type: Ready, status: 'False', reason: Failed, message: no account}]}";
        let said = check(&RULE, &[&with("Ready", "False"), request, issuer]);
        let causes: Vec<usize> = said.0.findings.iter().map(|finding| finding.caused_by.len()).collect();
        assert_eq!(causes, [2, 0, 0], "{:#?}", said.0.findings);
        check(&RULE, &[&with("Ready", "True"), request]).finds_nothing();
    }

    #[test]
    fn fires_for_an_application() {
        let application = "
            apiVersion: argoproj.io/v1alpha1
            kind: Application
            metadata: {name: shop, namespace: argocd, uid: u1, creationTimestamp: '2026-11-20T10:00:00Z'}
            status: {health: {status: Degraded}, sync: {status: OutOfSync}}";
        check(&RULE, &[application]).finds(&["warning Application argocd/shop: Application shop is degraded"]);
        check(&RULE, &[&application.replace("Degraded", "Healthy")])
            .finds(&["info Application argocd/shop: Application shop is out of sync"]);
        check(&RULE, &[&application.replace("Degraded", "Progressing").replace("OutOfSync", "Synced")]).finds_nothing();
    }

    #[test]
    fn quiet_when_ready_or_unknown() {
        check(&RULE, &[&with("Ready", "True")]).finds_nothing();
        check(&RULE, &[&with("Ready", "Unknown")]).finds_nothing();
        check(&RULE, &[&with("Degraded", "False")]).finds_nothing();
    }

    #[test]
    fn quiet_for_unknown_condition_types() {
        for type_ in ["Active", "Fallback", "Progressing", "Paused", "Upgradeable", "Issuing"] {
            check(&RULE, &[&with(type_, "False")]).finds_nothing();
        }
    }

    #[test]
    fn quiet_when_young_stale_suspended_or_not_applied() {
        let failed = with("Ready", "False");
        check(&RULE, &[&failed.replace("11:00:00", "11:57:00")]).finds_nothing();
        check(&RULE, &[&failed.replace("generation: 2, c", "generation: 3, c")]).finds_nothing();
        check(&RULE, &[&failed.replace("spec: {", "spec: {suspend: true, ")]).finds_nothing();
        check(&RULE, &[&failed.replace("uid: u1, generation: 2, creationTimestamp: '2026-11-20T10:00:00Z'", "")])
            .finds_nothing();
        check(&RULE, &["{apiVersion: a.io/v1, kind: B, metadata: {name: c, uid: u}}"]).finds_nothing();
    }

    #[test]
    fn quiet_for_a_canary_that_waits() {
        let rollout = "
            apiVersion: argoproj.io/v1alpha1
            kind: Rollout
            metadata: {name: shop, namespace: web, uid: u1, creationTimestamp: '2026-11-20T10:00:00Z'}
            status: {phase: Paused, conditions: [{type: Healthy, status: 'False'}]}";
        check(&RULE, &[rollout]).finds_nothing();
        check(&RULE, &[&rollout.replace("Paused", "Degraded")]).finding();
    }

    /// Statuses as the controllers write them, an hour old.
    fn resource(api_version: &str, kind: &str, spec: &str, conditions: &[(&str, &str, &str)]) -> String {
        let conditions = conditions.iter().map(|(type_, status, reason)| {
            format!(
                "{{type: {type_}, status: '{status}', reason: {reason}, message: the cause,
                   lastTransitionTime: '2026-11-21T11:40:00Z'}}"
            )
        });
        let conditions: Vec<String> = conditions.collect();
        format!(
            "
            apiVersion: {api_version}
            kind: {kind}
            metadata: {{name: x, namespace: web, uid: u1, creationTimestamp: '2026-11-20T10:00:00Z'}}
            spec: {spec}
            status: {{conditions: [{}]}}",
            conditions.join(", ")
        )
    }

    #[test]
    fn fires_for_failures_that_controllers_report() {
        for (api_version, kind, conditions) in [
            ("kustomize.toolkit.fluxcd.io/v1", "Kustomization", &[("Ready", "False", "BuildFailed")][..]),
            (
                "helm.toolkit.fluxcd.io/v2",
                "HelmRelease",
                &[
                    ("Stalled", "True", "RetriesExceeded"),
                    ("Released", "False", "InstallFailed"),
                    ("Ready", "False", "x"),
                ],
            ),
            (
                "keda.sh/v1alpha1",
                "ScaledObject",
                &[("Ready", "False", "ScaledObjectCheckFailed"), ("Active", "False", "x")],
            ),
            (
                "database.example.org/v1",
                "Instance",
                &[("Synced", "False", "ReconcileError"), ("Ready", "True", "Available")],
            ),
            ("cluster.x-k8s.io/v1beta1", "Machine", &[("Ready", "False", "InstanceProvisionFailed")]),
            (
                "config.openshift.io/v1",
                "ClusterOperator",
                &[("Available", "True", "AsExpected"), ("Degraded", "True", "x")],
            ),
            ("argoproj.io/v1alpha1", "ApplicationSet", &[("ErrorOccurred", "True", "ApplicationValidationError")]),
        ] {
            let said = check(&RULE, &[&resource(api_version, kind, "{}", conditions)]);
            assert_eq!(said.finding().severity.to_string(), "warning", "{kind}");
        }
    }

    #[test]
    fn quiet_for_healthy_resources() {
        for (api_version, kind, spec, conditions) in [
            (
                "keda.sh/v1alpha1",
                "ScaledObject",
                "{}",
                &[
                    ("Ready", "True", "x"),
                    ("Active", "False", "x"),
                    ("Fallback", "False", "x"),
                    ("Paused", "False", "x"),
                ][..],
            ),
            (
                "helm.toolkit.fluxcd.io/v2",
                "HelmRelease",
                "{}",
                &[("Ready", "True", "x"), ("TestSuccess", "False", "x")],
            ),
            (
                "config.openshift.io/v1",
                "ClusterOperator",
                "{}",
                &[("Degraded", "False", "x"), ("Progressing", "False", "x")],
            ),
            (
                "cluster.x-k8s.io/v1beta2",
                "Machine",
                "{}",
                &[("Ready", "True", "x"), ("Deleting", "False", "x"), ("Paused", "False", "x")],
            ),
            (
                "argoproj.io/v1alpha1",
                "ApplicationSet",
                "{}",
                &[("ErrorOccurred", "False", "x"), ("ResourcesUpToDate", "True", "x")],
            ),
            // In progress for twenty minutes.
            ("database.example.org/v1", "Instance", "{}", &[("Synced", "True", "x"), ("Ready", "False", "Creating")]),
            ("cluster.x-k8s.io/v1beta1", "Machine", "{}", &[("Ready", "False", "WaitingForInfrastructure")]),
            // Switched off.
            (
                "kustomize.toolkit.fluxcd.io/v1",
                "Kustomization",
                "{suspend: true}",
                &[("Ready", "False", "BuildFailed")],
            ),
            ("kubevirt.io/v1", "VirtualMachine", "{runStrategy: Halted}", &[("Ready", "False", "VMINotExists")]),
            ("example.org/v1", "Cache", "{replicas: 0}", &[("Available", "False", "x")]),
        ] {
            check(&RULE, &[&resource(api_version, kind, spec, conditions)]).finds_nothing();
        }
    }

    #[test]
    fn fires_when_creation_takes_too_long_or_has_failed() {
        let instance = resource("database.example.org/v1", "Instance", "{}", &[("Ready", "False", "Creating")]);
        check(&RULE, &[&instance.replace("11:40:00", "11:20:00")]).finding();
        check(&RULE, &[&instance.replace("Creating", "CreatingFailed")]).finding();
    }
}
