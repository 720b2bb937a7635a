use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::scheduling::Scheduler;
use crate::snapshot::model::Node;
use crate::snapshot::{Amount, Cluster, Object};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Whether pods request 95% or more of the allocatable CPU, or of the allocatable memory, on every schedulable
    /// node.
    ///
    /// ## Why it matters
    ///
    /// The cluster is full. The next pod that requests more than the rest stays `Pending`, and pods of a lost or
    /// drained node cannot be rescheduled.
    ///
    /// ## How to confirm
    ///
    /// `kubectl describe nodes` shows the sum of the requests under *Allocated resources*; `kubectl top nodes` shows
    /// actual usage.
    ///
    /// ## How to fix
    ///
    /// Add a node, or lower requests that far exceed actual usage.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire as long as one node that is ready, not cordoned and not tainted has room, or where not
    /// all nodes and pods could be read.
    "node/overcommitted": Info,
    "requests fill every node",
    needs: [Node, Pod],
    optional: [Namespace],
    explained_by: [],
}

/// In percent of allocatable.
const FULL: i128 = 95;

fn check(cluster: &Cluster, report: &mut Report) {
    let Some(scheduler) = Scheduler::new(cluster).filter(Scheduler::is_complete) else { return };
    for resource in ["cpu", "memory"] {
        let usage = scheduler.usage().filter(|(node, _, _)| is_schedulable(node));
        let usage: Vec<(&Node, Amount, Amount)> =
            usage.map(|(node, requested, has)| (node, requested.get(resource), has.get(resource))).collect();
        let is_full =
            |(_, requested, has): &(&Node, Amount, Amount)| requested.percent_of(*has).is_some_and(|p| p >= FULL);
        let (Some((first, _, _)), true) = (usage.first(), usage.iter().all(is_full)) else { continue };
        let free = |(_, requested, has): &&(&Node, Amount, Amount)| (*has - *requested).max(Amount::ZERO);
        let Some(roomiest) = usage.iter().rev().max_by_key(free) else { continue };
        let object = first.reference();
        let nodes = match usage.len() {
            1 => format!("on {} (the only schedulable node)", first.name()),
            n => format!("on all {}", words::count(n, "schedulable node")),
        };
        let title = if resource == "cpu" { "CPU" } else { "Memory" };
        let most = free(&roomiest).text(resource);
        let message = format!(
            "{title} requests are at {FULL}% or more of allocatable {nodes}: at most {most} free (on {})",
            roomiest.0.name()
        );
        let finding = Finding::info(object, message)
            .key(resource)
            .evidence(
                format!("pods request {} of {} allocatable", roomiest.1.text(resource), roomiest.2.text(resource)),
                &roomiest.0.reference(),
                "status.allocatable",
            )
            .fix_command("Add a node, or lower requests that far exceed actual usage", kubectl(["describe", "nodes"]));
        report.add(finding);
    }
}

fn is_schedulable(node: &Node) -> bool {
    let is_tainted = node.spec.taints.iter().any(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"));
    node.is_ready() && !node.spec.unschedulable && !is_tainted
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    fn node(name: &str, spec: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: {name}}}, spec: {{{spec}}}, status: {{allocatable: {{cpu: '2', memory: 8Gi}},
            conditions: [{{type: Ready, status: 'True'}}]}}}}"
        )
    }

    fn pod(node: &str, cpu: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: on-{node}, namespace: shop}}, spec: {{nodeName: {node},
            containers: [{{name: app, resources: {{requests: {{cpu: {cpu}}}}}}}]}}}}"
        )
    }

    const MESSAGE: &str = "info Node a: CPU requests are at 95% or more of allocatable on all 2 schedulable \
                           nodes: at most 100m free (on b)";

    #[test]
    fn fires_when_every_node_is_full() {
        let full = [node("a", ""), node("b", ""), pod("a", "1950m"), pod("b", "1900m")];
        check(&RULE, &full.each_ref().map(String::as_str)).finds(&[MESSAGE]);
    }

    #[test]
    fn quiet_when_one_has_room_or_none_is_schedulable() {
        let room = [node("a", ""), node("b", ""), pod("a", "1950m"), pod("b", "1800m")];
        check(&RULE, &room.each_ref().map(String::as_str)).finds_nothing();
        check(&RULE, &[&node("a", "unschedulable: true"), &pod("a", "2")]).finds_nothing();
        TestCluster::new(&[&node("a", "")]).forbid(Kind::Pod).check(&RULE).finds_nothing();
        check(&RULE, &["{apiVersion: v1, kind: Node, metadata: {name: a}}"]).finds_nothing();
    }
}
