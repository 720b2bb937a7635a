use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::network::unreachable;
use crate::kubernetes::nodes::kubelet::KubeletExt;
use crate::kubernetes::time::{age, to_start};
use crate::kubernetes::workloads::log_lines::{is_error, telling_line};
use crate::kubernetes::workloads::probe::{self, ProbeKind};
use crate::kubernetes::workloads::readiness;
use crate::kubernetes::workloads::restarts::{PodContainer, containers};
use crate::kubernetes::workloads::standby::is_standby;
use crate::rules::container::ContainerReport;
use crate::rules::diagnosis::diagnose;
use crate::snapshot::model::{Container, Node, Pod, Timestamp};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef, PodGroup};
use crate::text::words::{list, plain, shorten};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for running pods that have not become ready in the expected time: a readiness or startup probe fails, a
    /// readiness gate is not true, or the node is not ready. The port of the probe is compared with the ports that the
    /// container declares, unless something answers on it. The error in the log is resolved to the Services, policies
    /// and other objects that it names.
    ///
    /// ## Why it matters
    ///
    /// Services route no traffic to an unready pod, rollouts wait for it, and nothing restarts it. If no pod of the
    /// workload is ready, everything that depends on it is down although all pods are `Running`.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pods` shows `0/1 Running`. `kubectl -n NAMESPACE describe pod POD` shows the probe and
    /// the events `Unhealthy: Readiness probe failed: …`. Send the probe's request manually:
    /// `kubectl -n NAMESPACE port-forward POD 8080`.
    ///
    /// ## How to fix
    ///
    /// Point the probe at the port and path that the container serves, or fix the dependency the application waits for:
    /// the body of the readiness response often names a database or another service. The finding lists the fields in
    /// which the pod differs from a revision whose pods are ready.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for:
    ///
    /// - the first two minutes after a container started or was last ready, or longer if the startup probe and initial
    ///   delays allow more (a pod on a node that is down is reported immediately, and gets two minutes once the node is
    ///   back);
    /// - pods of Jobs;
    /// - standby replicas: the last log lines wait for a lease that another ready pod of the workload renews;
    /// - containers that are not running or restart repeatedly, which other rules report.
    "pod/not-ready": Error,
    "running pods do not become ready",
    needs: [Pod],
    optional: [Event, Node, ReplicaSet, StatefulSet, Service, EndpointSlice, Namespace, ConfigMap, Secret, NetworkPolicy, Lease, PersistentVolumeClaim, CustomResourceDefinition],
    explained_by: ["node/*", "rbac/denied", "statefulset/outdated-pod", "workload/env-order", "service/no-ready-endpoints", "service/no-endpoints", "service/target-port", "service/selector-matches-nothing", "service/peers-not-published", "network-policy/*", "dns/*", "pod/unauthorized", "configmap/tunnel-mtu", "service/silent-workload", "namespace/sidecar-injector"],
}

/// Why a pod is not ready.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why<'a> {
    Probe(ProbeKind, &'a str),
    Gate(&'a str),
    Node(&'a str),
}

fn check(cluster: &Cluster, report: &mut Report) {
    for group in cluster.pod_groups() {
        // Nothing depends on the readiness of batch work.
        if group.owner.is(Kind::Job) || group.owner.is(Kind::CronJob) {
            continue;
        }
        let mut causes: Vec<(Why, Vec<&Pod>)> = Vec::new();
        for pod in cluster.pods_of(group).filter(|pod| is_overdue(cluster, pod) && !is_standby(cluster, pod)) {
            for why in reasons(cluster, pod) {
                match causes.iter_mut().find(|(known, _)| *known == why) {
                    Some((_, pods)) => pods.push(pod),
                    None => causes.push((why, vec![pod])),
                }
            }
        }
        for (why, pods) in causes {
            report.add(finding(cluster, group, why, &pods));
        }
    }
}

/// Whether the pod has been unready for longer than its startup time.
fn is_overdue(cluster: &Cluster, pod: &Pod) -> bool {
    pod.is_active()
        && pod.status.phase == "Running"
        && since(cluster, pod)
            .is_some_and(|since| cluster.is_on_down_node(pod) || age(cluster.now(), since) >= to_start(&pod.spec))
}

/// The start of the time that the pod has to become ready. A container restart resets it.
fn since(cluster: &Cluster, pod: &Pod) -> Option<Timestamp> {
    pod.condition("Ready").filter(|ready| ready.is_false())?.last_transition_time?;
    let unready = readiness::awaited_since(cluster, pod)?;
    let started = pod.container_statuses().filter(|status| !status.ready);
    let started = started.filter_map(|status| status.state.running()?.started_at).max();
    Some(started.map_or(unready, |started| started.max(unready)))
}

fn reasons<'a>(cluster: &'a Cluster, pod: &'a Pod) -> Vec<Why<'a>> {
    let statuses: Vec<PodContainer> = containers(pod).filter(|c| !c.is_init).collect();
    if statuses.iter().any(|c| !c.runs()) {
        return Vec::new();
    }
    let node = cluster.get::<Node>("", &pod.spec.node_name).found();
    if let Some(node) = node.filter(|node| cluster.down(node).is_some()) {
        return vec![Why::Node(&node.metadata.name)];
    }
    let unready: Vec<&PodContainer> = statuses.iter().filter(|c| !c.status.ready).collect();
    if !unready.is_empty() {
        let is_restarting = |c: &PodContainer| c.loops(cluster) || probe::kills(cluster, c).is_some();
        let kind = |c: &PodContainer| {
            if c.status.started == Some(false) && c.spec.startup_probe.is_some() {
                ProbeKind::Startup
            } else {
                ProbeKind::Readiness
            }
        };
        return unready.iter().filter(|c| !is_restarting(c)).map(|c| Why::Probe(kind(c), c.name())).collect();
    }
    let gates = pod.spec.readiness_gates.iter().map(|gate| gate.condition_type.as_str());
    gates
        .filter(|gate| !pod.condition(gate).is_some_and(crate::snapshot::model::Condition::is_true))
        .map(Why::Gate)
        .collect()
}

fn finding(cluster: &Cluster, group: &PodGroup, why: Why, pods: &[&Pod]) -> Finding {
    let owner = &group.owner;
    let active: Vec<&Pod> = cluster.pods_of(group).filter(|pod| pod.is_active()).collect();
    let any_ready = active.iter().any(|pod| pod.is_ready());
    let subject = match any_ready {
        _ if owner.is(Kind::Pod) => format!("{} is not ready", owner.title()),
        true => format!("{} has {} of {} pods unready", owner.title(), pods.len(), active.len()),
        false => format!("{} has no ready pods", owner.title()),
    };
    let severity = if any_ready { Severity::Warning } else { Severity::Error };
    let since = pods.iter().filter_map(|pod| since(cluster, pod)).min();
    let new = |message: String| {
        Finding::new(severity, owner.clone(), format!("{subject}: {message}")).pods(pods.len()).since(since)
    };
    match why {
        Why::Probe(kind, container) => of_probe(cluster, kind, container, pods, owner, new),
        Why::Gate(gate) => of_gate(gate, pods, new),
        Why::Node(node) => {
            let object = ObjectRef::new(Kind::Node, "", node);
            new(format!("node {node} is not ready"))
                .key(format!("node {node}"))
                .evidence(format!("pod runs on node {node}"), &pods[0].reference(), "spec.nodeName")
                .because(object)
                .fix(fix_of_node(owner))
        }
    }
}

fn fix_of_node(owner: &ObjectRef) -> &'static str {
    if owner.is(Kind::Pod) || owner.is(Kind::DaemonSet) {
        "Investigate the node"
    } else {
        "Investigate the node; if it does not recover, its pods are recreated elsewhere"
    }
}

fn of_probe(
    cluster: &Cluster,
    kind: ProbeKind,
    name: &str,
    pods: &[&Pod],
    owner: &ObjectRef,
    new: impl Fn(String) -> Finding,
) -> Finding {
    // Prefer a pod with a recorded probe failure as the sample, and one whose log was read.
    let has_log = |pod: &&&Pod| cluster.log(&pod.metadata.namespace, &pod.metadata.name, name).is_some();
    let (with_log, without_log): (Vec<&&Pod>, Vec<&&Pod>) = pods.iter().partition(has_log);
    let mut in_order = with_log.into_iter().chain(without_log);
    let failure = in_order.find_map(|pod| Some((*pod, probe::last_failure(cluster, pod, name, kind)?)));
    let pod = failure.as_ref().map_or(pods[0], |(pod, _)| *pod);
    let result = failure.map(|(_, failure)| failure.answer);
    let none = Container::default();
    let spec = pod.spec.container(name).unwrap_or(&none);
    let Some(probe) = kind.of(spec) else {
        return new(format!("container {name} is running but is not reported as ready"))
            .container(name)
            .evidence(format!("container {name} has no readiness probe"), &pod.reference(), &kind.path(name))
            .fix("Check the kubelet's log on the node: the kubelet has not updated the pod's status");
    };
    let action = probe::describe(probe);
    // A program that answers and reports why it is not ready listens on the port, whether or not the container declares it.
    let container = containers(pod).find(|c| c.name() == name);
    let line = container.as_ref().and_then(|c| telling_line(cluster, c)).filter(|line| is_error(line));
    let is_answered = result.as_ref().is_some_and(|result| result.starts_with("HTTP "));
    let mismatch = probe::port_mismatch(&pod.spec, spec, probe).filter(|_| !is_answered || line.is_none());
    let fails = result.as_ref().map_or("fails".to_string(), |result| format!("fails ({result})"));
    let but = mismatch.as_ref().map(|declares| format!(", but {declares}")).unwrap_or_default();
    let mut finding = new(format!("{kind} probe {action} of container {name} {fails}{but}")).container(name).evidence(
        format!("{kind} probe: {action}"),
        &pod.reference(),
        &kind.path(name),
    );
    let is_http2 = result.as_deref() == Some(probe::HTTP2);
    if let Some(result) = result {
        finding = finding.evidence(format!("last result: {result}"), &pod.reference(), "");
    }
    if let Some(declares) = &mismatch {
        finding = finding.evidence(declares.clone(), &pod.reference(), &format!("spec.containers[{name}].ports"));
    }
    let Some(container) = container else { return finding };
    let mut finding = container.tell_change(cluster, container.report_log(cluster, finding));
    if is_http2 {
        return finding.fix(probe::grpc_fix(spec, probe, &kind.path(name)));
    }
    if let Some(line) = line.filter(|_| mismatch.is_none()) {
        finding.message = format!("{}: \"{line}\"", finding.message).into();
    }
    let finding = unreachable::suspects(cluster, pod).into_iter().fold(finding, Finding::because);
    let finding = if mismatch.is_some() {
        finding.fix(format!("Point the {kind} probe at the port the container listens on ({})", kind.path(name)))
    } else {
        finding.fix_command("Check the container's logs for what it is waiting for", log_command(&container, owner))
    };
    diagnose(cluster, &container).apply(finding)
}

/// The command for the current log, because the container is running.
fn log_command(container: &PodContainer, owner: &ObjectRef) -> String {
    let command = container.log_command(owner);
    command.strip_suffix(" --previous").map(str::to_string).unwrap_or(command)
}

fn of_gate(gate: &str, pods: &[&Pod], new: impl Fn(String) -> Finding) -> Finding {
    let pod = pods[0];
    let condition = pod.condition(gate);
    let state = match condition {
        None => "condition not set".to_string(),
        Some(condition) => {
            let text = [condition.reason.as_str(), condition.message.as_str()].map(plain);
            let text: Vec<&str> = text.iter().map(String::as_str).filter(|text| !text.is_empty()).collect();
            let why = if text.is_empty() { String::new() } else { format!(", {}", shorten(&text.join(": "), 160)) };
            format!("condition is {}{why}", condition.status)
        }
    };
    let gates: Vec<&str> = pod.spec.readiness_gates.iter().map(|gate| gate.condition_type.as_str()).collect();
    new(format!("readiness gate {gate} is not True ({state})"))
        .key(format!("gate {gate}"))
        .evidence(format!("readiness gates: {}", list(&gates, 5)), &pod.reference(), "spec.readinessGates")
        .fix(format!(
            "Check that the controller for condition {gate} is running, and why it does not set the condition to True"
        ))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::{TestCluster, check};

    fn pod(name: &str, ready: bool, since: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: Pod
            metadata: {{name: {name}, namespace: shop, creationTimestamp: '{since}', ownerReferences: [
              {{apiVersion: apps/v1, kind: StatefulSet, name: web, controller: true}}]}}
            spec: {{nodeName: n1, containers: [{{name: app, ports: [{{containerPort: 8080}}], readinessProbe: {{httpGet: {{port: 8081, path: /ready}}}}}}]}}
            status: {{phase: Running, conditions: [{{type: Ready, status: '{}', lastTransitionTime: '{since}'}}],
              containerStatuses: [{{name: app, ready: {ready}, started: true, state: {{running: {{startedAt: '{since}'}}}}}}]}}",
            if ready { "True" } else { "False" }
        )
    }

    const OLD: &str = "2026-11-21T11:50:00Z";
    const EVENT: &str = "
        apiVersion: v1
        kind: Event
        metadata: {name: e, namespace: shop}
        involvedObject: {kind: Pod, namespace: shop, name: web-0, fieldPath: 'spec.containers{app}'}
        reason: Unhealthy
        message: 'Readiness probe failed: HTTP probe failed with statuscode: 503'
        count: 25
        lastTimestamp: '2026-11-21T11:59:50Z'";
    const FOUND: &str = "error StatefulSet shop/web: StatefulSet web has no ready pods: readiness probe GET \
                         :8081/ready of container app fails (HTTP 503), but container app declares port 8080";

    #[test]
    fn fires_with_the_probe_its_result_and_the_declared_port() {
        check(&RULE, &[&pod("web-0", false, OLD), EVENT]).finds(&[FOUND]);
        TestCluster::new(&[&pod("web-0", false, OLD), EVENT]).forbid(crate::Kind::Node).check(&RULE).finds(&[FOUND]);
        check(&RULE, &[&pod("web-0", false, OLD).replace("8081", "8080")]).finds(&[
            "error StatefulSet shop/web: StatefulSet web has no ready pods: readiness probe GET :8080/ready of \
             container app fails",
        ]);
    }

    #[test]
    fn fires_as_a_warning_if_another_pod_is_ready() {
        check(&RULE, &[&pod("web-0", false, OLD), &pod("web-1", true, OLD), EVENT])
            .finds(&[&FOUND.replace("error", "warning").replace("no ready pods", "1 of 2 pods unready")]);
    }

    #[test]
    fn fires_for_a_readiness_gate() {
        let gated = pod("web-0", false, OLD)
            .replace("ready: false", "ready: true")
            .replace("nodeName: n1", "nodeName: n1, readinessGates: [{conditionType: example.com/lb}]");
        check(&RULE, &[&gated]).finds(&[
            "error StatefulSet shop/web: StatefulSet web has no ready pods: readiness gate example.com/lb is not True \
             (condition not set)",
        ]);
    }

    #[test]
    fn fires_because_of_the_node() {
        let node = "{apiVersion: v1, kind: Node, metadata: {name: n1}, status: {conditions: [{type: Ready, status: Unknown}]}}";
        let said = check(&RULE, &[&pod("web-0", false, OLD).replace("ready: false", "ready: true"), node]);
        said.finds(&["error StatefulSet shop/web: StatefulSet web has no ready pods: node n1 is not ready"]);
    }

    /// A pod that the control plane marked as not ready because its node is down; the kubelet last reported it as
    /// healthy.
    fn marked(since: &str, node: &str) -> (String, String) {
        let conditions =
            format!("{{type: ContainersReady, status: 'True', lastTransitionTime: '{OLD}'}}, {{type: Ready");
        let pod = pod("web-0", false, OLD)
            .replace("ready: false", "ready: true")
            .replace("{type: Ready", &conditions)
            .replace(
                &format!("status: 'False', lastTransitionTime: '{OLD}'"),
                &format!("status: 'False', lastTransitionTime: '{since}'"),
            );
        let node = format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: n1}}, status: {{conditions: [{{type: Ready, {node}}}]}}}}"
        );
        (pod, node)
    }

    #[test]
    fn fires_immediately_when_its_node_is_down() {
        let (pod, node) = marked("2026-11-21T11:59:58Z", "status: Unknown, lastTransitionTime: '2026-11-21T11:59:57Z'");
        let said = TestCluster::new(&[&pod, &node]).check_all();
        assert_eq!(said.by("pod/not-ready").caused_by, [said.by("node/not-ready").id.clone()]);
        let restarts = node.replace("Unknown", "'False'");
        TestCluster::new(&[&pod, &restarts]).check_all().finds_nothing();
    }

    #[test]
    fn quiet_right_after_its_node_came_back() {
        let (pod, node) = marked(OLD, "status: 'True', lastTransitionTime: '2026-11-21T11:59:50Z'");
        TestCluster::new(&[&pod, &node]).check_all().finds_nothing();
        // Its own container has been unready for a long time, independently of the node.
        let broken = pod
            .replace("ready: true", "ready: false")
            .replace("ContainersReady, status: 'True'", "ContainersReady, status: 'False'");
        TestCluster::new(&[&broken, &node]).check_all().by("pod/not-ready");
    }

    #[test]
    fn quiet_within_the_startup_time() {
        check(&RULE, &[&pod("web-0", false, "2026-11-21T11:58:30Z"), EVENT]).finds_nothing();
        let slow = pod("web-0", false, OLD).replace("readinessProbe: {", "readinessProbe: {initialDelaySeconds: 900, ");
        check(&RULE, &[&slow, EVENT]).finds_nothing();
        // Restarted a minute ago.
        let restarted =
            pod("web-0", false, OLD).replace(&format!("startedAt: '{OLD}'"), "startedAt: '2026-11-21T11:59:00Z'");
        check(&RULE, &[&restarted, EVENT]).finds_nothing();
    }

    #[test]
    fn quiet_for_jobs_for_waiting_containers_and_without_status() {
        check(&RULE, &[&pod("web-0", false, OLD).replace("apps/v1, kind: StatefulSet", "batch/v1, kind: Job")])
            .finds_nothing();
        let waiting = pod("web-0", false, OLD)
            .replace(&format!("running: {{startedAt: '{OLD}'}}"), "waiting: {reason: ImagePullBackOff}");
        check(&RULE, &[&waiting]).finds_nothing();
        check(&RULE, &["{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: app}]}}"])
            .finds_nothing();
    }
}
