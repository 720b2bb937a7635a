use crate::engine::{Finding, Report, declare_rule};
use crate::snapshot::model::Pod;
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::list;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for pods in state `Unknown`: their phase or their `Ready` condition is `Unknown`.
    ///
    /// ## Why it matters
    ///
    /// The kubelet on the pod's node has stopped reporting. The containers may or may not be running; failed containers
    /// are not restarted, and Services no longer route traffic to the pod.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pods -o wide` shows `Unknown` and the node. `kubectl describe node NODE` shows when
    /// its kubelet last reported.
    ///
    /// ## How to fix
    ///
    /// Recover the node (kubelet, network, power). If it is permanently gone, delete the Node object; its pods are then
    /// recreated on other nodes.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for finished pods.
    "pod/lost": Error,
    "the state of a pod is unknown because its node is not reporting",
    needs: [Pod],
    optional: [],
    in_terminating_namespaces: true,
    explained_by: ["node/not-ready"],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for group in cluster.pod_groups() {
        let pods: Vec<&Pod> = cluster.pods_of(group).filter(|pod| !pod.is_finished() && is_lost(pod)).collect();
        let Some(sample) = pods.first() else { continue };
        let mut nodes: Vec<&str> =
            pods.iter().map(|pod| pod.spec.node_name.as_str()).filter(|n| !n.is_empty()).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let owner = &group.owner;
        let prefix = if owner.is(Kind::Pod) { "Pod" } else { "A pod of" };
        let subject = if owner.is(Kind::Pod) { owner.name.clone() } else { format!("{} {}", owner.kind, owner.name) };
        let cause = match nodes.len() {
            0 => String::new(),
            1 => format!(": node {} is not reporting", nodes[0]),
            _ => format!(": nodes {} are not reporting", list(&nodes, 3)),
        };
        let ready = sample.condition("Ready");
        let mut finding = Finding::error(owner.clone(), format!("{prefix} {subject} is in state Unknown{cause}"))
            .pods(pods.len())
            .since(pods.iter().filter_map(|pod| pod.condition("Ready")?.last_transition_time).min())
            .evidence(format!("status.phase is {}", sample.status.phase), &sample.reference(), "status.phase");
        if let Some(ready) = ready {
            let text = format!("Ready is {} {}", ready.status, ready.reason);
            finding = finding.evidence(text.trim_end(), &sample.reference(), "status.conditions[Ready]");
        }
        for node in &nodes {
            finding = finding.because(ObjectRef::new(Kind::Node, "", node));
        }
        if let Some(node) = nodes.first() {
            finding = finding.fix_command("Investigate the node", kubectl(["describe", "node", node]));
        }
        report.add(finding);
    }
}

fn is_lost(pod: &Pod) -> bool {
    pod.status.phase == "Unknown"
        || pod.status.reason == "NodeLost"
        || pod.condition("Ready").is_some_and(|ready| ready.status == "Unknown" || ready.reason == "NodeStatusUnknown")
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn pod(status: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: web, namespace: shop}}, spec: {{nodeName: w1}}, status: {{{status}}}}}"
        )
    }

    #[test]
    fn fires_when_phase_or_ready_is_unknown() {
        let lost = "error Pod shop/web: Pod web is in state Unknown: node w1 is not reporting";
        check(&RULE, &[&pod("phase: Unknown")]).finds(&[lost]);
        check(&RULE, &[&pod("phase: Running, conditions: [{type: Ready, status: Unknown}]")]).finds(&[lost]);
    }

    #[test]
    fn quiet_when_it_is_only_not_ready() {
        check(&RULE, &[&pod("phase: Running, conditions: [{type: Ready, status: 'False'}]")]).finds_nothing();
        check(&RULE, &["{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop}}"]).finds_nothing();
    }
}
