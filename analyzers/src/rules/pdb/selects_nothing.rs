use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::disruption::{selector, terms, workloads};
use crate::kubernetes::nearest::NearestExt;
use crate::kubernetes::network::outage::OutageExt;
use crate::kubernetes::time::{self, SCHEDULE};
use crate::snapshot::model::PodDisruptionBudget;
use crate::snapshot::{Cluster, Kind, Object, Selector};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// That the selector of a PodDisruptionBudget matches at least one pod, or the pod template of a workload,
    /// including workloads that are scaled to zero.
    ///
    /// ## Why it matters
    ///
    /// The budget protects nothing: a drain may evict all replicas of the workload at once.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pods -l SELECTOR` lists nothing, and `kubectl -n NAMESPACE describe pdb NAME` shows 0
    /// pods in total.
    ///
    /// ## How to fix
    ///
    /// Make `spec.selector` match the labels of the pods, or delete the budget if its workload no longer exists.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire
    ///
    /// - in the first minute,
    /// - for budgets that an operator created for its own resource,
    /// - where pods or workloads of the namespace could not be read.
    ///
    /// The severity is `info` where the only missing label is one that pods get at run time (a leader label, or a flag
    /// like `critical-operation: "true"`).
    "pdb/selects-nothing": Warning,
    "a PodDisruptionBudget covers no pods and no workload",
    needs: [PodDisruptionBudget, Pod],
    optional: [Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for budget in cluster.all::<PodDisruptionBudget>() {
        let namespace = budget.namespace();
        let young = budget.created().is_some_and(|created| time::age(cluster.now(), created) < SCHEDULE);
        let known =
            [Kind::Pod, Kind::Deployment, Kind::StatefulSet].iter().all(|kind| cluster.covers(*kind, namespace));
        if young || !known || budget.deleted().is_some() || budget.controller().is_some() {
            continue;
        }
        let selector = selector(budget);
        let covers = selector.as_ref().is_some_and(|s| cluster.any_pod_matches(namespace, s));
        // The controller counted pods that are not in the snapshot.
        let counted = budget.status.as_ref().and_then(|status| status.expected_pods).unwrap_or(0) > 0;
        if !covers && !counted && workloads(cluster, budget).is_empty() {
            report.add(finding(cluster, budget, selector.as_ref()));
        }
    }
}

fn finding(cluster: &Cluster, budget: &PodDisruptionBudget, selector: Option<&Selector>) -> Finding {
    let (object, namespace, name) = (budget.reference(), budget.namespace(), budget.name());
    let why = match selector {
        None => "spec.selector is not set".to_string(),
        Some(selector) if selector.is_empty() => "there are no pods in its namespace".to_string(),
        Some(selector) => match cluster.nearest_workload(namespace, selector) {
            Some(nearest) => nearest.difference(),
            None => format!("nothing matches selector {selector}"),
        },
    };
    let text = selector.map_or_else(|| "spec.selector is not set".to_string(), |s| format!("spec.selector is {s}"));
    let awaits_label = selector.is_some_and(|selector| cluster.selects_runtime_label(namespace, selector));
    let severity = if awaits_label { Severity::Info } else { Severity::Warning };
    Finding::new(severity, object.clone(), format!("PodDisruptionBudget {name} covers no pods: {why}"))
        .evidence(text, &object, "spec.selector")
        .evidence(terms(budget), &object, "spec")
        .fix_command("Make spec.selector match the pod labels", kubectl(["-n", namespace, "edit", "pdb", name]))
        .fix_command(
            "Or delete the budget if its workload no longer exists",
            kubectl(["-n", namespace, "delete", "pdb", name]),
        )
        .rests_on_absence()
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    fn budget(app: &str, created: &str) -> String {
        format!(
            "
            apiVersion: policy/v1
            kind: PodDisruptionBudget
            metadata: {{name: cart, namespace: shop, creationTimestamp: '{created}'}}
            spec: {{minAvailable: 1, selector: {{matchLabels: {{app: {app}}}}}}}"
        )
    }

    const OLD: &str = "2026-11-01T00:00:00Z";
    const CART: &str = "
        apiVersion: apps/v1
        kind: Deployment
        metadata: {name: cart, namespace: shop}
        spec: {replicas: 0, template: {metadata: {labels: {app: cart}}}}";

    #[test]
    fn fires_when_nothing_matches() {
        check(&RULE, &[&budget("carts", OLD), CART]).finds(&[
            "warning PodDisruptionBudget shop/cart: PodDisruptionBudget cart covers no pods: selector app=carts, \
             Deployment cart has app=cart",
        ]);
        check(&RULE, &[&budget("queue", OLD)]).finds(&[
            "warning PodDisruptionBudget shop/cart: PodDisruptionBudget cart covers no pods: nothing matches selector \
             app=queue",
        ]);
    }

    #[test]
    fn fires_as_info_for_a_label_that_is_set_at_run_time() {
        let severity = |label: &str| {
            let budget = budget(&format!("cart, {label}"), OLD);
            check(&RULE, &[&budget, CART]).finding().severity.to_string()
        };
        assert_eq!(severity("critical-operation: 'true'"), "info");
        assert_eq!(severity("spilo-role: master"), "info");
        assert_eq!(severity("tier: backend"), "warning");
        let other = budget("carts, role: master", OLD);
        assert_eq!(check(&RULE, &[&other, CART]).finding().severity.to_string(), "warning");
    }

    #[test]
    fn quiet_when_a_scaled_down_workload_matches() {
        check(&RULE, &[&budget("cart", OLD), CART]).finds_nothing();
    }

    #[test]
    fn quiet_when_new_or_when_workloads_cannot_be_read() {
        check(&RULE, &[&budget("carts", "2026-11-21T11:59:30Z"), CART]).finds_nothing();
        TestCluster::new(&[&budget("carts", OLD)]).forbid(Kind::Deployment).check(&RULE).finds_nothing();
    }
}
