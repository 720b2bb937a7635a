use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::nodes::kubelet::{KubeletExt, OUT_OF_SERVICE, out_of_service};
use crate::kubernetes::time::{age, human};
use crate::kubernetes::workloads::readiness;
use crate::snapshot::model::{Node, Pod, Timestamp};
use crate::snapshot::{Cluster, Kind, Lookup, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::{list, shorten};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for pods that still exist one minute after their termination grace period, and reports what blocks the
    /// deletion: finalizers, a node that is down, or a kubelet that cannot stop a container or unmount a volume.
    ///
    /// ## Why it matters
    ///
    /// A StatefulSet does not create a new pod while the old pod of that name exists. A volume stays attached to the
    /// old node. Namespace deletions and node drains wait for the pod.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pod POD -o jsonpath='{.metadata.deletionTimestamp} {.metadata.finalizers}'` shows the
    /// end of the grace period and the finalizers. `kubectl get node NODE` shows whether the kubelet is reporting.
    ///
    /// ## How to fix
    ///
    /// Find out why the controller that set the finalizer does not remove it, and remove it manually only after the
    /// resources it guards are cleaned up. If a node is permanently gone, delete the Node object or taint it with
    /// `node.kubernetes.io/out-of-service`. Forced deletion (`--force --grace-period=0`) is safe only if the containers
    /// are certainly not running.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire during the grace period and the minute after it. If the node was down, both are counted
    /// from its return. On a node that is down the additional minute does not apply, because no kubelet is stopping the
    /// pod.
    "pod/terminating": Error,
    "a pod has not terminated within its grace period",
    needs: [Pod],
    optional: [Node, Event],
    in_terminating_namespaces: true,
    explained_by: ["node/not-ready"],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for group in cluster.pod_groups() {
        let mut stuck: Vec<(Timestamp, &Pod)> = cluster
            .pods_of(group)
            .filter(|pod| readiness::is_overdue_to_go(cluster, pod))
            .filter_map(|pod| Some((pod.metadata.deletion_timestamp?, pod)))
            .collect();
        stuck.sort_by_key(|(deleted, _)| *deleted);
        if let Some((deleted, pod)) = stuck.first() {
            report.add(finding(cluster, &group.owner, pod, *deleted, stuck.len()));
        }
    }
}

fn finding(cluster: &Cluster, owner: &ObjectRef, pod: &Pod, deleted: Timestamp, pods: usize) -> Finding {
    let (namespace, name, node) = (&pod.metadata.namespace, &pod.metadata.name, &pod.spec.node_name);
    let sample = pod.reference();
    let finalizers = &pod.metadata.finalizers;
    let lost = lost_node(cluster, node);
    let blocker = if !finalizers.is_empty() {
        format!("finalizer {} is set", list(finalizers, 3))
    } else if let Some(lost) = &lost {
        lost.clone()
    } else if pod.container_statuses().any(|status| status.state.running().is_some()) {
        format!("its containers are still running on node {node}")
    } else if node.is_empty() {
        "the pod was not removed".to_string()
    } else {
        format!("the kubelet of node {node} has not completed the deletion")
    };
    let overdue = human(age(cluster.now(), deleted));
    let subject = match pods {
        _ if owner.is(Kind::Pod) => format!("{} has been terminating", owner.title()),
        1 => format!("A pod of {} has been terminating", owner.title()),
        _ => format!("{pods} pods of {} are terminating, the oldest", owner.title()),
    };
    let message = format!("{subject} for {overdue} past its grace period: {blocker}");
    let mut finding = Finding::error(owner.clone(), message).pods(pods).since(Some(deleted)).evidence(
        format!("metadata.deletionTimestamp is {deleted}"),
        &sample,
        "metadata.deletionTimestamp",
    );
    if !finalizers.is_empty() {
        finding = finding.evidence(format!("finalizers: {}", finalizers.join(", ")), &sample, "metadata.finalizers");
    }
    if let Some(event) = cluster.events(&sample).first() {
        finding = finding.evidence(format!("{}: {}", event.reason, shorten(&event.message, 300)), &sample, "");
    }
    if lost.is_some() {
        let object = ObjectRef::new(Kind::Node, "", node);
        finding = finding.evidence(format!("pod is on node {node}"), &object, "").because(object);
    }
    if !finalizers.is_empty() {
        let text =
            "Find out why the finalizer's controller does not remove it; remove it only if nothing is left to clean up";
        let patch = r#"{"metadata":{"finalizers":null}}"#;
        return finding
            .fix_command(text, kubectl(["-n", namespace, "patch", "pod", name, "--type=merge", "-p", patch]));
    }
    if lost.is_some() && cluster.get::<Node>("", node).found().is_some() {
        return finding.fix_command(OUT_OF_SERVICE, out_of_service(node));
    }
    finding.fix_command(
        "Check the kubelet's log on the node; force the deletion only if the containers are certainly not running",
        kubectl(["-n", namespace, "delete", "pod", name, "--force", "--grace-period=0"]),
    )
}

fn lost_node(cluster: &Cluster, node: &str) -> Option<String> {
    if node.is_empty() {
        return None;
    }
    match cluster.get::<Node>("", node) {
        Lookup::Found(found) if cluster.down(found).is_none() => None,
        Lookup::Found(_) => Some(format!("its node {node} is not ready")),
        Lookup::Missing => Some(format!("its node {node} no longer exists")),
        Lookup::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    fn pod(metadata: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: Pod
            metadata: {{name: db-0, namespace: shop, deletionTimestamp: '2026-11-21T11:50:00Z', {metadata}
              ownerReferences: [{{apiVersion: apps/v1, kind: StatefulSet, name: db, controller: true}}]}}
            spec: {{nodeName: w1}}
            status: {{phase: Running}}"
        )
    }

    const NODE: &str =
        "{apiVersion: v1, kind: Node, metadata: {name: w1}, status: {conditions: [{type: Ready, status: 'True'}]}}";
    const STUCK: &str =
        "error StatefulSet shop/db: A pod of StatefulSet db has been terminating for 10m past its grace period:";

    #[test]
    fn fires_for_finalizers_by_name() {
        check(&RULE, &[&pod("finalizers: [example.com/guard],"), NODE])
            .finds(&[&format!("{STUCK} finalizer example.com/guard is set")]);
    }

    #[test]
    fn fires_for_a_lost_node() {
        check(&RULE, &[&pod(""), &NODE.replace("'True'", "Unknown")])
            .finds(&[&format!("{STUCK} its node w1 is not ready")]);
        check(&RULE, &[&pod("")]).finds(&[&format!("{STUCK} its node w1 no longer exists")]);
        TestCluster::new(&[&pod("")])
            .forbid(Kind::Node)
            .check(&RULE)
            .finds(&[&format!("{STUCK} the kubelet of node w1 has not completed the deletion")]);
    }

    #[test]
    fn fires_once_for_several_pods() {
        let another = pod("").replace("db-0", "db-1").replace("11:50:00", "11:55:00");
        check(&RULE, &[&pod(""), &another, NODE]).finds(&[
            "error StatefulSet shop/db: 2 pods of StatefulSet db are terminating, the oldest for 10m past its grace \
             period: the kubelet of node w1 has not completed the deletion",
        ]);
    }

    #[test]
    fn quiet_in_the_grace_period_and_the_minute_after() {
        TestCluster::new(&[&pod(""), NODE]).now("2026-11-21T11:51:00Z").check(&RULE).finds_nothing();
        let lost = NODE.replace("'True'", "Unknown");
        TestCluster::new(&[&pod(""), &lost]).now("2026-11-21T11:51:00Z").check(&RULE).finding();
        TestCluster::new(&[&pod(""), &lost]).now("2026-11-21T11:49:59Z").check(&RULE).finds_nothing();
    }

    #[test]
    fn quiet_while_a_recovered_node_stops_its_pods() {
        let returned =
            |at: &str| NODE.replace("status: 'True'", &format!("status: 'True', lastTransitionTime: '{at}'"));
        check(&RULE, &[&pod(""), &returned("2026-11-21T11:58:31Z")]).finds_nothing();
        check(&RULE, &[&pod(""), &returned("2026-11-21T11:58:29Z")]).finding();
        let long_grace = pod("deletionGracePeriodSeconds: 600,");
        check(&RULE, &[&long_grace, &returned("2026-11-21T11:50:00Z")]).finds_nothing();
    }
}
