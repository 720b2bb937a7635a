use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::nodes::agents::{device_plugins, is_extended, unhealthy_devices};
use crate::kubernetes::time::{START, age};
use crate::snapshot::model::{Node, Pod};
use crate::snapshot::{Amount, Cluster, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::shorten;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for nodes with unhealthy devices: the kubelet counts all devices that a device plugin reports in
    /// `status.capacity`, but only healthy ones in `status.allocatable`.
    ///
    /// ## Why it matters
    ///
    /// No pod gets an unhealthy device. A pod that requests all devices of the node is never scheduled. If no device is
    /// allocatable, either all are unhealthy or the device plugin on the node has stopped.
    ///
    /// ## How to confirm
    ///
    /// `kubectl get node NODE -o yaml` shows both amounts. The log of the device plugin's pod on the node names the
    /// devices; for NVIDIA it contains the Xid error that marked them.
    ///
    /// ## How to fix
    ///
    /// Drain the node, then reset the device or reboot the machine. Replace the hardware if the error recurs. Then
    /// restart the device plugin's pod on the node: most plugins never mark a device healthy again by themselves.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire:
    ///
    /// - for nodes that are not ready or are less than two minutes old;
    /// - in the first two minutes of the device plugin's pod on the node, which registers its devices again;
    /// - for cpu, memory, hugepages and volumes, of which nodes reserve a part.
    "node/devices": Warning,
    "a node has unhealthy devices",
    needs: [Node],
    optional: [Pod, DaemonSet],
    explained_by: ["node/not-ready", "elsewhere:pod/*", "elsewhere:workload/*"],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for node in cluster.all::<Node>().iter().filter(|node| node.is_ready() && node.deleted().is_none()) {
        if node.created().is_some_and(|created| age(cluster.now(), created) < START) {
            continue;
        }
        for resource in node.status.capacity.keys().filter(|resource| is_extended(resource)) {
            let Some((capacity, allocatable)) = unhealthy_devices(node, resource) else { continue };
            let plugins = device_plugins(cluster, resource);
            let pods = pods_of(cluster, node, &plugins);
            if pods.iter().any(|pod| is_starting(cluster, pod)) {
                continue;
            }
            report.add(finding(cluster, node, resource, (capacity, allocatable), &plugins, &pods));
        }
    }
}

/// The pods of the device plugins on a node.
fn pods_of<'a>(cluster: &'a Cluster, node: &Node, plugins: &[ObjectRef]) -> Vec<&'a Pod> {
    let pods = cluster.pods_on_node(node.name()).into_iter();
    pods.filter(|pod| pod.is_active() && plugins.contains(&cluster.owner_of(pod))).collect()
}

fn is_starting(cluster: &Cluster, pod: &Pod) -> bool {
    let started = pod.container_statuses().filter_map(|status| status.state.running().and_then(|run| run.started_at));
    started.max().is_some_and(|started| age(cluster.now(), started) < START)
}

fn finding(
    cluster: &Cluster,
    node: &Node,
    resource: &str,
    (capacity, allocatable): (Amount, Amount),
    plugins: &[ObjectRef],
    pods: &[&Pod],
) -> Finding {
    let (object, name) = (node.reference(), node.name());
    let runs = pods.iter().any(|pod| pod.is_ready());
    let (all, healthy) = (capacity.text(resource), allocatable.text(resource));
    let message = if allocatable.is_zero() {
        format!(
            "Node {name} has {all} {resource}, but none is allocatable: all are unhealthy or the device plugin has stopped"
        )
    } else {
        format!("Node {name} has {all} {resource}, but only {healthy} are allocatable: the others are unhealthy")
    };
    let mut finding = Finding::warning(object.clone(), message)
        .key(resource)
        .evidence(format!("capacity {resource} is {all}"), &object, "status.capacity")
        .evidence(format!("allocatable {resource} is {healthy}"), &object, "status.allocatable");
    if let Some((pod, line)) = pods.iter().find_map(|pod| Some((pod, unhealthy_line(cluster, pod)?))) {
        finding = finding.evidence(format!("log of {}: {line}", pod.name()), &pod.reference(), "");
    }
    for plugin in plugins.iter().filter(|_| !runs) {
        finding = finding.because(plugin.clone());
    }
    let Some(pod) = pods.first() else {
        return finding.fix_command(
            "Check the device plugin on the node, and the devices on the machine (nvidia-smi, dmesg)",
            kubectl(["describe", "node", name]),
        );
    };
    finding
        .fix_command(
            "Find the devices and the error in the log of the device plugin",
            kubectl(["-n", pod.namespace(), "logs", pod.name()]),
        )
        .fix(
            "Drain the node, reset the device or reboot the machine (replace the hardware if the error recurs), and restart \
             the device plugin's pod",
        )
}

/// The last log line of a device plugin about an unhealthy device.
fn unhealthy_line(cluster: &Cluster, pod: &Pod) -> Option<String> {
    let words = ["unhealthy", "xid", "fallen off the bus", "ecc error"];
    let is_about = |line: &&String| {
        let line = line.to_lowercase();
        words.iter().any(|word| line.contains(word)) && !line.contains("ignoring")
    };
    let names = pod.spec.running_containers().map(|container| container.name.as_str());
    let logs = names.filter_map(|name| cluster.log(pod.namespace(), pod.name(), name));
    let mut lines: Vec<&String> = logs.flat_map(|log| &log.lines).filter(is_about).collect();
    let with_code = lines.iter().rposition(|line| line.to_lowercase().contains("xid"));
    let last = with_code.map(|n| lines.swap_remove(n)).or(lines.pop())?;
    Some(shorten(&crate::text::words::plain(last), 250))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::{TestCluster, check};

    fn node(capacity: &str, allocatable: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: gpu-1, creationTimestamp: '2026-11-01T00:00:00Z'}},
            status: {{capacity: {{cpu: '8', {capacity}}}, allocatable: {{cpu: '7', {allocatable}}},
            conditions: [{{type: Ready, status: 'True'}}]}}}}"
        )
    }

    const PLUGIN: &str = "
        apiVersion: apps/v1
        kind: DaemonSet
        metadata: {name: plugin, namespace: gpu}
        spec: {template: {spec: {containers: [{name: main, image: 'example.com/acme/device-plugin:1'}]}}}";

    fn pod(started: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: Pod
            metadata: {{name: plugin-x, namespace: gpu, uid: u, ownerReferences: [
              {{apiVersion: apps/v1, kind: DaemonSet, name: plugin, controller: true}}]}}
            spec: {{nodeName: gpu-1, containers: [{{name: main}}]}}
            status: {{phase: Running, conditions: [{{type: Ready, status: 'True'}}],
              containerStatuses: [{{name: main, ready: true, state: {{running: {{startedAt: '{started}'}}}}}}]}}"
        )
    }

    const SICK: &str = "warning Node gpu-1: Node gpu-1 has 8 acme.example/npu, but only 7 are allocatable: the others are \
                        unhealthy";

    #[test]
    fn fires_for_unhealthy_devices_with_the_line_of_the_plugin() {
        let node = node("acme.example/npu: '8'", "acme.example/npu: '7'");
        check(&RULE, &[&node]).finds(&[SICK]);
        let plugin = PLUGIN.replace("acme/", "acme-example/");
        let said = TestCluster::new(&[&node, &plugin, &pod("2026-11-20T12:00:00Z")])
            .log("gpu", "plugin-x", "main", &["starting", "device 3 marked unhealthy", "ready"])
            .check(&RULE);
        said.finds(&[SICK]);
        assert!(said.text().contains("device 3 marked unhealthy"), "{}", said.text());
    }

    #[test]
    fn fires_if_none_is_allocatable() {
        check(&RULE, &[&node("acme.example/npu: '8'", "acme.example/npu: '0'")]).finds(&[
            "warning Node gpu-1: Node gpu-1 has 8 acme.example/npu, but none is allocatable: all are unhealthy or the device \
             plugin has stopped",
        ]);
    }

    #[test]
    fn quiet_for_healthy_devices_reservations_and_starting_plugins() {
        check(&RULE, &[&node("acme.example/npu: '8'", "acme.example/npu: '8'")]).finds_nothing();
        check(&RULE, &[&node("hugepages-2Mi: 1Gi", "hugepages-2Mi: '0'")]).finds_nothing();
        let sick = node("acme.example/npu: '8'", "acme.example/npu: '7'");
        let plugin = PLUGIN.replace("acme/", "acme-example/");
        check(&RULE, &[&sick, &plugin, &pod("2026-11-21T11:59:00Z")]).finds_nothing();
        check(&RULE, &[&sick.replace("'True'", "'False'")]).finds_nothing();
    }
}
