use std::collections::BTreeMap;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::time::{REPORTED, age};
use crate::kubernetes::workloads::image_pull::{PullFailure, core, is_pull_reason, registry, repository, tag};
use crate::kubernetes::workloads::restarts::unsteady_groups;
use crate::kubernetes::workloads::revision::{comparison, label};
use crate::snapshot::model::{
    ContainerStatus, CronJob, Event, Job, MutatingWebhookConfiguration, Node, Pod, PodSpec, ReplicaSet, Secret,
    StatefulSet, Timestamp,
};
use crate::snapshot::{Cluster, Kind, Lookup, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::{list, shorten};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for containers whose image cannot be pulled (`ErrImagePull`, `ImagePullBackOff`, `InvalidImageName`,
    /// `ErrImageNeverPull` and similar reasons). The messages of the container runtime and the registry determine the
    /// cause:
    ///
    /// - the tag or repository does not exist;
    /// - access is denied (with the pod's image pull secrets, whether they exist, and the CronJob that renews them);
    /// - the registry is unreachable (DNS, connection, TLS);
    /// - the rate limit is exceeded;
    /// - the image does not support the node's platform;
    /// - the image name is invalid.
    ///
    /// The image is compared with the one in the pod's template, which a mutating policy or webhook may have changed on
    /// admission, and with the image of a revision whose pods are ready.
    ///
    /// ## Why it matters
    ///
    /// The container never starts. During a rolling update the old pods keep running, so the failure goes unnoticed
    /// until a node fails or the update times out.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe pod POD` shows the event `Failed to pull image` with the registry's full
    /// response.
    ///
    /// ## How to fix
    ///
    /// Correct the image name or tag (`kubectl -n NAMESPACE set image KIND/NAME CONTAINER=IMAGE`), push the missing
    /// image, add an image pull secret of type `kubernetes.io/dockerconfigjson` for the registry, or make the registry
    /// reachable from the nodes. If a policy changed the image, correct the policy. Nodes use their own DNS resolver and certificates, not those of the cluster.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for:
    ///
    /// - pods that were scheduled less than a minute ago, because a failed pull often succeeds on retry;
    /// - pods that have finished or are being deleted.
    "pod/image-pull": Error,
    "a container's image cannot be pulled",
    needs: [Pod],
    optional: [Event, Secret, Node, ReplicaSet, Job, CronJob, StatefulSet, MutatingWebhookConfiguration],
    explained_by: ["cronjob/failing", "cronjob/not-running", "rbac/denied", "job/failed", "statefulset/outdated-pod"],
}

/// The pods of one workload whose container is waiting for its image.
struct Waiting<'a> {
    sample: &'a Pod,
    status: &'a ContainerStatus,
    pods: usize,
    since: Option<Timestamp>,
}

fn check(cluster: &Cluster, report: &mut Report) {
    for group in unsteady_groups(cluster) {
        let mut containers: BTreeMap<&str, Waiting> = BTreeMap::new();
        for pod in cluster.pods_of(group).filter(|pod| pod.is_active()) {
            if pod.scheduled_at().is_some_and(|since| age(cluster.now(), since) < REPORTED) {
                continue;
            }
            for status in pod.container_statuses().filter(|status| is_waiting_for_image(status)) {
                let waiting =
                    containers.entry(&status.name).or_insert(Waiting { sample: pod, status, pods: 0, since: None });
                waiting.pods += 1;
                waiting.since = [waiting.since, pod.scheduled_at()].into_iter().flatten().min();
            }
        }
        for waiting in containers.values() {
            report.add(finding(cluster, &group.owner, waiting));
        }
    }
}

fn is_waiting_for_image(status: &ContainerStatus) -> bool {
    status.state.waiting().is_some_and(|waiting| is_pull_reason(&waiting.reason))
}

/// The error of the pull: from the container state, or from the newest event if the state only reports the back-off.
fn pull_error(cluster: &Cluster, pod: &Pod, status: &ContainerStatus, image: &str) -> String {
    let state = status.state.waiting().map(|waiting| waiting.message.as_str()).unwrap_or_default();
    if !core(state, image).is_empty() {
        return state.to_string();
    }
    let is_about = |event: &&&Event| {
        event.container().is_none_or(|container| container == status.name)
            && (event.message.starts_with("Failed to pull image") || event.reason == "ErrImageNeverPull")
            && (event.message.contains(image) || event.container().is_some())
    };
    let events = cluster.events(&pod.reference());
    events.iter().find(is_about).map_or_else(|| state.to_string(), |event| event.message.clone())
}

fn finding(cluster: &Cluster, owner: &ObjectRef, waiting: &Waiting) -> Finding {
    let (pod, status) = (waiting.sample, waiting.status);
    let container = pod.spec.container(&status.name);
    let image = container.map(|c| c.image.as_str()).filter(|i| !i.is_empty()).unwrap_or(&status.image);
    let error = pull_error(cluster, pod, status, image);
    let reason = status.state.waiting().map(|w| w.reason.as_str()).unwrap_or_default();
    let failure = PullFailure::of(reason, &error, image);
    let why = explanation(cluster, pod, image, failure, core(&error, image));
    let rewritten = rewritten(cluster, pod, &status.name, image);
    let why = match &rewritten {
        Some(rewritten) => format!("{why}; its template has {}: {}", rewritten.wanted, rewritten.how),
        None => why,
    };
    let list =
        if pod.spec.init_containers.iter().any(|c| c.name == status.name) { "initContainers" } else { "containers" };
    let statuses = if list == "containers" { "containerStatuses" } else { "initContainerStatuses" };
    let sample = pod.reference();
    let mut finding =
        Finding::error(owner.clone(), format!("{} {} cannot pull image {image}: {why}", owner.kind, owner.name))
            .key(status.name.as_str())
            .pods(waiting.pods)
            .since(waiting.since)
            .evidence(
                format!("container {} uses image {image}", status.name),
                &sample,
                &format!("spec.{list}[{}].image", status.name),
            );
    if !error.is_empty() {
        let path = format!("status.{statuses}[{}].state.waiting.message", status.name);
        finding = finding.evidence(shorten(&error, 400), &sample, &path);
    }
    for (text, path) in pull_secrets(cluster, pod).problems {
        finding = finding.evidence(text, &sample, &path);
    }
    if let Some(rewritten) = rewritten {
        return rewritten.tell(finding, pod);
    }
    if failure == PullFailure::Denied {
        if is_ecr(image) && !pod.spec.image_pull_secrets.is_empty() {
            let text = "tokens of Amazon ECR are valid for 12 hours; the pull secret must be renewed before that";
            finding = finding.evidence(text, &sample, "spec.imagePullSecrets");
        }
        if let Some((secret, renewer)) = renewer(cluster, pod) {
            return renew(finding, pod, secret, &renewer);
        }
    }
    finding = advise(finding, owner, &status.name, image, failure);
    tell_change(cluster, finding, pod, &status.name, failure)
}

/// A pod whose image is not the one of its template.
struct Rewritten<'a> {
    wanted: &'a str,
    how: String,
    /// The policies or webhooks that may have changed it.
    by: Vec<ObjectRef>,
    rule: Option<String>,
}

/// The annotation in which Kyverno records what it changed, as lines of `RULE.POLICY.kyverno.io: replaced PATH`.
const KYVERNO: &str = "policies.kyverno.io/last-applied-patches";

fn rewritten<'a>(cluster: &'a Cluster, pod: &Pod, container: &str, image: &str) -> Option<Rewritten<'a>> {
    let wanted = template_of(cluster, pod)?.container(container)?.image.as_str();
    if wanted == image || wanted.is_empty() {
        return None;
    }
    let lines = pod.metadata.annotations.get(KYVERNO).unwrap_or_default().lines();
    let applied = lines.filter(|line| line.contains("image")).filter_map(|line| line.split_once(".kyverno.io:"));
    if let Some((rule, policy)) = applied.filter_map(|(name, _)| name.trim().split_once('.')).next() {
        let known = cluster.custom().iter().find(|custom| {
            matches!(custom.kind.as_str(), "ClusterPolicy" | "Policy")
                && custom.metadata.name == policy
                && custom.group() == "kyverno.io"
        });
        let object = known.map_or_else(|| kyverno_policy(policy), crate::snapshot::model::CustomResource::reference);
        let how = format!("rule {rule} of {} changes it on admission", object.title());
        return Some(Rewritten { wanted, how, by: vec![object], rule: Some(rule.to_string()) });
    }
    let by: Vec<ObjectRef> = cluster
        .all::<MutatingWebhookConfiguration>()
        .iter()
        .filter(|c| handles_pods(c))
        .map(Object::reference)
        .collect();
    let names: Vec<String> = by.iter().map(ObjectRef::title).collect();
    let how = if by.is_empty() {
        "it was changed on admission, or later in the pod itself".to_string()
    } else {
        format!("it was changed on admission, by {}", list(&names, 3))
    };
    Some(Rewritten { wanted, how, by, rule: None })
}

fn kyverno_policy(name: &str) -> ObjectRef {
    ObjectRef {
        api_version: "kyverno.io/v1".into(),
        kind: "ClusterPolicy".into(),
        namespace: None,
        name: name.to_string(),
    }
}

fn handles_pods(configuration: &MutatingWebhookConfiguration) -> bool {
    let rules = configuration.webhooks.iter().flatten().flat_map(|webhook| webhook.rules.iter().flatten());
    let mut resources = rules.flat_map(|rule| rule.resources.iter().flatten());
    resources.any(|resource| matches!(resource.as_str(), "pods" | "*" | "*/*" | "pods/*"))
}

/// The template that a pod was created from. That of a StatefulSet or DaemonSet may have changed since.
fn template_of<'a>(cluster: &'a Cluster, pod: &Pod) -> Option<&'a PodSpec> {
    let owner = pod.controller()?;
    if owner.is(Kind::ReplicaSet) {
        return Some(&cluster.get::<ReplicaSet>(owner.namespace(), &owner.name).found()?.spec.template.spec);
    }
    if owner.is(Kind::Job) {
        return Some(&cluster.get::<Job>(owner.namespace(), &owner.name).found()?.spec.template.spec);
    }
    let set =
        cluster.get::<StatefulSet>(owner.namespace(), &owner.name).found().filter(|_| owner.is(Kind::StatefulSet))?;
    let is_current = label(pod) == Some(set.status.update_revision.as_str());
    is_current.then_some(&*set.spec.template.spec)
}

impl Rewritten<'_> {
    fn tell(&self, finding: Finding, pod: &Pod) -> Finding {
        let source = pod.controller().unwrap_or_else(|| pod.reference());
        let mut finding = finding.evidence(
            format!("the template has image {}", self.wanted),
            &source,
            "spec.template.spec.containers",
        );
        if let Some(patches) = pod.metadata.annotations.get(KYVERNO) {
            finding = finding.evidence(shorten(patches, 200), &pod.reference(), "metadata.annotations");
        }
        for object in &self.by {
            finding = finding.because(object.clone());
        }
        match (&self.rule, self.by.first()) {
            (Some(rule), Some(policy)) => finding.fix_command(
                format!(
                    "Correct rule {rule} of {}, so that it does not change {} to an image that does not exist",
                    policy.title(),
                    self.wanted
                ),
                kubectl(["get", &policy.kind.to_lowercase(), &policy.name, "-o", "yaml"]),
            ),
            (_, Some(_)) => finding.fix_command(
                "Check the mutating webhooks for the one that changes images, and correct its mapping",
                kubectl(["get", "mutatingwebhookconfigurations"]),
            ),
            _ => finding
                .fix("Find what changes the image of new pods (a mutating webhook or policy), and correct it there"),
        }
    }
}

/// The image of a revision that runs, if the image is the difference.
fn tell_change(cluster: &Cluster, finding: Finding, pod: &Pod, container: &str, failure: PullFailure) -> Finding {
    let Some(comparison) = comparison(cluster, pod).filter(|c| c.ready > 0 && c.is_current) else { return finding };
    let Some(change) = comparison.changes.iter().find(|change| change.is_about(container, "image")) else {
        return finding;
    };
    let finding = finding.evidence(comparison.text(), &comparison.object, &change.path);
    let is_wrong = matches!(failure, PullFailure::NoSuchTag | PullFailure::NoSuchRepository | PullFailure::InvalidName);
    match change.before.as_ref().filter(|_| is_wrong) {
        Some(before) => {
            finding.fix(format!("{} runs {before}: use it until the new image exists", comparison.revision))
        }
        None => finding,
    }
}

/// <https://docs.aws.amazon.com/AmazonECR/latest/userguide/registry_auth.html>
fn is_ecr(image: &str) -> bool {
    registry(image).contains(".dkr.ecr.")
}

/// The CronJob or Job that renews a pull secret of the pod, with the secret: the API server denied it the access to the
/// secret according to its log, or its script names the secret.
fn renewer<'a>(cluster: &Cluster, pod: &'a Pod) -> Option<(&'a str, ObjectRef)> {
    let namespace = pod.metadata.namespace.as_str();
    let secrets = || pod.spec.image_pull_secrets.iter().map(|secret| secret.name.as_str());
    let denied = secrets().find_map(|secret| {
        let (what, place) = (format!("secrets \"{secret}\" is forbidden"), format!("in the namespace \"{namespace}\""));
        let tells = |line: &String| {
            let line = line.replace('\\', "");
            line.contains(&what) && line.contains(&place)
        };
        let mut logs = cluster.logs().iter();
        let ((place, name, _), _) = logs.find(|(_, log)| log.lines.iter().any(tells))?;
        let writer = cluster.get::<Pod>(place, name).found()?;
        Some((secret, cluster.owner_of(writer).into_owned()))
    });
    denied.or_else(|| {
        cluster.all::<CronJob>().iter().find_map(|cron| {
            let spec = &cron.spec.job_template.spec.template.spec;
            let texts = || {
                spec.containers
                    .iter()
                    .flat_map(move |c| c.command.iter().chain(&c.args).chain(c.env.iter().map(|e| &e.value)))
            };
            let names = |secret: &str| texts().any(|text| has_word(text, secret));
            Some((secrets().find(|secret| names(secret))?, cron.reference()))
        })
    })
}

/// Whether a text contains a name that is not part of a longer one.
fn has_word(text: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    !name.is_empty()
        && text.match_indices(name).any(|(at, _)| {
            let before = text[..at].chars().next_back().is_some_and(is_part);
            let after = text[at + name.len()..].chars().next().is_some_and(is_part);
            !before && !after
        })
}

fn renew(finding: Finding, pod: &Pod, secret: &str, renewer: &ObjectRef) -> Finding {
    let namespace = &pod.metadata.namespace;
    let object = ObjectRef::new(crate::snapshot::Kind::Secret, namespace, secret);
    let text = format!("{renewer} renews imagePullSecret {secret}");
    let finding = finding.evidence(text, &object, "").because(renewer.clone());
    let text = format!("Check that {renewer} succeeds and that the token in Secret {secret} is current");
    if renewer.kind == "CronJob" {
        let (test, from) = (format!("{}-now", renewer.name), format!("--from=cronjob/{}", renewer.name));
        let command = kubectl(["-n", renewer.namespace(), "create", "job", &test, &from]);
        return finding.fix_command(format!("{text}, then run it immediately"), command);
    }
    finding.fix(text)
}

/// The cause, with the pod's image pull secrets and its node's platform where they matter.
fn explanation(cluster: &Cluster, pod: &Pod, image: &str, failure: PullFailure, core: &str) -> String {
    let registry = registry(image);
    match failure {
        PullFailure::NoSuchTag if tag(image).contains(':') => format!("digest not found in registry {registry}"),
        PullFailure::NoSuchTag => format!("tag {} not found in {}", tag(image), repository(image)),
        PullFailure::NoSuchRepository => format!("repository {} not found in registry {registry}", repository(image)),
        PullFailure::Denied => {
            let secrets = pull_secrets(cluster, pod).summary;
            let doubt = if core.contains("does not exist") { " or the repository does not exist" } else { "" };
            format!("registry {registry} denied access{doubt}; the pod {secrets}")
        }
        PullFailure::WrongPlatform => match cluster.get::<Node>("", &pod.spec.node_name) {
            Lookup::Found(node) if !node.status.node_info.architecture.is_empty() => {
                let info = &node.status.node_info;
                let system = if info.operating_system.is_empty() { "linux" } else { &info.operating_system };
                format!("the image does not support the node's platform {system}/{}", info.architecture)
            }
            _ => failure.to_string(),
        },
        PullFailure::Dns => format!("the node cannot resolve registry {registry}"),
        PullFailure::Unreachable => format!("registry {registry} is unreachable ({})", shorten(last(core), 120)),
        PullFailure::Tls => format!("TLS connection to registry {registry} failed ({})", shorten(last(core), 160)),
        PullFailure::RateLimited => format!("rate limit of registry {registry} exceeded"),
        PullFailure::RegistryError | PullFailure::Other if !core.is_empty() => shorten(core, 200),
        _ => failure.to_string(),
    }
}

/// The cause in an error of Go's HTTP client, without the request:
/// `dial tcp 10.0.0.1:443: connect: connection refused`.
fn last(core: &str) -> &str {
    let core = if core.is_empty() { "no response" } else { core };
    core.split_once("\": ").map_or(core, |(_, cause)| cause)
}

struct PullSecrets {
    /// A predicate for the subject "the pod".
    summary: String,
    /// The problem of each invalid secret, and the field that references it.
    problems: Vec<(String, String)>,
}

/// The pod's list is complete: admission added the secrets of its ServiceAccount when the pod was created.
fn pull_secrets(cluster: &Cluster, pod: &Pod) -> PullSecrets {
    let named = &pod.spec.image_pull_secrets;
    let (mut missing, mut wrong, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for (at, secret) in named.iter().enumerate() {
        let path = format!("spec.imagePullSecrets[{at}]");
        match cluster.get::<Secret>(&pod.metadata.namespace, &secret.name) {
            Lookup::Missing => {
                missing.push(secret.name.as_str());
                problems.push((format!("imagePullSecret {} does not exist", secret.name), path));
            }
            Lookup::Found(found) if !is_pull_secret(found) => {
                wrong.push(secret.name.as_str());
                let text = format!(
                    "imagePullSecret {} has type {}, not kubernetes.io/dockerconfigjson",
                    secret.name, found.type_
                );
                problems.push((text, path));
            }
            _ => {}
        }
    }
    let names: Vec<&str> = named.iter().map(|secret| secret.name.as_str()).collect();
    let summary = if named.is_empty() {
        "has no imagePullSecrets".to_string()
    } else if !missing.is_empty() {
        format!("references imagePullSecret {}, which does not exist", list(&missing, 3))
    } else if !wrong.is_empty() {
        format!("references imagePullSecret {}, which has the wrong type", list(&wrong, 3))
    } else {
        format!("uses imagePullSecret {}", list(&names, 3))
    };
    PullSecrets { summary, problems }
}

/// Whether the kubelet reads credentials from it. The type is empty if only metadata was read.
fn is_pull_secret(secret: &Secret) -> bool {
    matches!(secret.type_.as_str(), "" | "kubernetes.io/dockerconfigjson" | "kubernetes.io/dockercfg")
}

fn advise(finding: Finding, owner: &ObjectRef, container: &str, image: &str, failure: PullFailure) -> Finding {
    let namespace = owner.namespace();
    let target = format!("{}/{}", owner.kind.to_lowercase(), owner.name);
    let assignment = format!("{container}={}:TAG", repository(image));
    let set_image = kubectl(["-n", namespace, "set", "image", &target, &assignment]);
    match failure {
        PullFailure::NoSuchTag | PullFailure::NoSuchRepository | PullFailure::InvalidName => {
            finding.fix_command("Use an existing image, or push this one", set_image)
        }
        PullFailure::WrongPlatform => finding.fix_command("Use an image built for the node's platform", set_image),
        PullFailure::Denied => finding.fix_command(
            "Create an image pull secret for the registry and add it to imagePullSecrets of the pod template or the \
             ServiceAccount",
            kubectl([
                "-n",
                namespace,
                "create",
                "secret",
                "docker-registry",
                "NAME",
                &format!("--docker-server={}", registry(image)),
                "--docker-username=USER",
                "--docker-password=PASSWORD",
            ]),
        ),
        PullFailure::Never => finding.fix("Load the image onto the node, or set imagePullPolicy to IfNotPresent"),
        PullFailure::RateLimited => {
            finding.fix("Authenticate with an image pull secret, or pull through a registry mirror")
        }
        PullFailure::Dns | PullFailure::Unreachable | PullFailure::RegistryError => finding.fix(format!(
            "Check the registry name, and that {} is reachable from the node (routes, firewall, proxy, node DNS)",
            registry(image)
        )),
        PullFailure::Tls => finding.fix(format!(
            "Add the CA of {} to the nodes' container runtime, or configure the registry as plain HTTP there",
            registry(image)
        )),
        PullFailure::DiskFull => finding.fix("Free disk space on the node"),
        PullFailure::BadSignature => finding.fix("Use an image with a signature that satisfies the node's policy"),
        PullFailure::Other => {
            finding.fix_command("Check the pod's events", kubectl(["-n", namespace, "events", "--for", &target]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    fn pod(image: &str, spec: &str, reason: &str, message: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: Pod
            metadata: {{name: web, namespace: shop, uid: u, creationTimestamp: '2026-11-21T11:50:00Z'}}
            spec: {{nodeName: n1, {spec} containers: [{{name: app, image: '{image}'}}]}}
            status:
              phase: Pending
              containerStatuses:
              - name: app
                image: '{image}'
                state: {{waiting: {{reason: {reason}, message: '{message}'}}}}"
        )
    }

    const NOT_FOUND: &str = "failed to pull and unpack image \"r.io/a:v1\": failed to resolve reference \"r.io/a:v1\": r.io/a:v1: not found";
    const DENIED: &str = "failed to resolve reference \"r.io/a:v1\": unexpected status from HEAD request to https://r.io/v2/a/manifests/v1: 401 Unauthorized";
    const TAG: &str = "error Pod shop/web: Pod web cannot pull image r.io/a:v1: tag v1 not found in r.io/a";

    #[test]
    fn fires_identically_in_both_phases_of_the_back_off() {
        let first = check(&RULE, &[&pod("r.io/a:v1", "", "ErrImagePull", NOT_FOUND)]);
        first.finds(&[TAG]);
        let back_off = format!("Back-off pulling image \"r.io/a:v1\": ErrImagePull: {NOT_FOUND}");
        let second = check(&RULE, &[&pod("r.io/a:v1", "", "ImagePullBackOff", &back_off)]);
        second.finds(&[TAG]);
        assert_eq!(first.finding().id, second.finding().id);
        // Before Kubernetes 1.32 the state reported only the back-off.
        let event = format!(
            "
            apiVersion: v1
            kind: Event
            metadata: {{name: e, namespace: shop}}
            type: Warning
            reason: Failed
            message: 'Failed to pull image \"r.io/a:v1\": {NOT_FOUND}'
            involvedObject: {{kind: Pod, namespace: shop, name: web, fieldPath: 'spec.containers{{app}}'}}"
        );
        check(&RULE, &[&pod("r.io/a:v1", "", "ImagePullBackOff", "Back-off pulling image \"r.io/a:v1\""), &event])
            .finds(&[TAG]);
    }

    #[test]
    fn fires_when_events_are_forbidden() {
        TestCluster::new(&[&pod("r.io/a:v1", "", "ImagePullBackOff", "Back-off pulling image \"r.io/a:v1\"")])
            .forbid(Kind::Event)
            .check(&RULE)
            .finds(&["error Pod shop/web: Pod web cannot pull image r.io/a:v1: pull failed"]);
    }

    #[test]
    fn quiet_in_the_first_minute() {
        TestCluster::new(&[&pod("r.io/a:v1", "", "ErrImagePull", NOT_FOUND)])
            .now("2026-11-21T11:50:30Z")
            .check(&RULE)
            .finds_nothing();
    }

    #[test]
    fn quiet_while_the_container_is_being_created() {
        check(&RULE, &[&pod("r.io/a:v1", "", "ContainerCreating", "")]).finds_nothing();
    }

    #[test]
    fn fires_with_a_missing_or_invalid_pull_secret() {
        let denied = "error Pod shop/web: Pod web cannot pull image r.io/a:v1: registry r.io denied access; the pod";
        let named = pod("r.io/a:v1", "imagePullSecrets: [{name: reg}],", "ErrImagePull", DENIED);
        let secret =
            |t: &str| format!("{{apiVersion: v1, kind: Secret, metadata: {{name: reg, namespace: shop}}, type: {t}}}");
        check(&RULE, &[&pod("r.io/a:v1", "", "ErrImagePull", DENIED)])
            .finds(&[&format!("{denied} has no imagePullSecrets")]);
        check(&RULE, &[&named]).finds(&[&format!("{denied} references imagePullSecret reg, which does not exist")]);
        check(&RULE, &[&named, &secret("Opaque")])
            .finds(&[&format!("{denied} references imagePullSecret reg, which has the wrong type")]);
        check(&RULE, &[&named, &secret("kubernetes.io/dockerconfigjson")])
            .finds(&[&format!("{denied} uses imagePullSecret reg")]);
        TestCluster::new(&[&named])
            .forbid(Kind::Secret)
            .check(&RULE)
            .finds(&[&format!("{denied} uses imagePullSecret reg")]);
    }

    #[test]
    fn fires_for_names_that_cannot_be_pulled() {
        let message = "Failed to apply default image tag \"Web:v1\": couldn''t parse image name \"Web:v1\": invalid reference format: \
            repository name (library/Web) must be lowercase";
        check(&RULE, &[&pod("Web:v1", "", "InvalidImageName", message)])
            .finds(&["error Pod shop/web: Pod web cannot pull image Web:v1: the image name is invalid"]);
        check(&RULE, &[&pod("web:v1", "", "ErrImageNeverPull", "")])
            .finds(&["error Pod shop/web: Pod web cannot pull \
            image web:v1: imagePullPolicy is Never and the image is not present on the node"]);
    }

    #[test]
    fn fires_naming_the_cron_job_that_renews_the_pull_secret() {
        let pod = pod("r.io/a:v1", "imagePullSecrets: [{name: registry}],", "ErrImagePull", DENIED);
        let secret = "{apiVersion: v1, kind: Secret, type: kubernetes.io/dockerconfigjson, metadata: {name: registry, namespace: shop}}";
        let cron = "{apiVersion: batch/v1, kind: CronJob, metadata: {name: renew, namespace: ops}, spec: {jobTemplate: {spec: {template: {spec: {
            containers: [{name: c, args: ['kubectl create secret docker-registry registry -n shop']}]}}}}}}";
        let said = check(&RULE, &[&pod, secret, cron]);
        assert!(said.finding().fix[0].text.contains("CronJob ops/renew succeeds"), "{}", said.text());
        assert!(!said.text().contains("--docker-password"));
        let other = cron.replace("docker-registry registry", "docker-registry registry-2");
        assert!(check(&RULE, &[&pod, secret, &other]).text().contains("--docker-password"));
    }

    #[test]
    fn fires_for_an_image_that_a_policy_changed() {
        let set = |image: &str| {
            format!(
                "{{apiVersion: apps/v1, kind: ReplicaSet, metadata: {{name: web-1, namespace: shop}}, spec: {{template: {{spec: \
                 {{containers: [{{name: app, image: '{image}'}}]}}}}}}}}"
            )
        };
        let pod = pod("r.io/a:v1", "", "ErrImagePull", NOT_FOUND);
        let owned = |annotations: &str| {
            let owner = "ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-1, controller: true}]";
            pod.replace("uid: u,", &format!("uid: u, {owner}, annotations: {{{annotations}}},"))
        };
        let kyverno = owned(
            "policies.kyverno.io/last-applied-patches: 'mirror.use-mirror.kyverno.io: replaced /spec/containers/0/image'",
        );
        let said = check(&RULE, &[&kyverno, &set("a:v1")]);
        assert!(
            said.finding()
                .message
                .ends_with("; its template has a:v1: rule mirror of ClusterPolicy use-mirror changes it on admission")
        );
        assert!(!said.text().contains("set image"));
        assert!(check(&RULE, &[&owned(""), &set("a:v1")]).text().contains("or later in the pod itself"));
        assert!(!check(&RULE, &[&owned(""), &set("r.io/a:v1")]).text().contains("its template has"));
    }
}
