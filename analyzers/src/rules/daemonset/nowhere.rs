use std::collections::BTreeSet;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::scheduling::{node_affinity, taints};
use crate::kubernetes::time::{self, START};
use crate::snapshot::model::{DaemonSet, Meta, Node, Pod};
use crate::snapshot::{Cluster, Kind, Object};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// DaemonSets that want no pod at all (`desiredNumberScheduled` is 0) although there are nodes: their `nodeSelector`
    /// asks for a label that no node has, or all nodes that it allows have a taint that it does not tolerate.
    ///
    /// ## Why it matters
    ///
    /// The agent, driver or log collector runs nowhere, and nothing shows it: 0 of 0 pods counts as healthy.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get daemonset NAME` shows DESIRED 0; compare its `nodeSelector` with `kubectl get nodes
    /// --show-labels` and its tolerations with the taints of `kubectl describe node`.
    ///
    /// ## How to fix
    ///
    /// Correct the selector, label the nodes, or add the toleration. A DaemonSet that waits for nodes of a kind that there
    /// are none of yet is fine.
    ///
    /// ## Exceptions
    ///
    /// Where the label is evidently a switch or a feature of some nodes only: a value like `true` or none, a label with a
    /// domain (`kubernetes.io/os: windows`, accelerators, cloud providers), or any node affinity. Also in the first
    /// two minutes.
    "daemonset/nowhere": Warning,
    "a DaemonSet fits no node",
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
        let nowhere = status.desired_number_scheduled == 0 && status.current_number_scheduled == 0;
        let observed = status.observed_generation > 0 && status.observed_generation >= set.metadata.generation;
        let old = set.created().is_some_and(|created| time::age(cluster.now(), created) >= START);
        if nowhere
            && observed
            && old
            && set.deleted().is_none()
            && let Some(finding) = judge(nodes, set)
        {
            report.add(finding);
        }
    }
}

fn judge(nodes: &[Node], set: &DaemonSet) -> Option<Finding> {
    let template = &set.spec.template;
    let metadata = Meta { labels: template.metadata.labels.clone(), ..Meta::default() };
    let pod = Pod { metadata, spec: template.spec.clone().into(), ..Pod::default() };
    let allowed: Vec<&Node> = nodes.iter().filter(|node| node_affinity::admits(&pod, node)).collect();
    let object = set.reference();
    if allowed.is_empty() {
        let (key, value) = unmet_label(nodes, set)?;
        let has: BTreeSet<&str> = nodes.iter().filter_map(|node| node.metadata.labels.get(key)).collect();
        let has: Vec<&str> = has.into_iter().collect();
        let instead = match has.is_empty() {
            true => "no node has that label".to_string(),
            false => format!("the nodes have {key}={}", words::list(&has, 3)),
        };
        let message = format!("DaemonSet {} fits no node: it asks for {key}={value}, {instead}", set.name());
        return Some(
            Finding::warning(object.clone(), message)
                .evidence(format!("nodeSelector asks for {key}={value}"), &object, "spec.template.spec.nodeSelector")
                .fix_command("Compare with the labels of the nodes", kubectl(["get", "nodes", "--show-labels"]))
                .fix_command("Correct the selector", kubectl(["-n", set.namespace(), "edit", "daemonset", set.name()])),
        );
    }
    // The controller tolerates the taints of node conditions and cordons by itself.
    let mut in_the_way: BTreeSet<String> = BTreeSet::new();
    for node in &allowed {
        let mut hard = taints::untolerated(&pod, node)
            .filter(|taint| taint.effect != "PreferNoSchedule" && !taint.key.starts_with("node.kubernetes.io/"));
        let taint = hard.next()?;
        in_the_way.insert(format!("{}:{}", taint.key, taint.effect));
    }
    let taints: Vec<&String> = in_the_way.iter().collect();
    let message = format!(
        "DaemonSet {} fits no node: it does not tolerate {} on {}",
        set.name(),
        words::list(&taints, 3),
        match allowed.len() {
            1 => "the only node that it may run on".to_string(),
            n => format!("the {n} nodes that it may run on"),
        }
    );
    Some(
        Finding::warning(object.clone(), message)
            .evidence("no toleration for these taints", &object, "spec.template.spec.tolerations")
            .fix_command("Add the toleration", kubectl(["-n", set.namespace(), "edit", "daemonset", set.name()])),
    )
}

/// The label that a person asked for by name and that no node has with that value; `None` where it may be a switch.
fn unmet_label<'a>(nodes: &[Node], set: &'a DaemonSet) -> Option<(&'a str, &'a str)> {
    let spec = &set.spec.template.spec;
    if spec.affinity.as_ref().is_some_and(|affinity| affinity.node_affinity.is_some()) {
        return None;
    }
    let unmet = |key: &str, value: &str| nodes.iter().all(|node| node.metadata.labels.get(key) != Some(value));
    let unmet: Vec<_> = spec.node_selector.iter().filter(|(key, value)| unmet(key, value)).collect();
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
            "warning DaemonSet shop/agent: DaemonSet agent fits no node: it asks for disk=ssd, the nodes have disk=hdd",
        ]);
        check(&RULE, &[&set("nodeSelector: {tier: db}"), NODE]).finds(&[
            "warning DaemonSet shop/agent: DaemonSet agent fits no node: it asks for tier=db, no node has that label",
        ]);
    }

    #[test]
    fn fires_for_a_taint() {
        check(&RULE, &[&set("nodeSelector: {disk: ssd}"), TAINTED]).finds(&[
            "warning DaemonSet shop/agent: DaemonSet agent fits no node: it does not tolerate dedicated:NoSchedule on the \
             only node that it may run on",
        ]);
    }

    #[test]
    fn quiet_for_switches_and_features() {
        for selector in ["non-calico: 'true'", "kubernetes.io/os: windows", "cloud.google.com/gke-accelerator: a100"] {
            check(&RULE, &[&set(&format!("nodeSelector: {{{selector}}}")), NODE]).finds_nothing();
        }
    }

    #[test]
    fn quiet_when_it_is_tolerated_or_not_judged_yet() {
        check(&RULE, &[&set("tolerations: [{operator: Exists}]"), TAINTED]).finds_nothing();
        let new = set("nodeSelector: {disk: ssd}").replace("2026-11-01T00:00:00Z", "2026-11-21T11:58:30Z");
        check(&RULE, &[&new, NODE]).finds_nothing();
        check(&RULE, &["{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: a, namespace: b}}", NODE])
            .finds_nothing();
    }
}
