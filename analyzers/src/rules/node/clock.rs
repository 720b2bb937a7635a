use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::nodes::clock::{Skew, skew};
use crate::kubernetes::nodes::kubelet::KubeletExt;
use crate::kubernetes::nodes::lease;
use crate::kubernetes::time::human;
use crate::snapshot::model::Node;
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// Compares what the kubelet of each node writes by its clock with what the control plane writes: a pod that started
    /// before it was created or scheduled shows a clock that is behind, a node lease that was renewed later than all other
    /// leases shows one that is ahead.
    ///
    /// ## Why it matters
    ///
    /// Programs on the node reject new certificates and tokens as not yet valid, or accept expired ones. Logs, metrics and
    /// events have wrong times. Leader election and databases that compare times fail.
    ///
    /// ## How to confirm
    ///
    /// On the node: `timedatectl` or `chronyc tracking`. `kubectl -n kube-node-lease get lease NODE -o yaml` shows
    /// `renewTime` by the clock of the node.
    ///
    /// ## How to fix
    ///
    /// Repair time synchronization on the machine: start chrony or systemd-timesyncd, allow NTP (UDP port 123) to its time
    /// servers, or correct the clock of the hypervisor.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire
    ///
    /// - for differences of up to one minute,
    /// - for a clock that has been corrected: the node's lease is current,
    /// - for static pods, which start before their mirror pod is created.
    "node/clock": Warning,
    "the clock of a node is wrong",
    needs: [Node],
    optional: [Pod, Lease],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for node in cluster.all::<Node>() {
        if let Some(skew) = skew(cluster, node) {
            report.add(finding(cluster, node, &skew));
        }
    }
}

fn finding(cluster: &Cluster, node: &Node, skew: &Skew) -> Finding {
    let (object, name) = (node.reference(), node.name());
    let lease = ObjectRef::new(Kind::Lease, "kube-node-lease", name);
    let finding = match skew {
        Skew::Behind { by, pod, pods } => {
            let message = format!("the clock of Node {name} is about {} behind that of the control plane", human(*by));
            let mut finding = Finding::warning(object, message).pods(*pods);
            if let (Some(started), Some(created)) = (pod.status.start_time, pod.created()) {
                let text = format!("Pod {} started at {started}, before it was created at {created}", pod.name());
                finding = finding.evidence(text, &pod.reference(), "status.startTime");
            }
            match cluster.node_lease(node).and_then(lease::renewed) {
                Some(renewed) => finding.evidence(
                    format!("node lease was last renewed at {renewed} by the clock of the node"),
                    &lease,
                    "spec.renewTime",
                ),
                None => finding,
            }
        }
        Skew::Ahead { by, renewed, others } => {
            let message = format!("the clock of Node {name} is about {} ahead of all other clocks", human(*by));
            Finding::warning(object, message).evidence(
                format!("node lease was last renewed at {renewed}, all others at {others} or before"),
                &lease,
                "spec.renewTime",
            )
        }
    };
    finding.fix_command(
        "Repair time synchronization on the machine (chronyc tracking, timedatectl): start chrony or systemd-timesyncd, and \
         allow NTP to its time servers",
        kubectl(["-n", "kube-node-lease", "get", "lease", name, "-o", "yaml"]),
    )
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn cluster(started: &str, renewed: &str) -> Vec<String> {
        let lease = |namespace: &str, name: &str, time: &str| {
            format!(
                "{{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {{name: {name}, namespace: {namespace}}},
                spec: {{renewTime: '{time}.000000Z'}}}}"
            )
        };
        vec![
            "{apiVersion: v1, kind: Node, metadata: {name: worker-1}, status: {conditions: [{type: Ready, status: 'True'}]}}"
                .to_string(),
            lease("kube-node-lease", "worker-1", renewed),
            lease("kube-node-lease", "worker-2", "2026-11-21T11:59:55"),
            lease("kube-system", "kube-scheduler", "2026-11-21T11:59:58"),
            format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: web, namespace: shop, creationTimestamp: '2026-11-21T11:50:00Z'}},
                spec: {{nodeName: worker-1}}, status: {{startTime: '{started}Z', conditions: [
                {{type: PodScheduled, status: 'True', lastTransitionTime: '2026-11-21T11:50:00Z'}}]}}}}"
            ),
        ]
    }

    fn said(started: &str, renewed: &str) -> crate::testing::Findings {
        let documents = cluster(started, renewed);
        check(&RULE, &documents.iter().map(String::as_str).collect::<Vec<_>>())
    }

    #[test]
    fn fires_for_a_slow_and_a_fast_clock() {
        said("2026-11-21T11:40:01", "2026-11-21T11:49:58")
            .finds(&["warning Node worker-1: the clock of Node worker-1 is about 9m behind that of the control plane"]);
        said("2026-11-21T11:50:01", "2026-11-21T12:04:58")
            .finds(&["warning Node worker-1: the clock of Node worker-1 is about 5m ahead of all other clocks"]);
    }

    #[test]
    fn quiet_for_corrected_clocks_and_lost_nodes() {
        said("2026-11-21T11:40:01", "2026-11-21T11:59:50").finds_nothing();
        said("2026-11-21T11:50:01", "2026-11-21T11:49:58").finds_nothing();
        said("2026-11-21T11:50:01", "2026-11-21T11:59:50").finds_nothing();
        said("2026-11-21T11:40:01", "2026-11-20T11:49:58").finds_nothing();
    }
}
