use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::network::cloud;
use crate::kubernetes::nodes::node_agents::{network_plugin_on, reported_on};
use crate::kubernetes::time::{PROVISION, START, age};
use crate::snapshot::model::{Event, Pod};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::shorten;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for pods whose sandbox cannot be created by the node (`FailedCreatePodSandBox` and `NetworkNotReady`).
    /// The sandbox provides the namespaces in which the containers run. The usual cause is a failing network plugin;
    /// the finding quotes its error.
    ///
    /// ## Why it matters
    ///
    /// No container of the pod starts. The pod stays in `ContainerCreating`, and so do most new pods on that node.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe pod POD` shows the event. `kubectl describe node NODE` shows whether the network
    /// is ready. The log of the network plugin's pod on that node has more detail.
    ///
    /// ## How to fix
    ///
    /// Fix the network plugin on the node (its DaemonSet, its configuration in `/etc/cni/net.d`). If IP addresses are
    /// exhausted, enlarge the address range of the node or subnet, or run fewer pods. Where the plugin reports missing
    /// permissions in its cloud, grant those instead. A RuntimeClass requires its
    /// handler to be configured in the node's container runtime.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire in the first two minutes after the pod was scheduled, or once any container has started.
    "pod/sandbox": Error,
    "a node cannot create the sandbox or network of a pod",
    needs: [Pod, Event],
    optional: [Node],
    explained_by: ["node/not-ready", "node/pressure", "pod/init-stuck", "pod/crash-loop", "pod/not-ready", "pod/image-pull", "pod/cannot-start", "pod/missing-reference", "pod/oom-killed", "workload/unavailable", "node/pod-addresses", "workload/cloud-permissions"],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for group in cluster.pod_groups() {
        let waiting: Vec<(&Pod, &Event)> = cluster
            .pods_of(group)
            .filter(|pod| pod.is_active() && pod.is_being_created())
            .filter(|pod| pod.scheduled_at().is_none_or(|since| age(cluster.now(), since) >= START))
            .filter_map(|pod| Some((pod, newest(cluster, pod)?)))
            .collect();
        if let Some((pod, event)) = waiting.first() {
            report.add(finding(cluster, &group.owner, pod, event, waiting.len()));
        }
    }
}

fn newest<'a>(cluster: &'a Cluster, pod: &Pod) -> Option<&'a Event> {
    let events = cluster.events(&pod.reference());
    events.into_iter().find(|event| {
        let uid = &event.involved_object.uid;
        matches!(event.reason.as_str(), "FailedCreatePodSandBox" | "NetworkNotReady")
            && (uid.is_empty() || pod.metadata.uid.is_empty() || *uid == pod.metadata.uid)
            && event.last_seen().is_none_or(|seen| age(cluster.now(), seen) < PROVISION)
    })
}

fn finding(cluster: &Cluster, owner: &ObjectRef, pod: &Pod, event: &Event, pods: usize) -> Finding {
    let (namespace, name, node) = (&pod.metadata.namespace, &pod.metadata.name, &pod.spec.node_name);
    let trouble = Trouble::of(&event.message);
    let why = match trouble {
        Trouble::Addresses => format!("node {node} has no free pod IP address ({})", core(&event.message)),
        Trouble::Runtime => format!("node {node} has no handler for the pod's RuntimeClass ({})", core(&event.message)),
        Trouble::Network => format!("network plugin of node {node} failed: {}", core(&event.message)),
        Trouble::Other => format!("node {node} cannot create the pod sandbox: {}", core(&event.message)),
    };
    let finding = Finding::error(owner.clone(), format!("{} {} cannot start: {why}", owner.kind, owner.name))
        .pods(pods)
        .since(pod.scheduled_at())
        .evidence(format!("{}: {}", event.reason, shorten(&event.message, 400)), &pod.reference(), "")
        .because(ObjectRef::new(Kind::Node, "", node))
        .caused_elsewhere();
    let denied = cloud::denied_on_node(cluster, node);
    let finding = denied.iter().cloned().fold(finding, Finding::because);
    match trouble {
        Trouble::Addresses | Trouble::Network if denied.is_some() => finding.fix_command(
            "Give the network plugin the permission that its event names; it cannot get addresses without it",
            kubectl(["get", "events", "-A", "--field-selector", "reason=MissingIAMPermissions"]),
        ),
        Trouble::Addresses => {
            finding.fix("Enlarge the pod address range of the node or subnet, or run fewer pods on the node")
        }
        Trouble::Runtime => finding.fix_command(
            "Configure the handler in the node's container runtime, or exclude the node with a nodeSelector",
            kubectl(["get", "runtimeclasses"]),
        ),
        Trouble::Network => network_plugin_on(cluster, node)
            .into_iter()
            .filter(|plugin| !plugin.is_ready())
            .fold(finding, |finding, plugin| {
                let text = format!("{} of the network plugin is not ready on node {node}", plugin.reference());
                finding
                    .evidence(text, &plugin.reference(), "status.conditions[Ready]")
                    .because(reported_on(cluster, plugin))
            })
            .fix_command(
                "Check the network plugin's pod on the node and its logs",
                kubectl(["get", "pods", "-A", "-o", "wide", "--field-selector", &format!("spec.nodeName={node}")]),
            ),
        Trouble::Other => finding.fix_command(
            "Check the pod's events and the log of the node's container runtime",
            kubectl(["-n", namespace, "describe", "pod", name]),
        ),
    }
}

#[derive(Clone, Copy)]
enum Trouble {
    Addresses,
    Runtime,
    Network,
    Other,
}

impl Trouble {
    fn of(message: &str) -> Trouble {
        let text = message.to_lowercase();
        let has_any = |words: &[&str]| words.iter().any(|word| text.contains(word));
        let no_address = [
            "no ip addresses available",
            "failed to assign an ip address",
            "no available ip",
            "no more ip",
            "no free ip",
            "insufficientfreeaddresses",
            "ip pool exhausted",
            "no addresses available",
            "range is full",
            "exhausted",
        ];
        if has_any(&no_address) {
            Trouble::Addresses
        } else if has_any(&["no runtime for", "runtime handler", "runtimeclass"]) {
            Trouble::Runtime
        } else if has_any(&["network", "cni"]) {
            Trouble::Network
        } else {
            Trouble::Other
        }
    }
}

/// The plugin's error, without the wrapping of other layers and the sandbox id.
fn core(message: &str) -> String {
    const LAYERS: [&str; 6] = [
        "(combined from similar events): ",
        "Failed to create pod sandbox: ",
        "failed to create pod sandbox: ",
        "network is not ready: ",
        "container runtime network not ready: ",
        "rpc error: ",
    ];
    let mut rest = message.trim();
    loop {
        let before = rest;
        for layer in LAYERS {
            rest = rest.strip_prefix(layer).unwrap_or(rest);
        }
        if let Some(desc) = rest.strip_prefix("code = ").and_then(|rpc| rpc.split_once("desc = ")) {
            rest = desc.1;
        }
        // failed to setup network for sandbox "0123…": plugin type="calico" failed (add): …
        if rest.starts_with("failed to ") || rest.starts_with("plugin type=") {
            let tail = rest.split_once("\": ").or(rest.split_once("(add): ")).map(|(_, tail)| tail);
            rest = tail.unwrap_or(rest);
        }
        if rest == before {
            return shorten(rest.lines().next().unwrap_or(rest), 200);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    const POD: &str = "
        apiVersion: v1
        kind: Pod
        metadata: {name: web, namespace: shop, creationTimestamp: '2026-11-21T11:50:00Z'}
        spec: {nodeName: w1, containers: [{name: app}]}
        status: {phase: Pending, containerStatuses: [{name: app, state: {waiting: {reason: ContainerCreating}}}]}";

    fn event(reason: &str, message: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: Event
            metadata: {{name: e, namespace: shop}}
            type: Warning
            reason: {reason}
            message: '{message}'
            lastTimestamp: '2026-11-21T11:59:00Z'
            involvedObject: {{kind: Pod, namespace: shop, name: web}}"
        )
    }

    fn sandbox(words: &str) -> String {
        let message = format!(
            "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox \"0af\": \
             plugin type=\"calico\" failed (add): {words}"
        );
        event("FailedCreatePodSandBox", &message)
    }

    #[test]
    fn fires_with_the_plugins_error() {
        check(&RULE, &[POD, &sandbox("stat /var/lib/calico/nodename: no such file or directory")]).finds(&[
            "error Pod \
            shop/web: Pod web cannot start: network plugin of node w1 failed: stat /var/lib/calico/nodename: no such \
            file or directory",
        ]);
        check(&RULE, &[POD, &sandbox("failed to allocate for range 0: no IP addresses available in range set")]).finds(
            &["error Pod shop/web: Pod web cannot start: node w1 has no free pod IP address (failed to allocate for \
             range 0: no IP addresses available in range set)"],
        );
        let plugin = "network is not ready: container runtime network not ready: NetworkReady=false \
            reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized";
        check(&RULE, &[POD, &event("NetworkNotReady", plugin)]).finds(&["error Pod shop/web: Pod web cannot start: \
            network plugin of node w1 failed: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin \
            returns error: cni plugin not initialized"]);
    }

    #[test]
    fn quiet_when_the_pod_has_started_or_is_young() {
        let running = POD.replace("waiting: {reason: ContainerCreating}", "running: {}").replace("Pending", "Running");
        check(&RULE, &[&running, &sandbox("x")]).finds_nothing();
        TestCluster::new(&[POD, &sandbox("x")]).now("2026-11-21T11:51:00Z").check(&RULE).finds_nothing();
    }

    #[test]
    fn quiet_and_not_evaluated_when_events_are_forbidden() {
        let said = TestCluster::new(&[POD]).forbid(Kind::Event).check(&RULE);
        said.finds_nothing();
        assert_eq!(said.gaps(), ["Event forbidden"]);
    }
}
