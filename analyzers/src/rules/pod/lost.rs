use crate::engine::{Finding, Report, declare_rule};
use crate::snapshot::model::Pod;
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::list;

declare_rule! {
    /// ## What it checks
    ///
    /// That the state of every pod is known: neither its phase nor its `Ready` condition is `Unknown`.
    ///
    /// ## Why it matters
    ///
    /// The kubelet of the pod's node no longer reports. The containers may run or not; nobody restarts them when they fail,
    /// and Services no longer send them traffic.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pods -o wide` shows `Unknown` and the node; `kubectl describe node NODE` shows when its
    /// kubelet last reported.
    ///
    /// ## How to fix
    ///
    /// Bring the node back (kubelet, network, power). If it is gone for good, delete the Node object, and its pods are
    /// made anew elsewhere.
    ///
    /// ## Exceptions
    ///
    /// For pods that are finished.
    "pod/lost": Error,
    "the state of a pod is unknown, as its node does not report",
    needs: [Pod],
    optional: [],
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
        let whose = if owner.is(Kind::Pod) { "Pod" } else { "A pod of" };
        let subject = if owner.is(Kind::Pod) { owner.name.clone() } else { format!("{} {}", owner.kind, owner.name) };
        let place = match nodes.len() {
            0 => String::new(),
            1 => format!(": node {} does not report", nodes[0]),
            _ => format!(": nodes {} do not report", list(&nodes, 3)),
        };
        let ready = sample.condition("Ready");
        let mut finding = Finding::error(owner.clone(), format!("{whose} {subject} is in an unknown state{place}"))
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
            finding = finding.fix_command("Look at the node", kubectl(["describe", "node", node]));
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
        let lost = "error Pod shop/web: Pod web is in an unknown state: node w1 does not report";
        check(&RULE, &[&pod("phase: Unknown")]).finds(&[lost]);
        check(&RULE, &[&pod("phase: Running, conditions: [{type: Ready, status: Unknown}]")]).finds(&[lost]);
    }

    #[test]
    fn quiet_when_it_is_only_not_ready() {
        check(&RULE, &[&pod("phase: Running, conditions: [{type: Ready, status: 'False'}]")]).finds_nothing();
        check(&RULE, &["{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop}}"]).finds_nothing();
    }
}
