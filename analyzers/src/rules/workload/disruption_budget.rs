use crate::engine::{Report, Severity, declare_rule};
use crate::rules::user_managed::{UserManagedExt, named};
use crate::snapshot::{Cluster, Kind};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that a workload with two or more pods behind a Service is covered by a PodDisruptionBudget.
    ///
    /// ## Why it matters
    ///
    /// A drain evicts all pods of a node at the same time, and a cluster upgrade drains one node after another without
    /// waiting for the pods to become ready elsewhere. A PodDisruptionBudget makes the drain wait.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pdb` lists no PodDisruptionBudget whose selector matches the pods.
    ///
    /// ## How to fix
    ///
    /// Run `kubectl create poddisruptionbudget NAME --selector=… --max-unavailable=1`.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for:
    ///
    /// - workloads with a single pod, for which a budget would block the drain;
    /// - workloads without a Service;
    /// - DaemonSets, which drains ignore;
    /// - single-node clusters;
    /// - clusters whose PodDisruptionBudgets could not be read.
    "workload/disruption-budget": Info in Strict,
    "a workload with several pods behind a Service has no PodDisruptionBudget",
    needs: [PodDisruptionBudget],
    optional: [Deployment, StatefulSet, ReplicaSet, ReplicationController, Service, HorizontalPodAutoscaler, Node],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    if !cluster.has_many_nodes() {
        return;
    }
    for workload in cluster.user_managed() {
        let namespace = workload.object.namespace();
        let known = cluster.covers(Kind::PodDisruptionBudget, namespace);
        if !known || !workload.has_replicas() || workload.least_replicas(cluster) < 2 {
            continue;
        }
        let services = workload.services(cluster);
        if services.is_empty() || workload.has_disruption_budget(cluster) {
            continue;
        }
        let message = format!("{} (behind {}) has no PodDisruptionBudget", workload.object.title(), named(&services));
        let labels: Vec<String> = workload.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let selector = services[0].spec.selector.iter().map(|(key, value)| format!("{key}={value}"));
        let selector = format!("--selector={}", selector.collect::<Vec<_>>().join(","));
        let name = workload.object.name.as_str();
        let finding = workload
            .finding(Severity::Info, message)
            .evidence(
                format!("no PodDisruptionBudget selects {}", labels.join(",")),
                &workload.object,
                "spec.template.metadata.labels",
            )
            .fix_command(
                "Allow one pod to be unavailable",
                kubectl(["-n", namespace, "create", "poddisruptionbudget", name, &selector, "--max-unavailable=1"]),
            )
            .rests_on_absence();
        report.add(finding);
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    const CART: &str = "
        apiVersion: apps/v1
        kind: Deployment
        metadata: {name: cart, namespace: shop}
        spec: {replicas: 2, template: {metadata: {labels: {app: cart}}, spec: {containers: [{name: web}]}}}";
    const SERVICE: &str =
        "{apiVersion: v1, kind: Service, metadata: {name: cart, namespace: shop}, spec: {selector: {app: cart}}}";
    const NODES: &str = "{apiVersion: v1, kind: Node, metadata: {name: a}}
---
{apiVersion: v1, kind: Node, metadata: {name: b}}";
    const BUDGET: &str = "
        apiVersion: policy/v1
        kind: PodDisruptionBudget
        metadata: {name: cart, namespace: shop}
        spec: {maxUnavailable: 1, selector: {matchLabels: {app: cart}}}";

    #[test]
    fn fires_without_a_budget() {
        check(&RULE, &[CART, SERVICE, NODES])
            .finds(&["info Deployment shop/cart: Deployment cart (behind Service cart) has no PodDisruptionBudget"]);
        check(&RULE, &[CART, SERVICE, NODES, &BUDGET.replace("app: cart", "app: web")]).finding();
    }

    #[test]
    fn quiet_with_a_budget_with_one_pod_or_without_a_service() {
        check(&RULE, &[CART, SERVICE, NODES, BUDGET]).finds_nothing();
        check(&RULE, &[&CART.replace("replicas: 2", "replicas: 1"), SERVICE, NODES]).finds_nothing();
        check(&RULE, &[CART, NODES]).finds_nothing();
    }

    #[test]
    fn quiet_where_budgets_were_not_read() {
        let said = TestCluster::new(&[CART, SERVICE, NODES]).forbid(Kind::PodDisruptionBudget).check(&RULE);
        said.finds_nothing();
        assert_eq!(said.gaps(), ["PodDisruptionBudget forbidden"]);
    }
}
