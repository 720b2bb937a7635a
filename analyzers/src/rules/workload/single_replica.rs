use crate::engine::{Report, Severity, declare_rule};
use crate::rules::user_managed::{UserManaged, UserManagedExt, named};
use crate::snapshot::{Cluster, Kind, Object};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that a workload behind a Service has at least two pods.
    ///
    /// ## Why it matters
    ///
    /// The Service is down whenever its only pod is: during every drain, node failure and restart.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get WORKLOAD NAME` shows `1/1`.
    ///
    /// ## How to fix
    ///
    /// Run `kubectl scale --replicas=2`, if the application supports it, or use a HorizontalPodAutoscaler with
    /// `minReplicas: 2`. Add a PodDisruptionBudget, so that a drain evicts one pod at a time.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for workloads without a Service (controllers, queue consumers), workloads that are scaled
    /// to zero, DaemonSets, or single-node clusters. The severity is `info` for StatefulSets, and for Deployments that
    /// have a claim or use the strategy `Recreate`, because they may not support more than one pod.
    "workload/single-replica": Warning in Strict,
    "a Service is backed by a single pod",
    needs: [],
    optional: [Deployment, StatefulSet, ReplicaSet, ReplicationController, Service, HorizontalPodAutoscaler, Node],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    if !cluster.has_many_nodes() {
        return;
    }
    for workload in cluster.user_managed() {
        if !workload.has_replicas() || workload.least_replicas(cluster) != 1 {
            continue;
        }
        let services = workload.services(cluster);
        if services.is_empty() {
            continue;
        }
        let verb = if services.len() == 1 { "is" } else { "are" };
        let message = format!("{} {verb} backed by a single pod ({})", named(&services), workload.object.title());
        let severity = if may_need_a_single_pod(cluster, &workload) { Severity::Info } else { Severity::Warning };
        let finding = workload.finding(severity, message);
        report.add(match workload.autoscaler(cluster) {
            Some(hpa) => finding
                .evidence("minReplicas is 1", &hpa.reference(), "spec.minReplicas")
                .fix_command("Set minReplicas to 2", kubectl(["-n", hpa.namespace(), "edit", "hpa", hpa.name()])),
            None => finding.evidence("spec.replicas is 1", &workload.object, "spec.replicas").fix_command(
                "Scale to 2 replicas, if the application supports it",
                kubectl(["-n", workload.object.namespace(), "scale", &workload.object.target(), "--replicas=2"]),
            ),
        });
    }
}

/// Whether the application may not support a second pod.
fn may_need_a_single_pod(cluster: &Cluster, workload: &UserManaged) -> bool {
    let has_claim = workload.spec.volumes.iter().any(|volume| volume.persistent_volume_claim.is_some());
    let is_replaced = cluster
        .get::<crate::snapshot::model::Deployment>(workload.object.namespace(), &workload.object.name)
        .found()
        .is_some_and(|deployment| deployment.spec.strategy.type_ == "Recreate");
    has_claim || workload.object.is(Kind::StatefulSet) || (workload.object.is(Kind::Deployment) && is_replaced)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::{TestCluster, check};

    const CART: &str = "
        apiVersion: apps/v1
        kind: Deployment
        metadata: {name: cart, namespace: shop}
        spec: {replicas: 1, template: {metadata: {labels: {app: cart}}, spec: {containers: [{name: web}]}}}";
    const SERVICE: &str =
        "{apiVersion: v1, kind: Service, metadata: {name: cart, namespace: shop}, spec: {selector: {app: cart}}}";
    const NODES: &str = "{apiVersion: v1, kind: Node, metadata: {name: a}}
---
{apiVersion: v1, kind: Node, metadata: {name: b}}";
    const HPA: &str = "
        apiVersion: autoscaling/v2
        kind: HorizontalPodAutoscaler
        metadata: {name: cart, namespace: shop}
        spec: {minReplicas: 2, maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: cart}}";

    #[test]
    fn fires_for_the_only_pod_of_a_service() {
        check(&RULE, &[CART, SERVICE, NODES])
            .finds(&["warning Deployment shop/cart: Service cart is backed by a single pod (Deployment cart)"]);
        let autoscaled = HPA.replace("minReplicas: 2", "minReplicas: 1");
        let replicas = CART.replace("replicas: 1", "replicas: 3");
        check(&RULE, &[&replicas, SERVICE, NODES, &autoscaled]).finding();
    }

    #[test]
    fn fires_as_info_where_a_second_pod_may_not_be_supported() {
        let replaced = CART.replace("replicas: 1", "replicas: 1, strategy: {type: Recreate}");
        assert_eq!(check(&RULE, &[&replaced, SERVICE, NODES]).finding().severity.to_string(), "info");
    }

    #[test]
    fn quiet_with_two_without_a_service_or_a_second_node() {
        check(&RULE, &[&CART.replace("replicas: 1", "replicas: 2"), SERVICE, NODES]).finds_nothing();
        check(&RULE, &[CART, SERVICE, NODES, HPA]).finds_nothing();
        check(&RULE, &[CART, NODES]).finds_nothing();
        TestCluster::new(&[CART, SERVICE, NODES.split_once("---").unwrap().0]).check(&RULE).finds_nothing();
    }
}
