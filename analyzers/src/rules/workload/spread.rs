use crate::rules::user_managed::UserManagedExt;
use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::PodAntiAffinity;

use crate::engine::{Report, Severity, declare_rule};
use crate::rules::user_managed::UserManaged;
use crate::snapshot::Cluster;
use crate::snapshot::model::Node;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for workloads with two or more pods that all run on one node, or whose template does not spread them: it
    /// has neither `topologySpreadConstraints` nor a pod anti-affinity against its own pods.
    ///
    /// ## Why it matters
    ///
    /// Pods on the same node fail together. By default the scheduler spreads the pods of a Service or ReplicaSet only
    /// on a best-effort basis.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pods -l SELECTOR -o wide` shows the nodes.
    ///
    /// ## How to fix
    ///
    /// Add `topologySpreadConstraints` over `kubernetes.io/hostname`, and over `topology.kubernetes.io/zone` in
    /// clusters with several zones. With `whenUnsatisfiable: ScheduleAnyway` they never prevent a pod from being
    /// scheduled.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for single pods, for DaemonSets and Jobs, in clusters with only one schedulable node, or
    /// while pods are waiting for a node. The severity is `warning` if all pods run on one node, otherwise `info`.
    "workload/spread": Warning in Strict,
    "the pods of a workload run or may run on one node",
    needs: [],
    optional: [Deployment, StatefulSet, ReplicaSet, ReplicationController, Pod, HorizontalPodAutoscaler, Node],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    let nodes = cluster.all::<Node>().iter().filter(|node| node.is_ready() && !node.spec.unschedulable);
    let is_schedulable = |node: &&Node| !node.spec.taints.iter().any(|taint| taint.effect != "PreferNoSchedule");
    let has_one_node = !cluster.all::<Node>().is_empty() && nodes.filter(is_schedulable).count() < 2;
    if has_one_node {
        return;
    }
    for workload in cluster.user_managed() {
        if !workload.has_replicas() || workload.least_replicas(cluster) < 2 {
            continue;
        }
        let on: BTreeSet<&str> = workload.pods.iter().map(|pod| pod.spec.node_name.as_str()).collect();
        let title = workload.object.title();
        match on.first() {
            Some(node) if on.len() == 1 && workload.pods.len() > 1 && !node.is_empty() => {
                let message = format!("all {} pods of {title} run on node {node}", workload.pods.len());
                let finding = workload.finding(Severity::Warning, message);
                let text = format!("all pods have spec.nodeName {node}");
                let finding = finding.evidence(text, &workload.object, "");
                report.add(finding.fix_command("Add topologySpreadConstraints to the pod template", workload.edit()));
            }
            _ if !is_spread(&workload) => {
                let message = format!("{title} does not spread its pods across nodes");
                let finding = workload.finding(Severity::Info, message).evidence(
                    "topologySpreadConstraints and podAntiAffinity against its own pods are not set",
                    &workload.object,
                    &workload.path("topologySpreadConstraints"),
                );
                report.add(finding.fix_command("Add topologySpreadConstraints to the pod template", workload.edit()));
            }
            _ => {}
        }
    }
}

fn is_spread(workload: &UserManaged) -> bool {
    let anti = workload.spec.affinity.as_ref().and_then(|affinity| affinity.pod_anti_affinity.as_ref());
    !workload.spec.topology_spread_constraints.is_empty() || anti.is_some_and(|anti| is_against_itself(workload, anti))
}

fn is_against_itself(workload: &UserManaged, anti: &PodAntiAffinity) -> bool {
    let required = anti.required_during_scheduling_ignored_during_execution.iter().flatten();
    let preferred = anti.preferred_during_scheduling_ignored_during_execution.iter().flatten();
    let mut terms = required.chain(preferred.map(|weighted| &weighted.pod_affinity_term));
    terms.any(|term| {
        let selector = term.label_selector.as_ref().map(crate::snapshot::Selector::new);
        selector.is_some_and(|selector| selector.matches(workload.labels))
    })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn cart(spec: &str) -> String {
        format!(
            "
            apiVersion: apps/v1
            kind: StatefulSet
            metadata: {{name: cart, namespace: shop}}
            spec: {{replicas: 2, template: {{metadata: {{labels: {{app: cart}}}}, spec: {{{spec}}}}}}}"
        )
    }

    fn pod(name: &str, node: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: Pod
            metadata: {{name: {name}, namespace: shop, ownerReferences: [{{apiVersion: apps/v1, kind: StatefulSet, name: cart,
                        controller: true}}]}}
            spec: {{nodeName: {node}}}"
        )
    }

    fn nodes(unschedulable: bool) -> String {
        let ready = "status: {conditions: [{type: Ready, status: 'True'}]}";
        format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: a}}, {ready}}}\n---\n\
             {{apiVersion: v1, kind: Node, metadata: {{name: b}}, spec: {{unschedulable: {unschedulable}}}, {ready}}}"
        )
    }

    const CONSTRAINT: &str = "topologySpreadConstraints: [{topologyKey: kubernetes.io/hostname, maxSkew: 1,
                               whenUnsatisfiable: ScheduleAnyway}]";

    #[test]
    fn fires_when_all_pods_share_a_node() {
        check(&RULE, &[&cart(CONSTRAINT), &pod("cart-0", "a"), &pod("cart-1", "a"), &nodes(false)])
            .finds(&["warning StatefulSet shop/cart: all 2 pods of StatefulSet cart run on node a"]);
    }

    #[test]
    fn fires_as_info_when_the_template_does_not_spread() {
        let other = "affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [
                      {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: APP}}}]}}";
        check(&RULE, &[&cart(&other.replace("APP", "web")), &pod("cart-0", "a"), &pod("cart-1", "b"), &nodes(false)])
            .finds(&["info StatefulSet shop/cart: StatefulSet cart does not spread its pods across nodes"]);
        check(&RULE, &[&cart(&other.replace("APP", "cart")), &nodes(false)]).finds_nothing();
    }

    #[test]
    fn quiet_when_spread_or_without_a_second_schedulable_node() {
        check(&RULE, &[&cart(CONSTRAINT), &pod("cart-0", "a"), &pod("cart-1", "b"), &nodes(false)]).finds_nothing();
        check(&RULE, &[&cart(""), &pod("cart-0", "a"), &pod("cart-1", "a"), &nodes(true)]).finds_nothing();
        check(&RULE, &[&cart("").replace("replicas: 2", "replicas: 1"), &nodes(false)]).finds_nothing();
    }
}
