use crate::kubernetes::nodes::kubelet::{KubeletExt, OUT_OF_SERVICE, out_of_service};
use crate::kubernetes::nodes::lease::LeaseExt;
use std::time::Duration;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::nodes::csr::{self, Pending};
use crate::kubernetes::nodes::kubelet::Down;
use crate::kubernetes::nodes::{clock, lease};
use crate::kubernetes::time::{START, age, human};
use crate::snapshot::model::{Condition, Node};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// That the condition `Ready` of every node is True, and that every node that is reported ready still renews its
    /// lease.
    ///
    /// ## Why it matters
    ///
    /// `False` means that the kubelet cannot run pods, usually because of the container runtime or the network plugin.
    /// `Unknown` means that the kubelet has stopped reporting: the machine is down or disconnected, or the kubelet is
    /// dead. No new pods are scheduled there, Services stop sending traffic to its pods, and after five minutes most
    /// pods are evicted. ReadWriteOnce volumes stay attached to the lost node.
    ///
    /// ## How to confirm
    ///
    /// `kubectl describe node NODE` shows the conditions, the events and the pods. On the node: `systemctl status
    /// kubelet`, `journalctl -u kubelet -n 100`.
    ///
    /// ## How to fix
    ///
    /// Follow the condition's message: start the container runtime or the kubelet, install or repair the network
    /// plugin, or restore the machine. If the machine is certainly off, the taint `node.kubernetes.io/out-of-service`
    /// deletes its pods and detaches their volumes; `kubectl delete node NODE` does so if it is permanently lost. If its
    /// kubelet has created a CertificateSigningRequest since, the machine is back and only its client certificate has
    /// expired: approve the request.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire
    ///
    /// - for nodes less than two minutes old,
    /// - in the first minute of `False` (a kubelet restart), unless the node was lost before.
    ///
    /// A stale lease is ignored where the node has no lease, where no other lease in the cluster is being renewed, or
    /// where the node has updated its status since. A clock that is wrong is reported by `node/clock` instead.
    "node/not-ready": Error,
    "a node is not ready, or its kubelet has stopped reporting",
    needs: [Node],
    optional: [Pod, Lease, CertificateSigningRequest],
    explained_by: ["csr/pending"],
}

/// The kubelet renews its lease every ten seconds, and the control plane marks the node after 50 seconds. A node that
/// is still marked ready gets a longer time before it counts as lost.
const LEASE_LOST: Duration = Duration::from_secs(300);
/// The kubelet updates its status at least every five minutes.
const STATUS_LOST: Duration = Duration::from_secs(360);

const GONE: &str = "Restore the machine (power, network, kubelet); if it is permanently lost, delete the Node to release \
                    its pods and volumes";

fn check(cluster: &Cluster, report: &mut Report) {
    for node in cluster.all::<Node>() {
        let Some(ready) = node.condition("Ready") else { continue };
        let finding = match cluster.down(node) {
            Some(down) => Some(not_ready(cluster, node, ready, down)),
            None => silent(cluster, node, ready),
        };
        if let Some(finding) = finding {
            report.add(finding);
        }
    }
}

fn not_ready(cluster: &Cluster, node: &Node, ready: &Condition, down: Down) -> Finding {
    let now = cluster.now();
    let object = node.reference();
    let state = match down.since {
        Some(since) => format!("has been not ready for {}", human(age(now, since))),
        None => "is not ready".to_string(),
    };
    let waiting = waiting_for_certificate(cluster, node, ready);
    let why = if ready.is_false() {
        let why = if ready.message.is_empty() { ready.reason.as_str() } else { ready.message.as_str() };
        words::shorten(why, 200)
    } else {
        let last = cluster.last_sign_of_life(node);
        let silent = last.map_or(String::new(), |last| format!(" {} ago", human(age(now, last))));
        let returned = waiting.as_ref().and_then(Pending::newest).map_or(String::new(), |request| {
            format!(
                ", it now waits for the approval of its client certificate (CertificateSigningRequest {})",
                request.name()
            )
        });
        format!("its kubelet stopped reporting{silent}{returned}")
    };
    let why = if why.is_empty() { "no reason given".to_string() } else { why };
    let message = format!("Node {} {state}: {why}{}", node.name(), pods_there(cluster, node));
    let finding = Finding::error(object.clone(), message)
        .evidence(
            format!("condition Ready is {} ({}): {}", ready.status, ready.reason, words::shorten(&ready.message, 300)),
            &object,
            "status.conditions[Ready]",
        )
        .since(down.since);
    match waiting {
        Some(pending) => approve(finding, cluster, node, &pending),
        None => complete(finding, cluster, node, !ready.is_false()),
    }
}

/// Requests that the kubelet of a lost node has created since it stopped reporting: the machine is back, but its client
/// certificate has expired.
fn waiting_for_certificate<'a>(cluster: &'a Cluster, node: &Node, ready: &Condition) -> Option<Pending<'a>> {
    let pending = csr::client_of(cluster, node).filter(|_| !ready.is_false())?;
    let created = pending.newest()?.created()?;
    (cluster.last_sign_of_life(node).is_none_or(|last| created > last)).then_some(pending)
}

fn approve(finding: Finding, cluster: &Cluster, node: &Node, pending: &Pending) -> Finding {
    let Some(request) = pending.newest() else { return finding };
    let text = format!("{} for this node is pending", request.reference());
    finding
        .pods(running(cluster, node))
        .evidence(text, &request.reference(), "status.conditions")
        .because(request.reference())
        .fix_command(
            "Check that the request comes from this machine, then approve it",
            kubectl(["certificate", "approve", request.name()]),
        )
}

/// A node that is still marked ready although its kubelet has stopped reporting.
fn silent(cluster: &Cluster, node: &Node, ready: &Condition) -> Option<Finding> {
    let now = cluster.now();
    let is_new = node.created().is_some_and(|created| age(now, created) < START);
    if is_new || !ready.is_true() {
        return None;
    }
    let renewed = lease::renewed(cluster.node_lease(node)?)?;
    let is_lost = age(now, renewed) > LEASE_LOST
        && ready.last_update_time.is_none_or(|last| age(now, last) > STATUS_LOST)
        && cluster.has_a_fresh_lease();
    // By a clock that is behind, every lease is old; by one that is ahead, all others are.
    if !is_lost || clock::skew(cluster, node).is_some() || clock::is_any_ahead(cluster) {
        return None;
    }
    let object = node.reference();
    let message = format!(
        "Node {} is marked ready, but its kubelet has not renewed its lease for {}{}",
        node.name(),
        human(age(now, renewed)),
        pods_there(cluster, node)
    );
    let finding = Finding::error(object.clone(), message)
        .evidence(
            format!("condition Ready is {} ({})", ready.status, ready.reason),
            &object,
            "status.conditions[Ready]",
        )
        .since(Some(renewed));
    Some(complete(finding, cluster, node, true))
}

fn running(cluster: &Cluster, node: &Node) -> usize {
    cluster.pods_on_node(node.name()).iter().filter(|pod| !pod.is_finished()).count()
}

fn pods_there(cluster: &Cluster, node: &Node) -> String {
    match running(cluster, node) {
        0 => String::new(),
        pods => format!(" ({} on the node)", words::count(pods, "pod")),
    }
}

fn complete(mut finding: Finding, cluster: &Cluster, node: &Node, is_silent: bool) -> Finding {
    let object = node.reference();
    if let Some(last) = node.condition("Ready").and_then(|ready| ready.last_update_time) {
        let path = "status.conditions[Ready].lastHeartbeatTime";
        finding = finding.evidence(format!("node status was last updated at {last}"), &object, path);
    }
    if let Some(renewed) = cluster.node_lease(node).and_then(lease::renewed).filter(|_| is_silent) {
        let lease = ObjectRef::new(Kind::Lease, "kube-node-lease", node.name());
        finding = finding.evidence(format!("node lease was last renewed at {renewed}"), &lease, "spec.renewTime");
    }
    let finding = finding.pods(running(cluster, node)).fix_command(
        "Check the node's conditions and events, then the kubelet log on the machine (journalctl -u kubelet)",
        kubectl(["describe", "node", node.name()]),
    );
    if is_silent && holds_pods(cluster, node) {
        finding.fix_command(OUT_OF_SERVICE, out_of_service(node.name()))
    } else if is_silent {
        finding.fix(GONE)
    } else {
        finding
    }
}

/// Whether pods that were evicted from a lost node cannot be deleted, so that their volumes stay attached to it.
fn holds_pods(cluster: &Cluster, node: &Node) -> bool {
    let is_marked = node.spec.taints.iter().any(|taint| taint.key == "node.kubernetes.io/out-of-service");
    !is_marked && cluster.pods_on_node(node.name()).iter().any(|pod| pod.is_terminating())
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    fn node(name: &str, ready: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: {name}, creationTimestamp: '2026-11-01T00:00:00Z'}},
            status: {{conditions: [{{type: MemoryPressure, status: Unknown}}, {{type: Ready, {ready}}}]}}}}"
        )
    }

    fn lease(namespace: &str, name: &str, renewed: &str) -> String {
        format!(
            "{{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {{name: {name}, namespace: {namespace}}},
            spec: {{leaseDurationSeconds: 40, renewTime: '{renewed}'}}}}"
        )
    }

    const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop}, spec: {nodeName: worker-1}}";

    #[test]
    fn fires_when_the_kubelet_stopped_reporting() {
        let lost = "status: Unknown, reason: NodeStatusUnknown, message: Kubelet stopped posting node status.,
            lastHeartbeatTime: '2026-11-21T11:40:00Z', lastTransitionTime: '2026-11-21T11:41:00Z'";
        let said = check(&RULE, &[&node("worker-1", lost), POD]);
        said.finds(&[
            "error Node worker-1: Node worker-1 has been not ready for 19m: its kubelet stopped reporting 20m ago (1 pod on \
             the node)",
        ]);
        assert_eq!(said.finding().pods, 1);
    }

    #[test]
    fn fires_with_the_last_sign_of_life() {
        // The status is written every five minutes, the lease every ten seconds.
        let lost = "status: Unknown, reason: NodeStatusUnknown, lastHeartbeatTime: '2026-11-21T11:55:30Z',
            lastTransitionTime: '2026-11-21T11:59:55Z'";
        let renewed = lease("kube-node-lease", "worker-1", "2026-11-21T11:59:10.000000Z");
        let said = check(&RULE, &[&node("worker-1", lost), &renewed]);
        said.finds(&[
            "error Node worker-1: Node worker-1 has been not ready for 5s: its kubelet stopped reporting 50s ago",
        ]);
        let evidence: Vec<&str> = said.finding().evidence.iter().map(|evidence| evidence.text.as_str()).collect();
        assert!(evidence.contains(&"node lease was last renewed at 2026-11-21T11:59:10Z"), "{evidence:?}");
    }

    /// A kubelet that comes back reports `False` for some seconds, while the effects of the loss still last.
    #[test]
    fn fires_while_recovering_from_a_loss() {
        let back = "status: 'False', message: container runtime is down, lastTransitionTime: '2026-11-21T11:59:55Z'";
        let pressure = |status: &str, at: &str| {
            let condition = format!("MemoryPressure, status: {status}, lastTransitionTime: '{at}'");
            node("worker-1", back).replace("MemoryPressure, status: Unknown", &condition)
        };
        for recovering in [pressure("Unknown", "2026-11-21T11:50:00Z"), pressure("'False'", "2026-11-21T11:59:54Z")] {
            check(&RULE, &[&recovering])
                .finds(&["error Node worker-1: Node worker-1 has been not ready for 5s: container runtime is down"]);
        }
        check(&RULE, &[&pressure("'False'", "2026-11-01T00:00:00Z")]).finds_nothing();
    }

    #[test]
    fn fires_with_the_certificate_that_a_returned_kubelet_waits_for() {
        let lost = "status: Unknown, reason: NodeStatusUnknown, lastHeartbeatTime: '2026-11-01T11:00:00Z',
            lastTransitionTime: '2026-11-01T11:01:00Z'";
        let request = |created: &str| {
            format!(
                "{{apiVersion: certificates.k8s.io/v1, kind: CertificateSigningRequest, metadata: {{name: csr-x,
                creationTimestamp: '{created}'}}, spec: {{username: 'system:node:worker-1',
                signerName: kubernetes.io/kube-apiserver-client-kubelet}}}}"
            )
        };
        let said = check(&RULE, &[&node("worker-1", lost), &request("2026-11-21T11:00:00Z")]);
        said.finds(&[
            "error Node worker-1: Node worker-1 has been not ready for 20d: its kubelet stopped reporting 20d ago, it now \
             waits for the approval of its client certificate (CertificateSigningRequest csr-x)",
        ]);
        assert!(!said.text().contains("delete the Node"));
        let before = check(&RULE, &[&node("worker-1", lost), &request("2026-11-01T10:00:00Z")]);
        assert!(before.text().contains("delete the Node"));
    }

    #[test]
    fn fires_with_the_kubelets_message() {
        let down = "status: 'False', reason: KubeletNotReady, message: container runtime is down,
            lastTransitionTime: '2026-11-21T11:00:00Z'";
        let expected = "error Node worker-1: Node worker-1 has been not ready for 60m: container runtime is down";
        TestCluster::new(&[&node("worker-1", down)])
            .forbid(Kind::Pod)
            .forbid(Kind::Lease)
            .check(&RULE)
            .finds(&[expected]);
        check(&RULE, &[&node("worker-1", "status: 'False'")])
            .finds(&["error Node worker-1: Node worker-1 is not ready: no reason given"]);
    }

    #[test]
    fn quiet_in_the_first_minute_and_on_a_new_node() {
        let restarting = "status: 'False', lastTransitionTime: '2026-11-21T11:59:30Z'";
        let otherwise_healthy =
            node("worker-1", restarting).replace("Pressure, status: Unknown", "Pressure, status: 'False'");
        check(&RULE, &[&otherwise_healthy]).finds_nothing();
        let new = node("worker-1", "status: 'False'").replace("2026-11-01T00:00:00Z", "2026-11-21T11:58:30Z");
        check(&RULE, &[&new]).finds_nothing();
    }

    const READY: &str = "status: 'True', reason: KubeletReady, lastHeartbeatTime: '2026-11-21T11:30:00Z'";

    #[test]
    fn fires_when_a_ready_node_lost_its_lease() {
        let documents = [
            node("worker-1", READY),
            lease("kube-node-lease", "worker-1", "2026-11-21T11:30:00.000000Z"),
            lease("kube-system", "apiserver-x", "2026-11-21T11:59:55.000000Z"),
        ];
        check(&RULE, &documents.each_ref().map(String::as_str)).finds(&[
            "error Node worker-1: Node worker-1 is marked ready, but its kubelet has not renewed its lease for 30m",
        ]);
    }

    #[test]
    fn quiet_when_no_lease_is_fresh_or_the_status_is() {
        let stale = lease("kube-node-lease", "worker-1", "2026-11-21T11:30:00.000000Z");
        let alive = lease("kube-system", "apiserver-x", "2026-11-21T11:59:55.000000Z");
        check(&RULE, &[&node("worker-1", READY), &stale]).finds_nothing();
        check(&RULE, &[&node("worker-1", READY), &alive]).finds_nothing();
        let reporting = READY.replace("11:30", "11:58");
        check(&RULE, &[&node("worker-1", &reporting), &stale, &alive]).finds_nothing();
        check(&RULE, &["{apiVersion: v1, kind: Node, metadata: {name: worker-1}}"]).finds_nothing();
    }

    #[test]
    fn fires_with_the_taint_that_releases_evicted_pods() {
        let lost = node("worker-1", "status: Unknown, lastTransitionTime: '2026-11-21T11:41:00Z'");
        let evicted = POD.replace("namespace: shop", "namespace: shop, deletionTimestamp: '2026-11-21T11:46:00Z'");
        let taint = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute";
        assert!(check(&RULE, &[&lost, &evicted]).text().contains(taint));
        assert!(!check(&RULE, &[&lost, POD]).text().contains(taint));
        let marked = lost.replace("status: {", "spec: {taints: [{key: node.kubernetes.io/out-of-service}]}, status: {");
        assert!(!check(&RULE, &[&marked, &evicted]).text().contains(taint));
    }
}
