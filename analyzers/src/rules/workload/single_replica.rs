use crate::engine::{Report, Severity, declare_rule};
use crate::rules::authored::{Authored, AuthoredExt, named};
use crate::snapshot::{Cluster, Kind, Object};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// That a workload behind a Service is kept at two pods or more.
    ///
    /// ## Why it matters
    ///
    /// With its only pod the service is gone: at every drain of a node, every loss of one, every restart.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get WORKLOAD NAME` shows `1/1`.
    ///
    /// ## How to fix
    ///
    /// `kubectl scale --replicas=2`, if the program can run twice, or a HorizontalPodAutoscaler with `minReplicas: 2`; with a
    /// PodDisruptionBudget so that a drain takes one at a time.
    ///
    /// ## Exceptions
    ///
    /// For workloads without a Service (controllers, consumers of queues), for what is scaled to zero, on clusters of one
    /// node, and for DaemonSets. It is `info` for a StatefulSet, and for a Deployment that has a volume or is replaced
    /// (`Recreate`): more than one of it may not be possible.
    "workload/single-replica": Warning in Strict,
    "a workload behind a Service that has only one pod",
    needs: [],
    optional: [Deployment, StatefulSet, ReplicaSet, ReplicationController, Service, HorizontalPodAutoscaler, Node],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    if !cluster.has_many_nodes() {
        return;
    }
    for workload in cluster.authored() {
        if !workload.has_replicas() || workload.least_replicas(cluster) != 1 {
            continue;
        }
        let services = workload.services(cluster);
        if services.is_empty() {
            continue;
        }
        let rests = if services.len() == 1 { "rests" } else { "rest" };
        let message = format!("{} has a single pod, on which {} {rests}", workload.object.title(), named(&services));
        let severity = if may_be_alone(cluster, &workload) { Severity::Info } else { Severity::Warning };
        let finding = workload.finding(severity, message);
        report.add(match workload.autoscaler(cluster) {
            Some(hpa) => finding
                .evidence("the autoscaler goes down to 1", &hpa.reference(), "spec.minReplicas")
                .fix_command("Keep two pods at least", kubectl(["-n", hpa.namespace(), "edit", "hpa", hpa.name()])),
            None => finding.evidence("spec.replicas is 1", &workload.object, "spec.replicas").fix_command(
                "Let it run twice, if it can",
                kubectl(["-n", workload.object.namespace(), "scale", &workload.object.target(), "--replicas=2"]),
            ),
        });
    }
}

/// Made in a way that a second pod may be wrong.
fn may_be_alone(cluster: &Cluster, workload: &Authored) -> bool {
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
    use crate::testing::{World, check};

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
            .finds(&["warning Deployment shop/cart: Deployment cart has a single pod, on which Service cart rests"]);
        let autoscaled = HPA.replace("minReplicas: 2", "minReplicas: 1");
        let replicas = CART.replace("replicas: 1", "replicas: 3");
        check(&RULE, &[&replicas, SERVICE, NODES, &autoscaled]).finding();
    }

    #[test]
    fn fires_mildly_where_one_may_be_all_there_can_be() {
        let replaced = CART.replace("replicas: 1", "replicas: 1, strategy: {type: Recreate}");
        assert_eq!(check(&RULE, &[&replaced, SERVICE, NODES]).finding().severity.to_string(), "info");
    }

    #[test]
    fn quiet_with_two_without_a_service_or_a_second_node() {
        check(&RULE, &[&CART.replace("replicas: 1", "replicas: 2"), SERVICE, NODES]).finds_nothing();
        check(&RULE, &[CART, SERVICE, NODES, HPA]).finds_nothing();
        check(&RULE, &[CART, NODES]).finds_nothing();
        World::new(&[CART, SERVICE, NODES.split_once("---").unwrap().0]).check(&RULE).finds_nothing();
    }
}
