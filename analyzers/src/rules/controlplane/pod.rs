use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::time::{age, human, to_start};
use crate::snapshot::model::{Condition, Pod};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// That the static pods of the control plane (etcd, kube-apiserver, kube-controller-manager, kube-scheduler) are
    /// ready, and that etcd has an odd number of members.
    ///
    /// ## Why it matters
    ///
    /// With one of several replicas down the cluster still works, but the next failure may stop it. An even number of
    /// etcd members tolerates no more failures than one member fewer, and adds one more member that can fail.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n kube-system get pods -l tier=control-plane -o wide`
    ///
    /// ## How to fix
    ///
    /// Check `kubectl -n kube-system logs POD`, or `crictl logs` on the node if the API server itself is down. The
    /// manifests are in /etc/kubernetes/manifests. For etcd, add or remove a member.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire where the control plane does not run in static pods (managed clusters), or while a pod is
    /// within its normal startup time. An even number of etcd members is reported as `info`.
    "controlplane/pod": Error,
    "a control plane pod is not ready",
    needs: [Pod],
    optional: [Node],
    explained_by: ["node/not-ready", "node/pressure", "pod/*"],
}

const COMPONENTS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

fn check(cluster: &Cluster, report: &mut Report) {
    let mut members = Vec::new();
    for pod in cluster.in_namespace::<Pod>("kube-system") {
        let component = pod.metadata.labels.get("component").unwrap_or_default();
        if !pod.is_static() || pod.is_terminating() || !COMPONENTS.contains(&component) {
            continue;
        }
        if component == "etcd" {
            members.push(pod);
        }
        if let Some(finding) = not_ready(cluster, pod, component) {
            report.add(finding);
        }
    }
    if let Some(first) = members.first().filter(|_| members.len().is_multiple_of(2)) {
        let object = first.reference();
        let message = format!("etcd has {} members: an even member count adds no fault tolerance", members.len());
        report.add(
            Finding::info(object.clone(), message)
                .key("members")
                .evidence("counted static pods with label component=etcd", &object, "metadata.labels")
                .fix("Add or remove a member"),
        );
    }
}

fn not_ready(cluster: &Cluster, pod: &Pod, component: &str) -> Option<Finding> {
    let ready = pod.condition("Ready").filter(|ready| !ready.is_true())?;
    let since = ready.last_transition_time.or(pod.created());
    if since.is_some_and(|since| age(cluster.now(), since) < to_start(&pod.spec)) {
        return None;
    }
    let object = pod.reference();
    let state = match since {
        Some(since) => format!("has been not ready for {}", human(age(cluster.now(), since))),
        None => "is not ready".to_string(),
    };
    let at = if pod.spec.node_name.is_empty() { String::new() } else { format!(" on {}", pod.spec.node_name) };
    let message = format!("{component}{at} {state}{}", reason(pod));
    let finding = Finding::error(object.clone(), message)
        .evidence(text(ready), &object, "status.conditions[Ready]")
        .since(since)
        .pods(1)
        .because(ObjectRef::new(Kind::Node, "", &pod.spec.node_name))
        .fix_command("Check its logs", kubectl(["-n", "kube-system", "logs", pod.name()]));
    Some(finding)
}

/// Why its container is waiting or has terminated.
fn reason(pod: &Pod) -> String {
    let states = pod.container_statuses().filter(|status| !status.ready).map(|status| &status.state);
    let mut reasons = states.filter_map(|state| {
        let waiting = state.waiting().map(|waiting| waiting.reason.as_str());
        let terminated = state.terminated().map(|terminated| terminated.reason.as_str());
        waiting.or(terminated).filter(|reason| !reason.is_empty())
    });
    reasons.next().map_or(String::new(), |reason| format!(" ({reason})"))
}

fn text(ready: &Condition) -> String {
    let reason = if ready.reason.is_empty() { String::new() } else { format!(" ({})", ready.reason) };
    format!("condition Ready is {}{reason}", ready.status)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn pod(name: &str, component: &str, annotation: &str, ready: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: kube-system, labels: {{component: {component}}},
            annotations: {{{annotation}}}}}, spec: {{nodeName: cp-1}}, status: {{phase: Running,
            containerStatuses: [{{name: c, state: {{waiting: {{reason: CrashLoopBackOff}}}}}}],
            conditions: [{{type: Ready, {ready}}}]}}}}"
        )
    }

    const MIRROR: &str = "kubernetes.io/config.mirror: x";
    const DOWN: &str = "status: 'False', reason: ContainersNotReady, lastTransitionTime: '2026-11-21T11:00:00Z'";

    #[test]
    fn fires_when_a_static_pod_is_not_ready() {
        check(&RULE, &[&pod("kube-scheduler-cp-1", "kube-scheduler", MIRROR, DOWN)])
            .finds(&["error Pod kube-system/kube-scheduler-cp-1: kube-scheduler on cp-1 has been not ready for 60m \
             (CrashLoopBackOff)"]);
    }

    #[test]
    fn quiet_when_ready_or_starting_or_not_a_static_pod() {
        check(&RULE, &[&pod("a", "kube-scheduler", MIRROR, "status: 'True'")]).finds_nothing();
        check(&RULE, &[&pod("a", "kube-scheduler", "", DOWN)]).finds_nothing();
        check(&RULE, &[&pod("a", "vault", MIRROR, DOWN)]).finds_nothing();
        let starting = "status: 'False', lastTransitionTime: '2026-11-21T11:59:00Z'";
        check(&RULE, &[&pod("a", "kube-scheduler", MIRROR, starting)]).finds_nothing();
        check(
            &RULE,
            &["{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: kube-system, labels: {component: etcd},
            annotations: {kubernetes.io/config.mirror: x}}}"],
        )
        .finds_nothing();
    }

    #[test]
    fn fires_as_info_for_an_even_number_of_etcd_members() {
        let member = |name: &str| pod(name, "etcd", MIRROR, "status: 'True'");
        check(&RULE, &[&member("etcd-a"), &member("etcd-b")])
            .finds(&["info Pod kube-system/etcd-a: etcd has 2 members: an even member count adds no fault tolerance"]);
        check(&RULE, &[&member("etcd-a"), &member("etcd-b"), &member("etcd-c")]).finds_nothing();
    }
}
