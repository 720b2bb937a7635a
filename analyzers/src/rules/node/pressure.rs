use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::snapshot::model::{Condition, Node};
use crate::snapshot::{Cluster, Object};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// The conditions of nodes other than `Ready`: `MemoryPressure`, `DiskPressure`, `PIDPressure` and `NetworkUnavailable`, and those
    /// that node-problem-detector and the monitoring agents of cloud providers add (`KernelDeadlock`, `ReadonlyFilesystem`,
    /// `KernelReady` …), which are only warnings.
    ///
    /// ## Why it matters
    ///
    /// Under memory, disk or PID pressure the kubelet evicts pods and takes no new ones. A node without network gets no pods at all.
    ///
    /// ## How to confirm
    ///
    /// `kubectl describe node NODE` shows the conditions with their messages. On the node: `free -m`, `df -h`, `df -i`.
    ///
    /// ## How to fix
    ///
    /// Memory: give pods limits near to what they use, or move some away. Disk: clean up images and logs, find the pod that writes
    /// much, enlarge the disk. PIDs: find the pod that forks; set the kubelet's `podPidsLimit`. Network: look at the pods of the network plugin on
    /// that node, or the route controller of the cloud provider.
    ///
    /// ## Exceptions
    ///
    /// For conditions that are False or Unknown, and for types that are not known to mean trouble.
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

/// Parts of a node that the EKS node monitoring agent reports as not ready with False.
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
    is_problem.then(|| (Severity::Warning, format!("reports {type_} {}", condition.status)))
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
        .fix_command("See what the node reports and what runs there", kubectl(["describe", "node", node.name()]))
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
            .finds(&["warning Node worker-1: Node worker-1 reports KernelDeadlock True: what the node says"]);
        check(&RULE, &[&node("StorageReady", "False")])
            .finds(&["warning Node worker-1: Node worker-1 reports StorageReady False: what the node says"]);
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
