use std::collections::BTreeMap;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::nodes::kubelet::{KubeletExt, OUT_OF_SERVICE, out_of_service};
use crate::kubernetes::storage::{attachments, bound_volume, claim_of, driver_of, is_attached, users, volume_of};
use crate::kubernetes::time::{PROVISION, RECENT, START, age};
use crate::kubernetes::workloads::references::references;
use crate::snapshot::model::{Deployment, Event, Node, PersistentVolumeClaim, Pod, TOKEN_VOLUME, VolumeAttachment};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::shorten;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for scheduled pods that are waiting for a volume: `FailedMount`, `FailedAttachVolume` (including
    /// `Multi-Attach`), `FailedMapVolume`. The finding names the volume and the claim, and quotes the error of the
    /// driver or the mount command.
    ///
    /// ## Why it matters
    ///
    /// No container of the pod starts before all its volumes are mounted. The pod stays in `ContainerCreating`.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe pod POD` shows the events. `kubectl get volumeattachments` shows the node to
    /// which the volume is attached.
    ///
    /// ## How to fix
    ///
    /// For `Multi-Attach`, a `ReadWriteOnce` volume is still attached to another node: delete the pod there (a
    /// Deployment with such a volume needs `strategy.type: Recreate`), or recover the lost node or, once its machine is
    /// certainly off, set the taint `node.kubernetes.io/out-of-service`. For mount errors follow the message: an
    /// unreachable server, a path that does not exist, a missing file system tool on the node.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire in the first two minutes after the pod was scheduled, once any container has started, or
    /// if a Secret, ConfigMap or key is missing (see `pod/missing-reference`). Events older than five minutes do not
    /// count, except for `Multi-Attach`, which is reported only once: it counts while the volume is attached to another
    /// node.
    "pod/volume": Error,
    "a pod's volume cannot be attached or mounted",
    needs: [Pod, Event],
    optional: [PersistentVolumeClaim, VolumeAttachment, PersistentVolume, Node, Deployment],
    explained_by: ["pvc/*", "volumeattachment/failed", "node/not-ready", "workload/node-name", "deployment/rollout-deadlock", "pv/*", "csinode/driver-missing", "csidriver/attach", "pod/terminating",
    ],
}

/// The pods of one workload that are waiting for one volume.
struct Waiting<'a> {
    sample: &'a Pod,
    event: &'a Event,
    /// The name of the volume in the pod's spec.
    volume: Option<&'a str>,
    pods: usize,
}

fn check(cluster: &Cluster, report: &mut Report) {
    for group in cluster.pod_groups() {
        let mut waiting: BTreeMap<Option<&str>, Waiting> = BTreeMap::new();
        for pod in cluster.pods_of(group).filter(|pod| pod.is_active() && pod.is_being_created()) {
            if pod.scheduled_at().is_some_and(|since| age(cluster.now(), since) < START) {
                continue;
            }
            let Some(event) = decisive(cluster, pod) else { continue };
            let volume = volume_named(cluster, pod, &event.message);
            waiting.entry(volume).or_insert(Waiting { sample: pod, event, volume, pods: 0 }).pods += 1;
        }
        for waiting in waiting.values() {
            report.add(finding(cluster, &group.owner, waiting));
        }
    }
}

/// The most specific event: one of the volume plugin rather than the kubelet's "timed out waiting".
fn decisive<'a>(cluster: &'a Cluster, pod: &Pod) -> Option<&'a Event> {
    let mut events = cluster.events(&pod.reference());
    events.retain(|event| {
        let uid = &event.involved_object.uid;
        matches!(event.reason.as_str(), "FailedMount" | "FailedAttachVolume" | "FailedMapVolume")
            && (uid.is_empty() || pod.metadata.uid.is_empty() || *uid == pod.metadata.uid)
            // The kubelet retries at least every two minutes.
            && (event.last_seen().is_none_or(|seen| age(cluster.now(), seen) < PROVISION) || still_holds(cluster, pod, event))
    });
    if events.iter().any(|event| is_missing_reference(pod, &event.message)) {
        // The summary events then report only that the pod is waiting for the missing reference.
        events.retain(|event| !is_missing_reference(pod, &event.message) && !is_summary(event));
    }
    events.retain(|event| !is_cache_miss(&event.message));
    events.iter().find(|event| !is_summary(event)).or(events.first()).copied()
}

/// Whether a Multi-Attach error lasts. The attach/detach controller reports it only once per pod.
fn still_holds(cluster: &Cluster, pod: &Pod, event: &Event) -> bool {
    if !event.message.contains("Multi-Attach") {
        return false;
    }
    if !cluster.covers_all(Kind::VolumeAttachment) {
        return event.last_seen().is_none_or(|seen| age(cluster.now(), seen) < RECENT);
    }
    let claim = volume_named(cluster, pod, &event.message)
        .and_then(|name| pod.spec.volumes.iter().find(|volume| volume.name == name))
        .and_then(|volume| claim_of(pod, volume));
    let attached: Vec<&VolumeAttachment> = claim
        .map(|claim| attachments_of(cluster, &pod.metadata.namespace, &claim))
        .into_iter()
        .flatten()
        .filter(|attachment| is_attached(attachment))
        .collect();
    !attached.is_empty() && attached.iter().all(|attachment| attachment.spec.node_name != pod.spec.node_name)
}

fn is_missing_reference(pod: &Pod, message: &str) -> bool {
    references(&pod.spec).iter().any(|reference| reference.is_said_missing(&pod.metadata.namespace, message))
}

/// `Unable to attach or mount volumes: unmounted volumes=[data] …`: the kubelet's summary for the whole pod.
fn is_summary(event: &Event) -> bool {
    event.message.starts_with("Unable to attach or mount volumes")
}

/// The kubelet has not cached the object yet; its next attempt reports the real cause.
fn is_cache_miss(message: &str) -> bool {
    message.contains("not registered")
        || message.contains("failed to sync secret cache")
        || message.contains("failed to sync configmap cache")
}

/// The pod's volume in a message: by its own name, or by the name of its PersistentVolume.
fn volume_named<'a>(cluster: &Cluster, pod: &'a Pod, message: &str) -> Option<&'a str> {
    // The model drops the random suffix of its name.
    let is_token = |name: &str| name == TOKEN_VOLUME;
    let quoted = |name: &str| {
        message.contains(&format!("\"{name}\"")) || is_token(name) && message.contains(&format!("\"{name}-"))
    };
    let named = pod.spec.volumes.iter().find(|volume| {
        let pv = claim_of(pod, volume).and_then(|claim| {
            let claim = cluster.get::<PersistentVolumeClaim>(&pod.metadata.namespace, &claim).found()?;
            volume_of(claim).map(str::to_string)
        });
        quoted(&volume.name) || pv.is_some_and(|pv| quoted(&pv))
    });
    let listed = || {
        let list = message.split_once("unmounted volumes=[")?.1.split_once(']')?.0;
        let first = list.split([' ', ',']).next()?;
        let is_first = |name: &str| name == first || is_token(name) && first.starts_with(name);
        pod.spec.volumes.iter().find(|volume| is_first(&volume.name))
    };
    named.or_else(listed).map(|volume| volume.name.as_str())
}

fn finding(cluster: &Cluster, owner: &ObjectRef, waiting: &Waiting) -> Finding {
    let (pod, event) = (waiting.sample, waiting.event);
    let namespace = &pod.metadata.namespace;
    let volume = waiting.volume.and_then(|name| pod.spec.volumes.iter().find(|volume| volume.name == name));
    let claim = volume.and_then(|volume| claim_of(pod, volume));
    let what = match (waiting.volume, &claim) {
        (Some(volume), Some(claim)) => format!("volume {volume} (claim {claim})"),
        (Some(volume), None) => format!("volume {volume}"),
        _ => "a volume".to_string(),
    };
    let why = core(&event.message);
    let mut finding =
        Finding::error(owner.clone(), format!("{} {} cannot start: {what} {why}", owner.kind, owner.name))
            .key(waiting.volume.unwrap_or_default())
            .pods(waiting.pods)
            .since(pod.scheduled_at())
            .evidence(format!("{}: {}", event.reason, shorten(&event.message, 400)), &pod.reference(), "");
    if let Some(volume) = waiting.volume {
        let text = format!("pod is waiting on node {}", pod.spec.node_name);
        finding = finding.evidence(text, &pod.reference(), &format!("spec.volumes[{volume}]"));
    }
    if let Some(claim) = &claim {
        finding = finding.because(ObjectRef::new(Kind::PersistentVolumeClaim, namespace, claim));
        for attachment in attachments_of(cluster, namespace, claim) {
            let node = &attachment.spec.node_name;
            let state = if is_attached(attachment) { "attached" } else { "not attached" };
            finding = finding
                .evidence(format!("volume is {state} to node {node}"), &attachment.reference(), "status.attached")
                .because(attachment.reference())
                .because(ObjectRef::new(Kind::Node, "", node));
        }
    }
    if let Some(volume) = volume {
        let persistent = bound_volume(cluster, pod, volume);
        let inline = volume.csi.as_ref().map(|csi| csi.driver.as_str());
        let driver = inline.or(persistent.and_then(driver_of));
        let causes = [
            persistent.map(Object::reference),
            driver.map(|driver| ObjectRef::new(Kind::CSIDriver, "", driver)),
            driver.map(|_| ObjectRef::new(Kind::CSINode, "", &pod.spec.node_name)),
        ];
        finding = causes.into_iter().flatten().fold(finding, Finding::because);
    }
    if event.message.contains("Multi-Attach") {
        return attached_elsewhere(cluster, finding, owner, pod, claim.as_deref());
    }
    let name = &pod.metadata.name;
    finding.fix_command(
        "Check the pod's events and fix the reported error",
        kubectl(["-n", namespace, "describe", "pod", name]),
    )
}

fn attachments_of<'a>(cluster: &'a Cluster, namespace: &str, claim: &str) -> Vec<&'a VolumeAttachment> {
    let claim = cluster.get::<PersistentVolumeClaim>(namespace, claim).found();
    claim.and_then(volume_of).map(|volume| attachments(cluster, volume).collect()).unwrap_or_default()
}

/// What holds the volume on another node, and what releases it.
fn attached_elsewhere(
    cluster: &Cluster,
    finding: Finding,
    owner: &ObjectRef,
    pod: &Pod,
    claim: Option<&str>,
) -> Finding {
    let namespace = &pod.metadata.namespace;
    let here = &pod.spec.node_name;
    let found = claim.and_then(|claim| cluster.get::<PersistentVolumeClaim>(namespace, claim).found());
    let users = found.map(|claim| users(cluster, claim)).unwrap_or_default();
    let holder = users.into_iter().find(|user| !user.spec.node_name.is_empty() && user.spec.node_name != *here);
    let attached = claim.into_iter().flat_map(|claim| attachments_of(cluster, namespace, claim));
    let attached =
        attached.filter(|attachment| is_attached(attachment)).map(|attachment| attachment.spec.node_name.as_str());
    let lost = attached.chain(holder.map(|holder| holder.spec.node_name.as_str())).find_map(|node| {
        let node = cluster.get::<Node>("", node).found()?;
        cluster.down(node).map(|_| node)
    });
    if let Some(node) = lost {
        return finding.because(node.reference()).fix_command(OUT_OF_SERVICE, out_of_service(node.name()));
    }
    let Some(holder) = holder else {
        let command = kubectl(["get", "volumeattachments"]);
        return finding.fix_command("Check which node the volume is attached to, and why it is not detached", command);
    };
    let (name, node) = (holder.name(), &holder.spec.node_name);
    let held_by = cluster.owner_of(holder);
    let finding =
        finding.evidence(format!("Pod {name} uses the volume on node {node}"), &holder.reference(), "spec.volumes");
    if holder.is_terminating() {
        return finding.because(held_by.into_owned()).fix_command(
            "Find out why the old pod is still terminating",
            kubectl(["-n", namespace, "describe", "pod", name]),
        );
    }
    let rolls = cluster.get::<Deployment>(namespace, &owner.name).found().filter(|_| owner.is(Kind::Deployment));
    let rolls = rolls.is_some_and(|deployment| deployment.spec.strategy.type_ != "Recreate");
    let delete = kubectl(["-n", namespace, "delete", "pod", name]);
    if !held_by.same_as(owner) {
        return finding.fix(format!(
            "Run the pods of {} and {} on one node (pod affinity), or give each its own volume",
            owner.title(),
            held_by.title()
        ));
    }
    let finding = finding.fix_command(format!("Delete Pod {name}, which still uses the volume on node {node}"), delete);
    if !rolls {
        return finding;
    }
    let owner = owner.title();
    finding.fix(format!("Set strategy.type of {owner} to Recreate: its volume can be attached to only one node"))
}

/// A predicate for the subject "volume", without names of pods and of paths inside the kubelet.
fn core(message: &str) -> String {
    if message.contains("Multi-Attach error") {
        return if message.contains("can't be attached to another") {
            "is still attached to another node and can be attached to only one".to_string()
        } else {
            "is still in use by a pod on another node and can be attached to only one".to_string()
        };
    }
    if message.starts_with("Unable to attach or mount volumes") {
        return "was not mounted in time".to_string();
    }
    let verb = if message.starts_with("AttachVolume") {
        "cannot be attached"
    } else if message.starts_with("MapVolume") {
        "cannot be mapped"
    } else {
        "cannot be mounted"
    };
    let rest = message.split_once(" : ").or(message.split_once("\": ")).map_or(message, |(_, rest)| rest);
    let rest = match rest.strip_prefix("rpc error: code = ") {
        Some(rpc) => rest_of_rpc(rpc),
        None => rest,
    };
    // The output of mount(8) and similar commands is more useful than the command line before it.
    let rest = rest.split_once("Output: ").map_or(rest, |(_, output)| output);
    format!("{verb}: {}", shorten(rest.lines().next().unwrap_or(rest).trim_end_matches('.'), 200))
}

fn rest_of_rpc(rpc: &str) -> &str {
    rpc.split_once("desc = ").map_or(rpc, |(_, desc)| desc)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    const POD: &str = "
        apiVersion: v1
        kind: Pod
        metadata: {name: db, namespace: shop, creationTimestamp: '2026-11-21T11:50:00Z'}
        spec:
          nodeName: w1
          containers: [{name: app}]
          volumes: [{name: data, persistentVolumeClaim: {claimName: disk}}, {name: certs, secret: {secretName: tls}}]
        status: {phase: Pending, containerStatuses: [{name: app, state: {waiting: {reason: ContainerCreating}}}]}";
    const CLAIM: &str = "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: disk, namespace: shop}, spec: {volumeName: pv-7}}";

    fn event(reason: &str, message: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: Event
            metadata: {{name: e, namespace: shop}}
            type: Warning
            reason: {reason}
            message: '{message}'
            lastTimestamp: '2026-11-21T11:58:00Z'
            involvedObject: {{kind: Pod, namespace: shop, name: db}}"
        )
    }

    const MULTI: &str = "Multi-Attach error for volume \"pv-7\" Volume is already used by pod(s) old";

    #[test]
    fn fires_for_a_volume_in_use_elsewhere() {
        check(&RULE, &[POD, CLAIM, &event("FailedAttachVolume", MULTI)])
            .finds(&["error Pod shop/db: Pod db cannot start: \
            volume data (claim disk) is still in use by a pod on another node and can be attached to only one"]);
    }

    #[test]
    fn fires_with_the_mount_error() {
        let message = "MountVolume.SetUp failed for volume \"pv-7\" : rpc error: code = Internal desc = mount failed: exit status 32";
        check(&RULE, &[POD, CLAIM, &event("FailedMount", message)])
            .finds(&["error Pod shop/db: Pod db cannot start: \
            volume data (claim disk) cannot be mounted: mount failed: exit status 32"]);
        TestCluster::new(&[POD, &event("FailedMount", message)])
            .forbid(Kind::PersistentVolumeClaim)
            .check(&RULE)
            .finds(&[
                "error Pod shop/db: Pod db cannot start: a volume cannot be mounted: mount failed: exit status 32",
            ]);
    }

    #[test]
    fn fires_for_the_token_volume_with_any_random_suffix() {
        let pod = POD.replace("{name: data,", "{name: kube-api-access-x7k2p, projected: {}}, {name: data,");
        let message = "MountVolume.SetUp failed for volume \"kube-api-access-x7k2p\" : failed to fetch token";
        let listed = "Unable to attach or mount volumes: unmounted volumes=[kube-api-access-x7k2p]: timed out";
        for message in [message, listed] {
            let said = check(&RULE, &[&pod, CLAIM, &event("FailedMount", message)]);
            let message = &said.finding().message;
            assert!(message.starts_with("Pod db cannot start: volume kube-api-access "), "{message}");
        }
    }

    #[test]
    fn quiet_when_a_secret_is_missing() {
        let message = "MountVolume.SetUp failed for volume \"certs\" : secret \"tls\" not found";
        check(&RULE, &[POD, CLAIM, &event("FailedMount", message)]).finds_nothing();
    }

    #[test]
    fn quiet_when_the_pod_has_started_or_is_young() {
        let running = POD.replace("waiting: {reason: ContainerCreating}", "running: {}").replace("Pending", "Running");
        check(&RULE, &[&running, CLAIM, &event("FailedAttachVolume", MULTI)]).finds_nothing();
        TestCluster::new(&[POD, CLAIM, &event("FailedAttachVolume", MULTI)])
            .now("2026-11-21T11:51:00Z")
            .check(&RULE)
            .finds_nothing();
    }

    fn attachment(node: &str) -> String {
        format!(
            "{{apiVersion: storage.k8s.io/v1, kind: VolumeAttachment, metadata: {{name: at-{node}}}, spec: {{attacher: x, \
             nodeName: {node}, source: {{persistentVolumeName: pv-7}}}}, status: {{attached: true}}}}"
        )
    }

    #[test]
    fn fires_for_an_old_multi_attach_error_while_it_lasts() {
        let old = event("FailedAttachVolume", MULTI).replace("11:58:00", "11:10:00");
        let found = "error Pod shop/db: Pod db cannot start: volume data (claim disk) is still in use by a pod on another \
            node and can be attached to only one";
        check(&RULE, &[POD, CLAIM, &old, &attachment("w2")]).finds(&[found]);
        check(&RULE, &[POD, CLAIM, &old, &attachment("w1")]).finds_nothing();
        check(&RULE, &[POD, CLAIM, &old]).finds_nothing();
    }

    #[test]
    fn fires_with_what_releases_the_volume() {
        let multi = event("FailedAttachVolume", MULTI);
        let node = |ready: &str| {
            format!(
                "{{apiVersion: v1, kind: Node, metadata: {{name: w2}}, status: {{conditions: [{{type: Ready, status: {ready}}}]}}}}"
            )
        };
        let said = check(&RULE, &[POD, CLAIM, &multi, &attachment("w2"), &node("Unknown")]);
        assert!(said.text().contains("node.kubernetes.io/out-of-service"), "{}", said.text());
        let holder = POD.replace("name: db", "name: other").replace("nodeName: w1", "nodeName: w2");
        let said = check(&RULE, &[POD, CLAIM, &multi, &attachment("w2"), &node("'True'"), &holder]);
        assert!(said.text().contains("Run the pods of Pod db and Pod other on one node"), "{}", said.text());
    }
}
