use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::snapshot::model::{Condition, Node};
use crate::snapshot::{Cluster, Object};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// The conditions of nodes other than `Ready`: `MemoryPressure`, `DiskPressure`, `PIDPressure` and
    /// `NetworkUnavailable`. Conditions that node-problem-detector and the monitoring agents of cloud providers add
    /// (`KernelDeadlock`, `ReadonlyFilesystem`, `KernelReady` …) are reported as warnings.
    ///
    /// ## Why it matters
    ///
    /// Under memory, disk or PID pressure the kubelet evicts pods and rejects new ones. A node without network gets no
    /// pods at all.
    ///
    /// ## How to confirm
    ///
    /// `kubectl describe node NODE` shows the conditions with their messages. On the node: `free -m`, `df -h`, `df -i`.
    ///
    /// ## How to fix
    ///
    /// - Memory: set pod limits close to actual usage, or move some pods away.
    /// - Disk: clean up images and logs, find the pod that fills the disk, or enlarge the disk.
    /// - PIDs: find the pod that forks; set the kubelet's `podPidsLimit`.
    /// - Network: check the pods of the network plugin on that node, or the route controller of the cloud provider.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for conditions that are False or Unknown, or for unknown condition types.
    "node/pressure": Error,
    "a node is short of memory, disk or PIDs, has no network, or reports another problem",
    needs: [Node],
    optional: [],
    explained_by: [],
}

/// Problems that node-problem-detector reports as True.
/// Source: <https://github.com/kubernetes/node-problem-detector>
const PROBLEMS: [&str; 11] = [
    "KernelDeadlock",
    "ReadonlyFilesystem",
    "FilesystemCorruptionProblem",
    "FrequentKubeletRestart",
    "FrequentDockerRestart",
    "FrequentContainerdRestart",
    "FrequentUnregisterNetDevice",
    "CorruptDockerOverlay2",
    "KubeletProblem",
    "ContainerRuntimeProblem",
    "XfsShutdown",
];

/// Condition types of the EKS node monitoring agent, which are False when that part of the node is not ready.
/// Source: <https://docs.aws.amazon.com/eks/latest/userguide/node-health.html>
const PARTS: [&str; 5] =
    ["AcceleratedHardwareReady", "ContainerRuntimeReady", "KernelReady", "NetworkingReady", "StorageReady"];

fn check(cluster: &Cluster, report: &mut Report) {
    for node in cluster.all::<Node>() {
        for condition in &node.status.conditions {
            if let Some((severity, what)) = trouble(condition) {
                report.add(finding(node, condition, severity, &what));
            }
        }
    }
}

fn trouble(condition: &Condition) -> Option<(Severity, String)> {
    let type_ = condition.type_.as_str();
    let known = match type_ {
        "MemoryPressure" => "is under memory pressure",
        "DiskPressure" => "is under disk pressure",
        "PIDPressure" => "is under PID pressure",
        "NetworkUnavailable" => "has no network",
        _ => "",
    };
    if !known.is_empty() {
        return condition.is_true().then(|| (Severity::Error, known.to_string()));
    }
    let is_problem =
        (PROBLEMS.contains(&type_) && condition.is_true()) || (PARTS.contains(&type_) && condition.is_false());
    is_problem.then(|| (Severity::Warning, format!("has condition {type_}={}", condition.status)))
}

fn finding(node: &Node, condition: &Condition, severity: Severity, what: &str) -> Finding {
    let object = node.reference();
    let why = if condition.message.is_empty() { condition.reason.as_str() } else { condition.message.as_str() };
    let why = if why.is_empty() { String::new() } else { format!(": {}", words::shorten(why, 200)) };
    Finding::new(severity, object.clone(), format!("Node {} {what}{why}", node.name()))
        .evidence(
            format!("condition {} is {} ({})", condition.type_, condition.status, condition.reason),
            &object,
            &format!("status.conditions[{}]", condition.type_),
        )
        .key(condition.type_.to_string())
        .since(condition.last_transition_time)
        .fix_command("Check the node's conditions and pods", kubectl(["describe", "node", node.name()]))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn node(type_: &str, status: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: worker-1}}, status: {{conditions: [
            {{type: {type_}, status: '{status}', reason: SomeReason, message: what the node says}}]}}}}"
        )
    }

    #[test]
    fn fires_under_pressure_and_without_network() {
        check(&RULE, &[&node("DiskPressure", "True")])
            .finds(&["error Node worker-1: Node worker-1 is under disk pressure: what the node says"]);
        check(&RULE, &[&node("NetworkUnavailable", "True")])
            .finds(&["error Node worker-1: Node worker-1 has no network: what the node says"]);
    }

    #[test]
    fn fires_as_a_warning_for_problems_that_agents_report() {
        check(&RULE, &[&node("KernelDeadlock", "True")])
            .finds(&["warning Node worker-1: Node worker-1 has condition KernelDeadlock=True: what the node says"]);
        check(&RULE, &[&node("StorageReady", "False")])
            .finds(&["warning Node worker-1: Node worker-1 has condition StorageReady=False: what the node says"]);
    }

    #[test]
    fn quiet_otherwise() {
        let healthy = [
            ("DiskPressure", "False"),
            ("DiskPressure", "Unknown"),
            ("KernelDeadlock", "False"),
            ("StorageReady", "True"),
            ("Fancy", "True"),
            ("Fancy", "False"),
        ];
        for (type_, status) in healthy {
            check(&RULE, &[&node(type_, status)]).finds_nothing();
        }
        check(&RULE, &["{apiVersion: v1, kind: Node, metadata: {name: worker-1}}"]).finds_nothing();
    }
}
