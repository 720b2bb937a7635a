use crate::kubernetes::nodes::kubelet::KubeletExt;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::time;
use crate::kubernetes::workloads::readiness;
use crate::kubernetes::workloads::standby::is_standby;
use crate::snapshot::model::{
    Condition, DaemonSet, Deployment, Node, Pod, PodTemplate, ReplicaSet, ReplicationController, StatefulSet,
    Timestamp, condition,
};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that Deployments, StatefulSets, DaemonSets, and ReplicaSets and ReplicationControllers without a
    /// controller have the desired number of available pods after the pods had time to start.
    ///
    /// ## Why it matters
    ///
    /// If no pod is available, the application is down. If some are missing, it has less capacity than planned and
    /// tolerates fewer node failures.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get deployment NAME` shows the numbers. `kubectl -n NAMESPACE get pods -o wide` and
    /// `kubectl -n NAMESPACE describe pod POD` show which pods are not ready and why.
    ///
    /// ## How to fix
    ///
    /// If another finding explains the missing pods, fix that one. Otherwise check the pods' conditions, events and
    /// logs.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for:
    ///
    /// - pods within their startup time (two minutes, or what their startup probes and initial delays allow, plus
    ///   `minReadySeconds`), as during a rolling update or after scaling up, unless their node is down;
    /// - workloads that are scaled to zero or being deleted;
    /// - standby replicas that wait for the lease of a ready replica;
    /// - workloads for which the start of the unavailability is unknown.
    "workload/unavailable": Error,
    "a workload has fewer available pods than desired",
    needs: [],
    optional: [Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Pod, Node, Job, CronJob, Lease],
    explained_by: ["pod/*", "node/*", "pvc/*", "workload/cannot-create-pods", "workload/not-observed", "statefulset/outdated-pod", "workload/node-name"],
}

/// A workload with its desired and available numbers of pods.
struct Replicas<'a> {
    object: ObjectRef,
    wanted: i32,
    available: i32,
    template: &'a PodTemplate,
    min_ready_seconds: i32,
    conditions: &'a [Condition],
}

fn check(cluster: &Cluster, report: &mut Report) {
    report.not_read(cluster, &[Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet, Kind::Pod]);
    for replicas in all_replicas(cluster) {
        if replicas.available.max(0) < replicas.wanted
            && let Some(finding) = judge(cluster, &replicas)
        {
            report.add(finding);
        }
    }
}

fn all_replicas(cluster: &Cluster) -> Vec<Replicas<'_>> {
    let mut all = Vec::new();
    all.extend(cluster.all::<Deployment>().iter().filter(|d| d.deleted().is_none()).map(|d| Replicas {
        object: d.reference(),
        wanted: d.spec.replicas.unwrap_or(1),
        available: d.status.available_replicas,
        template: &d.spec.template,
        min_ready_seconds: d.spec.min_ready_seconds,
        conditions: &d.status.conditions,
    }));
    all.extend(cluster.all::<StatefulSet>().iter().filter(|s| s.deleted().is_none()).map(|s| Replicas {
        object: s.reference(),
        wanted: s.spec.replicas.unwrap_or(1),
        available: available(s.status.available_replicas, s.status.ready_replicas, s.spec.min_ready_seconds),
        template: &s.spec.template,
        min_ready_seconds: s.spec.min_ready_seconds,
        conditions: &[],
    }));
    all.extend(cluster.all::<DaemonSet>().iter().filter(|d| d.deleted().is_none()).map(|d| Replicas {
        object: d.reference(),
        wanted: d.status.desired_number_scheduled,
        available: available(d.status.number_available, d.status.number_ready, d.spec.min_ready_seconds),
        template: &d.spec.template,
        min_ready_seconds: d.spec.min_ready_seconds,
        conditions: &[],
    }));
    let bare = cluster.all::<ReplicaSet>().iter().filter(|r| r.deleted().is_none() && r.controller().is_none());
    all.extend(bare.map(|r| Replicas {
        object: r.reference(),
        wanted: r.spec.replicas.unwrap_or(1),
        available: r.status.available_replicas,
        template: &r.spec.template,
        min_ready_seconds: r.spec.min_ready_seconds,
        conditions: &[],
    }));
    let bare =
        cluster.all::<ReplicationController>().iter().filter(|r| r.deleted().is_none() && r.controller().is_none());
    all.extend(bare.map(|r| Replicas {
        object: r.reference(),
        wanted: r.spec.replicas.unwrap_or(1),
        available: r.status.available_replicas,
        template: &r.spec.template,
        min_ready_seconds: r.spec.min_ready_seconds,
        conditions: &[],
    }));
    all
}

/// StatefulSets report available pods since 1.22; before that the ready pods are equivalent without `minReadySeconds`.
fn available(available: i32, ready: i32, min_ready_seconds: i32) -> i32 {
    if min_ready_seconds > 0 { available } else { available.max(ready) }
}

fn judge(cluster: &Cluster, replicas: &Replicas) -> Option<Finding> {
    let now = cluster.now();
    let object = &replicas.object;
    let pods: Vec<&Pod> = match cluster.group_of_owner(object) {
        Some(group) => cluster.pods_of(group).filter(|pod| pod.is_active() && !pod.is_ready()).collect(),
        None => Vec::new(),
    };
    let standbys = pods.iter().filter(|pod| is_standby(cluster, pod)).count();
    if standbys > 0 && replicas.available.saturating_add(i32::try_from(standbys).unwrap_or(0)) >= replicas.wanted {
        return None;
    }
    let min_ready = Duration::from_secs(u64::try_from(replicas.min_ready_seconds).unwrap_or(0));
    let allowed = time::to_start(&replicas.template.spec) + min_ready;
    let late: Vec<(&Pod, Timestamp)> = pods
        .iter()
        .filter_map(|pod| Some((*pod, readiness::awaited_since(cluster, pod)?)))
        .filter(|(pod, since)| cluster.is_on_down_node(pod) || time::age(now, *since) >= allowed)
        .collect();
    let unavailable = condition(replicas.conditions, "Available").filter(|c| c.is_false());
    let unavailable_since =
        unavailable.and_then(|c| c.last_transition_time).filter(|since| time::age(now, *since) >= allowed);
    // A Deployment keeps enough old pods during a rollout, so its condition Available is conclusive if False.
    let since = late.iter().map(|(_, since)| *since).chain(unavailable_since).min()?;
    let mut finding =
        Finding::new(severity(replicas), object.clone(), message(replicas)).since(Some(since)).pods(pods.len());
    if let Some(c) = unavailable {
        let text = format!("{}: {}", c.reason, words::shorten(&c.message, 200));
        finding = finding.evidence(text, object, "status.conditions[Available]");
    }
    if let Some((pod, _)) = late.first() {
        finding = finding.evidence(state(pod), &pod.reference(), "status.conditions[Ready]");
    }
    for node in not_ready_nodes(cluster, object) {
        finding = finding.because(ObjectRef::new(Kind::Node, "", node));
    }
    let (kind, namespace) = (object.kind.to_lowercase(), object.namespace());
    Some(finding.fix_command(
        "Check its pods, their events and logs",
        kubectl(["-n", namespace, "describe", &kind, &object.name]),
    ))
}

fn severity(replicas: &Replicas) -> Severity {
    if replicas.available <= 0 { Severity::Error } else { Severity::Warning }
}

fn message(replicas: &Replicas) -> String {
    let Replicas { object, wanted, available, .. } = replicas;
    let available = (*available).max(0);
    if object.is(Kind::DaemonSet) {
        let nodes = if *wanted == 1 { "node" } else { "nodes" };
        return format!("DaemonSet {} is available on {available} of {wanted} {nodes}", object.name);
    }
    let noun = if *wanted == 1 { "pod" } else { "pods" };
    format!("{} {} has {available} of {wanted} {noun} available", object.kind, object.name)
}

/// The phase and the Ready condition of a pod.
fn state(pod: &Pod) -> String {
    let ready =
        pod.condition("Ready").map(|c| format!(", not ready: {} {}", c.reason, words::shorten(&c.message, 200)));
    let phase = if pod.status.phase.is_empty() { "Unknown" } else { &pod.status.phase };
    format!("phase {phase}{}", ready.unwrap_or_default().trim_end())
}

/// The unready nodes of its unready pods, including pods that were evicted from a node that is down.
fn not_ready_nodes<'a>(cluster: &'a Cluster, object: &ObjectRef) -> BTreeSet<&'a str> {
    let pods = cluster.group_of_owner(object).into_iter().flat_map(|group| cluster.pods_of(group));
    let pods = pods.filter(|pod| !pod.is_finished() && !pod.is_ready() && !pod.spec.node_name.is_empty());
    let nodes = pods.map(|pod| pod.spec.node_name.as_str());
    nodes.filter(|node| cluster.get::<Node>("", node).found().is_some_and(|node| !node.is_ready())).collect()
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    fn deployment(available: i32, condition: &str, since: &str) -> String {
        format!(
            "
            apiVersion: apps/v1
            kind: Deployment
            metadata: {{name: web, namespace: shop}}
            spec: {{replicas: 2}}
            status:
              availableReplicas: {available}
              conditions:
              - type: Available
                status: '{condition}'
                reason: MinimumReplicasUnavailable
                message: Deployment does not have minimum availability.
                lastTransitionTime: '{since}'"
        )
    }

    fn pod(kind: &str, created: &str, more: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: Pod
            metadata:
              name: web-0
              namespace: shop
              creationTimestamp: '{created}'
              ownerReferences: [{{apiVersion: apps/v1, kind: {kind}, name: web, controller: true}}]
            spec: {{nodeName: n1{more}}}
            status: {{phase: Running, conditions: [{{type: Ready, status: 'False', reason: ContainersNotReady}}]}}"
        )
    }

    const STATEFUL_SET: &str = "
        apiVersion: apps/v1
        kind: StatefulSet
        metadata: {name: web, namespace: shop}
        spec: {replicas: 3}
        status: {replicas: 3, availableReplicas: 2, readyReplicas: 2}";

    #[test]
    fn fires_when_no_pod_is_available() {
        let said = check(&RULE, &[&deployment(0, "False", "2026-11-21T11:50:00Z")]);
        said.finds(&["error Deployment shop/web: Deployment web has 0 of 2 pods available"]);
        assert_eq!(said.finding().since.unwrap().to_string(), "2026-11-21T11:50:00Z");
    }

    #[test]
    fn fires_as_a_warning_when_some_pods_are_available() {
        check(&RULE, &[&deployment(1, "False", "2026-11-21T11:50:00Z")])
            .finds(&["warning Deployment shop/web: Deployment web has 1 of 2 pods available"]);
        check(&RULE, &[STATEFUL_SET, &pod("StatefulSet", "2026-11-21T11:50:00Z", "")])
            .finds(&["warning StatefulSet shop/web: StatefulSet web has 2 of 3 pods available"]);
    }

    #[test]
    fn quiet_right_after_scaling_up() {
        check(&RULE, &[&deployment(0, "False", "2026-11-21T11:59:00Z")]).finds_nothing();
        check(&RULE, &[STATEFUL_SET, &pod("StatefulSet", "2026-11-21T11:59:00Z", "")]).finds_nothing();
    }

    #[test]
    fn quiet_during_a_rollout_that_keeps_enough_pods() {
        check(&RULE, &[&deployment(1, "True", "2026-11-21T09:00:00Z")]).finds_nothing();
    }

    #[test]
    fn quiet_while_startup_probes_allow_it() {
        let slow = "
            apiVersion: apps/v1
            kind: StatefulSet
            metadata: {name: web, namespace: shop}
            spec:
              replicas: 1
              template:
                spec:
                  containers: [{name: a, startupProbe: {periodSeconds: 10, failureThreshold: 100, tcpSocket: {port: 80}}}]
            status: {replicas: 1}";
        check(&RULE, &[slow, &pod("StatefulSet", "2026-11-21T11:50:00Z", "")]).finds_nothing();
        check(&RULE, &[slow, &pod("StatefulSet", "2026-11-21T11:40:00Z", "")])
            .finds(&["error StatefulSet shop/web: StatefulSet web has 0 of 1 pod available"]);
    }

    #[test]
    fn fires_immediately_when_the_node_is_down_and_quiet_when_it_is_back() {
        let node = |ready: &str, since: &str| {
            format!(
                "{{apiVersion: v1, kind: Node, metadata: {{name: n1}}, status: {{conditions: [{{type: Ready, status: \
                 '{ready}', lastTransitionTime: '{since}'}}]}}}}"
            )
        };
        let marked = |since: &str| {
            format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: web-0, namespace: shop, ownerReferences: [{{apiVersion: \
                 apps/v1, kind: StatefulSet, name: web, controller: true}}]}}, spec: {{nodeName: n1}}, status: {{phase: \
                 Running, conditions: [{{type: ContainersReady, status: 'True'}}, {{type: Ready, status: 'False', \
                 lastTransitionTime: '{since}'}}]}}}}"
            )
        };
        let (just_now, long_ago) = ("2026-11-21T11:59:58Z", "2026-11-21T11:30:00Z");
        check(&RULE, &[STATEFUL_SET, &marked(just_now), &node("Unknown", just_now)]).finding();
        check(&RULE, &[STATEFUL_SET, &marked(just_now), &node("True", long_ago)]).finds_nothing();
        check(&RULE, &[STATEFUL_SET, &marked(long_ago), &node("True", just_now)]).finds_nothing();
        check(&RULE, &[STATEFUL_SET, &marked(long_ago), &node("True", long_ago)]).finding();
    }

    #[test]
    fn fires_because_of_the_node_that_its_pods_were_evicted_from() {
        let evicted = "
            apiVersion: v1
            kind: Pod
            metadata: {name: web-x, namespace: shop, deletionTimestamp: '2026-11-21T12:00:20Z', ownerReferences: [
              {apiVersion: apps/v1, kind: Deployment, name: web, controller: true}]}
            spec: {nodeName: n1}
            status: {phase: Running, conditions: [{type: Ready, status: 'False'}]}";
        let node = "{apiVersion: v1, kind: Node, metadata: {name: n1}, status: {conditions: [{type: Ready, status: Unknown}]}}";
        let down = deployment(0, "False", "2026-11-21T11:50:00Z");
        let said = check(&RULE, &[&down, evicted, node]);
        assert_eq!(said.finding().because[0].to_string(), "Node n1");
        let said = check(&RULE, &[&down, &evicted.replace("'False'", "'True'"), node]);
        assert!(said.finding().because.is_empty());
    }

    #[test]
    fn fires_because_of_a_node_that_is_not_ready() {
        let set = "
            apiVersion: apps/v1
            kind: DaemonSet
            metadata: {name: web, namespace: shop}
            status: {desiredNumberScheduled: 3, currentNumberScheduled: 3, numberReady: 2, numberAvailable: 2}";
        let node = "
            apiVersion: v1
            kind: Node
            metadata: {name: n1}
            status: {conditions: [{type: Ready, status: Unknown}]}";
        let said = check(&RULE, &[set, node, &pod("DaemonSet", "2026-11-21T11:50:00Z", "")]);
        said.finds(&["warning DaemonSet shop/web: DaemonSet web is available on 2 of 3 nodes"]);
        assert_eq!(said.finding().because[0].to_string(), "Node n1");
    }

    #[test]
    fn quiet_for_manifests_and_unknown_ages() {
        check(&RULE, &["{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, namespace: b}}"]).finds_nothing();
        let said = TestCluster::new(&[STATEFUL_SET]).forbid(Kind::Pod).check(&RULE);
        said.finds_nothing();
        assert_eq!(said.gaps(), ["Pod forbidden"]);
    }
}
