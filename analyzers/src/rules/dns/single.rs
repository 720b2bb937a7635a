use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::network::cluster_dns::DnsExt;
use crate::snapshot::model::Node;
use crate::snapshot::{Cluster, Object, Selector};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks whether a cluster of 5 or more nodes has a single DNS replica.
    ///
    /// ## Why it matters
    ///
    /// When the node of that pod is drained or lost, no name resolves in the cluster until the pod runs on another
    /// node.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n kube-system get deployment coredns` shows one replica.
    ///
    /// ## How to fix
    ///
    /// Run `kubectl -n kube-system scale deployment coredns --replicas=2`, or deploy the
    /// cluster-proportional-autoscaler.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire in smaller clusters, with a node-local cache, or where nodes or workloads could not be
    /// read.
    "dns/single": Info,
    "the cluster's DNS has one replica for many nodes",
    needs: [Service, Node, Deployment],
    optional: [Pod, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob],
    explained_by: [],
}

/// The cluster size from which a second replica is worth its memory.
const MIN_NODES: usize = 5;

fn check(cluster: &Cluster, report: &mut Report) {
    let dns = cluster.dns();
    let Some(service) = dns.service().filter(|service| !service.spec.selector.is_empty()) else { return };
    let nodes = cluster.all::<Node>().len();
    if nodes < MIN_NODES || !dns.node_local.is_empty() {
        return;
    }
    let selector = Selector::equals(&service.spec.selector);
    let mut behind = cluster.workloads_matching(service.namespace(), &selector).into_iter();
    let (Some(only), None) = (behind.next(), behind.next()) else { return };
    if only.replicas != Some(1) {
        return;
    }
    let message = format!("{} {} serves the DNS of {nodes} nodes with 1 replica", only.object.kind, only.object.name);
    let what = format!("{}/{}", only.object.kind.to_lowercase(), only.object.name);
    report.add(
        Finding::info(only.object.clone(), message)
            .evidence("spec.replicas is 1", &only.object, "spec.replicas")
            .fix_command("Scale to 2 replicas", kubectl(["-n", service.namespace(), "scale", &what, "--replicas=2"])),
    );
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    const SERVICE: &str = "{apiVersion: v1, kind: Service, metadata: {name: kube-dns, namespace: kube-system}, spec: \
                           {selector: {k8s-app: kube-dns}, ports: [{port: 53}]}}";

    fn world(replicas: u32, nodes: usize) -> Vec<String> {
        let mut world: Vec<String> =
            (0..nodes).map(|n| format!("{{apiVersion: v1, kind: Node, metadata: {{name: node-{n}}}}}")).collect();
        world.push(SERVICE.to_string());
        world.push(format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: coredns, namespace: kube-system}}, spec: \
             {{replicas: {replicas}, template: {{metadata: {{labels: {{k8s-app: kube-dns}}}}}}}}}}"
        ));
        world
    }

    #[test]
    fn fires_for_one_replica() {
        let world = world(1, 5);
        let documents: Vec<&str> = world.iter().map(String::as_str).collect();
        check(&RULE, &documents).finds(&[
            "info Deployment kube-system/coredns: Deployment coredns serves the DNS of 5 nodes with 1 replica",
        ]);
    }

    #[test]
    fn quiet_for_two_or_a_small_cluster() {
        for world in [world(2, 5), world(1, 4)] {
            let documents: Vec<&str> = world.iter().map(String::as_str).collect();
            check(&RULE, &documents).finds_nothing();
        }
    }
}
