use std::collections::BTreeMap;

use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::time::{REPORTED, START, age};
use crate::kubernetes::workloads::references::{Reference, Standing, references};
use crate::snapshot::model::{ConfigMap, ContainerStatus, PersistentVolumeClaim, Pod, PodSpec, Secret, Timestamp};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef, Workload, share_spec};
use crate::text::kubectl;
use crate::text::similar::nearest_name;
use crate::text::words::{list, shorten};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that every ConfigMap, Secret, key and PersistentVolumeClaim that a pod requires to start exists: in
    /// `env`, `envFrom`, volumes and projected volumes of containers and init containers. The rule reads the objects
    /// themselves. If they could not be read (or only their metadata), it uses the messages of the kubelet and the
    /// scheduler.
    ///
    /// ## Why it matters
    ///
    /// The kubelet does not start a container whose environment variables reference a missing object, or a pod whose
    /// volumes cannot be mounted. The scheduler does not place a pod whose claim does not exist. The pod stays in
    /// `CreateContainerConfigError`, `ContainerCreating` or `Pending` until the object is created. A running pod keeps
    /// running if the object is deleted, but new pods cannot start; that is reported as a warning.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe pod POD` shows the event `configmap "NAME" not found`,
    /// `couldn't find key KEY in Secret NAMESPACE/NAME` or `MountVolume.SetUp failed`.
    /// `kubectl -n NAMESPACE get configmap,secret,pvc` does not list the object.
    ///
    /// ## How to fix
    ///
    /// Create the object or the key in the pod's namespace, or correct the name in the pod template. The pod then
    /// starts within a minute or two without further action. If the reference is not required, set `optional: true`.
    /// If a Certificate, an ExternalSecret or an Argo CD Application should have created it, resolve why that failed. A
    /// Helm hook that runs before the installation needs objects that are hooks of a lower weight.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for:
    ///
    /// - references with `optional: true`;
    /// - image pull secrets, because the kubelet ignores those that do not exist;
    /// - claims of generic ephemeral volumes, which are created with the pod;
    /// - pods that are less than a minute old;
    /// - workloads that are scaled to zero, suspended or completed;
    /// - kinds that could not be read, unless the kubelet or the scheduler reports the object as missing.
    "pod/missing-reference": Error,
    "a ConfigMap, Secret, key or claim that a pod requires does not exist",
    needs: [Pod],
    optional: [ConfigMap, Secret, PersistentVolumeClaim, Event, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob],
    reads_custom: true,
    explained_by: ["resource/not-ready", "webhook/unreachable"],
}

/// How a missing object affects a pod, the least severe first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Impact {
    /// No pod is affected yet; the next one cannot start.
    NextPod,
    /// The pod is running; it could not start again.
    Restart,
    /// The pod is waiting for the object.
    Blocked,
}

/// One missing object or key of one pod or template.
struct Missing<'a> {
    reference: Reference<'a>,
    what: Standing,
    impact: Impact,
    /// The message of the kubelet or scheduler.
    message: Option<String>,
}

/// One missing object or key of a workload.
struct Trouble<'a> {
    missing: Missing<'a>,
    places: Vec<Reference<'a>>,
    sample: Option<&'a Pod>,
    pods: usize,
    since: Option<Timestamp>,
}

fn check(cluster: &Cluster, report: &mut Report) {
    for group in cluster.pod_groups() {
        let pods: Vec<&Pod> = cluster.pods_of(group).filter(|pod| pod.is_active()).collect();
        let mut troubles: BTreeMap<(Kind, &str, Option<&str>), Trouble> = BTreeMap::new();
        for siblings in pods.chunk_by(|a, b| share_spec(a, b)) {
            let absent = absent(cluster, &siblings[0].metadata.namespace, &siblings[0].spec);
            for pod in siblings {
                let is_live = pod.metadata.is_live();
                let found = if is_live { missing_of(cluster, pod, &absent) } else { missing_of_template(&absent) };
                collect(&mut troubles, found, Some(pod));
            }
        }
        troubles.retain(|_, trouble| {
            trouble.missing.impact != Impact::Restart
                || is_still_required(cluster, &group.owner, &trouble.missing.reference)
        });
        let applied = cluster.pods_of(group).any(|pod| pod.metadata.is_live());
        add(cluster, report, &group.owner, troubles, applied);
    }
    for workload in cluster.workloads() {
        if has_pods(cluster, &workload.object) || !wants_pods(cluster, &workload) {
            continue;
        }
        let mut troubles = BTreeMap::new();
        let absent = absent(cluster, workload.object.namespace(), &workload.template.spec);
        collect(&mut troubles, missing_of_template(&absent), None);
        add(cluster, report, &workload.object, troubles, workload.metadata.is_live());
    }
}

fn has_pods(cluster: &Cluster, owner: &ObjectRef) -> bool {
    cluster.group_of_owner(owner).is_some_and(|group| cluster.pods_of(group).any(Pod::is_active))
}

/// Whether a workload without pods should have some: it is neither new nor scaled to zero nor finished.
fn wants_pods(cluster: &Cluster, workload: &Workload) -> bool {
    let created = workload.metadata.creation_timestamp;
    let young = created.is_some_and(|created| age(cluster.now(), created) < START);
    if young || workload.is_scaled_to_zero() || workload.metadata.deletion_timestamp.is_some() {
        return false;
    }
    let (namespace, name) = (workload.object.namespace(), workload.object.name.as_str());
    if workload.object.is(Kind::Job) {
        let job = cluster.get::<crate::snapshot::model::Job>(namespace, name).found();
        return job.is_some_and(|job| {
            job.status.completion_time.is_none()
                && !job
                    .status
                    .conditions
                    .iter()
                    .any(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.is_true())
        });
    }
    if workload.object.is(Kind::DaemonSet) && workload.metadata.is_live() {
        let daemon_set = cluster.get::<crate::snapshot::model::DaemonSet>(namespace, name).found();
        return daemon_set.is_some_and(|d| d.status.desired_number_scheduled > 0);
    }
    true
}

/// The kinds that prevent a pod from starting. The other kinds prevent it from being created.
fn is_required(reference: &Reference) -> bool {
    !reference.optional && matches!(reference.kind, Kind::ConfigMap | Kind::Secret | Kind::PersistentVolumeClaim)
}

/// The references of a pod spec to objects that are missing or could not be read.
fn absent<'a>(cluster: &Cluster, namespace: &str, spec: &'a PodSpec) -> Vec<(Reference<'a>, Standing)> {
    let required = references(spec).into_iter().filter(is_required);
    let standings = required.map(|reference| (reference, reference.standing(cluster, namespace)));
    standings.filter(|(_, standing)| *standing != Standing::Present).collect()
}

fn missing_of_template<'a>(absent: &[(Reference<'a>, Standing)]) -> Vec<Missing<'a>> {
    let is_missing = |what: Standing| matches!(what, Standing::ObjectMissing | Standing::KeyMissing);
    let missing = absent.iter().filter(|(reference, what)| is_missing(*what) && !is_published(reference));
    missing.map(|&(reference, what)| Missing { reference, what, impact: Impact::NextPod, message: None }).collect()
}

fn missing_of<'a>(cluster: &Cluster, pod: &Pod, absent: &[(Reference<'a>, Standing)]) -> Vec<Missing<'a>> {
    let namespace = &pod.metadata.namespace;
    if pod.scheduled_at().is_some_and(|since| age(cluster.now(), since) < REPORTED) {
        return Vec::new();
    }
    let mut messages: Option<Vec<String>> = None;
    let mut found = Vec::new();
    for &(reference, standing) in absent {
        let Some(impact) = impact(pod, &reference) else { continue };
        let messages = messages.get_or_insert_with(|| reported(cluster, pod));
        let message = messages.iter().find(|message| reference.is_said_missing(namespace, message)).cloned();
        let what = match standing {
            Standing::Unknown if message.is_some() && impact == Impact::Blocked => {
                unread_standing(cluster, namespace, &reference)
            }
            Standing::ObjectMissing | Standing::KeyMissing => standing,
            _ => continue,
        };
        // The kubelet reports nothing about a running pod, and an empty list may not have been recorded at all.
        if impact == Impact::Restart && (is_published(&reference) || cluster.objects().count(reference.kind) == 0) {
            continue;
        }
        found.push(Missing { reference, what, impact, message });
    }
    found
}

/// The controller root-ca-cert-publisher recreates this ConfigMap in every namespace within seconds.
fn is_published(reference: &Reference) -> bool {
    reference.kind == Kind::ConfigMap && reference.name == "kube-root-ca.crt"
}

/// What the kubelet reports as missing: the key, if the object is known to exist.
fn unread_standing(cluster: &Cluster, namespace: &str, reference: &Reference) -> Standing {
    let exists = Reference { key: None, ..*reference }.standing(cluster, namespace) == Standing::Present;
    if exists && reference.key.is_some() { Standing::KeyMissing } else { Standing::ObjectMissing }
}

/// How the reference affects the pod; `None` if an init container may still create the missing object.
fn impact(pod: &Pod, reference: &Reference) -> Option<Impact> {
    let is_scheduled = !pod.spec.node_name.is_empty();
    let Some(container) = reference.container() else {
        return Some(match reference.kind {
            _ if is_scheduled && pod.is_being_created() => Impact::Blocked,
            _ if is_scheduled => Impact::Restart,
            // The scheduler checks claims; the kubelet checks the other kinds later.
            Kind::PersistentVolumeClaim => Impact::Blocked,
            _ => Impact::NextPod,
        });
    };
    let status = pod.container_statuses().find(|status| status.name == container);
    match status {
        Some(status) if waits_for(status, "CreateContainerConfigError") => Some(Impact::Blocked),
        Some(status) if status.state.running().is_some() || status.state.terminated().is_some() => {
            Some(Impact::Restart)
        }
        _ => pod.spec.init_containers.is_empty().then_some(Impact::NextPod),
    }
}

fn waits_for(status: &ContainerStatus, reason: &str) -> bool {
    status.state.waiting().is_some_and(|waiting| waiting.reason == reason)
}

/// The messages of the kubelet and the scheduler about a pod.
fn reported(cluster: &Cluster, pod: &Pod) -> Vec<String> {
    let waiting = pod.container_statuses().filter_map(|status| status.state.waiting());
    let mut messages: Vec<String> = waiting.map(|waiting| waiting.message.clone()).collect();
    messages.extend(pod.condition("PodScheduled").map(|condition| condition.message.to_string()));
    let events = cluster.events(&pod.reference());
    let own = events.iter().filter(|event| {
        event.involved_object.uid.is_empty()
            || pod.metadata.uid.is_empty()
            || event.involved_object.uid == pod.metadata.uid
    });
    // The condition has the current message of the scheduler; its events may report a claim that was created since.
    // The kubelet retries a failing mount every two minutes.
    let own = own.filter(|event| {
        event.reason != "FailedScheduling"
            && event.last_seen().is_none_or(|seen| age(cluster.now(), seen) < crate::kubernetes::time::PROVISION)
    });
    messages.extend(own.map(|event| event.message.clone()));
    messages.retain(|message| !message.is_empty());
    messages
}

/// Whether the current template still requires the object: it may have changed since the pod was created.
fn is_still_required(cluster: &Cluster, owner: &ObjectRef, reference: &Reference) -> bool {
    let Some(workload) = cluster.workload(owner) else { return false };
    !workload.object.is(Kind::Job)
        && !workload.is_scaled_to_zero()
        && references(&workload.template.spec)
            .iter()
            .any(|r| !r.optional && (r.kind, r.name, r.key) == (reference.kind, reference.name, reference.key))
}

/// Merges the references of several pods and fields to one object.
fn collect<'a>(
    troubles: &mut BTreeMap<(Kind, &'a str, Option<&'a str>), Trouble<'a>>,
    found: Vec<Missing<'a>>,
    pod: Option<&'a Pod>,
) {
    let mut counted = Vec::new();
    for missing in found {
        let key = missing.reference.key.filter(|_| missing.what == Standing::KeyMissing);
        let id = (missing.reference.kind, missing.reference.name, key);
        let trouble = troubles.entry(id).or_insert_with(|| Trouble {
            places: Vec::new(),
            sample: pod,
            pods: 0,
            since: None,
            missing: Missing { message: missing.message.clone(), ..missing },
        });
        if missing.impact > trouble.missing.impact
            || (missing.impact == trouble.missing.impact && trouble.missing.message.is_none())
        {
            // Count and show the most severely affected pods.
            if missing.impact > trouble.missing.impact {
                (trouble.pods, trouble.since) = (0, None);
                counted.retain(|counted| *counted != id);
            }
            trouble.sample = pod;
            trouble.missing = Missing { message: missing.message.clone(), ..missing };
        }
        if !trouble.places.iter().any(|place| place.place() == missing.reference.place()) {
            trouble.places.push(missing.reference);
        }
        if missing.impact == trouble.missing.impact && !counted.contains(&id) {
            counted.push(id);
            trouble.pods += usize::from(pod.is_some());
            let since = pod.filter(|_| missing.impact == Impact::Blocked).and_then(Pod::scheduled_at);
            trouble.since = [trouble.since, since].into_iter().flatten().min();
        }
    }
}

fn add(
    cluster: &Cluster,
    report: &mut Report,
    owner: &ObjectRef,
    troubles: BTreeMap<(Kind, &str, Option<&str>), Trouble>,
    applied: bool,
) {
    for ((kind, name, key), trouble) in troubles {
        report.add(finding(cluster, owner, kind, name, key, &trouble, applied));
    }
}

fn finding(
    cluster: &Cluster,
    owner: &ObjectRef,
    kind: Kind,
    name: &str,
    key: Option<&str>,
    trouble: &Trouble,
    applied: bool,
) -> Finding {
    let namespace = owner.namespace();
    let missing = &trouble.missing;
    let object = ObjectRef::new(kind, namespace, name);
    let fact = match key {
        Some(key) => format!("{kind} {name} has no key {key}"),
        None => format!("{kind} {name} does not exist"),
    };
    let (severity, consequence) = match missing.impact {
        Impact::Blocked => (Severity::Error, "cannot start"),
        Impact::Restart => (Severity::Warning, "cannot start new pods"),
        // A manifest is checked as if it had been applied.
        Impact::NextPod if !applied => (Severity::Error, "will not start"),
        Impact::NextPod => (Severity::Warning, "will not start"),
    };
    let mut places: Vec<String> = trouble.places.iter().map(Reference::place).collect();
    places.dedup();
    let message = format!("{} {} {consequence}: {fact} ({})", owner.kind, owner.name, list(&places, 2));
    let identity = key.map_or_else(|| format!("{kind}/{name}"), |key| format!("{kind}/{name}/{key}"));
    let sample = trouble.sample.map_or_else(|| owner.clone(), Pod::reference);
    let mut finding = Finding::new(severity, owner.clone(), message)
        .key(identity)
        .pods(if sample.is(Kind::Pod) { trouble.pods } else { 0 })
        .since(trouble.since);
    for place in trouble.places.iter().take(3) {
        finding = finding.evidence(format!("{} references {kind} {name}", place.place()), &sample, &place.path());
    }
    if let Some(message) = &missing.message {
        finding = finding.evidence(shorten(message, 300), &sample, "");
    } else {
        finding = finding.rests_on_absence();
    }
    let sources = sources(cluster, namespace, kind, name);
    for source in &sources {
        let text = format!("{} {kind} {name}", source.verb);
        finding = finding.evidence(text, &source.object, "").because(source.object.clone());
    }
    if key.is_none()
        && let Some(hook) = early_hook(cluster, owner)
    {
        finding.message = format!("{}; {}", finding.message, hook.text(kind)).into();
        return hook.fix(finding, owner, &object);
    }
    if key.is_none()
        && let Some(source) = sources.first()
    {
        let text = format!("Resolve why {} does not exist: {} creates it", object.title(), source.by);
        let source = &source.object;
        let command = kubectl(["-n", source.namespace(), "describe", &source.kind.to_lowercase(), &source.name]);
        return finding.fix_command(text, command);
    }
    advise(cluster, finding, owner, &object, key)
}

/// Helm runs these hooks before it creates the objects of the chart:
/// <https://helm.sh/docs/topics/charts_hooks/>
struct EarlyHook<'a> {
    /// `pre-install`, or `pre-upgrade`.
    phase: &'a str,
    weight: i64,
}

fn early_hook<'a>(cluster: &'a Cluster, owner: &ObjectRef) -> Option<EarlyHook<'a>> {
    let phases = cluster.annotation_of(owner, "helm.sh/hook")?;
    let phase = ["pre-install", "pre-upgrade"];
    let phase = phase.into_iter().find(|phase| phases.split(',').any(|known| known.trim() == *phase))?;
    let weight = cluster.annotation_of(owner, "helm.sh/hook-weight").and_then(|weight| weight.parse().ok());
    Some(EarlyHook { phase, weight: weight.unwrap_or(0) })
}

impl EarlyHook<'_> {
    fn text(&self, kind: Kind) -> String {
        format!("as a Helm {} hook it runs before the {kind}s of the chart are created", self.phase)
    }

    fn fix(&self, finding: Finding, owner: &ObjectRef, object: &ObjectRef) -> Finding {
        let weight = self.weight.saturating_sub(1);
        finding
            .fix(format!(
                "If the chart contains {}, make it a {} hook with a lower weight than {} (helm.sh/hook-weight: \"{weight}\")",
                object.title(),
                self.phase,
                owner.title()
            ))
            .fix(format!(
                "Or make {} a {} hook, which runs after the objects of the chart are created",
                owner.title(),
                self.phase.replace("pre-", "post-")
            ))
            .fix(format!("If {} is not part of the chart, create it before the release is installed", object.title()))
    }
}

/// Adds the fixes, and the similar name or the existing keys.
fn advise(cluster: &Cluster, finding: Finding, owner: &ObjectRef, object: &ObjectRef, key: Option<&str>) -> Finding {
    let (namespace, name) = (owner.namespace(), object.name.as_str());
    let resource = if object.is(Kind::ConfigMap) { "configmap" } else { "secret" };
    let mut finding = finding;
    if let Some(key) = key {
        if let Some(keys) = keys_of(cluster, object) {
            let has = if keys.is_empty() { "no keys".to_string() } else { format!("keys {}", list(&keys, 8)) };
            finding = finding.evidence(format!("{} {name} has {has}", object.kind), object, "data");
        }
        let text = format!("Add key {key} to {} {name}, or correct the key in the pod template", object.kind);
        return finding.fix_command(text, kubectl(["-n", namespace, "edit", resource, name]));
    }
    let candidates: Vec<&str> = match object.kind.as_ref() {
        "ConfigMap" => cluster.in_namespace::<ConfigMap>(namespace).iter().map(Object::name).collect(),
        "Secret" => cluster.in_namespace::<Secret>(namespace).iter().map(Object::name).collect(),
        _ => cluster.in_namespace::<PersistentVolumeClaim>(namespace).iter().map(Object::name).collect(),
    };
    if let Some(near) = nearest_name(name, candidates) {
        let similar = ObjectRef { name: near.to_string(), ..object.clone() };
        finding = finding.evidence(format!("{} {near} exists", object.kind), &similar, "metadata.name").fix_command(
            format!("If {near} was intended, correct the reference"),
            kubectl(["-n", namespace, "edit", &owner.kind.to_lowercase(), &owner.name]),
        );
    }
    match object.kind.as_ref() {
        "ConfigMap" => finding.fix_command(
            "Create the ConfigMap with the keys that the pods use",
            kubectl(["-n", namespace, "create", "configmap", name, "--from-literal=KEY=VALUE"]),
        ),
        "Secret" => finding.fix_command(
            "Create the Secret with the keys that the pods use",
            kubectl(["-n", namespace, "create", "secret", "generic", name, "--from-literal=KEY=VALUE"]),
        ),
        _ => finding.fix_command(
            format!("Create PersistentVolumeClaim {name}, or reference an existing one"),
            kubectl(["-n", namespace, "get", "persistentvolumeclaims"]),
        ),
    }
}

fn keys_of(cluster: &Cluster, object: &ObjectRef) -> Option<Vec<String>> {
    let (namespace, name) = (object.namespace(), object.name.as_str());
    let keys = if object.is(Kind::ConfigMap) {
        cluster.get::<ConfigMap>(namespace, name).found()?.data.keys.as_ref()
    } else {
        cluster.get::<Secret>(namespace, name).found()?.data.keys.as_ref()
    };
    keys.map(|keys| keys.0.clone())
}

/// What should have created a missing object.
struct Source {
    /// The object whose findings explain that it does not exist.
    object: ObjectRef,
    /// The subject of "creates it".
    by: String,
    /// `should create`, `could not create the Certificate of`.
    verb: String,
}

/// The Applications of Argo CD that have not created the object, or the custom resource that creates it; and the
/// custom resources that declare that their controller creates the Secret: cert-manager's Certificate, ExternalSecret,
/// SealedSecret.
fn sources(cluster: &Cluster, namespace: &str, kind: Kind, name: &str) -> Vec<Source> {
    let mut found = unsynced(cluster, namespace, kind, name);
    if kind != Kind::Secret {
        return found;
    }
    let creates = |custom: &&crate::snapshot::model::CustomResource| {
        let target = match (custom.group(), custom.kind.as_str()) {
            ("cert-manager.io", "Certificate") => custom.spec.pointer("/secretName"),
            ("external-secrets.io", "ExternalSecret") => custom.spec.pointer("/target/name"),
            ("bitnami.com", "SealedSecret") => None,
            _ => return false,
        };
        let target = target.and_then(|target| target.as_str()).unwrap_or(&custom.metadata.name);
        custom.metadata.namespace == namespace && target == name
    };
    let custom = cluster.custom().iter().filter(creates);
    found.extend(custom.map(|custom| Source {
        object: custom.reference(),
        by: custom.reference().title(),
        verb: "should create".to_string(),
    }));
    found
}

fn unsynced(cluster: &Cluster, namespace: &str, kind: Kind, name: &str) -> Vec<Source> {
    let kinds = ["Certificate", "ExternalSecret", "SealedSecret"];
    let applications = cluster.custom().iter().filter(|c| c.kind == "Application" && c.group() == "argoproj.io");
    let missing = applications.flat_map(|application| {
        let resources = application.status.get("resources").and_then(|resources| resources.as_array());
        resources.into_iter().flatten().map(move |resource| (application, resource))
    });
    let of = missing.filter_map(|(application, resource)| {
        let text = |field: &str| resource.get(field).and_then(|value| value.as_str()).unwrap_or_default();
        let creates = text("kind") == kind.api().kind || (kind == Kind::Secret && kinds.contains(&text("kind")));
        (creates && text("name") == name && text("namespace") == namespace).then(|| Source {
            object: application.reference(),
            by: format!("{} {name} of Argo CD {}", text("kind"), application.reference().title()),
            verb: match text("kind") {
                same if same == kind.api().kind => "has not created".to_string(),
                other => format!("has not created {other} {name}, which creates"),
            },
        })
    });
    of.collect()
}

#[cfg(test)]
mod tests {
    /// A claim that was created after the first scheduling attempt, in a cluster whose claims cannot be listed.
    #[test]
    fn quiet_for_an_outdated_message_of_the_scheduler() {
        let pod = "
            apiVersion: v1
            kind: Pod
            metadata: {name: p, namespace: shop, uid: u, creationTimestamp: '2026-11-21T11:50:00Z'}
            spec: {containers: [{name: c}], volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]}
            status: {phase: Pending, conditions: [{type: PodScheduled, status: 'False', reason: Unschedulable,
              lastTransitionTime: '2026-11-21T11:50:00Z', message: 'pod has unbound immediate PersistentVolumeClaims'}]}";
        let event = "
            apiVersion: v1
            kind: Event
            type: Warning
            metadata: {name: e, namespace: shop}
            reason: FailedScheduling
            message: 'persistentvolumeclaim \"data\" not found'
            eventTime: '2026-11-21T11:58:00Z'
            involvedObject: {kind: Pod, namespace: shop, name: p, uid: u}";
        TestCluster::new(&[pod, event]).forbid(Kind::PersistentVolumeClaim).check(&RULE).finds_nothing();
    }

    use super::RULE;
    use crate::snapshot::{Kind, Origin};
    use crate::testing::{TestCluster, check};

    fn pod(spec: &str, status: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: Pod
            metadata: {{name: web, namespace: shop, uid: u, creationTimestamp: '2026-11-21T11:50:00Z'}}
            spec: {{nodeName: n1, {spec}}}
            status: {{phase: Pending, {status}}}"
        )
    }

    const ENV_FROM: &str = "containers: [{name: app, envFrom: [{configMapRef: {name: app-settings}}]}]";
    const CONFIG_ERROR: &str = "containerStatuses: [{name: app, state: {waiting: \
        {reason: CreateContainerConfigError, message: 'configmap \"app-settings\" not found'}}}]";
    const RUNNING: &str = "containerStatuses: [{name: app, ready: true, state: {running: {}}}]";
    const KEY: &str =
        "containers: [{name: app, env: [{name: PW, valueFrom: {secretKeyRef: {name: db, key: password}}}]}]";
    const KEY_ERROR: &str = "containerStatuses: [{name: app, state: {waiting: \
        {reason: CreateContainerConfigError, message: \"couldn't find key password in Secret shop/db\"}}}]";
    const VOLUME: &str = "containers: [{name: app}], volumes: [{name: v, secret: {secretName: tls}}]";
    const CREATING: &str = "containerStatuses: [{name: app, state: {waiting: {reason: ContainerCreating}}}]";
    const MOUNT: &str = "
        apiVersion: v1
        kind: Event
        metadata: {name: e, namespace: shop}
        type: Warning
        reason: FailedMount
        message: 'MountVolume.SetUp failed for volume \"v\" : secret \"tls\" not found'
        involvedObject: {kind: Pod, namespace: shop, name: web}";

    #[test]
    fn fires_when_a_config_map_is_missing() {
        let near = "{apiVersion: v1, kind: ConfigMap, metadata: {name: app-setting, namespace: shop}}";
        let said = check(&RULE, &[&pod(ENV_FROM, CONFIG_ERROR), near]);
        said.finds(&["error Pod shop/web: Pod web cannot start: ConfigMap app-settings does not exist (envFrom of container app)"]);
        assert!(said.text().contains("ConfigMap app-setting exists"));
        assert_eq!(said.finding().pods, 1);
    }

    #[test]
    fn quiet_when_the_config_map_exists_now() {
        let map = "{apiVersion: v1, kind: ConfigMap, metadata: {name: app-settings, namespace: shop}}";
        check(&RULE, &[&pod(ENV_FROM, CONFIG_ERROR), map]).finds_nothing();
    }

    #[test]
    fn quiet_when_optional() {
        let spec = ENV_FROM.replace("name: app-settings", "name: app-settings, optional: true");
        check(&RULE, &[&pod(&spec, CREATING)]).finds_nothing();
    }

    #[test]
    fn quiet_in_the_first_minute() {
        TestCluster::new(&[&pod(ENV_FROM, CONFIG_ERROR)]).now("2026-11-21T11:50:59Z").check(&RULE).finds_nothing();
    }

    #[test]
    fn fires_when_a_key_is_missing() {
        let secret = "{apiVersion: v1, kind: Secret, metadata: {name: db, namespace: shop}, data: {user: eA==}}";
        let said = check(&RULE, &[&pod(KEY, KEY_ERROR), secret]);
        said.finds(&[
            "error Pod shop/web: Pod web cannot start: Secret db has no key password (env PW of container app)",
        ]);
        assert!(said.text().contains("has keys user"));
    }

    #[test]
    fn fires_for_the_kubelets_message_when_secrets_are_forbidden() {
        TestCluster::new(&[&pod(VOLUME, CREATING), MOUNT])
            .forbid(Kind::Secret)
            .check(&RULE)
            .finds(&["error Pod shop/web: Pod web cannot start: Secret tls does not exist (volume v)"]);
    }

    #[test]
    fn quiet_when_secrets_are_forbidden_and_nothing_is_reported() {
        TestCluster::new(&[&pod(VOLUME, CREATING)]).forbid(Kind::Secret).check(&RULE).finds_nothing();
    }

    #[test]
    fn fires_for_a_missing_claim_of_an_unscheduled_pod() {
        let pod = "
            apiVersion: v1
            kind: Pod
            metadata: {name: web, namespace: shop, uid: u, creationTimestamp: '2026-11-21T11:50:00Z'}
            spec: {volumes: [{name: d, persistentVolumeClaim: {claimName: data}}], containers: [{name: app}]}
            status: {phase: Pending}";
        check(&RULE, &[pod])
            .finds(&["error Pod shop/web: Pod web cannot start: PersistentVolumeClaim data does not exist (volume d)"]);
        check(&RULE, &[pod, "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data, namespace: shop}}"])
            .finds_nothing();
    }

    const DEPLOYMENT: &str = "
        apiVersion: apps/v1
        kind: Deployment
        metadata: {name: web, namespace: shop, uid: d, creationTimestamp: '2026-11-21T10:00:00Z'}
        spec: {template: {spec: {containers: [{name: app, envFrom: [{configMapRef: {name: app-settings}}]}]}}}
";
    const REPLICA_SET: &str = "
        apiVersion: apps/v1
        kind: ReplicaSet
        metadata: {name: web-1, namespace: shop, uid: r, ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: web, controller: true}]}";
    const OTHER: &str = "{apiVersion: v1, kind: ConfigMap, metadata: {name: other, namespace: shop}}";

    fn owned(status: &str) -> String {
        pod(ENV_FROM, status).replace(
            "uid: u,",
            "uid: u, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-1, controller: true}],",
        )
    }

    #[test]
    fn fires_as_a_warning_when_the_pods_are_running() {
        check(&RULE, &[DEPLOYMENT, REPLICA_SET, &owned(RUNNING), OTHER])
            .finds(&["warning Deployment shop/web: Deployment web cannot \
            start new pods: ConfigMap app-settings does not exist (envFrom of container app)"]);
    }

    #[test]
    fn quiet_when_pods_are_running_and_no_config_map_was_recorded() {
        check(&RULE, &[DEPLOYMENT, REPLICA_SET, &owned(RUNNING)]).finds_nothing();
    }

    #[test]
    fn quiet_when_the_template_has_changed() {
        check(&RULE, &[&DEPLOYMENT.replace("app-settings", "other"), REPLICA_SET, &owned(RUNNING), OTHER])
            .finds_nothing();
    }

    #[test]
    fn fires_as_a_warning_for_a_cron_job_between_runs() {
        let cron = |suspend| {
            format!(
                "
                apiVersion: batch/v1
                kind: CronJob
                metadata: {{name: nightly, namespace: shop, uid: c, creationTimestamp: '2026-11-21T10:00:00Z'}}
                spec: {{suspend: {suspend}, jobTemplate: {{spec: {{template: {{spec: {{{VOLUME}}}}}}}}}}}"
            )
        };
        check(&RULE, &[&cron(false)]).finds(&[
            "warning CronJob shop/nightly: CronJob nightly will not start: Secret tls does not exist (volume v)",
        ]);
        check(&RULE, &[&cron(true)]).finds_nothing();
    }

    #[test]
    fn fires_as_info_for_manifests() {
        let manifest = "
            apiVersion: apps/v1
            kind: Deployment
            metadata: {name: web, namespace: shop}
            spec: {template: {spec: {containers: [{name: app, envFrom: [{configMapRef: {name: app-settings}}]}]}}}";
        TestCluster::new(&[manifest]).origin(Origin::Manifests).check(&RULE).finds(&[
            "info Deployment shop/web: Deployment web will not start: ConfigMap app-settings does not exist (envFrom of \
             container app)",
        ]);
    }

    #[test]
    fn quiet_while_an_init_container_may_create_the_object() {
        let spec = ENV_FROM.replace("containers:", "initContainers: [{name: i}], containers:");
        let status = "initContainerStatuses: [{name: i, state: {running: {}}}], containerStatuses: [{name: app, \
            state: {waiting: {reason: PodInitializing}}}]";
        check(&RULE, &[&pod(&spec, status)]).finds_nothing();
    }
}
