use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::time::{RECENT, age};
use crate::snapshot::model::{Pod, Timestamp};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::{count, shorten};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for pods that the kubelet rejected after they were scheduled (`OutOfcpu`, `OutOfmemory`, `NodeAffinity`,
    /// `UnexpectedAdmissionError`, `NodeShutdown` …) and that were not replaced, or that are rejected repeatedly.
    ///
    /// ## Why it matters
    ///
    /// A rejected pod is `Failed` and never runs. A pod without a controller is lost. A controller creates a
    /// replacement, which is rejected again if `nodeName` is set manually or the node's resources are accounted
    /// incorrectly.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pods --field-selector status.phase=Failed` lists the rejected pods.
    /// `kubectl -n NAMESPACE describe pod POD` shows the kubelet's reason and message.
    ///
    /// ## How to fix
    ///
    /// Do not set `nodeName` manually (it bypasses the scheduler). Find out what else uses the node's resources (static
    /// pods, another scheduler). For `UnexpectedAdmissionError` check the device plugin. Delete the failed pod, and
    /// recreate a pod without a controller, preferably with one.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for pods that were replaced: the workload has a pod that is ready or has succeeded.
    "pod/rejected": Warning,
    "a pod was rejected by its node and not replaced",
    needs: [Pod],
    optional: [],
    explained_by: [],
}

/// This many rejections of one workload within an hour are reported even if the pods were replaced.
const REPEATED: usize = 3;

fn check(cluster: &Cluster, report: &mut Report) {
    for group in cluster.pod_groups() {
        let rejected: Vec<&Pod> = cluster.pods_of(group).filter(|pod| is_rejected(pod)).collect();
        let Some(newest) = rejected.iter().copied().max_by_key(|pod| started_at(pod)) else { continue };
        let is_recent = |pod: &&&Pod| started_at(pod).is_some_and(|at| age(cluster.now(), at) < RECENT);
        let recent = rejected.iter().filter(is_recent).count();
        let is_replacement = |pod: &Pod| (pod.is_active() && pod.is_ready()) || pod.status.phase == "Succeeded";
        let is_replaced = cluster.pods_of(group).any(is_replacement);
        let is_lone = group.owner.is(Kind::Pod);
        if is_lone || recent >= REPEATED || (recent > 0 && !is_replaced) {
            report.add(finding(&group.owner, newest, rejected.len()));
        }
    }
}

/// The kubelet's reasons for rejecting a pod (`kubernetes/pkg/kubelet`, lifecycle and predicates). A node shutdown also
/// terminates running pods.
fn is_rejected(pod: &Pod) -> bool {
    let reason = pod.status.reason.as_str();
    pod.status.phase == "Failed"
        && (reason.starts_with("OutOf")
            || matches!(
                reason,
                "NodeAffinity"
                    | "NodePorts"
                    | "NodeName"
                    | "NodeUnschedulable"
                    | "TaintToleration"
                    | "UnexpectedAdmissionError"
                    | "TopologyAffinityError"
                    | "SysctlForbidden"
                    | "AppArmor"
                    | "InvalidNodeInfo"
                    | "PodOSNotSupported"
                    | "PodOSSelectorNodeLabelDoesNotMatch"
                    | "PodFeatureUnsupported"
                    | "PodLevelResourcesNotAdmittedReason"
                    | "Preempting"
                    | "NodeShutdown"
                    | "Shutdown"
                    | "Terminated"
            ))
}

fn started_at(pod: &Pod) -> Option<Timestamp> {
    pod.status.start_time.or(pod.metadata.creation_timestamp)
}

fn finding(owner: &ObjectRef, newest: &Pod, pods: usize) -> Finding {
    let status = &newest.status;
    let subject = match pods {
        _ if owner.is(Kind::Pod) => format!("Pod {} was", owner.name),
        1 => format!("A pod of {} {} was", owner.kind, owner.name),
        n => format!("{} of {} {} were", count(n, "pod"), owner.kind, owner.name),
    };
    let node = match newest.spec.node_name.as_str() {
        "" => String::new(),
        node => format!(" by node {node}"),
    };
    let is_shutdown = matches!(status.reason.as_str(), "NodeShutdown" | "Shutdown" | "Terminated");
    let verb = if is_shutdown { "terminated" } else { "rejected" };
    // "Pod was rejected: Node didn't have enough resource: cpu, requested: 4000, used: 3500, capacity: 4000"
    let message = status.message.trim().trim_end_matches('.');
    let message = message.strip_prefix("Pod was rejected: ").or(message.strip_prefix("Pod ")).unwrap_or(message);
    let why = if message.is_empty() {
        status.reason.to_string()
    } else {
        format!("{} ({})", status.reason, shorten(message, 160))
    };
    let finding = Finding::warning(owner.clone(), format!("{subject} {verb}{node}: {why}"))
        .pods(pods)
        .since(started_at(newest))
        .evidence(format!("status.reason is {}", status.reason), &newest.reference(), "status.reason");
    let (namespace, name) = (&newest.metadata.namespace, &newest.metadata.name);
    let text = if owner.is(Kind::Pod) {
        "Delete the pod and recreate it without nodeName"
    } else {
        "Delete the failed pod once the cause is fixed"
    };
    finding.fix_command(text, kubectl(["-n", namespace, "delete", "pod", name]))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn pod(name: &str, owner: &str, status: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: Pod
            metadata: {{name: {name}, namespace: shop, creationTimestamp: '2026-11-21T11:30:00Z', {owner}}}
            spec: {{nodeName: w1}}
            status: {{{status}}}"
        )
    }

    const OWNER: &str = "ownerReferences: [{apiVersion: apps/v1, kind: DaemonSet, name: agent, controller: true}]";
    const REFUSED: &str =
        "phase: Failed, reason: OutOfcpu, message: \"Pod was rejected: Node didn't have enough resource: cpu\"";
    const READY: &str = "phase: Running, conditions: [{type: Ready, status: 'True'}]";

    #[test]
    fn fires_for_a_lone_pod() {
        check(&RULE, &[&pod("a", "labels: {}", REFUSED)]).finds(&[
            "warning Pod shop/a: Pod a was rejected by node w1: OutOfcpu (Node didn't have enough resource: cpu)",
        ]);
    }

    #[test]
    fn fires_when_it_is_not_replaced() {
        check(&RULE, &[&pod("a", OWNER, REFUSED)])
            .finds(&["warning DaemonSet shop/agent: A pod of DaemonSet agent was \
            rejected by node w1: OutOfcpu (Node didn't have enough resource: cpu)"]);
    }

    #[test]
    fn quiet_when_it_was_replaced() {
        check(&RULE, &[&pod("a", OWNER, REFUSED), &pod("b", OWNER, READY)]).finds_nothing();
    }

    #[test]
    fn quiet_after_a_graceful_shutdown() {
        let ended =
            "phase: Failed, reason: Terminated, message: Pod was terminated in response to imminent node shutdown.";
        check(&RULE, &[&pod("a", OWNER, ended), &pod("b", OWNER, READY)]).finds_nothing();
        check(&RULE, &[&pod("a", OWNER, "phase: Failed, reason: Evicted")]).finds_nothing();
    }
}
