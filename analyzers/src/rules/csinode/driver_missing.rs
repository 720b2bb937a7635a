use std::collections::BTreeMap;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::nodes::kubelet::KubeletExt;
use crate::kubernetes::scheduling::node_affinity::pinned_to;
use crate::kubernetes::storage::csi::{CsiExt, CsiWorkload, Sidecar};
use crate::kubernetes::storage::{bound_volume, driver_of};
use crate::kubernetes::time::{PROVISION, START, age};
use crate::snapshot::model::{CSINode, Node, Pod};
use crate::snapshot::{Cluster, Kind, Lookup, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::list;

declare_rule! {
    /// ## What it checks
    ///
    /// That the CSI drivers of the volumes that pods on a node are waiting for are registered on that node, in
    /// `spec.drivers` of its CSINode. If one is not, the rule finds the DaemonSet of the driver and reports why it does
    /// not serve the node: its pod there is pending or not ready, or the DaemonSet excludes the node.
    ///
    /// ## Why it matters
    ///
    /// The kubelet cannot mount a volume of a driver that is not registered, and external-attacher cannot attach it. The
    /// pods stay in `ContainerCreating`.
    ///
    /// ## How to confirm
    ///
    /// `kubectl get csinode NODE -o yaml` lists the registered drivers, and `kubectl get pods -A -o wide
    /// --field-selector spec.nodeName=NODE` the node plugins.
    ///
    /// ## How to fix
    ///
    /// Make the driver's node plugin run on the node: give its pods the priority `system-node-critical`, so that they are
    /// never without room, add a toleration, or fix what stops them. If the node is not meant to have the driver, keep
    /// pods that need its volumes off the node.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for nodes on which no pod is waiting for a volume of the driver (such as Fargate nodes), in
    /// the first two minutes of a pod and the first five minutes of a node, and for nodes that are not ready.
    "csinode/driver-missing": Error,
    "a CSI driver is not registered on a node whose pods need it",
    needs: [Pod, CSINode],
    optional: [
        Node, PersistentVolumeClaim, PersistentVolume, DaemonSet, CSIDriver, StorageClass, Lease, Deployment, StatefulSet,
    ],
    explained_by: ["pod/*", "workload/*", "daemonset/*", "node/*"],
}

fn check(cluster: &Cluster, report: &mut Report) {
    let mut missing: BTreeMap<(&str, &str), Vec<&Pod>> = BTreeMap::new();
    for pod in cluster.all::<Pod>().iter().filter(|pod| pod.is_active() && pod.is_being_created()) {
        let node = pod.spec.node_name.as_str();
        if pod.scheduled_at().is_some_and(|since| age(cluster.now(), since) < START) || !is_settled(cluster, node) {
            continue;
        }
        for driver in drivers_of(cluster, pod).into_iter().filter(|driver| lacks(cluster, node, driver)) {
            missing.entry((node, driver)).or_default().push(pod);
        }
    }
    for ((node, driver), pods) in missing {
        if plugin_for(cluster, driver, node).is_some() || pods.iter().any(|pod| is_reported(cluster, pod, driver)) {
            report.add(finding(cluster, node, driver, &pods));
        }
    }
}

/// Whether an event of a pod reports that the driver is not registered. If its DaemonSet is not known, the driver may
/// be one that does not register.
fn is_reported(cluster: &Cluster, pod: &Pod, driver: &str) -> bool {
    let says = |text: &str| {
        let is_missing = ["list of registered CSI drivers", "does not contain driver"].iter().any(|m| text.contains(m));
        is_missing && text.contains(driver)
    };
    cluster.events(&pod.reference()).iter().any(|event| says(&event.message))
}

/// Whether a node has had time to register its drivers, and can.
fn is_settled(cluster: &Cluster, node: &str) -> bool {
    cluster.get::<Node>("", node).found().is_none_or(|node| {
        let is_new = node.created().is_some_and(|created| age(cluster.now(), created) < PROVISION);
        !is_new && cluster.down(node).is_none()
    })
}

fn drivers_of<'a>(cluster: &'a Cluster, pod: &'a Pod) -> Vec<&'a str> {
    let mut drivers: Vec<&str> = Vec::new();
    for volume in &pod.spec.volumes {
        let inline = volume.csi.as_ref().map(|csi| csi.driver.as_str()).filter(|driver| !driver.is_empty());
        drivers.extend(inline.or_else(|| bound_volume(cluster, pod, volume).and_then(driver_of)));
    }
    drivers.sort_unstable();
    drivers.dedup();
    drivers
}

fn lacks(cluster: &Cluster, node: &str, driver: &str) -> bool {
    match cluster.get::<CSINode>("", node) {
        Lookup::Found(found) => !found.spec.drivers.iter().any(|known| known.name == driver),
        Lookup::Missing => cluster.get::<Node>("", node).found().is_some(),
        Lookup::Unknown => false,
    }
}

fn finding(cluster: &Cluster, node: &str, driver: &str, pods: &[&Pod]) -> Finding {
    let object = ObjectRef::new(Kind::CSINode, "", node);
    let (why, plugin) = match plugin_for(cluster, driver, node) {
        Some((plugin, pod)) => (why(plugin, pod), Some((plugin, pod))),
        None => ("no DaemonSet that runs it was found".to_string(), None),
    };
    let message = format!("CSI driver {driver} is not registered on node {node}: {why}");
    let mut finding = Finding::error(object.clone(), message)
        .key(driver)
        .pods(pods.len())
        .because(ObjectRef::new(Kind::Node, "", node))
        .evidence(registered(cluster, node), &object, "spec.drivers");
    if let Some(pod) = pods.first() {
        finding = finding.since(pod.scheduled_at()).evidence(
            format!("a pod on the node waits for a volume of {driver}"),
            &pod.reference(),
            "spec.volumes",
        );
    }
    match plugin {
        Some((plugin, pod)) => fix(finding.because(plugin.object.clone()), plugin, pod, node),
        None => finding.fix_command(
            "Run the node plugin of the driver on the node, or keep the pods off it",
            kubectl(["get", "daemonsets", "-A"]),
        ),
    }
}

/// The DaemonSet of a driver that is meant for a node, and its pod there.
fn plugin_for<'a>(cluster: &'a Cluster, driver: &str, node: &str) -> Option<(&'a CsiWorkload, Option<&'a Pod>)> {
    let plugins = cluster.csi().node_plugins(driver);
    let pod_of = |plugin: &CsiWorkload| {
        let group = cluster.group_of_owner(&plugin.object)?;
        cluster.pods_of(group).find(|pod| {
            !pod.is_finished()
                && (pod.spec.node_name == node || pod.spec.node_name.is_empty() && pinned_to(&pod.spec) == Some(node))
        })
    };
    let here = plugins.iter().find_map(|plugin| Some((*plugin, Some(pod_of(plugin)?))));
    here.or_else(|| plugins.first().map(|plugin| (*plugin, None)))
}

/// Why a node plugin does not serve a node.
fn why(plugin: &CsiWorkload, pod: Option<&Pod>) -> String {
    let title = plugin.object.title();
    match pod {
        None => format!("{title} has no pod there"),
        Some(pod) if pod.spec.node_name.is_empty() => format!("the pod of {title} for it is not scheduled"),
        Some(pod) if pod.is_terminating() => format!("the pod of {title} there is terminating"),
        Some(pod) if !pod.is_ready() => format!("the pod of {title} there is not ready"),
        Some(_) => format!("the pod of {title} there is ready, but has not registered it"),
    }
}

fn registered(cluster: &Cluster, node: &str) -> String {
    match cluster.get::<CSINode>("", node).found() {
        None => format!("CSINode {node} does not exist"),
        Some(found) if found.spec.drivers.is_empty() => format!("CSINode {node} lists no drivers"),
        Some(found) => {
            let names: Vec<&str> = found.spec.drivers.iter().map(|driver| driver.name.as_str()).collect();
            format!("CSINode {node} lists only {}", list(&names, 5))
        }
    }
}

fn fix(finding: Finding, plugin: &CsiWorkload, pod: Option<&Pod>, node: &str) -> Finding {
    let (object, namespace) = (&plugin.object, plugin.object.namespace());
    match pod {
        None => finding.fix_command(
            format!("Make {} select and tolerate node {node}, or keep the waiting pods off the node", object.title()),
            kubectl(["describe", "node", node]),
        ),
        Some(pod) if !pod.is_ready() => finding.fix_command(
            format!("Make the pod of {} for node {node} run", object.title()),
            kubectl(["-n", namespace, "describe", "pod", pod.name()]),
        ),
        Some(pod) => {
            let container = plugin.container(Sidecar::Registrar);
            let command = ["-n", namespace, "logs", pod.name()].into_iter();
            let command = kubectl(command.chain(container.into_iter().flat_map(|container| ["-c", container])));
            finding.fix_command("Check why the node plugin does not register at the kubelet", command)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::{Findings, TestCluster, check};

    const POD: &str = "
        apiVersion: v1
        kind: Pod
        metadata: {name: db, namespace: shop, creationTimestamp: '2026-11-21T11:50:00Z'}
        spec: {nodeName: w1, containers: [{name: app}], volumes: [{name: d, persistentVolumeClaim: {claimName: disk}}]}
        status: {phase: Pending}
---
        {apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: disk, namespace: shop}, spec: {volumeName: pv-7}}
---
        {apiVersion: v1, kind: PersistentVolume, metadata: {name: pv-7}, spec: {csi: {driver: disk.x.io, volumeHandle: a}}}
---
        {apiVersion: storage.k8s.io/v1, kind: CSIDriver, metadata: {name: disk.x.io}, spec: {}}";
    const DAEMON_SET: &str = "{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: disk-node, namespace: disk}, spec: \
        {template: {spec: {containers: [{name: node-driver-registrar}]}}}}";

    fn node(drivers: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: w1}}, status: {{conditions: [{{type: Ready, status: 'True'}}]}}}}\n---\n\
             {{apiVersion: storage.k8s.io/v1, kind: CSINode, metadata: {{name: w1}}, spec: {{drivers: [{drivers}]}}}}"
        )
    }

    fn plugin(spec: &str, ready: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: disk-node-x, namespace: disk, ownerReferences: [{{apiVersion: \
             apps/v1, kind: DaemonSet, name: disk-node, controller: true}}]}}, spec: {{{spec}}}, status: {{conditions: \
             [{{type: Ready, status: '{ready}'}}]}}}}"
        )
    }

    fn said(plugin: &str) -> Findings {
        check(&RULE, &[POD, &node(""), DAEMON_SET, plugin])
    }

    const PINNED: &str = "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: \
        [{matchFields: [{key: metadata.name, operator: In, values: [w1]}]}]}}}";
    const FOUND: &str = "error CSINode w1: CSI driver disk.x.io is not registered on node w1:";

    #[test]
    fn fires_because_of_the_daemon_set() {
        let said = said(&plugin(PINNED, "False"));
        said.finds(&[&format!("{FOUND} the pod of DaemonSet disk-node for it is not scheduled")]);
        assert!(said.finding().because.iter().any(|object| object.to_string() == "DaemonSet disk/disk-node"));
    }

    #[test]
    fn fires_when_the_plugin_is_elsewhere_or_not_ready_or_silent() {
        said(&plugin("nodeName: w2", "True")).finds(&[&format!("{FOUND} DaemonSet disk-node has no pod there")]);
        said(&plugin("nodeName: w1", "False"))
            .finds(&[&format!("{FOUND} the pod of DaemonSet disk-node there is not ready")]);
        said(&plugin("nodeName: w1", "True"))
            .finds(&[&format!("{FOUND} the pod of DaemonSet disk-node there is ready, but has not registered it")]);
    }

    #[test]
    fn fires_without_a_daemon_set_if_an_event_reports_it() {
        let event = |message: &str| {
            format!(
                "{{apiVersion: v1, kind: Event, metadata: {{name: e, namespace: shop}}, type: Warning, reason: FailedMount, \
                 message: '{message}', lastTimestamp: '2026-11-21T11:59:00Z', involvedObject: {{kind: Pod, namespace: shop, \
                 name: db}}}}"
            )
        };
        let reported = event("driver name disk.x.io not found in the list of registered CSI drivers");
        check(&RULE, &[POD, &node(""), &reported]).finds(&[&format!("{FOUND} no DaemonSet that runs it was found")]);
        check(&RULE, &[POD, &node(""), &event("Multi-Attach error")]).finds_nothing();
    }

    #[test]
    fn quiet_when_registered_and_in_the_first_minutes() {
        check(&RULE, &[POD, &node("{name: disk.x.io, nodeID: w1}"), DAEMON_SET]).finds_nothing();
        TestCluster::new(&[POD, &node(""), DAEMON_SET]).now("2026-11-21T11:51:00Z").check(&RULE).finds_nothing();
    }

    #[test]
    fn quiet_when_no_pod_waits_for_the_driver() {
        let running = POD.replace("phase: Pending", "phase: Running");
        check(&RULE, &[&running, &node(""), DAEMON_SET]).finds_nothing();
    }
}
