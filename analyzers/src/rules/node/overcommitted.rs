use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::scheduling::Scheduler;
use crate::snapshot::model::Node;
use crate::snapshot::{Amount, Cluster, Object};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Whether the pods request more than 95 % of the allocatable cpu, or of the memory, on every node that takes pods.
    ///
    /// ## Why it matters
    ///
    /// The cluster is full: the next pod that asks for more than the rest stays `Pending`, and what runs on a node that is lost or drained
    /// has nowhere to go.
    ///
    /// ## How to confirm
    ///
    /// `kubectl describe nodes` shows under *Allocated resources* the sum of the requests; `kubectl top nodes` what is really used.
    ///
    /// ## How to fix
    ///
    /// Add a node, or lower requests that are far above what the containers use.
    ///
    /// ## Exceptions
    ///
    /// As long as one node that is ready, not cordoned and not tainted has room; and where not all nodes and pods could be read.
    "node/overcommitted": Info,
    "requests fill every node",
    needs: [Node, Pod],
    optional: [Namespace],
    explained_by: [],
}

const FULL: i128 = 95;

fn check(cluster: &Cluster, report: &mut Report) {
    let Some(scheduler) = Scheduler::new(cluster).filter(Scheduler::is_complete) else { return };
    for resource in ["cpu", "memory"] {
        let usage = scheduler.usage().filter(|(node, _, _)| takes_pods(node));
        let usage: Vec<(&Node, Amount, Amount)> =
            usage.map(|(node, requested, has)| (node, requested.get(resource), has.get(resource))).collect();
        let is_full =
            |(_, requested, has): &(&Node, Amount, Amount)| requested.percent_of(*has).is_some_and(|p| p >= FULL);
        let (Some((first, _, _)), true) = (usage.first(), usage.iter().all(is_full)) else { continue };
        let free = |(_, requested, has): &&(&Node, Amount, Amount)| (*has - *requested).max(Amount::ZERO);
        let Some(roomiest) = usage.iter().rev().max_by_key(free) else { continue };
        let object = first.reference();
        let nodes = match usage.len() {
            1 => format!("on node {}, the only one that takes pods", first.name()),
            n => format!("on every one of {}", words::count(n, "node")),
        };
        let most = free(&roomiest).text(resource);
        let message = format!(
            "Requests take 95% or more of the {resource} {nodes}: at most {most} is free, on {}",
            roomiest.0.name()
        );
        let finding = Finding::info(object, message)
            .key(resource)
            .evidence(
                format!("its pods request {} of {}", roomiest.1.text(resource), roomiest.2.text(resource)),
                &roomiest.0.reference(),
                "status.allocatable",
            )
            .fix_command("Add a node, or lower requests that are far above use", kubectl(["describe", "nodes"]));
        report.add(finding);
    }
}

fn takes_pods(node: &Node) -> bool {
    let is_tainted = node.spec.taints.iter().any(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"));
    node.is_ready() && !node.spec.unschedulable && !is_tainted
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{World, check};

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

    const MESSAGE: &str =
        "info Node a: Requests take 95% or more of the cpu on every one of 2 nodes: at most 100m is free, on b";

    #[test]
    fn fires_when_every_node_is_full() {
        let full = [node("a", ""), node("b", ""), pod("a", "1950m"), pod("b", "1900m")];
        check(&RULE, &full.each_ref().map(String::as_str)).finds(&[MESSAGE]);
    }

    #[test]
    fn quiet_when_one_has_room_or_none_takes_pods() {
        let room = [node("a", ""), node("b", ""), pod("a", "1950m"), pod("b", "1800m")];
        check(&RULE, &room.each_ref().map(String::as_str)).finds_nothing();
        check(&RULE, &[&node("a", "unschedulable: true"), &pod("a", "2")]).finds_nothing();
        World::new(&[&node("a", "")]).forbid(Kind::Pod).check(&RULE).finds_nothing();
        check(&RULE, &["{apiVersion: v1, kind: Node, metadata: {name: a}}"]).finds_nothing();
    }
}
