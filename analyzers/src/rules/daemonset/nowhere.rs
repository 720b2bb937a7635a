use std::collections::BTreeSet;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::nodes::agents::is_cloud_controller;
use crate::kubernetes::scheduling::taints::Meaning;
use crate::kubernetes::scheduling::{node_affinity, taints};
use crate::kubernetes::time::{self, START};
use crate::snapshot::model::{DaemonSet, Meta, Node, Pod};
use crate::snapshot::{Cluster, Kind, Object};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for DaemonSets that match no node (`desiredNumberScheduled` is 0) although nodes exist: no node has the
    /// label in their `nodeSelector`, or every matching node has a taint that they do not tolerate.
    ///
    /// ## Why it matters
    ///
    /// The agent, driver or log collector does not run on any node, and its status does not show it: 0 of 0 pods counts
    /// as healthy.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get daemonset NAME` shows DESIRED 0. Compare its `nodeSelector` with
    /// `kubectl get nodes --show-labels` and its tolerations with the taints in `kubectl describe node`.
    ///
    /// ## How to fix
    ///
    /// Correct the selector, label the nodes, or add the toleration. A DaemonSet for a type of node that the cluster
    /// does not have yet needs no fix.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire:
    ///
    /// - for labels that are switches or optional node features: an empty value or one like `true`, or a label with a
    ///   domain (`kubernetes.io/os: windows`, accelerators, cloud providers), unless nodes have a label with the same
    ///   meaning (`control-plane: "true"` instead of `control-plane: ""`, or the label `master`), or wait for the DaemonSet
    ///   because it is their cloud controller manager;
    /// - for DaemonSets with node affinity;
    /// - in the first two minutes.
    "daemonset/nowhere": Warning,
    "a DaemonSet cannot be scheduled on any node",
    needs: [DaemonSet, Node],
    optional: [],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    let nodes = cluster.all::<Node>();
    if nodes.is_empty() || !cluster.covers_all(Kind::Node) {
        return;
    }
    for set in cluster.all::<DaemonSet>() {
        let status = &set.status;
        let has_no_pods = status.desired_number_scheduled == 0 && status.current_number_scheduled == 0;
        let observed = status.observed_generation > 0 && status.observed_generation >= set.metadata.generation;
        let old = set.created().is_some_and(|created| time::age(cluster.now(), created) >= START);
        if has_no_pods
            && observed
            && old
            && set.deleted().is_none()
            && let Some(finding) = judge(cluster, set)
        {
            report.add(finding);
        }
    }
}

fn judge(cluster: &Cluster, set: &DaemonSet) -> Option<Finding> {
    let nodes = cluster.all::<Node>();
    let template = &set.spec.template;
    let metadata = Meta { labels: template.metadata.labels.clone(), ..Meta::default() };
    let pod = Pod { metadata, spec: template.spec.clone().into(), ..Pod::default() };
    let allowed: Vec<&Node> = nodes.iter().filter(|node| node_affinity::admits(&pod, node)).collect();
    let object = set.reference();
    if allowed.is_empty() {
        if let Some((key, value, has)) = near_label(nodes, set) {
            return Some(near_miss(cluster, set, (key, value), &has));
        }
        let (key, value) = if is_missed(cluster, set) {
            set.spec.template.spec.node_selector.iter().find(|(key, value)| is_unmet(nodes, key, value))?
        } else {
            unmet_label(nodes, set)?
        };
        let has: BTreeSet<&str> = nodes.iter().filter_map(|node| node.metadata.labels.get(key)).collect();
        let has: Vec<&str> = has.into_iter().collect();
        let actual = if has.is_empty() {
            "no node has this label".to_string()
        } else {
            format!("nodes have {key}={}", words::list(&has, 3))
        };
        let message = format!("DaemonSet {} cannot be scheduled: nodeSelector is {key}={value}, {actual}", set.name());
        return Some(
            Finding::warning(object.clone(), message)
                .evidence(format!("nodeSelector is {key}={value}"), &object, "spec.template.spec.nodeSelector")
                .fix_command(
                    "Compare the selector with the labels of the nodes",
                    kubectl(["get", "nodes", "--show-labels"]),
                )
                .fix_command("Correct nodeSelector", kubectl(["-n", set.namespace(), "edit", "daemonset", set.name()])),
        );
    }
    // The DaemonSet controller adds tolerations for the taints of node conditions and cordons.
    let mut blocking: BTreeSet<String> = BTreeSet::new();
    for node in &allowed {
        let mut hard = taints::untolerated(&pod, node)
            .filter(|taint| taint.effect != "PreferNoSchedule" && !taint.key.starts_with("node.kubernetes.io/"));
        let taint = hard.next()?;
        blocking.insert(format!("{}:{}", taint.key, taint.effect));
    }
    let taints: Vec<&String> = blocking.iter().collect();
    let message = format!(
        "DaemonSet {} cannot be scheduled: it does not tolerate {} on {}",
        set.name(),
        words::list(&taints, 3),
        match allowed.len() {
            1 => "the only matching node".to_string(),
            n => format!("the {n} matching nodes"),
        }
    );
    Some(
        Finding::warning(object.clone(), message)
            .evidence("no toleration for these taints", &object, "spec.template.spec.tolerations")
            .fix_command("Add the toleration", kubectl(["-n", set.namespace(), "edit", "daemonset", set.name()])),
    )
}

/// Whether something waits for the DaemonSet: nodes have the taint that a cloud controller manager removes.
fn is_missed(cluster: &Cluster, set: &DaemonSet) -> bool {
    let is_waiting =
        |node: &Node| node.spec.taints.iter().any(|t| taints::meaning(&t.key, &t.value) == Meaning::Uninitialized);
    is_cloud_controller(set.name(), &set.spec.template.spec) && cluster.all::<Node>().iter().any(is_waiting)
}

fn is_unmet(nodes: &[Node], key: &str, value: &str) -> bool {
    nodes.iter().all(|node| node.metadata.labels.get(key) != Some(value))
}

/// The labels of control plane nodes: of current versions, of versions before 1.24, and of RKE.
const CONTROL_PLANE: [&str; 3] =
    ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master", "node-role.kubernetes.io/controlplane"];

/// Values that mean that a label is set.
const SET: [&str; 5] = ["", "true", "yes", "on", "enabled"];

/// An unmet label of the nodeSelector, and a label with the same meaning that nodes have instead: the same key with
/// another value that means that it is set (`""` and `true`), or another key for control plane nodes.
fn near_label<'a>(nodes: &[Node], set: &'a DaemonSet) -> Option<(&'a str, &'a str, String)> {
    let selector = set.spec.template.spec.node_selector.iter();
    let mut unmet = selector.filter(|(key, value)| is_unmet(nodes, key, value));
    let ((key, value), None) = (unmet.next()?, unmet.next()) else { return None };
    if !SET.contains(&value) {
        return None;
    }
    let keys: Vec<&str> =
        if CONTROL_PLANE.contains(&key) { std::iter::once(key).chain(CONTROL_PLANE).collect() } else { vec![key] };
    let found = keys.into_iter().find_map(|key| {
        let value = nodes.iter().filter_map(|node| node.metadata.labels.get(key)).find(|value| SET.contains(value))?;
        Some(format!("{key}={value}"))
    })?;
    Some((key, value, found))
}

fn near_miss(cluster: &Cluster, set: &DaemonSet, (key, value): (&str, &str), has: &str) -> Finding {
    let object = set.reference();
    let effect = if is_missed(cluster, set) { ", so no cloud controller manager initializes the nodes" } else { "" };
    let message = format!(
        "DaemonSet {} cannot be scheduled: nodeSelector is {key}={value}, nodes have {has}{effect}",
        set.name()
    );
    Finding::warning(object.clone(), message)
        .evidence(format!("nodeSelector is {key}={value}"), &object, "spec.template.spec.nodeSelector")
        .evidence(format!("no node matches, nodes have {has}"), &object, "status.desiredNumberScheduled")
        .fix_command(
            format!("Set nodeSelector of the pod template to {has}, in the chart or manifest of the DaemonSet"),
            kubectl(["-n", set.namespace(), "get", "daemonset", set.name(), "-o", "yaml"]),
        )
}

/// The label of the nodeSelector that no node has with that value; `None` if it may be a switch.
fn unmet_label<'a>(nodes: &[Node], set: &'a DaemonSet) -> Option<(&'a str, &'a str)> {
    let spec = &set.spec.template.spec;
    if spec.affinity.as_ref().is_some_and(|affinity| affinity.node_affinity.is_some()) {
        return None;
    }
    let unmet: Vec<_> = spec.node_selector.iter().filter(|(key, value)| is_unmet(nodes, key, value)).collect();
    let switches = ["", "true", "false", "yes", "no", "on", "off", "enabled", "disabled", "1", "0"];
    let is_plain = |key: &str, value: &str| !key.contains('/') && !switches.contains(&value.to_lowercase().as_str());
    match unmet.as_slice() {
        [(key, value)] if is_plain(key, value) => Some((key, value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn set(spec: &str) -> String {
        format!(
            "
            apiVersion: apps/v1
            kind: DaemonSet
            metadata: {{name: agent, namespace: shop, generation: 1, creationTimestamp: '2026-11-01T00:00:00Z'}}
            spec: {{template: {{spec: {{{spec}}}}}}}
            status: {{desiredNumberScheduled: 0, currentNumberScheduled: 0, observedGeneration: 1}}"
        )
    }

    const NODE: &str = "
        apiVersion: v1
        kind: Node
        metadata: {name: n1, labels: {disk: hdd, kubernetes.io/os: linux}}";
    const TAINTED: &str = "
        apiVersion: v1
        kind: Node
        metadata: {name: n1, labels: {disk: ssd}}
        spec: {taints: [{key: dedicated, value: db, effect: NoSchedule}]}";

    #[test]
    fn fires_when_no_node_has_the_label() {
        check(&RULE, &[&set("nodeSelector: {disk: ssd}"), NODE]).finds(&[
            "warning DaemonSet shop/agent: DaemonSet agent cannot be scheduled: nodeSelector is disk=ssd, nodes have \
             disk=hdd",
        ]);
        check(&RULE, &[&set("nodeSelector: {tier: db}"), NODE]).finds(&[
            "warning DaemonSet shop/agent: DaemonSet agent cannot be scheduled: nodeSelector is tier=db, no node has \
             this label",
        ]);
    }

    #[test]
    fn fires_for_a_label_with_the_same_meaning() {
        let node = |label: &str| format!("{{apiVersion: v1, kind: Node, metadata: {{name: n1, labels: {{{label}}}}}}}");
        let set = set("nodeSelector: {node-role.kubernetes.io/control-plane: ''}");
        for label in ["node-role.kubernetes.io/control-plane: 'true'", "node-role.kubernetes.io/controlplane: 'true'"] {
            let has = label.replace(": 'true'", "=true");
            check(&RULE, &[&set, &node(label)]).finds(&[&format!(
                "warning DaemonSet shop/agent: DaemonSet agent cannot be scheduled: nodeSelector is \
                 node-role.kubernetes.io/control-plane=, nodes have {has}"
            )]);
        }
        check(&RULE, &[&set, &node("node-role.kubernetes.io/control-plane: 'false'")]).finds_nothing();
        check(&RULE, &[&set, &node("a: b")]).finds_nothing();
    }

    #[test]
    fn fires_for_the_cloud_controller_that_nodes_wait_for() {
        let node = |taint: &str| {
            format!(
                "{{apiVersion: v1, kind: Node, metadata: {{name: n1}}, spec: {{taints: [
                {{key: {taint}, value: 'true', effect: NoSchedule}}]}}}}"
            )
        };
        let set = set("nodeSelector: {node-role.kubernetes.io/control-plane: ''}, tolerations: [{operator: Exists}],
             containers: [{name: ccm, image: 'example.com/acme-cloud-controller-manager:v1'}]");
        check(&RULE, &[&set, &node("node.cloudprovider.kubernetes.io/uninitialized")])
            .finds(&["warning DaemonSet shop/agent: DaemonSet agent cannot be scheduled: nodeSelector is \
             node-role.kubernetes.io/control-plane=, no node has this label"]);
        check(&RULE, &[&set, &node("dedicated")]).finds_nothing();
    }

    #[test]
    fn fires_for_a_taint() {
        check(&RULE, &[&set("nodeSelector: {disk: ssd}"), TAINTED])
            .finds(&["warning DaemonSet shop/agent: DaemonSet agent cannot be scheduled: it does not tolerate \
             dedicated:NoSchedule on the only matching node"]);
    }

    #[test]
    fn quiet_for_switches_and_features() {
        for selector in ["non-calico: 'true'", "kubernetes.io/os: windows", "cloud.google.com/gke-accelerator: a100"] {
            check(&RULE, &[&set(&format!("nodeSelector: {{{selector}}}")), NODE]).finds_nothing();
        }
    }

    #[test]
    fn quiet_when_the_taint_is_tolerated_or_the_set_is_new() {
        check(&RULE, &[&set("tolerations: [{operator: Exists}]"), TAINTED]).finds_nothing();
        let new = set("nodeSelector: {disk: ssd}").replace("2026-11-01T00:00:00Z", "2026-11-21T11:58:30Z");
        check(&RULE, &[&new, NODE]).finds_nothing();
        check(&RULE, &["{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: a, namespace: b}}", NODE])
            .finds_nothing();
    }
}
