use std::collections::BTreeMap;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::storage::{claim_of, volume_of};
use crate::kubernetes::time::{PROVISION, START, age};
use crate::kubernetes::workloads::references::references;
use crate::snapshot::model::{Event, PersistentVolumeClaim, Pod, TOKEN_VOLUME, VolumeAttachment};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::shorten;

declare_rule! {
    /// ## What it checks
    ///
    /// Pods that wait on their node for a volume: `FailedMount`, `FailedAttachVolume` (also `Multi-Attach`),
    /// `FailedMapVolume`. It says which volume, which claim, and what the driver or the mount program answered.
    ///
    /// ## Why it matters
    ///
    /// No container of the pod starts before all its volumes are mounted. It stays in `ContainerCreating` for good.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe pod POD` shows the events; `kubectl get volumeattachments` shows which node has the volume.
    ///
    /// ## How to fix
    ///
    /// `Multi-Attach`: a volume with `ReadWriteOnce` is still attached to another node; end the pod there (a Deployment
    /// with such a volume needs `strategy: Recreate`), or bring back or delete the lost node. Mount errors: read the message; a
    /// server that is not reachable, a path that is not there, a file system tool missing on the node.
    ///
    /// ## Exceptions
    ///
    /// In the first two minutes on the node, once any container has started, and where a Secret, ConfigMap or key is
    /// what is missing (`pod/missing-reference`).
    "pod/volume": Error,
    "a pod's volume cannot be attached or mounted",
    needs: [Pod, Event],
    optional: [PersistentVolumeClaim, VolumeAttachment],
    explained_by: ["pvc/*", "volumeattachment/failed", "node/not-ready"],
}

/// The pods of one workload that wait for one volume.
struct Waiting<'a> {
    sample: &'a Pod,
    event: &'a Event,
    /// The volume as the pod calls it.
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

/// The event that says most: one of the volume plugin's, before the kubelet's own "timed out waiting".
fn decisive<'a>(cluster: &'a Cluster, pod: &Pod) -> Option<&'a Event> {
    let mut events = cluster.events(&pod.reference());
    events.retain(|event| {
        let uid = &event.involved_object.uid;
        matches!(event.reason.as_str(), "FailedMount" | "FailedAttachVolume" | "FailedMapVolume")
            && (uid.is_empty() || pod.metadata.uid.is_empty() || *uid == pod.metadata.uid)
            // The kubelet tries again every two minutes at the latest.
            && event.last_seen().is_none_or(|seen| age(cluster.now(), seen) < PROVISION)
    });
    if events.iter().any(|event| is_missing_reference(pod, &event.message)) {
        // Then the other complaints are about the whole pod, which waits for that.
        events.retain(|event| !is_missing_reference(pod, &event.message) && !is_summary(event));
    }
    events.retain(|event| !is_cache_miss(&event.message));
    events.iter().find(|event| !is_summary(event)).or(events.first()).copied()
}

fn is_missing_reference(pod: &Pod, message: &str) -> bool {
    references(&pod.spec).iter().any(|reference| reference.is_said_missing(&pod.metadata.namespace, message))
}

/// `Unable to attach or mount volumes: unmounted volumes=[data] …`: what the kubelet says of the pod as a whole.
fn is_summary(event: &Event) -> bool {
    event.message.starts_with("Unable to attach or mount volumes")
}

/// The kubelet has not seen the object yet; it says better the next time.
fn is_cache_miss(message: &str) -> bool {
    message.contains("not registered")
        || message.contains("failed to sync secret cache")
        || message.contains("failed to sync configmap cache")
}

/// The pod's volume that a message names: by its own name, or by that of the PersistentVolume behind it.
fn volume_named<'a>(cluster: &Cluster, pod: &'a Pod, message: &str) -> Option<&'a str> {
    // The model leaves the random ending of its name away.
    let is_token = |name: &str| name == TOKEN_VOLUME;
    let quoted = |name: &str| {
        message.contains(&format!("\"{name}\"")) || is_token(name) && message.contains(&format!("\"{name}-"))
    };
    let named = pod.spec.volumes.iter().find(|volume| {
        let behind = claim_of(pod, volume).and_then(|claim| {
            let claim = cluster.get::<PersistentVolumeClaim>(&pod.metadata.namespace, &claim).found()?;
            volume_of(claim).map(str::to_string)
        });
        quoted(&volume.name) || behind.is_some_and(|behind| quoted(&behind))
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
        let text = format!("The pod waits on node {}", pod.spec.node_name);
        finding = finding.evidence(text, &pod.reference(), &format!("spec.volumes[{volume}]"));
    }
    if let Some(claim) = &claim {
        finding = finding.because(ObjectRef::new(Kind::PersistentVolumeClaim, namespace, claim));
        for attachment in attachments(cluster, namespace, claim) {
            let node = &attachment.spec.node_name;
            let state =
                if attachment.status.as_ref().is_some_and(|s| s.attached) { "attached" } else { "not attached" };
            finding = finding
                .evidence(format!("The volume is {state} to node {node}"), &attachment.reference(), "status.attached")
                .because(attachment.reference())
                .because(ObjectRef::new(Kind::Node, "", node));
        }
    }
    if event.message.contains("Multi-Attach") {
        return finding
            .fix("End the pod that still uses the volume on the other node; a Deployment with a ReadWriteOnce volume needs strategy Recreate")
            .fix_command("See which node has it", kubectl(["get", "volumeattachments"]));
    }
    let name = &pod.metadata.name;
    finding.fix_command("Do what the message asks for", kubectl(["-n", namespace, "describe", "pod", name]))
}

fn attachments<'a>(cluster: &'a Cluster, namespace: &str, claim: &str) -> Vec<&'a VolumeAttachment> {
    let claim = cluster.get::<PersistentVolumeClaim>(namespace, claim).found();
    let Some(volume) = claim.and_then(volume_of) else { return Vec::new() };
    let all = cluster.all::<VolumeAttachment>().iter();
    all.filter(|a| a.spec.source.persistent_volume_name.as_deref() == Some(volume)).collect()
}

/// The end of a sentence that begins with the volume, without names of pods and of paths inside the kubelet.
fn core(message: &str) -> String {
    if message.contains("Multi-Attach error") {
        return if message.contains("can't be attached to another") {
            "is still attached to another node, and can be attached to only one".to_string()
        } else {
            "is still used by a pod on another node, and can be attached to only one".to_string()
        };
    }
    if message.starts_with("Unable to attach or mount volumes") {
        return "is not mounted in time".to_string();
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
    // What mount(8) and its kind print is worth more than the command line before it.
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
    use crate::testing::{World, check};

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
            volume data (claim disk) is still used by a pod on another node, and can be attached to only one"]);
    }

    #[test]
    fn fires_with_the_words_of_the_mount() {
        let message = "MountVolume.SetUp failed for volume \"pv-7\" : rpc error: code = Internal desc = mount failed: exit status 32";
        check(&RULE, &[POD, CLAIM, &event("FailedMount", message)])
            .finds(&["error Pod shop/db: Pod db cannot start: \
            volume data (claim disk) cannot be mounted: mount failed: exit status 32"]);
        World::new(&[POD, &event("FailedMount", message)]).forbid(Kind::PersistentVolumeClaim).check(&RULE).finds(&[
            "error Pod shop/db: Pod db cannot start: a volume cannot be mounted: mount failed: exit status 32",
        ]);
    }

    #[test]
    fn fires_for_the_volume_with_the_token_whatever_its_random_name() {
        let pod = POD.replace("{name: data,", "{name: kube-api-access-x7k2p, projected: {}}, {name: data,");
        let message = "MountVolume.SetUp failed for volume \"kube-api-access-x7k2p\" : failed to fetch token";
        let listed = "Unable to attach or mount volumes: unmounted volumes=[kube-api-access-x7k2p]: timed out";
        for message in [message, listed] {
            let said = check(&RULE, &[&pod, CLAIM, &event("FailedMount", message)]);
            let says = &said.finding().message;
            assert!(says.starts_with("Pod db cannot start: volume kube-api-access "), "{says}");
        }
    }

    #[test]
    fn quiet_when_a_secret_is_missing() {
        let message = "MountVolume.SetUp failed for volume \"certs\" : secret \"tls\" not found";
        check(&RULE, &[POD, CLAIM, &event("FailedMount", message)]).finds_nothing();
    }

    #[test]
    fn quiet_when_it_started_since_or_is_young() {
        let running = POD.replace("waiting: {reason: ContainerCreating}", "running: {}").replace("Pending", "Running");
        check(&RULE, &[&running, CLAIM, &event("FailedAttachVolume", MULTI)]).finds_nothing();
        World::new(&[POD, CLAIM, &event("FailedAttachVolume", MULTI)])
            .now("2026-11-21T11:51:00Z")
            .check(&RULE)
            .finds_nothing();
    }
}
