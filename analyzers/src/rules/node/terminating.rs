use std::collections::BTreeSet;
use std::time::Duration;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::disruption::selector;
use crate::kubernetes::time::{age, human};
use crate::snapshot::model::{Node, Pod, PodDisruptionBudget};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for nodes that have been terminating for more than 15 minutes, and what blocks their drain:
    /// PodDisruptionBudgets that allow no evictions, pods that must not be disrupted
    /// (`karpenter.sh/do-not-disrupt`), or pods that do not terminate.
    ///
    /// ## Why it matters
    ///
    /// Karpenter and other node controllers evict the pods of a node before they delete its machine. While an eviction is
    /// refused, the old machine runs on and costs money, and upgrades and replacements of nodes do not continue.
    ///
    /// ## How to confirm
    ///
    /// `kubectl describe node NODE` shows the events of the node controller (`FailedDraining`) and the pods that are left.
    ///
    /// ## How to fix
    ///
    /// Fix what blocks the eviction. Do not remove the finalizers of the node: its machine would be left running.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire in the first 15 minutes, or while a remaining pod is within its termination grace period.
    "node/terminating": Warning,
    "a node does not finish its drain",
    needs: [Node],
    optional: [Pod, PodDisruptionBudget, Event, ReplicaSet],
    explained_by: ["pdb/*", "elsewhere:pod/*", "node/not-ready"],
}

/// Evictions, and a pod's usual termination.
const DRAIN: Duration = Duration::from_secs(900);

fn check(cluster: &Cluster, report: &mut Report) {
    for node in cluster.all::<Node>() {
        let Some(deleted) = node.deleted().filter(|deleted| age(cluster.now(), *deleted) >= DRAIN) else { continue };
        let pods: Vec<&Pod> =
            cluster.pods_on_node(node.name()).into_iter().filter(|pod| must_leave(cluster, pod)).collect();
        if pods.iter().any(|pod| pod.deleted().is_some_and(|end| end > cluster.now())) {
            continue;
        }
        report.add(finding(cluster, node, &pods).since(Some(deleted)));
    }
}

/// Whether a drain evicts the pod.
fn must_leave(cluster: &Cluster, pod: &Pod) -> bool {
    !pod.is_finished() && !pod.is_static() && !cluster.owner_of(pod).is(Kind::DaemonSet)
}

fn finding(cluster: &Cluster, node: &Node, pods: &[&Pod]) -> Finding {
    let (object, name) = (node.reference(), node.name());
    let terminated = age(cluster.now(), node.deleted().unwrap_or(cluster.now()));
    let budgets: BTreeSet<ObjectRef> = pods.iter().flat_map(|pod| blocking(cluster, pod)).collect();
    let kept = pods.iter().filter(|pod| pod.metadata.annotations.get("karpenter.sh/do-not-disrupt") == Some("true"));
    let kept: Vec<String> = kept.map(|pod| format!("{}/{}", pod.namespace(), pod.name())).collect();
    let stuck = pods.iter().filter(|pod| pod.is_terminating());
    let stuck: Vec<String> = stuck.map(|pod| format!("{}/{}", pod.namespace(), pod.name())).collect();
    let names: Vec<String> = budgets.iter().map(|budget| format!("{}/{}", budget.namespace(), budget.name)).collect();
    let why = if !names.is_empty() {
        format!(": its drain is blocked by PodDisruptionBudget {}", words::list(&names, 3))
    } else if !stuck.is_empty() {
        format!(": pod {} does not terminate", words::list(&stuck, 3))
    } else if !kept.is_empty() {
        format!(": pod {} must not be disrupted (karpenter.sh/do-not-disrupt)", words::list(&kept, 3))
    } else {
        String::new()
    };
    let message = format!("Node {name} has been terminating for {}{why}", human(terminated));
    let mut finding = Finding::warning(object.clone(), message).pods(pods.len()).evidence(
        "metadata.deletionTimestamp is set",
        &object,
        "metadata.deletionTimestamp",
    );
    if let Some(event) = cluster.events(&object).into_iter().find(|event| event.reason.contains("Drain")) {
        let text = format!("{}: {}", event.reason, words::shorten(&event.message, 300));
        finding = finding.evidence(text, &object, "");
    }
    for pod in pods.iter().filter(|pod| pod.is_terminating()) {
        finding = finding.because(cluster.owner_of(pod).into_owned()).because(pod.reference());
    }
    let describe = kubectl(["describe", "node", name]);
    match budgets.first() {
        Some(budget) => budgets.iter().cloned().fold(finding, Finding::because).fix_command(
            "Fix the PodDisruptionBudget or the pods that it covers; the drain then continues by itself",
            kubectl(["-n", budget.namespace(), "describe", "pdb", &budget.name]),
        ),
        None if !stuck.is_empty() => finding.fix_command("Check why the pods do not terminate", describe),
        None if !kept.is_empty() => finding.fix_command(
            "Let the pods finish, or remove the annotation karpenter.sh/do-not-disrupt from them",
            describe,
        ),
        None => finding.fix_command("Check the controller that drains the node and deletes its machine", describe),
    }
}

/// The budgets that allow no eviction of a pod.
fn blocking(cluster: &Cluster, pod: &Pod) -> Vec<ObjectRef> {
    let budgets = cluster.in_namespace::<PodDisruptionBudget>(pod.namespace()).iter();
    let blocks = |budget: &&PodDisruptionBudget| {
        let status = budget.status.as_ref();
        status.is_some_and(|status| status.disruptions_allowed.unwrap_or(0) == 0)
            && selector(budget).is_some_and(|selector| selector.matches(&pod.metadata.labels))
    };
    budgets.filter(blocks).map(Object::reference).collect()
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn node(deleted: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: worker-1, uid: u1, deletionTimestamp: '{deleted}',
            finalizers: [karpenter.sh/termination]}}}}"
        )
    }

    fn pod(meta: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: web, namespace: shop, uid: p, labels: {{app: web}}, {meta}}},
            spec: {{nodeName: worker-1}}, status: {{phase: Running}}}}"
        )
    }

    fn budget(allowed: u32) -> String {
        format!(
            "{{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {{name: web, namespace: shop, uid: b}},
            spec: {{selector: {{matchLabels: {{app: web}}}}}}, status: {{disruptionsAllowed: {allowed}}}}}"
        )
    }

    const LONG_AGO: &str = "2026-11-21T10:00:00Z";

    #[test]
    fn fires_with_the_budget_or_pod_that_blocks_the_drain() {
        check(&RULE, &[&node(LONG_AGO), &pod(""), &budget(0)]).finds(&[
            "warning Node worker-1: Node worker-1 has been terminating for 2h: its drain is blocked by PodDisruptionBudget \
             shop/web",
        ]);
        let kept = pod("annotations: {karpenter.sh/do-not-disrupt: 'true'}");
        check(&RULE, &[&node(LONG_AGO), &kept, &budget(1)]).finds(&[
            "warning Node worker-1: Node worker-1 has been terminating for 2h: pod shop/web must not be disrupted \
             (karpenter.sh/do-not-disrupt)",
        ]);
        check(&RULE, &[&node(LONG_AGO)]).finds(&["warning Node worker-1: Node worker-1 has been terminating for 2h"]);
    }

    #[test]
    fn quiet_at_first_and_while_pods_have_time_to_terminate() {
        check(&RULE, &[&node("2026-11-21T11:50:00Z"), &pod(""), &budget(0)]).finds_nothing();
        check(&RULE, &[&node(LONG_AGO), &pod("deletionTimestamp: '2026-11-21T12:05:00Z'")]).finds_nothing();
        check(&RULE, &["{apiVersion: v1, kind: Node, metadata: {name: worker-1}}", &pod(""), &budget(0)])
            .finds_nothing();
    }
}
