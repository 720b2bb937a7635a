use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::time::{PROVISION, START, age};
use crate::snapshot::model::{Event, Pod};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::shorten;

declare_rule! {
    /// ## What it checks
    ///
    /// Pods for which the node cannot make a sandbox, the frame in which containers run: `FailedCreatePodSandBox` and
    /// `NetworkNotReady`. Most often the network plugin fails; it says what the plugin said.
    ///
    /// ## Why it matters
    ///
    /// No container of the pod starts. It stays in `ContainerCreating`, and so do most new pods of that node.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe pod POD` shows the event; `kubectl describe node NODE` shows whether the network is
    /// ready; the log of the network plugin's pod on that node says more.
    ///
    /// ## How to fix
    ///
    /// Repair the network plugin on the node (its DaemonSet, its configuration in `/etc/cni/net.d`). Where addresses are exhausted,
    /// enlarge the node's or the subnet's range, or lower the number of pods. A RuntimeClass needs its handler in the
    /// node's container runtime.
    ///
    /// ## Exceptions
    ///
    /// In the first two minutes on the node, and once any container has started.
    "pod/sandbox": Error,
    "a node cannot make the sandbox or network of a pod",
    needs: [Pod, Event],
    optional: [],
    explained_by: ["node/not-ready", "node/pressure"],
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
            report.add(finding(&group.owner, pod, event, waiting.len()));
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

fn finding(owner: &ObjectRef, pod: &Pod, event: &Event, pods: usize) -> Finding {
    let (namespace, name, node) = (&pod.metadata.namespace, &pod.metadata.name, &pod.spec.node_name);
    let trouble = Trouble::of(&event.message);
    let why = match trouble {
        Trouble::Addresses => format!("node {node} has no pod address left ({})", core(&event.message)),
        Trouble::Runtime => format!("node {node} has no handler for its RuntimeClass ({})", core(&event.message)),
        Trouble::Network => format!("the network plugin of node {node} fails: {}", core(&event.message)),
        Trouble::Other => format!("node {node} cannot make its sandbox: {}", core(&event.message)),
    };
    let finding = Finding::error(owner.clone(), format!("{} {} cannot start: {why}", owner.kind, owner.name))
        .pods(pods)
        .since(pod.scheduled_at())
        .evidence(format!("{}: {}", event.reason, shorten(&event.message, 400)), &pod.reference(), "")
        .because(ObjectRef::new(Kind::Node, "", node));
    match trouble {
        Trouble::Addresses => {
            finding.fix("Enlarge the range of pod addresses of the node or subnet, or run fewer pods there")
        }
        Trouble::Runtime => finding.fix_command(
            "Configure the handler in the node's container runtime, or keep the pods off that node",
            kubectl(["get", "runtimeclasses"]),
        ),
        Trouble::Network => finding.fix_command(
            "Look at the network plugin's pod on the node, and its log",
            kubectl(["get", "pods", "-A", "-o", "wide", "--field-selector", &format!("spec.nodeName={node}")]),
        ),
        Trouble::Other => finding.fix_command(
            "Read the events, and the log of the node's container runtime",
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
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
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
        if says(&no_address) {
            Trouble::Addresses
        } else if says(&["no runtime for", "runtime handler", "runtimeclass"]) {
            Trouble::Runtime
        } else if says(&["network", "cni"]) {
            Trouble::Network
        } else {
            Trouble::Other
        }
    }
}

/// The plugin's own words, without the layers and the sandbox's id.
fn core(message: &str) -> String {
    const LAYERS: [&str; 5] = [
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
    use crate::testing::{World, check};

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
    fn fires_with_the_plugins_words() {
        check(&RULE, &[POD, &sandbox("stat /var/lib/calico/nodename: no such file or directory")]).finds(&["error Pod \
            shop/web: Pod web cannot start: the network plugin of node w1 fails: stat /var/lib/calico/nodename: no such \
            file or directory"]);
        check(&RULE, &[POD, &sandbox("failed to allocate for range 0: no IP addresses available in range set")]).finds(&[
            "error Pod shop/web: Pod web cannot start: node w1 has no pod address left (failed to allocate for range 0: no IP \
             addresses available in range set)",
        ]);
        let plugin = "network is not ready: container runtime network not ready: NetworkReady=false \
            reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized";
        check(&RULE, &[POD, &event("NetworkNotReady", plugin)]).finds(&[
            "error Pod shop/web: Pod web cannot start: the \
            network plugin of node w1 fails: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin \
            returns error: cni plugin not initialized",
        ]);
    }

    #[test]
    fn quiet_when_it_started_since_or_is_young() {
        let running = POD.replace("waiting: {reason: ContainerCreating}", "running: {}").replace("Pending", "Running");
        check(&RULE, &[&running, &sandbox("x")]).finds_nothing();
        World::new(&[POD, &sandbox("x")]).now("2026-11-21T11:51:00Z").check(&RULE).finds_nothing();
    }

    #[test]
    fn quiet_and_not_evaluated_when_events_are_forbidden() {
        let said = World::new(&[POD]).forbid(Kind::Event).check(&RULE);
        said.finds_nothing();
        assert_eq!(said.gaps(), ["Event forbidden"]);
    }
}
