use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::time::{RECENT, age};
use crate::snapshot::model::{Pod, Timestamp};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::{count, list, shorten};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for pods that the kubelet evicted: within the last hour, or three or more pods of one workload with the
    /// most recent eviction within the last day, or a pod without a controller. The finding names the exhausted
    /// resource and the node.
    ///
    /// ## Why it matters
    ///
    /// A node that evicts pods is short of memory, disk or process IDs. The work of the evicted pods is lost, and more
    /// pods may be evicted. A pod that exceeds its own ephemeral-storage limit is evicted repeatedly.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pods --field-selector status.phase=Failed` lists the evicted pods.
    /// `kubectl -n NAMESPACE describe pod POD` shows the kubelet's message with the threshold and the containers'
    /// usage.
    ///
    /// ## How to fix
    ///
    /// Set requests that match the pods' actual usage, limit the size of logs and `emptyDir` volumes, move data to a
    /// persistent volume, or use larger nodes. Evicted pods can then be deleted: only their records remain.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for evictions that are more than an hour old, were not repeated, and whose pods were
    /// replaced.
    "pod/evicted": Warning,
    "pods were evicted from a node",
    needs: [Pod],
    optional: [],
    explained_by: ["node/pressure"],
}

/// This many evictions of one workload are reported even if none is recent.
const REPEATED: usize = 3;

fn check(cluster: &Cluster, report: &mut Report) {
    for group in cluster.pod_groups() {
        let evicted: Vec<&Pod> = cluster.pods_of(group).filter(|pod| is_evicted(pod)).collect();
        let ago = |pod: &&Pod| evicted_at(pod).map(|at| age(cluster.now(), at));
        let Some(newest) = evicted.iter().copied().max_by_key(|pod| evicted_at(pod)) else { continue };
        let recent = evicted.iter().filter(|pod| ago(pod).is_some_and(|ago| ago < RECENT)).count();
        let today = evicted.iter().filter(|pod| ago(pod).is_some_and(|ago| ago < RECENT * 24)).count();
        if recent > 0 || today >= REPEATED || group.owner.is(Kind::Pod) {
            report.add(finding(&group.owner, &evicted, newest));
        }
    }
}

fn is_evicted(pod: &Pod) -> bool {
    pod.status.phase == "Failed" && pod.status.reason == "Evicted"
}

fn evicted_at(pod: &Pod) -> Option<Timestamp> {
    let disrupted = pod.condition("DisruptionTarget").and_then(|condition| condition.last_transition_time);
    let ended = pod.container_statuses().filter_map(|status| status.state.terminated()?.finished_at).max();
    disrupted.or(ended).or(pod.status.start_time).or(pod.metadata.creation_timestamp)
}

fn finding(owner: &ObjectRef, evicted: &[&Pod], newest: &Pod) -> Finding {
    let subject = match evicted.len() {
        _ if owner.is(Kind::Pod) => format!("Pod {} was", owner.name),
        1 => format!("A pod of {} {} was", owner.kind, owner.name),
        n => format!("{} of {} {} were", count(n, "pod"), owner.kind, owner.name),
    };
    let mut nodes: Vec<&str> =
        evicted.iter().map(|pod| pod.spec.node_name.as_str()).filter(|n| !n.is_empty()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let from = match nodes.len() {
        0 => String::new(),
        1 => format!(" from node {}", nodes[0]),
        _ => format!(" from nodes {}", list(&nodes, 3)),
    };
    let why = reason(&newest.status.message);
    let mut finding = Finding::warning(owner.clone(), format!("{subject} evicted{from}: {why}"))
        .pods(evicted.len())
        .since(evicted_at(newest));
    if !newest.status.message.is_empty() {
        finding = finding.evidence(shorten(&newest.status.message, 300), &newest.reference(), "status.message");
    }
    for node in nodes {
        finding = finding.because(ObjectRef::new(Kind::Node, "", node));
    }
    finding
        .fix("Set requests and limits that match the containers' usage, and add capacity for the exhausted resource")
        .fix_command(
            "Delete the evicted pods",
            kubectl(["-n", owner.namespace(), "delete", "pods", "--field-selector", "status.phase=Failed"]),
        )
}

/// The first sentence of the kubelet's message, which names the resource: `The node was low on resource: memory.`
fn reason(message: &str) -> String {
    if let Some(rest) = message.strip_prefix("The node was low on resource: ") {
        let resource = rest.split(". ").next().unwrap_or(rest).trim_end_matches('.');
        return format!("the node was low on {resource}");
    }
    let sentence = message.split(". ").next().unwrap_or(message).trim().trim_end_matches('.');
    if sentence.is_empty() { "the kubelet reported no reason".to_string() } else { shorten(sentence, 160) }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn pod(name: &str, at: &str, owner: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: Pod
            metadata: {{name: {name}, namespace: shop, {owner}}}
            spec: {{nodeName: w1}}
            status:
              phase: Failed
              reason: Evicted
              message: 'The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. '
              startTime: '{at}'"
        )
    }

    const OWNER: &str = "ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: db, controller: true}]";

    #[test]
    fn fires_in_the_last_hour() {
        check(&RULE, &[&pod("db-0", "2026-11-21T11:30:00Z", OWNER)]).finds(&[
            "warning StatefulSet shop/db: A pod of StatefulSet db was evicted from node w1: the node was low on memory",
        ]);
    }

    #[test]
    fn quiet_when_the_eviction_is_old_and_the_pod_was_replaced() {
        check(&RULE, &[&pod("db-0", "2026-11-21T10:30:00Z", OWNER)]).finds_nothing();
    }

    #[test]
    fn fires_for_repeated_evictions() {
        let pods: Vec<String> = (0..3).map(|n| pod(&format!("db-{n}"), "2026-11-21T10:30:00Z", OWNER)).collect();
        let pods: Vec<&str> = pods.iter().map(String::as_str).collect();
        check(&RULE, &pods).finds(&[
            "warning StatefulSet shop/db: 3 pods of StatefulSet db were evicted from node w1: the node was low on memory",
        ]);
    }

    #[test]
    fn fires_for_a_pod_without_a_controller() {
        check(&RULE, &[&pod("lone", "2026-11-01T10:30:00Z", "labels: {}")])
            .finds(&["warning Pod shop/lone: Pod lone was evicted from node w1: the node was low on memory"]);
    }

    #[test]
    fn quiet_without_timestamps() {
        check(&RULE, &[&pod("db-0", "2026-11-21T11:30:00Z", OWNER).replace("startTime: '2026-11-21T11:30:00Z'", "")])
            .finds_nothing();
    }
}
