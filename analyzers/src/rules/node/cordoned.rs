use std::collections::BTreeMap;

use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::scheduling::Refusal;
use crate::kubernetes::scheduling::waiting::{Judge, blocked_only_by};
use crate::kubernetes::time::{age, human};
use crate::snapshot::model::Node;
use crate::snapshot::{Cluster, Object, ObjectRef};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Nodes that are cordoned (`spec.unschedulable`), and whether pending pods would fit there.
    ///
    /// ## Why it matters
    ///
    /// A cordoned node accepts no new pods. That is intended during maintenance and often forgotten afterwards. Until
    /// then the cluster has less capacity than it seems.
    ///
    /// ## How to confirm
    ///
    /// `kubectl get nodes` shows `SchedulingDisabled`.
    ///
    /// ## How to fix
    ///
    /// Run `kubectl uncordon NODE` when maintenance is over.
    ///
    /// ## Exceptions
    ///
    /// The severity is `info` unless a pending pod would fit on the node.
    "node/cordoned": Warning,
    "a node is cordoned",
    needs: [Node],
    optional: [Pod, Namespace, PersistentVolumeClaim, PersistentVolume, StorageClass, Event, ReplicaSet, Job],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    let cordoned: Vec<&Node> = cluster.all::<Node>().iter().filter(|node| node.spec.unschedulable).collect();
    if cordoned.is_empty() {
        return;
    }
    let waiting = waiting_for(cluster);
    for node in cordoned {
        let object = node.reference();
        let taint = node.spec.taints.iter().find(|taint| taint.key == "node.kubernetes.io/unschedulable");
        let since = taint.and_then(|taint| taint.time_added);
        let state = match since {
            Some(since) => format!("has been cordoned for {}", human(age(cluster.now(), since))),
            None => "is cordoned".to_string(),
        };
        let owners = waiting.get(node.name()).map(Vec::as_slice).unwrap_or_default();
        let names: Vec<String> = owners.iter().map(|owner| format!("{} {}", owner.kind, owner.name)).collect();
        let (severity, consequence) = match names.len() {
            0 => (Severity::Info, String::new()),
            _ => (Severity::Warning, format!(" and blocks scheduling of {}", words::list(&names, 3))),
        };
        let finding = Finding::new(severity, object.clone(), format!("Node {} {state}{consequence}", node.name()))
            .evidence("spec.unschedulable is true", &object, "spec.unschedulable")
            .since(since)
            .fix_command("Uncordon the node when maintenance is over", kubectl(["uncordon", node.name()]));
        report.add(finding);
    }
}

/// The owners of unschedulable pods, by the nodes that refuse them only because of the cordon.
fn waiting_for(cluster: &Cluster) -> BTreeMap<String, Vec<ObjectRef>> {
    let mut waiting: BTreeMap<String, Vec<ObjectRef>> = BTreeMap::new();
    let Some(judge) = Judge::new(cluster) else { return waiting };
    for (pod, placement) in judge.stuck() {
        for node in blocked_only_by(&placement, |refusal| *refusal == Refusal::Cordoned) {
            waiting.entry(node.name().to_string()).or_default().push(cluster.owner_of(pod).into_owned());
        }
    }
    waiting
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    const NODE: &str = "{apiVersion: v1, kind: Node, metadata: {name: worker-1}, spec: {unschedulable: true, taints: [
        {key: node.kubernetes.io/unschedulable, effect: NoSchedule, timeAdded: '2026-11-18T12:00:00Z'}]}}";

    fn pending(spec: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: web, namespace: shop, uid: u}}, spec: {{{spec}}}, status: {{phase: Pending,
            conditions: [{{type: PodScheduled, status: 'False', reason: Unschedulable, lastTransitionTime: '2026-11-21T11:00:00Z'}}]}}}}"
        )
    }

    #[test]
    fn fires_as_a_warning_when_a_pod_would_fit() {
        check(&RULE, &[NODE, &pending("")])
            .finds(&["warning Node worker-1: Node worker-1 has been cordoned for 3d and blocks scheduling of Pod web"]);
    }

    #[test]
    fn quiet_except_for_info_when_no_pod_waits_for_it() {
        let info = "info Node worker-1: Node worker-1 has been cordoned for 3d";
        check(&RULE, &[NODE]).finds(&[info]);
        check(&RULE, &[NODE, &pending("nodeSelector: {disktype: nvme}")]).finds(&[info]);
        TestCluster::new(&[NODE, &pending("")]).forbid(Kind::Pod).check(&RULE).finds(&[info]);
    }

    #[test]
    fn quiet_for_other_nodes() {
        check(&RULE, &["{apiVersion: v1, kind: Node, metadata: {name: worker-1}}", &pending("")]).finds_nothing();
    }
}
