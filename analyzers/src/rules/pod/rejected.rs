use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::time::{RECENT, age};
use crate::snapshot::model::{Pod, Timestamp};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::{count, shorten};

declare_rule! {
    /// ## What it checks
    ///
    /// Pods that the kubelet refused to run after they were placed (`OutOfcpu`, `OutOfmemory`, `NodeAffinity`,
    /// `UnexpectedAdmissionError`, `NodeShutdown` …) and that nothing replaced, or that are refused again and again.
    ///
    /// ## Why it matters
    ///
    /// A refused pod is `Failed` and never runs. A pod without a controller is simply lost. With a controller there is a new
    /// one, which may be refused just the same when it is bound to a node by hand or the node's resources are misjudged.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pods --field-selector status.phase=Failed`; `kubectl -n NAMESPACE describe pod POD`
    /// shows reason and message of the kubelet.
    ///
    /// ## How to fix
    ///
    /// Do not set `nodeName` by hand (it goes around the scheduler); find out who else takes the node's resources (static pods,
    /// another scheduler); look at the device plugin for `UnexpectedAdmissionError`. Delete the failed pod; make a lone pod anew, better
    /// with a controller.
    ///
    /// ## Exceptions
    ///
    /// For pods that were replaced: the workload has a pod that runs or ran since then.
    "pod/rejected": Warning,
    "a node refused to run a pod, and nothing replaced it",
    needs: [Pod],
    optional: [],
    explained_by: [],
}

/// So many refusals of one workload within an hour are a loop.
const REPEATED: usize = 3;

fn check(cluster: &Cluster, report: &mut Report) {
    for group in cluster.pod_groups() {
        let rejected: Vec<&Pod> = cluster.pods_of(group).filter(|pod| is_rejected(pod)).collect();
        let Some(newest) = rejected.iter().copied().max_by_key(|pod| made(pod)) else { continue };
        let is_recent = |pod: &&&Pod| made(pod).is_some_and(|at| age(cluster.now(), at) < RECENT);
        let recent = rejected.iter().filter(is_recent).count();
        let is_replacement = |pod: &Pod| (pod.is_active() && pod.is_ready()) || pod.status.phase == "Succeeded";
        let is_replaced = cluster.pods_of(group).any(is_replacement);
        let is_lone = group.owner.is(Kind::Pod);
        if is_lone || recent >= REPEATED || (recent > 0 && !is_replaced) {
            report.add(finding(&group.owner, newest, rejected.len()));
        }
    }
}

/// The kubelet's reasons for not admitting a pod (`kubernetes/pkg/kubelet`, lifecycle and predicates). A shutdown of the
/// node also ends pods that ran.
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

fn made(pod: &Pod) -> Option<Timestamp> {
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
    let verb = if is_shutdown { "ended" } else { "rejected" };
    // "Pod was rejected: Node didn't have enough resource: cpu, requested: 4000, used: 3500, capacity: 4000"
    let words = status.message.trim().trim_end_matches('.');
    let words = words.strip_prefix("Pod was rejected: ").or(words.strip_prefix("Pod ")).unwrap_or(words);
    let why = if words.is_empty() {
        status.reason.to_string()
    } else {
        format!("{} ({})", status.reason, shorten(words, 160))
    };
    let finding = Finding::warning(owner.clone(), format!("{subject} {verb}{node}: {why}"))
        .pods(pods)
        .since(made(newest))
        .evidence(format!("status.reason is {}", status.reason), &newest.reference(), "status.reason");
    let (namespace, name) = (&newest.metadata.namespace, &newest.metadata.name);
    let text = if owner.is(Kind::Pod) {
        "Delete the pod and make it anew, without nodeName"
    } else {
        "Delete the failed pod once the reason is gone"
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
    fn quiet_after_a_graceful_shutdown_that_is_over() {
        let ended =
            "phase: Failed, reason: Terminated, message: Pod was terminated in response to imminent node shutdown.";
        check(&RULE, &[&pod("a", OWNER, ended), &pod("b", OWNER, READY)]).finds_nothing();
        check(&RULE, &[&pod("a", OWNER, "phase: Failed, reason: Evicted")]).finds_nothing();
    }
}
