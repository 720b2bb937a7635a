use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::nodes::pod_range::{PodRange, PodRangeExt};
use crate::snapshot::model::{Event, Node, Pod, Quantity};
use crate::snapshot::{Cluster, Object};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks whether all addresses of a node's pod range (`spec.ipam.podCIDRs` of its CiliumNode, or `spec.podCIDRs` of
    /// the Node) are in use, while the kubelet accepts more pods.
    ///
    /// ## Why it matters
    ///
    /// The scheduler counts pods (`allocatable.pods`), not addresses. It keeps placing pods on the node, and they stay in
    /// `ContainerCreating` without an address.
    ///
    /// ## How to confirm
    ///
    /// `kubectl get ciliumnode NODE -o yaml` or `kubectl get node NODE -o yaml` shows the range; `kubectl get pods -A -o
    /// wide --field-selector spec.nodeName=NODE` shows the addresses in use.
    ///
    /// ## How to fix
    ///
    /// The range of an existing node does not change. Set a larger range per node (for Cilium
    /// `cluster-pool-ipv4-mask-size`, else `--node-cidr-mask-size` of kube-controller-manager) and replace the node, add
    /// nodes, or lower `maxPods` of the kubelet to the number of addresses so that the scheduler uses other nodes.
    ///
    /// ## Exceptions
    ///
    /// The rule fires only while a pod of the node fails to get an address, and only if pods use the whole range.
    /// Addresses that were leaked are not counted.
    "node/pod-addresses": Error,
    "all addresses of a node's pod range are in use",
    needs: [Node, Pod, Event],
    optional: [],
    reads_custom: true,
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for node in cluster.all::<Node>() {
        let pods = cluster.pods_on_node(node.name());
        let is_created = |pod: &&&Pod| pod.is_active() && pod.is_being_created();
        let waiting: Vec<(&Pod, &Event)> =
            pods.iter().filter(is_created).filter_map(|pod| Some((*pod, without_address(cluster, pod)?))).collect();
        if waiting.is_empty() {
            continue;
        }
        let Some(range) = cluster.pod_range(node).filter(PodRange::is_full) else { continue };
        let accepted = accepted(node);
        if accepted.is_none_or(|accepted| accepted > range.capacity) {
            report.add(finding(node, &range, accepted, &waiting));
        }
    }
}

/// How many pods the kubelet accepts.
fn accepted(node: &Node) -> Option<usize> {
    let pods: &Quantity = node.status.allocatable.get("pods")?;
    pods.0.parse().ok()
}

/// The event of a pod whose sandbox gets no address from a range of the node.
fn without_address<'a>(cluster: &'a Cluster, pod: &Pod) -> Option<&'a Event> {
    const MESSAGES: [&str; 3] = ["range is full", "no ip addresses available in range", "no available ip addresses"];
    let is_full = |event: &&Event| {
        let message = event.message.to_lowercase();
        event.reason == "FailedCreatePodSandBox" && MESSAGES.iter().any(|text| message.contains(text))
    };
    cluster.events(&pod.reference()).into_iter().find(is_full)
}

fn finding(node: &Node, range: &PodRange, accepted: Option<usize>, waiting: &[(&Pod, &Event)]) -> Finding {
    let (name, object, ranges) = (node.name(), node.reference(), words::list(&range.ranges, 3));
    let accepts = accepted.map(|n| format!(", while its kubelet accepts {n} pods")).unwrap_or_default();
    let message = format!(
        "pod range {ranges} of Node {name} has only {} for pods, all in use{accepts}",
        words::count(range.capacity, "address")
    );
    let mut finding = Finding::error(object.clone(), message)
        .pods(waiting.len())
        .since(waiting.iter().filter_map(|(pod, _)| pod.scheduled_at()).min())
        .evidence(
            format!("the range is {ranges}; the network plugin itself uses {}", range.own),
            &range.source,
            range.path,
        );
    if let Some(accepted) = accepted {
        finding = finding.evidence(format!("allocatable.pods is {accepted}"), &object, "status.allocatable.pods");
    }
    if let Some((pod, event)) = waiting.first() {
        finding = finding.evidence(words::shorten(&event.message, 400), &pod.reference(), "");
    }
    let setting = if range.is_cilium {
        "cluster-pool-ipv4-mask-size of Cilium (ConfigMap cilium-config, Helm value \
             ipam.operator.clusterPoolIPv4MaskSize)"
    } else {
        "--node-cidr-mask-size of kube-controller-manager"
    };
    finding
        .fix(format!(
            "Add nodes, or lower maxPods of the kubelet on {name} to the pods that the range has addresses for, so that \
             the scheduler uses other nodes"
        ))
        .fix_command(
            format!("For a larger range per node, lower {setting}; only nodes that are created afterwards get it"),
            kubectl(["get", &range.source.kind.to_lowercase(), name, "-o", "yaml"]),
        )
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    const NODE: &str = "
apiVersion: v1
kind: Node
metadata: {name: w1}
status: {allocatable: {pods: '110'}}
---
apiVersion: cilium.io/v2
kind: CiliumNode
metadata: {name: w1}
spec:
  addresses: [{ip: 10.0.0.1, type: CiliumInternalIP}, {ip: 192.0.2.1, type: InternalIP}]
  health: {ipv4: 10.0.0.2}
  ipam: {podCIDRs: [10.0.0.0/29]}
---
apiVersion: v1
kind: Pod
metadata: {name: new, namespace: shop, creationTimestamp: '2026-11-21T11:50:00Z'}
spec: {nodeName: w1, containers: [{name: app}]}
status: {phase: Pending, containerStatuses: [{name: app, state: {waiting: {reason: ContainerCreating}}}]}
---
apiVersion: v1
kind: Event
metadata: {name: e, namespace: shop}
type: Warning
reason: FailedCreatePodSandBox
message: 'plugin type=\"cilium-cni\" failed (add): postIpamFailure \"range is full\"'
lastTimestamp: '2026-11-21T11:59:00Z'
involvedObject: {kind: Pod, namespace: shop, name: new}";

    fn pod(n: u32) -> String {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: p{n}, namespace: shop}}, spec: {{nodeName: w1, containers: \
             [{{name: app}}]}}, status: {{phase: Running, podIP: 10.0.0.{n}}}}}"
        )
    }

    #[test]
    fn fires_when_pods_use_the_whole_range() {
        let pods: Vec<String> = (3..7).map(pod).collect();
        let mut world: Vec<&str> = pods.iter().map(String::as_str).collect();
        world.push(NODE);
        check(&RULE, &world)
            .finds(&["error Node w1: pod range 10.0.0.0/29 of Node w1 has only 4 addresses for pods, all \
                                      in use, while its kubelet accepts 110 pods"]);
    }

    #[test]
    fn quiet_with_free_addresses_and_without_a_waiting_pod() {
        check(&RULE, &[NODE, &pod(3), &pod(4), &pod(5)]).finds_nothing();
        let pods: Vec<String> = (3..7).map(pod).collect();
        let other = NODE.replace("range is full", "agent is not ready");
        let mut world: Vec<&str> = pods.iter().map(String::as_str).collect();
        world.push(&other);
        check(&RULE, &world).finds_nothing();
    }
}
