use std::collections::BTreeMap;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::time::{REPORTED, age};
use crate::kubernetes::workloads::image_pull::{PullFailure, core, is_pull_reason, registry, repository, tag};
use crate::kubernetes::workloads::restarts::unsteady_groups;
use crate::snapshot::model::{ContainerStatus, Event, Node, Pod, Secret, Timestamp};
use crate::snapshot::{Cluster, Lookup, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::{list, shorten};

declare_rule! {
    /// ## What it checks
    ///
    /// That no container waits for its image: `ErrImagePull`, `ImagePullBackOff`, `InvalidImageName`,
    /// `ErrImageNeverPull` and their like. From the runtime's and the registry's words it tells apart: no such tag or
    /// repository, access refused (and whether the pod names an image pull secret, and whether that exists), registry
    /// not reachable (name, connection, TLS), rate limit, wrong platform, invalid name.
    ///
    /// ## Why it matters
    ///
    /// The container never starts. In a rolling update the old pods go on, so nobody notices until a node is lost or
    /// the update times out.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe pod POD` shows the event `Failed to pull image` with the registry's answer in full.
    ///
    /// ## How to fix
    ///
    /// Correct the image's name or tag (`kubectl -n NAMESPACE set image KIND/NAME CONTAINER=IMAGE`); push what is missing; give
    /// the pods an image pull secret of type `kubernetes.io/dockerconfigjson` for that registry; or make the registry
    /// reachable from the nodes, which use their own resolver and certificates, not the cluster's.
    ///
    /// ## Exceptions
    ///
    /// In the first minute of a pod, as one failed pull is often followed by one that works; for pods that are finished
    /// or being deleted.
    "pod/image-pull": Error,
    "a container's image cannot be pulled",
    needs: [Pod],
    optional: [Event, Secret, Node],
    explained_by: [],
}

/// The pods of one workload whose container waits for its image.
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

/// What was said about the pull: by the state, or, where that only says that it backs off, by the newest event.
fn said(cluster: &Cluster, pod: &Pod, status: &ContainerStatus, image: &str) -> String {
    let state = status.state.waiting().map(|waiting| waiting.message.as_str()).unwrap_or_default();
    if !core(state, image).is_empty() {
        return state.to_string();
    }
    let about = |event: &&&Event| {
        event.container().is_none_or(|container| container == status.name)
            && (event.message.starts_with("Failed to pull image") || event.reason == "ErrImageNeverPull")
            && (event.message.contains(image) || event.container().is_some())
    };
    let events = cluster.events(&pod.reference());
    events.iter().find(about).map_or_else(|| state.to_string(), |event| event.message.clone())
}

fn finding(cluster: &Cluster, owner: &ObjectRef, waiting: &Waiting) -> Finding {
    let (pod, status) = (waiting.sample, waiting.status);
    let container = pod.spec.container(&status.name);
    let image = container.map(|c| c.image.as_str()).filter(|i| !i.is_empty()).unwrap_or(&status.image);
    let said = said(cluster, pod, status, image);
    let reason = status.state.waiting().map(|w| w.reason.as_str()).unwrap_or_default();
    let failure = PullFailure::of(reason, &said, image);
    let why = explanation(cluster, pod, image, failure, core(&said, image));
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
                format!("Container {} uses image {image}", status.name),
                &sample,
                &format!("spec.{list}[{}].image", status.name),
            );
    if !said.is_empty() {
        let path = format!("status.{statuses}[{}].state.waiting.message", status.name);
        finding = finding.evidence(shorten(&said, 400), &sample, &path);
    }
    for (text, path) in pull_secrets(cluster, pod).problems {
        finding = finding.evidence(text, &sample, &path);
    }
    advise(finding, owner, &status.name, image, failure)
}

/// Why, with what the pod's own fields add to the registry's words.
fn explanation(cluster: &Cluster, pod: &Pod, image: &str, failure: PullFailure, core: &str) -> String {
    let registry = registry(image);
    match failure {
        PullFailure::NoSuchTag if tag(image).contains(':') => format!("registry {registry} has no such digest"),
        PullFailure::NoSuchTag => format!("{} has no tag {}", repository(image), tag(image)),
        PullFailure::NoSuchRepository => format!("registry {registry} has no repository {}", repository(image)),
        PullFailure::Denied => {
            let secrets = pull_secrets(cluster, pod).summary;
            let doubt = if core.contains("does not exist") { " or has no such repository" } else { "" };
            format!("registry {registry} refuses access{doubt}, and the pod {secrets}")
        }
        PullFailure::WrongPlatform => match cluster.get::<Node>("", &pod.spec.node_name) {
            Lookup::Found(node) if !node.status.node_info.architecture.is_empty() => {
                let info = &node.status.node_info;
                let system = if info.operating_system.is_empty() { "linux" } else { &info.operating_system };
                format!("it is not built for the node's platform {system}/{}", info.architecture)
            }
            _ => failure.to_string(),
        },
        PullFailure::Dns => format!("the node cannot resolve registry {registry}"),
        PullFailure::Unreachable => format!("registry {registry} cannot be reached ({})", shorten(last(core), 120)),
        PullFailure::Tls => format!("the TLS connection to registry {registry} fails ({})", shorten(last(core), 160)),
        PullFailure::RateLimited => format!("the rate limit of registry {registry} is reached"),
        PullFailure::RegistryError | PullFailure::Other if !core.is_empty() => shorten(core, 200),
        _ => failure.to_string(),
    }
}

/// What is behind the request in an error of Go's HTTP client: `dial tcp 10.0.0.1:443: connect: connection refused`.
fn last(core: &str) -> &str {
    let core = if core.is_empty() { "no answer" } else { core };
    core.split_once("\": ").map_or(core, |(_, cause)| cause)
}

struct PullSecrets {
    /// The end of a sentence that begins with "the pod".
    summary: String,
    /// What is wrong with each, and the field that names it.
    problems: Vec<(String, String)>,
}

/// The pod's own list is complete: those of its ServiceAccount were added to it when it was made.
fn pull_secrets(cluster: &Cluster, pod: &Pod) -> PullSecrets {
    let named = &pod.spec.image_pull_secrets;
    let (mut missing, mut wrong, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for (at, secret) in named.iter().enumerate() {
        let path = format!("spec.imagePullSecrets[{at}]");
        match cluster.get::<Secret>(&pod.metadata.namespace, &secret.name) {
            Lookup::Missing => {
                missing.push(secret.name.as_str());
                problems.push((format!("Image pull secret {} does not exist", secret.name), path));
            }
            Lookup::Found(found) if !is_pull_secret(found) => {
                wrong.push(secret.name.as_str());
                let text = format!(
                    "Image pull secret {} has type {}, not kubernetes.io/dockerconfigjson",
                    secret.name, found.type_
                );
                problems.push((text, path));
            }
            _ => {}
        }
    }
    let names: Vec<&str> = named.iter().map(|secret| secret.name.as_str()).collect();
    let summary = if named.is_empty() {
        "names no image pull secret".to_string()
    } else if !missing.is_empty() {
        format!("names image pull secret {}, which does not exist", list(&missing, 3))
    } else if !wrong.is_empty() {
        format!("names image pull secret {}, which is of the wrong type", list(&wrong, 3))
    } else {
        format!("uses image pull secret {}", list(&names, 3))
    };
    PullSecrets { summary, problems }
}

/// Whether the kubelet takes credentials from it; of metadata alone the type is not known.
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
            finding.fix_command("Name an image that exists, or push this one", set_image)
        }
        PullFailure::WrongPlatform => finding.fix_command("Use an image that is built for the node's platform", set_image),
        PullFailure::Denied => finding.fix_command(
            "Make an image pull secret for the registry and name it in imagePullSecrets of the pod template or the ServiceAccount",
            kubectl([
                "-n", namespace, "create", "secret", "docker-registry", "NAME",
                &format!("--docker-server={}", registry(image)), "--docker-username=USER", "--docker-password=PASSWORD",
            ]),
        ),
        PullFailure::Never => finding.fix("Load the image on the node, or set imagePullPolicy to IfNotPresent"),
        PullFailure::RateLimited => finding.fix("Pull with credentials (an image pull secret), or through a registry mirror"),
        PullFailure::Dns | PullFailure::Unreachable | PullFailure::RegistryError => finding.fix(format!(
            "Check the registry's name, and that {} answers from the node (route, firewall, proxy, the node's resolver)",
            registry(image)
        )),
        PullFailure::Tls => finding.fix(format!(
            "Give the nodes' container runtime the CA of {}, or configure the registry as plain HTTP there",
            registry(image)
        )),
        PullFailure::DiskFull => finding.fix("Free disk space on the node"),
        PullFailure::BadSignature => finding.fix("Use an image with a signature that the node's policy accepts"),
        PullFailure::Other => finding.fix_command(
            "Read the events of the pod",
            kubectl(["-n", namespace, "events", "--for", &target]),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{World, check};

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
    const TAG: &str = "error Pod shop/web: Pod web cannot pull image r.io/a:v1: r.io/a has no tag v1";

    #[test]
    fn fires_alike_in_both_phases_of_the_loop() {
        let first = check(&RULE, &[&pod("r.io/a:v1", "", "ErrImagePull", NOT_FOUND)]);
        first.finds(&[TAG]);
        let back_off = format!("Back-off pulling image \"r.io/a:v1\": ErrImagePull: {NOT_FOUND}");
        let second = check(&RULE, &[&pod("r.io/a:v1", "", "ImagePullBackOff", &back_off)]);
        second.finds(&[TAG]);
        assert_eq!(first.finding().id, second.finding().id);
        // Before Kubernetes 1.32 the state said only that it backs off.
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
        World::new(&[&pod("r.io/a:v1", "", "ImagePullBackOff", "Back-off pulling image \"r.io/a:v1\"")])
            .forbid(Kind::Event)
            .check(&RULE)
            .finds(&["error Pod shop/web: Pod web cannot pull image r.io/a:v1: the pull fails"]);
    }

    #[test]
    fn quiet_in_the_first_minute() {
        World::new(&[&pod("r.io/a:v1", "", "ErrImagePull", NOT_FOUND)])
            .now("2026-11-21T11:50:30Z")
            .check(&RULE)
            .finds_nothing();
    }

    #[test]
    fn quiet_while_it_is_created() {
        check(&RULE, &[&pod("r.io/a:v1", "", "ContainerCreating", "")]).finds_nothing();
    }

    #[test]
    fn fires_with_the_pull_secret_that_is_missing_or_wrong() {
        let refused =
            "error Pod shop/web: Pod web cannot pull image r.io/a:v1: registry r.io refuses access, and the pod";
        let named = pod("r.io/a:v1", "imagePullSecrets: [{name: reg}],", "ErrImagePull", DENIED);
        let secret =
            |t: &str| format!("{{apiVersion: v1, kind: Secret, metadata: {{name: reg, namespace: shop}}, type: {t}}}");
        check(&RULE, &[&pod("r.io/a:v1", "", "ErrImagePull", DENIED)])
            .finds(&[&format!("{refused} names no image pull secret")]);
        check(&RULE, &[&named]).finds(&[&format!("{refused} names image pull secret reg, which does not exist")]);
        check(&RULE, &[&named, &secret("Opaque")])
            .finds(&[&format!("{refused} names image pull secret reg, which is of the wrong type")]);
        check(&RULE, &[&named, &secret("kubernetes.io/dockerconfigjson")])
            .finds(&[&format!("{refused} uses image pull secret reg")]);
        World::new(&[&named])
            .forbid(Kind::Secret)
            .check(&RULE)
            .finds(&[&format!("{refused} uses image pull secret reg")]);
    }

    #[test]
    fn fires_for_names_that_cannot_be_pulled() {
        let message = "Failed to apply default image tag \"Web:v1\": couldn''t parse image name \"Web:v1\": invalid reference format: \
            repository name (library/Web) must be lowercase";
        check(&RULE, &[&pod("Web:v1", "", "InvalidImageName", message)])
            .finds(&["error Pod shop/web: Pod web cannot pull image Web:v1: its name is invalid"]);
        check(&RULE, &[&pod("web:v1", "", "ErrImageNeverPull", "")])
            .finds(&["error Pod shop/web: Pod web cannot pull \
            image web:v1: imagePullPolicy is Never and the node does not have the image"]);
    }
}
