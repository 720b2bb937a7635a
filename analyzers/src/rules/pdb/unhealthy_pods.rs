use std::collections::BTreeSet;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::disruption::pods;
use crate::kubernetes::scheduling::taints::{Meaning, meaning};
use crate::kubernetes::time::{PROVISION, START, age};
use crate::snapshot::model::{Condition, Node, Pod, PodDisruptionBudget};
use crate::snapshot::{Cluster, Object, ObjectRef};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks whether the drain of a node is blocked by a PodDisruptionBudget because of pods that are not ready: fewer pods
    /// are healthy than must stay available, so the budget allows no evictions, and by default
    /// (`unhealthyPodEvictionPolicy: IfHealthyBudget`) not even those of pods that are not ready.
    ///
    /// ## Why it matters
    ///
    /// The pods do no work, but the node cannot be drained, upgraded or removed until they become ready.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pdb NAME -o yaml` shows `currentHealthy` below `desiredHealthy`.
    /// `kubectl get nodes` shows `SchedulingDisabled` for the node that is being drained.
    ///
    /// ## How to fix
    ///
    /// Fix what keeps the pods from becoming ready. To let drains continue meanwhile, set
    /// `spec.unhealthyPodEvictionPolicy: AlwaysAllow`: pods that are not ready may then always be evicted.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire
    ///
    /// - unless a node with such a pod has been cordoned or terminating for five minutes,
    /// - for pods that have been not ready for less than two minutes, or that have not started,
    /// - for budgets with `AlwaysAllow`.
    "pdb/unhealthy-pods": Warning,
    "a PodDisruptionBudget blocks a drain because its pods are not ready",
    needs: [PodDisruptionBudget, Pod, Node],
    optional: [ReplicaSet, Job],
    explained_by: ["pod/*", "workload/*", "node/not-ready"],
}

fn check(cluster: &Cluster, report: &mut Report) {
    let drained: BTreeSet<&str> =
        cluster.all::<Node>().iter().filter(|node| is_drained(cluster, node)).map(Object::name).collect();
    if drained.is_empty() {
        return;
    }
    for budget in cluster.all::<PodDisruptionBudget>().iter().filter(|budget| is_short(budget)) {
        let pods = pods(cluster, budget);
        let stuck: Vec<&Pod> = pods
            .into_iter()
            .filter(|pod| drained.contains(pod.spec.node_name.as_str()) && is_unready(cluster, pod))
            .collect();
        if !stuck.is_empty() {
            report.add(finding(cluster, budget, &stuck));
        }
    }
}

/// Whether a node has been cordoned or terminating for some time.
fn is_drained(cluster: &Cluster, node: &Node) -> bool {
    let taint = node.spec.taints.iter().find(|taint| {
        taint.key == "node.kubernetes.io/unschedulable"
            || (taint.effect != "PreferNoSchedule" && meaning(&taint.key, &taint.value) == Meaning::BeingRemoved)
    });
    let begun = node.deleted().or(taint.and_then(|taint| taint.time_added));
    let is_drained = node.spec.unschedulable || taint.is_some() || node.deleted().is_some();
    is_drained && begun.is_none_or(|begun| age(cluster.now(), begun) >= PROVISION)
}

/// Whether fewer pods are healthy than required, and unready ones may not be evicted either.
fn is_short(budget: &PodDisruptionBudget) -> bool {
    let policy = budget.spec.as_ref().and_then(|spec| spec.unhealthy_pod_eviction_policy.as_deref());
    let Some(status) = &budget.status else { return false };
    let is_current = status.observed_generation.unwrap_or(0) >= budget.metadata.generation.unwrap_or(0);
    let is_short = status.current_healthy.zip(status.desired_healthy).is_some_and(|(healthy, wanted)| healthy < wanted);
    let allows_none = status.disruptions_allowed.unwrap_or(0) == 0;
    is_current && is_short && allows_none && policy != Some("AlwaysAllow") && budget.deleted().is_none()
}

/// Whether a pod runs but has not been ready for some time. Pods that have not started can always be evicted.
fn is_unready(cluster: &Cluster, pod: &Pod) -> bool {
    let ready = pod.condition("Ready").filter(|ready| !ready.is_true());
    let since = ready.and_then(|ready: &Condition| ready.last_transition_time);
    pod.status.phase == "Running"
        && !pod.is_terminating()
        && ready.is_some()
        && since.is_none_or(|since| age(cluster.now(), since) >= START)
}

fn finding(cluster: &Cluster, budget: &PodDisruptionBudget, stuck: &[&Pod]) -> Finding {
    let (object, name, namespace) = (budget.reference(), budget.name(), budget.namespace());
    let nodes: BTreeSet<&str> = stuck.iter().map(|pod| pod.spec.node_name.as_str()).collect();
    let nodes: Vec<&str> = nodes.into_iter().collect();
    let owners: BTreeSet<ObjectRef> = stuck.iter().map(|pod| cluster.owner_of(pod).into_owned()).collect();
    let titles: Vec<String> = owners.iter().map(ObjectRef::title).collect();
    let status = budget.status.as_ref();
    let (healthy, desired) =
        status.map_or((0, 0), |status| (status.current_healthy.unwrap_or(0), status.desired_healthy.unwrap_or(0)));
    let message = format!(
        "PodDisruptionBudget {name} blocks the drain of {}: {healthy} of {desired} required pods of {} are healthy, and pods \
         that are not ready are not evicted either",
        words::list(&nodes, 3),
        words::list(&titles, 3)
    );
    let mut finding = Finding::warning(object.clone(), message)
        .pods(stuck.len())
        .evidence(
            format!("healthy pods: {healthy}, required: {desired}, disruptions allowed: 0"),
            &object,
            "status.currentHealthy",
        )
        .evidence("unhealthyPodEvictionPolicy is not AlwaysAllow", &object, "spec.unhealthyPodEvictionPolicy");
    for owner in owners {
        finding = finding.because(owner);
    }
    let patch = r#"{"spec":{"unhealthyPodEvictionPolicy":"AlwaysAllow"}}"#;
    finding.fix("Fix what keeps the pods from becoming ready").fix_command(
        "To let the drain continue meanwhile, allow the eviction of pods that are not ready",
        kubectl(["-n", namespace, "patch", "pdb", name, "--type=merge", "-p", patch]),
    )
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    const NODE: &str = "{apiVersion: v1, kind: Node, metadata: {name: worker-1}, spec: {unschedulable: true, taints: [
        {key: node.kubernetes.io/unschedulable, effect: NoSchedule, timeAdded: '2026-11-21T11:00:00Z'}]}}";

    fn budget(policy: &str, healthy: u32) -> String {
        format!(
            "{{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {{name: queue, namespace: shop, uid: b}},
            spec: {{minAvailable: 1, {policy} selector: {{matchLabels: {{app: queue}}}}}},
            status: {{currentHealthy: {healthy}, desiredHealthy: 1, expectedPods: 2, disruptionsAllowed: 0}}}}"
        )
    }

    fn pod(node: &str, since: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: queue-0, namespace: shop, uid: p, labels: {{app: queue}},
            ownerReferences: [{{apiVersion: apps/v1, kind: StatefulSet, name: queue, controller: true}}]}},
            spec: {{nodeName: {node}}}, status: {{phase: Running, conditions: [
            {{type: Ready, status: 'False', lastTransitionTime: '{since}'}}]}}}}"
        )
    }

    const LONG_AGO: &str = "2026-11-21T09:00:00Z";

    #[test]
    fn fires_when_unready_pods_block_a_drain() {
        let said = check(&RULE, &[NODE, &budget("", 0), &pod("worker-1", LONG_AGO)]);
        said.finds(&[
            "warning PodDisruptionBudget shop/queue: PodDisruptionBudget queue blocks the drain of worker-1: 0 of 1 required \
             pods of StatefulSet queue are healthy, and pods that are not ready are not evicted either",
        ]);
        assert!(said.text().contains("AlwaysAllow"));
    }

    #[test]
    fn quiet_with_always_allow_without_a_drain_or_while_pods_start() {
        let pod_there = pod("worker-1", LONG_AGO);
        check(&RULE, &[NODE, &budget("unhealthyPodEvictionPolicy: AlwaysAllow,", 0), &pod_there]).finds_nothing();
        check(&RULE, &[NODE, &budget("", 1), &pod_there]).finds_nothing();
        check(&RULE, &[NODE, &budget("", 0), &pod("worker-2", LONG_AGO)]).finds_nothing();
        check(&RULE, &[NODE, &budget("", 0), &pod("worker-1", "2026-11-21T11:59:00Z")]).finds_nothing();
        let just = NODE.replace("11:00:00Z", "11:58:00Z");
        check(&RULE, &[&just, &budget("", 0), &pod_there]).finds_nothing();
    }
}
