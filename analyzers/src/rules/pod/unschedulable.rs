use std::collections::{BTreeMap, BTreeSet};

use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::scheduling::clauses::{Clause, clauses, sentence};
use crate::kubernetes::scheduling::waiting::{Judge, Waiting, Why, blocked_only_by};
use crate::kubernetes::scheduling::{Obstacle, Placement, Refusal, Shortage, claim_names, claim_reference, resources};
use crate::kubernetes::storage::{bound_volume, misnamed};
use crate::kubernetes::time::{SCHEDULE, START};
use crate::rules::pod::scheduling_advice::Refused;
use crate::snapshot::model::{ConfigMap, Node, Pod, Timestamp};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef, PodGroup, Workload};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for pods that have no node one minute after the scheduler first failed to place them. For each node the
    /// rule computes from the objects which scheduler filter rejects the pod: requests against allocatable and already
    /// requested resources, the maximum number of pods, `nodeSelector` and node affinity, taints, cordons, host ports,
    /// volumes and their zones, topology spread constraints, and affinity and anti-affinity between pods. If not all
    /// nodes and pods could be read, or the result differs from the scheduler's, the finding quotes the scheduler's
    /// message.
    ///
    /// ## Why it matters
    ///
    /// A pod without a node does not run. It stays `Pending` until a node has room for it.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe pod POD` ends with the scheduler's event `FailedScheduling`.
    /// `kubectl describe node NODE` shows already requested resources under *Allocated resources*, and the node's
    /// labels and taints.
    ///
    /// ## How to fix
    ///
    /// Lower the pod's requirements or correct them to match existing nodes, or add what is missing: a node of the
    /// required size, a label, a toleration, a volume in the right zone. The scheduler uses requests, not actual usage. A
    /// pod of a DaemonSet can run only on its node: free resources there, or give it a priority that preempts other pods.
    ///
    /// - Taints that a component removes need no toleration: the cloud controller manager removes
    ///   `node.cloudprovider.kubernetes.io/uninitialized`, a network plugin or CSI driver its own `agent-not-ready`.
    /// - A node selector that is not in the pod template was added at admission: by the pod's RuntimeClass
    ///   (`scheduling.nodeSelector`), by an annotation of the namespace, or by a webhook. Correct it there.
    /// - A tainted node counts as an empty domain of a topology spread constraint unless `nodeTaintsPolicy` is `Honor`.
    /// - Devices such as `nvidia.com/gpu` are offered by a device plugin while it runs on the node, and only healthy ones
    ///   are allocatable.
    /// - A Karpenter NodePool creates no nodes beyond `spec.limits`.
    /// - k3s publishes each LoadBalancer Service on ports of the nodes, so two such Services cannot use the same port.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for:
    ///
    /// - pods that have been unschedulable for less than one minute (five minutes if a cluster autoscaler is active);
    /// - pods for which terminating pods are about to free enough resources;
    /// - finished and terminating pods.
    ///
    /// The severity is `info` for pods with scheduling gates and pods with negative priority, which wait intentionally.
    "pod/unschedulable": Error,
    "a pod cannot be scheduled on any node",
    needs: [Pod],
    optional: [
        Node, Namespace, PersistentVolumeClaim, PersistentVolume, StorageClass, Event, ReplicaSet, Job, Lease,
        RuntimeClass, Deployment, DaemonSet, StatefulSet, ConfigMap,
    ],
    explained_by: [
        "pvc/*", "pv/*", "storageclass/*", "pod/missing-reference", "node/not-ready", "node/pressure", "node/cordoned",
        "controlplane/leader", "deployment/rollout-deadlock", "node/devices", "nodepool/*", "elsewhere:pod/*",
        "elsewhere:workload/*", "elsewhere:daemonset/*",
    ],
}

/// How many pods of one owner are evaluated; the others are counted with the first cause.
const MAX_PODS: usize = 100;

fn check(cluster: &Cluster, report: &mut Report) {
    let Some(judge) = Judge::new(cluster) else { return };
    for group in cluster.pod_groups() {
        let waiting: Vec<Waiting> = cluster.pods_of(group).filter_map(Waiting::new).collect();
        if waiting.is_empty() {
            continue;
        }
        refused(cluster, &judge, group, &waiting, report);
        report_gated(cluster, group, &waiting, report);
        report_ignored(cluster, group, &waiting, report);
    }
}

/// Pods of one owner that are unschedulable for the same kind of cause.
struct SameCause<'a> {
    pods: Vec<&'a Waiting<'a>>,
    placements: Vec<Placement<'a>>,
}

fn refused<'a>(
    cluster: &'a Cluster,
    judge: &Judge<'a>,
    group: &PodGroup,
    waiting: &'a [Waiting<'a>],
    report: &mut Report,
) {
    let refused = waiting.iter().filter(|waiting| matches!(waiting.why, Why::Refused(_)));
    let mut by_kind: BTreeMap<&str, SameCause> = BTreeMap::new();
    for (n, waiting) in refused.filter(|waiting| judge.is_overdue(waiting)).enumerate() {
        if n >= MAX_PODS {
            by_kind.values_mut().take(1).for_each(|same| same.pods.push(waiting));
            continue;
        }
        if judge.gets_room(waiting.pod) {
            continue;
        }
        let placement = judge.explain(waiting.pod);
        let same = by_kind.entry(kind_of(placement.as_ref())).or_insert(SameCause { pods: vec![], placements: vec![] });
        same.pods.push(waiting);
        same.placements.extend(placement);
    }
    for (kind, same) in by_kind {
        let Some(sample) = same.pods.first() else { continue };
        let finding = match same.placements.first() {
            None => from_scheduler_message(group, &same),
            Some(first) if !first.obstacles.is_empty() => about_claims(group, &same),
            // Other pods of the owner that crash do not explain it.
            Some(_) => about_nodes(cluster, group, &same).caused_elsewhere(),
        };
        let mut finding =
            scheduler_evidence(finding, sample).key(kind).pods(same.pods.len()).since(earliest(&same.pods));
        if same.pods.iter().all(|waiting| waiting.pod.spec.priority.is_some_and(|priority| priority < 0)) {
            // Overprovisioning placeholders are pending intentionally.
            finding.severity = Severity::Info;
        }
        if has_event(cluster, sample.pod, "NotTriggerScaleUp") {
            finding = finding.evidence(
                "the cluster autoscaler reports that a scale-up would not help (NotTriggerScaleUp)",
                &sample.pod.reference(),
                "",
            );
        }
        report.add(finding);
    }
}

fn kind_of(placement: Option<&Placement>) -> &'static str {
    let Some(placement) = placement else { return "scheduler" };
    match placement.obstacles.first() {
        None => "",
        Some(Obstacle::ClaimMissing(_)) => "claim missing",
        Some(Obstacle::ClaimUnbound(_)) => "claim unbound",
        Some(Obstacle::ClaimTerminating(_)) => "claim terminating",
        Some(Obstacle::ClaimLost(_)) => "claim lost",
        Some(Obstacle::ClaimInUse { .. }) => "claim in use",
    }
}

fn earliest(pods: &[&Waiting]) -> Option<Timestamp> {
    pods.iter().filter_map(|waiting| waiting.since).min()
}

/// `Pod cart-0`, `2 pods of Deployment cart`, and whether the verb is plural.
fn subject(group: &PodGroup, pods: usize) -> (String, bool) {
    let owner = format!("{} {}", group.owner.kind, group.owner.name);
    if group.owner.is(Kind::Pod) {
        (owner, false)
    } else {
        (format!("{} of {owner}", words::count(pods, "pod")), pods > 1)
    }
}

fn about_nodes<'a>(cluster: &'a Cluster, group: &'a PodGroup, same: &SameCause<'a>) -> Finding {
    let is_pinned = same.placements.iter().all(|placement| placement.is_pinned);
    let placements =
        if is_pinned { same.placements.as_slice() } else { &same.placements[..same.placements.len().min(1)] };
    let nodes: Vec<(&Node, Vec<Refusal>)> = placements.iter().flat_map(|placement| placement.nodes.clone()).collect();
    let clauses = clauses(&nodes);
    let (subject, many) = subject(group, same.pods.len());
    let refused =
        same.pods.first().map(|waiting| Refused { cluster, group, pod: waiting.pod, nodes: &nodes, clauses: &clauses });
    let is_about_labels = matches!(clauses.first().and_then(Clause::refusal), Some(Refusal::NodeAffinity(_)));
    let refused_labels = refused.as_ref().filter(|_| is_about_labels);
    let source = refused_labels.map_or(String::new(), Refused::selector_source);
    let message = match (is_pinned, clauses.as_slice()) {
        (true, clauses) => {
            let nodes = if many { "their nodes" } else { "its node" };
            format!("{subject} cannot be scheduled on {nodes}: {}", sentence(clauses))
        }
        (false, [clause @ Clause { nodes: only }]) if only.len() == 1 => {
            let name = only.first().map_or("", |(node, _)| node.name());
            format!("{subject} cannot be scheduled: {name} (the only node) {}{source}", clause.verb())
        }
        (false, [_]) => format!("{subject} cannot be scheduled: {}{source}", sentence(&clauses)),
        (false, clauses) => {
            format!("{subject} cannot be scheduled on any of {} nodes: {}", nodes.len(), sentence(clauses))
        }
    };
    let mut finding = Finding::error(group.owner.clone(), message);
    if let Some(sample) = same.pods.first() {
        finding = pod_evidence(finding, sample.pod, &nodes);
    }
    for clause in &clauses {
        finding = node_evidence(finding, clause);
    }
    if let Some(refused) = refused_labels {
        finding = refused.source_evidence(finding);
    }
    if let Some(refused) = &refused {
        finding = refused.causes(finding);
        let first = clauses.first();
        finding = match (first.and_then(Clause::refusal), first.and_then(Clause::example)) {
            (Some(Refusal::Lacks(shortages)), Some(node)) if is_pinned => {
                make_room(cluster, finding, group, refused.pod, node, shortages)
            }
            (Some(Refusal::TooManyPods), Some(node)) if is_pinned => finding.fix_command(
                format!("Move pods off node {} or raise its kubelet's maxPods; {PRIORITY}", node.name()),
                kubectl(["describe", "node", node.name()]),
            ),
            // The finding about the volume has the fix.
            (Some(Refusal::Volume(_)), _) if has_misnamed_volume(cluster, refused.pod) => finding,
            _ => refused.fix(finding),
        };
    }
    for node in same.placements.iter().flat_map(blocked_nodes) {
        finding = finding.because(node.reference());
    }
    let is_about_volumes = nodes.iter().flat_map(|(_, why)| why).any(|refusal| matches!(refusal, Refusal::Volume(_)));
    for waiting in same.pods.iter().filter(|_| is_about_volumes) {
        for claim in claim_names(waiting.pod) {
            finding = finding.because(claim_reference(waiting.pod, &claim));
        }
        let volumes = waiting.pod.spec.volumes.iter().filter_map(|volume| bound_volume(cluster, waiting.pod, volume));
        finding = volumes.fold(finding, |finding, volume| finding.because(volume.reference()));
    }
    finding
}

/// Whether a volume of the pod is pinned to a node whose label differs from its name (see `pv/node-affinity`).
fn has_misnamed_volume(cluster: &Cluster, pod: &Pod) -> bool {
    let volumes = pod.spec.volumes.iter().filter_map(|volume| bound_volume(cluster, pod, volume));
    { volumes }.any(|volume| misnamed(cluster, volume).is_some())
}

/// How to keep the pods of a DaemonSet from being without room.
const PRIORITY: &str = "a priorityClassName above that of the pods on the node makes room by preemption";

/// The fixes for a pod of a DaemonSet that lacks resources on its node: no other node helps.
fn make_room(
    cluster: &Cluster,
    finding: Finding,
    group: &PodGroup,
    pod: &Pod,
    node: &Node,
    shortages: &[Shortage],
) -> Finding {
    /// The priority of `system-node-critical`.
    const NODE_CRITICAL: i32 = 2_000_001_000;
    let Some(shortage) = shortages.first() else { return finding };
    let resource = shortage.resource.as_str();
    let others = cluster.pods_on_node(node.name()).into_iter().filter(|other| !other.is_finished());
    let sized = others.map(|other| (resources::requests(&other.spec).get(resource), other));
    let largest = sized
        .filter(|(_, other)| !cluster.owner_of(other).is(Kind::DaemonSet))
        .max_by_key(|(size, other)| (*size, std::cmp::Reverse(&other.metadata.name)));
    let too_big = shortage.requested > shortage.allocatable;
    let wanted: Vec<String> = shortages.iter().map(Shortage::wanted).collect();
    let wanted = words::list(&wanted, 3);
    let describe = kubectl(["describe", "node", node.name()]);
    let Some((size, largest)) = largest.filter(|(size, _)| !size.is_zero() && !too_big) else {
        return finding.fix_command(format!("Lower the request: {} cannot provide {wanted}", node.name()), describe);
    };
    let owner = cluster.owner_of(largest);
    let holder = format!("{} in namespace {}", owner.title(), largest.metadata.namespace);
    let used = format!("{} {resource} in {holder}", size.text(resource));
    let priority = pod.spec.priority.unwrap_or_default();
    let mut finding = finding;
    if priority <= 0 && largest.spec.priority.unwrap_or_default() < NODE_CRITICAL {
        let field = "spec.template.spec.priorityClassName";
        let of = if pod.spec.priority_class_name.is_empty() { "is not set" } else { "has no priority above 0" };
        finding = finding
            .evidence(
                format!("priorityClassName {of}, so the pod preempts nothing"),
                &pod.reference(),
                "spec.priorityClassName",
            )
            .fix(format!(
                "Set {field} of {} to a class that preempts other pods (system-node-critical for storage and network \
                 drivers)",
                group.owner.title()
            ));
    }
    let text = format!("Or free {wanted} on {}, whose largest request is {used}; or lower the request", node.name());
    finding.fix_command(text, describe)
}

/// The nodes that would accept the pod if they were ready, healthy or not cordoned.
fn blocked_nodes<'a>(placement: &Placement<'a>) -> Vec<&'a Node> {
    blocked_only_by(placement, |refusal| *refusal == Refusal::Cordoned || refusal.is_node_trouble()).collect()
}

/// The requirements of the pod that the nodes do not meet.
fn pod_evidence(mut finding: Finding, pod: &Pod, nodes: &[(&Node, Vec<Refusal>)]) -> Finding {
    let object = pod.reference();
    let why: BTreeSet<&Refusal> = nodes.iter().flat_map(|(_, why)| why).collect();
    let lacking: BTreeSet<&str> =
        why.iter().flat_map(|refusal| refusal.shortages()).map(|shortage| shortage.resource.as_str()).collect();
    if !lacking.is_empty() {
        let requests = resources::requests(&pod.spec);
        let requests = requests.iter().filter(|(name, _)| lacking.contains(name));
        let requests: Vec<String> = requests.map(|(name, amount)| format!("{} {name}", amount.text(name))).collect();
        let text = format!("pod requests {}", words::list(&requests, 5));
        finding = finding.evidence(text, &object, "spec.containers.resources.requests");
    }
    if !pod.spec.node_selector.is_empty() && why.iter().any(|refusal| matches!(refusal, Refusal::NodeAffinity(_))) {
        let required: Vec<String> =
            pod.spec.node_selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
        finding =
            finding.evidence(format!("spec.nodeSelector is {}", required.join(",")), &object, "spec.nodeSelector");
        for (key, required) in pod.spec.node_selector.iter() {
            let Some((node, value)) = nodes.iter().find_map(|(n, _)| Some((n, n.metadata.labels.get(key)?))) else {
                continue;
            };
            if required != value {
                let text = format!("{} has {key}={value}", node.name());
                finding = finding.evidence(text, &node.reference(), "metadata.labels");
            }
        }
    }
    finding
}

fn node_evidence(finding: Finding, clause: &Clause) -> Finding {
    let Some(node) = clause.example() else { return finding };
    let path = match clause.refusal() {
        Some(Refusal::Cordoned) => "spec.unschedulable",
        Some(Refusal::Taint { .. }) => "spec.taints",
        Some(Refusal::NodeAffinity(_) | Refusal::NoSpreadLabel(_)) => "metadata.labels",
        Some(Refusal::Lacks(_) | Refusal::TooManyPods) => "status.allocatable",
        _ => "",
    };
    let names: Vec<&str> = clause.nodes.iter().map(|(node, _)| node.name()).collect();
    finding.evidence(format!("{} {}", words::list(&names, 5), clause.verb()), &node.reference(), path)
}

fn about_claims(group: &PodGroup, same: &SameCause) -> Finding {
    let obstacles = same.placements.iter().filter_map(|placement| placement.obstacles.first());
    let names: BTreeSet<&str> = obstacles.clone().map(Obstacle::claim).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let (claims, is, does) = match names.len() {
        1 => ("claim", "is", "does"),
        _ => ("claims", "are", "do"),
    };
    let list = words::list(&names, 3);
    let sample = same.pods.first().map(|waiting| waiting.pod);
    let namespace = group.owner.namespace();
    let describe = kubectl(["-n", namespace, "describe", "pvc"].into_iter().chain(names.iter().take(3).copied()));
    let (why, fix, command) = match obstacles.clone().next() {
        Some(Obstacle::ClaimMissing(_)) => (
            format!("{claims} {list} {does} not exist"),
            "Create the claim, or reference an existing one",
            kubectl(["-n", namespace, "get", "pvc"]),
        ),
        Some(Obstacle::ClaimUnbound(_)) => {
            (format!("{claims} {list} {is} not bound to a volume"), "Check why the claim is not bound", describe)
        }
        Some(Obstacle::ClaimTerminating(_)) => (
            format!("{claims} {list} {is} being deleted"),
            "Wait until the claim is deleted, then recreate it",
            describe,
        ),
        Some(Obstacle::ClaimLost(_)) => (
            format!("the volume of {claims} {list} no longer exists"),
            "Restore the volume, or delete and recreate the claim",
            describe,
        ),
        Some(Obstacle::ClaimInUse { .. }) => (
            format!("{claims} {list} {is} ReadWriteOncePod and in use by another pod"),
            "Run only one pod, or use a claim with an access mode for several pods",
            describe,
        ),
        None => return from_scheduler_message(group, same),
    };
    let (subject, _) = subject(group, same.pods.len());
    let mut finding = Finding::error(group.owner.clone(), format!("{subject} cannot be scheduled: {why}"));
    for waiting in &same.pods {
        for name in names.iter().filter(|name| claim_names(waiting.pod).iter().any(|n| n == *name)) {
            finding = finding.because(claim_reference(waiting.pod, name));
        }
    }
    if let Some(pod) = sample {
        for name in names.iter().take(3) {
            finding = finding.evidence(format!("pod uses claim {name}"), &pod.reference(), "spec.volumes");
        }
        if let Some(Obstacle::ClaimInUse { claim, pod: user }) = obstacles.clone().next() {
            let user = ObjectRef::new(Kind::Pod, &pod.metadata.namespace, user);
            finding = finding.evidence(format!("{user} uses claim {claim}"), &user, "spec.volumes");
        }
    }
    finding.fix_command(fix, command)
}

fn from_scheduler_message(group: &PodGroup, same: &SameCause) -> Finding {
    let message = same.pods.iter().find_map(|waiting| match waiting.why {
        Why::Refused(condition) if !condition.message.is_empty() => Some(core_of(&condition.message)),
        _ => None,
    });
    let (subject, _) = subject(group, same.pods.len());
    let scheduler = same.pods.first().map_or("", |waiting| scheduler_name(waiting.pod));
    let message = match message {
        Some(message) => {
            format!("{subject} cannot be scheduled, {scheduler} reports: {}", words::shorten(message, 300))
        }
        None => format!("{subject} cannot be scheduled, {scheduler} reports no reason"),
    };
    let sample = same.pods.first().map_or("", |waiting| waiting.pod.name());
    // A claim that is not bound keeps its pods from being scheduled, whatever the scheduler reports.
    let claims = same
        .pods
        .iter()
        .flat_map(|waiting| claim_names(waiting.pod).into_iter().map(|claim| claim_reference(waiting.pod, &claim)));
    let finding = claims.fold(Finding::error(group.owner.clone(), message), Finding::because);
    finding.fix_command(
        "Check the scheduler's events for the pod",
        kubectl(["-n", group.owner.namespace(), "describe", "pod", sample]),
    )
}

/// The scheduler's message without the part about preemption, which repeats it.
fn core_of(message: &str) -> &str {
    let ends = [" preemption:", " no new claims to deallocate"].iter().filter_map(|end| message.find(end));
    let end = ends.min().unwrap_or(message.len());
    let core = message.get(..end).unwrap_or(message).trim_end_matches(['.', ',', ' ']);
    // Kubernetes 1.36 appends this to the sentence about a claim.
    core.strip_suffix(". not found").unwrap_or(core)
}

fn scheduler_name(pod: &Pod) -> &str {
    if pod.spec.scheduler_name.is_empty() { "default-scheduler" } else { &pod.spec.scheduler_name }
}

fn scheduler_evidence(finding: Finding, sample: &Waiting) -> Finding {
    match sample.why {
        Why::Refused(condition) if !condition.message.is_empty() => finding.evidence(
            format!("{} reports: {}", scheduler_name(sample.pod), words::shorten(&condition.message, 300)),
            &sample.pod.reference(),
            "status.conditions[PodScheduled].message",
        ),
        _ => finding,
    }
}

fn has_event(cluster: &Cluster, pod: &Pod, reason: &str) -> bool {
    cluster.events(&pod.reference()).iter().any(|event| event.reason == reason)
}

fn report_gated(cluster: &Cluster, group: &PodGroup, waiting: &[Waiting], report: &mut Report) {
    let gated = waiting.iter().filter(|waiting| matches!(waiting.why, Why::Gated));
    let gated: Vec<&Waiting> = gated.filter(|waiting| waiting.is_longer_than(START, cluster.now())).collect();
    let Some(sample) = gated.first() else { return };
    let gates: Vec<&str> = sample.pod.spec.scheduling_gates.iter().map(|gate| gate.name.as_str()).collect();
    let (subject, many) = subject(group, gated.len());
    let verb = if many { "are" } else { "is" };
    let message = format!("{subject} {verb} waiting for removal of scheduling gate {}", words::list(&gates, 3));
    let finding = Finding::info(group.owner.clone(), message)
        .evidence(
            format!("spec.schedulingGates is {}", words::list(&gates, 5)),
            &sample.pod.reference(),
            "spec.schedulingGates",
        )
        .key("gated")
        .pods(gated.len())
        .since(earliest(&gated));
    report.add(finding);
}

fn report_ignored(cluster: &Cluster, group: &PodGroup, waiting: &[Waiting], report: &mut Report) {
    let ignored = waiting.iter().filter(|waiting| matches!(waiting.why, Why::Ignored) && waiting.since.is_some());
    let ignored: Vec<&Waiting> = ignored.filter(|waiting| waiting.is_longer_than(SCHEDULE, cluster.now())).collect();
    let Some(sample) = ignored.first() else { return };
    let name = scheduler_name(sample.pod);
    let (subject, many) = subject(group, ignored.len());
    let them = if many { "them" } else { "it" };
    let object = sample.pod.reference();
    let mut finding = Finding::error(
        group.owner.clone(),
        format!("{subject} cannot be scheduled: no scheduler named {name} has processed {them}"),
    )
    .evidence(format!("spec.schedulerName is {name}"), &object, "spec.schedulerName")
    .evidence("condition PodScheduled is not set", &object, "status.conditions")
    .key("ignored")
    .pods(ignored.len())
    .since(earliest(&ignored));
    finding = if name == "default-scheduler" {
        finding.because(ObjectRef::new(Kind::Lease, "kube-system", "kube-scheduler")).fix_command(
            "Check that kube-scheduler is running",
            kubectl(["-n", "kube-system", "get", "pods", "-l", "component=kube-scheduler"]),
        )
    } else {
        let schedulers = schedulers_named(cluster, name);
        match schedulers.first() {
            Some(scheduler) => {
                let (kind, namespace) = (scheduler.kind.to_lowercase(), scheduler.namespace());
                let check = kubectl(["-n", namespace, "describe", &kind, &scheduler.name]);
                let text = format!("{} is configured as scheduler {name}", scheduler.title());
                finding = finding.evidence(text, scheduler, "").caused_elsewhere();
                finding.fix_command(format!("Make {} run: it is scheduler {name}", scheduler.title()), check)
            }
            None => finding.fix(format!("Run a scheduler named {name}, or remove schedulerName from the pod template")),
        }
    };
    for scheduler in schedulers_named(cluster, name) {
        finding = finding.because(scheduler);
    }
    report.add(finding);
}

/// The workloads that run a scheduler of this name: their configuration has a profile for it, or an argument names it.
fn schedulers_named(cluster: &Cluster, name: &str) -> Vec<ObjectRef> {
    let maps = cluster.all::<ConfigMap>().iter().filter(|map| map.data.schedulers.iter().any(|own| own == name));
    let maps: BTreeSet<(&str, &str)> = maps.map(|map| (map.namespace(), map.name())).collect();
    let argument = format!("--scheduler-name={name}");
    let runs = |workload: &Workload| {
        let spec = &workload.template.spec;
        let mut mounted = spec.volumes.iter().filter_map(|volume| volume.config_map.as_ref());
        let mut words = spec.containers.iter().flat_map(|container| container.command.iter().chain(&container.args));
        mounted.any(|map| maps.contains(&(workload.object.namespace(), map.name.as_str())))
            || words.any(|word| *word == argument)
    };
    cluster.workloads().into_iter().filter(runs).map(|workload| workload.object).collect()
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::{Kind, Origin};
    use crate::testing::{TestCluster, check};

    const NODES: &str = "
{apiVersion: v1, kind: Node, metadata: {name: worker-1}, status: {allocatable: {cpu: '4', memory: 8Gi, pods: '110'}}}
---
{apiVersion: v1, kind: Node, metadata: {name: worker-2}, status: {allocatable: {cpu: '2', memory: 8Gi, pods: '110'}}}
---
{apiVersion: v1, kind: Node, metadata: {name: worker-3}, spec: {taints: [{key: dedicated, value: db, effect: NoSchedule}]},
 status: {allocatable: {cpu: '64', memory: 8Gi, pods: '110'}}}";

    const BUSY: &str =
        "{apiVersion: v1, kind: Pod, metadata: {name: busy, namespace: shop, uid: b}, status: {phase: Running},
        spec: {nodeName: worker-1, containers: [{name: app, resources: {requests: {cpu: '3'}}}]}}";

    /// A pod that has been unschedulable since a time.
    fn refused(name: &str, meta: &str, spec: &str, since: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: shop, uid: u, creationTimestamp: '{since}', {meta}}},
            spec: {{{spec}}},
            status: {{phase: Pending, conditions: [{{type: PodScheduled, status: 'False', reason: Unschedulable,
            lastTransitionTime: '{since}', message: '0/3 nodes are available: 3 Too bad. preemption: 0/3 nodes'}}]}}}}"
        )
    }

    const BIG: &str = "containers: [{name: app, resources: {requests: {cpu: '2'}}}]";
    const LONG_AGO: &str = "2026-11-21T11:00:00Z";
    const OWNED: &str = "ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: db, controller: true}]";

    #[test]
    fn fires_for_the_pods_of_an_owner_with_the_reason_of_each_node() {
        let pods = [refused("db-0", OWNED, BIG, LONG_AGO), refused("db-1", OWNED, BIG, "2026-11-21T11:30:00Z")];
        let worker_2 = "{apiVersion: v1, kind: Pod, metadata: {name: small, namespace: shop}, status: {phase: Running},
            spec: {nodeName: worker-2, containers: [{name: app, resources: {requests: {cpu: 500m}}}]}}";
        let said = check(&RULE, &[NODES, BUSY, worker_2, &pods[0], &pods[1]]);
        said.finds(&["error StatefulSet shop/db: 2 pods of StatefulSet db cannot be scheduled on any of 3 nodes: \
                      2 nodes have at most 1.5 CPUs free (on worker-2), 2 requested; worker-3 has untolerated \
                      taint dedicated=db:NoSchedule"]);
        let finding = said.finding();
        assert_eq!((finding.pods, finding.since), (2, LONG_AGO.parse().ok()));
        assert!(said.text().contains("0/3 nodes are available"), "{}", said.text());
    }

    #[test]
    fn quiet_in_the_first_minute() {
        check(&RULE, &[NODES, BUSY, &refused("db-0", OWNED, "nodeSelector: {a: b}", "2026-11-21T11:59:30Z")])
            .finds_nothing();
    }

    #[test]
    fn fires_with_the_label_that_no_node_has() {
        check(&RULE, &[NODES, &refused("db", "", "nodeSelector: {disktype: nvme}", LONG_AGO)])
            .finds(&["error Pod shop/db: Pod db cannot be scheduled: none of 3 nodes matches disktype=nvme"]);
    }

    #[test]
    fn quiet_while_a_terminating_pod_frees_resources() {
        let tolerant =
            "nodeSelector: {}, tolerations: [], containers: [{name: app, resources: {requests: {cpu: '3'}}}]";
        let terminating = |deleted: &str| BUSY.replace("uid: b", &format!("uid: b, deletionTimestamp: '{deleted}'"));
        let pod = refused("db", "", tolerant, LONG_AGO);
        check(&RULE, &[NODES, &terminating("2026-11-21T12:00:10Z"), &pod]).finds_nothing();
        // Long overdue: the deletion may never complete.
        let stuck = check(&RULE, &[NODES, &terminating("2026-11-21T11:50:00Z"), &pod]);
        assert!(
            stuck.finding().message.starts_with("Pod db cannot be scheduled on any of 3 nodes: "),
            "{:?}",
            stuck.finding()
        );
    }

    #[test]
    fn fires_with_the_schedulers_message_where_the_computed_result_differs_or_nodes_are_unknown() {
        let pod = refused("db", "", "", LONG_AGO);
        let quoted = "error Pod shop/db: Pod db cannot be scheduled, default-scheduler reports: 0/3 nodes are \
                      available: 3 Too bad";
        check(&RULE, &[NODES, &pod]).finds(&[quoted]);
        TestCluster::new(&[&refused("db", "", BIG, LONG_AGO)]).forbid(Kind::Node).check(&RULE).finds(&[quoted]);
    }

    #[test]
    fn fires_for_claims() {
        let claim = "spec: {volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]}";
        let pod = refused("db", "", claim.strip_prefix("spec: {").unwrap().strip_suffix('}').unwrap(), LONG_AGO);
        check(&RULE, &[NODES, &pod])
            .finds(&["error Pod shop/db: Pod db cannot be scheduled: claim data does not exist"]);
        let unbound =
            "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data, namespace: shop}, spec: {}}";
        check(&RULE, &[NODES, &pod, unbound])
            .finds(&["error Pod shop/db: Pod db cannot be scheduled: claim data is not bound to a volume"]);
        // Claims that could not be read are not reported.
        let blind = TestCluster::new(&[NODES, &pod]).forbid(Kind::PersistentVolumeClaim).check(&RULE);
        assert!(blind.finding().message.contains("default-scheduler reports"), "{:?}", blind.finding());
    }

    #[test]
    fn fires_for_the_one_node_of_a_daemon_sets_pod() {
        let spec = "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [
            {matchFields: [{key: metadata.name, operator: In, values: [worker-1]}]}]}}},
            containers: [{name: app, resources: {requests: {cpu: 1500m}}}]";
        let owned = OWNED.replace("StatefulSet", "DaemonSet");
        check(&RULE, &[NODES, BUSY, &refused("agent-x", &owned, spec, LONG_AGO)]).finds(&[
            "error DaemonSet shop/db: 1 pod of DaemonSet db cannot be scheduled on its node: worker-1 has 1 of 4 \
             CPUs free, 1.5 requested",
        ]);
    }

    #[test]
    fn fires_as_a_consequence_of_the_node_that_is_cordoned() {
        let node = "{apiVersion: v1, kind: Node, metadata: {name: worker-1}, spec: {unschedulable: true}}";
        let said = check(&RULE, &[node, &refused("db", "", "", LONG_AGO)]);
        said.finds(&["error Pod shop/db: Pod db cannot be scheduled: worker-1 (the only node) is cordoned"]);
        assert_eq!(said.finding().because[0].name, "worker-1");
    }

    #[test]
    fn quiet_for_five_minutes_with_an_autoscaler() {
        let scaler = "{apiVersion: v1, kind: Pod, metadata: {name: ca, namespace: kube-system},
            spec: {nodeName: worker-3, containers: [{name: ca, image: 'registry.k8s.io/autoscaling/cluster-autoscaler:v1.33.0'}]},
            status: {phase: Running, conditions: [{type: Ready, status: 'True'}]}}";
        let at = |since: &str| check(&RULE, &[NODES, BUSY, scaler, &refused("db", "", "nodeSelector: {a: b}", since)]);
        at("2026-11-21T11:57:00Z").finds_nothing();
        assert_eq!(at("2026-11-21T11:50:00Z").0.findings.len(), 1);
    }

    #[test]
    fn fires_as_info_for_pods_that_wait_intentionally() {
        let gated = "{apiVersion: v1, kind: Pod, metadata: {name: job, namespace: shop, creationTimestamp: '2026-11-21T11:00:00Z'},
            spec: {schedulingGates: [{name: kueue.x-k8s.io/admission}]}, status: {phase: Pending, conditions: [
            {type: PodScheduled, status: 'False', reason: SchedulingGated}]}}";
        check(&RULE, &[NODES, gated])
            .finds(&["info Pod shop/job: Pod job is waiting for removal of scheduling gate kueue.x-k8s.io/admission"]);
        let placeholder = refused("pause", "", "priority: -10, nodeSelector: {a: b}", LONG_AGO);
        check(&RULE, &[NODES, &placeholder])
            .finds(&["info Pod shop/pause: Pod pause cannot be scheduled: none of 3 nodes matches a=b"]);
    }

    #[test]
    fn fires_when_no_scheduler_processes_it() {
        let pod = "{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop, creationTimestamp: '2026-11-21T11:00:00Z'},
            spec: {schedulerName: fancy}, status: {phase: Pending}}";
        check(&RULE, &[NODES, pod])
            .finds(&["error Pod shop/db: Pod db cannot be scheduled: no scheduler named fancy has processed it"]);
    }

    #[test]
    fn fires_with_the_tainted_domain_of_a_spread_constraint() {
        let nodes = "
{apiVersion: v1, kind: Node, metadata: {name: worker-1, labels: {kubernetes.io/hostname: worker-1}}}
---
{apiVersion: v1, kind: Node, metadata: {name: cp, labels: {kubernetes.io/hostname: cp}},
 spec: {taints: [{key: node-role.kubernetes.io/control-plane, effect: NoSchedule}]}}";
        let spread = |policy: &str| {
            format!(
                "topologySpreadConstraints: [{{maxSkew: 1, topologyKey: kubernetes.io/hostname, {policy}
                whenUnsatisfiable: DoNotSchedule, labelSelector: {{matchLabels: {{app: web}}}}}}]"
            )
        };
        let bound = "{apiVersion: v1, kind: Pod, metadata: {name: web-1, namespace: shop, labels: {app: web}},
            spec: {nodeName: worker-1}, status: {phase: Running}}";
        let said = check(&RULE, &[nodes, bound, &refused("web-2", "labels: {app: web}", &spread(""), LONG_AGO)]);
        said.finds(&[
            "error Pod shop/web-2: Pod web-2 cannot be scheduled on any of 2 nodes: cp has untolerated taint \
             node-role.kubernetes.io/control-plane:NoSchedule; worker-1 would exceed maxSkew 1 for topology key \
             kubernetes.io/hostname (cp counts as a domain with 0 pods, but has untolerated taint \
             node-role.kubernetes.io/control-plane:NoSchedule)",
        ]);
        assert!(said.finding().fix[0].text.starts_with("Set nodeTaintsPolicy: Honor"), "{:?}", said.finding().fix);
        let honored = refused("web-2", "labels: {app: web}", &spread("nodeTaintsPolicy: Honor,"), LONG_AGO);
        assert!(check(&RULE, &[nodes, bound, &honored]).text().contains("default-scheduler reports"));
    }

    #[test]
    fn fires_with_the_runtime_class_that_adds_the_selector() {
        let class = "{apiVersion: node.k8s.io/v1, kind: RuntimeClass, metadata: {name: sandboxed}, handler: kata,
            scheduling: {nodeSelector: {runtime: kata}}}";
        let owned = "ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: db, controller: true}]";
        let set = "{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: db, namespace: shop},
            spec: {template: {spec: {runtimeClassName: sandboxed}}}}";
        let pod = refused("db-0", owned, "runtimeClassName: sandboxed, nodeSelector: {runtime: kata}", LONG_AGO);
        let said = check(&RULE, &[NODES, class, set, &pod]);
        said.finds(&[
            "error StatefulSet shop/db: 1 pod of StatefulSet db cannot be scheduled: none of 3 nodes matches runtime=kata \
             (added by RuntimeClass sandboxed)",
        ]);
        assert!(said.finding().fix[0].text.contains("handler kata"));
        // Without the class, the template is the next suspect, then the namespace, then a webhook.
        let said = check(&RULE, &[NODES, set, &pod]);
        assert!(said.finding().message.ends_with("(added at admission)"), "{}", said.finding().message);
        let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: shop, annotations: {
            openshift.io/node-selector: 'a=b, runtime=kata'}}}";
        let said = check(&RULE, &[NODES, set, namespace, &pod]);
        assert!(said.finding().message.ends_with("(added by annotation openshift.io/node-selector of the namespace)"));
        let own = set.replace("runtimeClassName: sandboxed", "nodeSelector: {runtime: kata}");
        assert!(check(&RULE, &[NODES, &own, &pod]).finding().message.ends_with("matches runtime=kata"));
    }

    #[test]
    fn fires_with_advice_for_the_node_that_would_accept_it() {
        let nodes = NODES.replace("key: dedicated, value: db", "key: node.kubernetes.io/unreachable");
        let pod = refused("db", "", "containers: [{name: app, resources: {requests: {cpu: '4500m'}}}]", LONG_AGO);
        let said = check(&RULE, &[&nodes, &pod]);
        assert_eq!(said.finding().fix[0].command.as_deref(), Some("kubectl describe node worker-3"));
    }

    #[test]
    fn fires_without_advice_to_use_reserved_nodes() {
        let nodes = NODES.replace("key: dedicated, value: db", "key: node-role.kubernetes.io/control-plane");
        let pod = refused("db", "", "containers: [{name: app, resources: {requests: {cpu: '4500m'}}}]", LONG_AGO);
        let said = check(&RULE, &[&nodes, &pod]);
        assert!(said.finding().fix[0].text.starts_with("Lower the request"), "{:?}", said.finding().fix);
        let only = nodes.rsplit("---").next().unwrap();
        assert!(check(&RULE, &[only, &pod]).finding().fix[0].text.starts_with("Add a worker node"));
    }

    #[test]
    fn fires_as_a_consequence_of_the_component_that_removes_the_taint() {
        let node = "{apiVersion: v1, kind: Node, metadata: {name: worker-1}, spec: {taints: [
            {key: node.cloudprovider.kubernetes.io/uninitialized, value: 'true', effect: NoSchedule}]}}";
        let controller = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: acme-ccm, namespace: kube-system}}";
        let said = check(&RULE, &[node, controller, &refused("db", "", "", LONG_AGO)]);
        assert_eq!(said.finding().because[0].name, "acme-ccm");
        assert!(said.text().contains("Start the cloud controller manager (Deployment kube-system/acme-ccm)"));
        assert!(!said.text().contains("toleration"));
    }

    #[test]
    fn fires_with_unhealthy_devices_or_the_device_plugin() {
        let node = |allocatable: &str| {
            format!(
                "{{apiVersion: v1, kind: Node, metadata: {{name: gpu-1}}, status: {{
                capacity: {{acme.example/npu: '4'}}, allocatable: {{pods: '10', acme.example/npu: '{allocatable}'}}}}}}"
            )
        };
        let pod = |npus: &str| {
            let spec = format!("containers: [{{name: a, resources: {{limits: {{acme.example/npu: '{npus}'}}}}}}]");
            refused("train", "", &spec, LONG_AGO)
        };
        let said = check(&RULE, &[&node("3"), &pod("4")]);
        assert_eq!(said.finding().because[0].name, "gpu-1");
        assert!(said.finding().fix[0].text.starts_with("Repair the unhealthy devices of gpu-1"));
        // More than the node has in any case.
        assert!(check(&RULE, &[&node("3"), &pod("9")]).finding().because.is_empty());
        let plugin =
            "{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: acme-example-device-plugin, namespace: gpu}}";
        let bare = "{apiVersion: v1, kind: Node, metadata: {name: gpu-1}, status: {allocatable: {pods: '10'}}}";
        let said = check(&RULE, &[bare, plugin, &pod("4")]);
        assert_eq!(said.finding().because[0].name, "acme-example-device-plugin");
        assert!(said.finding().fix[0].text.starts_with("Start the device plugin"));
    }

    #[test]
    fn fires_with_the_service_that_holds_the_port_on_k3s() {
        let labels = |service: &str| {
            format!("svccontroller.k3s.cattle.io/svcname: {service}, svccontroller.k3s.cattle.io/svcnamespace: shop")
        };
        let owned = |set: &str| {
            format!("ownerReferences: [{{apiVersion: apps/v1, kind: DaemonSet, name: {set}, controller: true}}]")
        };
        let port = "containers: [{name: lb, ports: [{hostPort: 443, containerPort: 443}]}]";
        let node = "{apiVersion: v1, kind: Node, metadata: {name: worker-1}}";
        let set = format!(
            "{{apiVersion: apps/v1, kind: DaemonSet, metadata: {{name: svclb-edge, namespace: shop}},
            spec: {{template: {{metadata: {{labels: {{{}}}}}}}}}}}",
            labels("edge")
        );
        let holder = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: svclb-edge-x, namespace: shop, {}}},
            spec: {{nodeName: worker-1, {port}}}, status: {{phase: Running}}}}",
            owned("svclb-edge")
        );
        let meta = format!("labels: {{{}}}, {}", labels("gate"), owned("svclb-gate"));
        let said = check(&RULE, &[node, &set, &holder, &refused("svclb-gate-x", &meta, port, LONG_AGO)]);
        said.finds(&[
            "error DaemonSet shop/svclb-gate: 1 pod of DaemonSet svclb-gate cannot be scheduled: worker-1 (the only node) has \
             host port 443 in use by DaemonSet svclb-edge",
        ]);
        let fix = &said.finding().fix[0].text;
        assert!(
            fix.contains("Change port 443 of Service shop/gate") && fix.contains("through Service shop/edge"),
            "{fix}"
        );
    }

    #[test]
    fn quiet_on_manifests() {
        let pod = "{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop}, spec: {nodeSelector: {a: b}}}";
        TestCluster::new(&[pod]).origin(Origin::Manifests).check(&RULE).finds_nothing();
    }

    /// Another node does not help a pod of a DaemonSet.
    #[test]
    fn fires_with_the_priority_that_makes_room_for_a_daemon_set() {
        let pinned = |priority: &str| {
            format!(
                "
                apiVersion: v1
                kind: Pod
                metadata: {{name: agent-x, namespace: csi, uid: u, creationTimestamp: '2026-11-21T11:00:00Z', ownerReferences:
                  [{{apiVersion: apps/v1, kind: DaemonSet, name: agent, controller: true}}]}}
                spec:
                  {priority}
                  containers: [{{name: a, resources: {{requests: {{cpu: '2'}}}}}}]
                  affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: [
                    {{matchFields: [{{key: metadata.name, operator: In, values: [worker-1]}}]}}]}}}}}}
                status: {{phase: Pending, conditions: [{{type: PodScheduled, status: 'False', reason: Unschedulable,
                  lastTransitionTime: '2026-11-21T11:00:00Z'}}]}}"
            )
        };
        let busy = "
            apiVersion: v1
            kind: Pod
            metadata: {name: web, namespace: shop}
            spec: {nodeName: worker-1, containers: [{name: a, resources: {requests: {cpu: '3'}}}]}
            status: {phase: Running}";
        let said = |priority: &str| check(&RULE, &[NODES, busy, &pinned(priority)]).text();
        let without = said("priority: 0");
        assert!(without.contains("Set spec.template.spec.priorityClassName of DaemonSet agent"), "{without}");
        assert!(without.contains("largest request is 3 cpu in Pod web in namespace shop"), "{without}");
        assert!(!without.contains("add a node"), "{without}");
        assert!(!said("priority: 2000001000").contains("priorityClassName of"));
    }
}
