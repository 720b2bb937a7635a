//! Which container logs to read.

use crate::kubernetes::nodes::node_agents::{kube_proxy_on, network_plugin_on};
use crate::kubernetes::storage::csi::awaited_containers;
use crate::kubernetes::time::{RECENT, to_start};
use crate::kubernetes::workloads::job::failed_attempt;
use crate::kubernetes::workloads::restarts::{PodContainer, containers, judged};
use crate::snapshot::model::Pod;
use crate::snapshot::{Cluster, PodGroup};

/// The maximum number of logs to read.
const MAX_LOGS: usize = 20;
/// The maximum number of logs of kube-proxy and network plugins to read in addition.
const MAX_AGENT_LOGS: usize = 6;

/// A request for the last log lines of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRequest {
    pub namespace: String,
    pub pod: String,
    pub container: String,
    /// Read the log of the previous run, because the container is running again. If it does not exist (or if this is
    /// false), read the current log.
    pub previous_first: bool,
}

/// The logs that may explain a failure: one container per workload that crashes, fails or does not become ready, the
/// most severe problems first, then the controllers of storage that claims or volumes are waiting for; at most 20. And
/// those of the network's pods on nodes where only some pods fail.
pub fn logs_wanted(cluster: &Cluster) -> Vec<LogRequest> {
    let wanted = cluster.pod_groups().iter().filter_map(|group| worst(cluster, group));
    let mut wanted: Vec<(Trouble, LogRequest)> = wanted.collect();
    wanted.sort_by_key(|(trouble, _)| *trouble);
    let mut requests: Vec<LogRequest> = wanted.into_iter().map(|(_, request)| request).collect();
    for request in awaited_containers(cluster).into_iter().map(|(pod, container)| running(pod, container)) {
        if !requests.contains(&request) {
            requests.push(request);
        }
    }
    requests.truncate(MAX_LOGS);
    let agents = agents_wanted(cluster, &requests);
    requests.extend(agents);
    requests
}

fn running(pod: &Pod, container: &str) -> LogRequest {
    LogRequest {
        namespace: pod.metadata.namespace.to_string(),
        pod: pod.metadata.name.clone(),
        container: container.to_string(),
        previous_first: false,
    }
}

/// The logs of kube-proxy and the network plugin on nodes where pods fail whose siblings on other nodes are ready.
fn agents_wanted(cluster: &Cluster, wanted: &[LogRequest]) -> Vec<LogRequest> {
    let failing = wanted.iter().filter_map(|request| cluster.get::<Pod>(&request.namespace, &request.pod).found());
    let mut nodes: Vec<&str> =
        failing.filter(|pod| works_elsewhere(cluster, pod)).map(|p| &*p.spec.node_name).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let mut agents = Vec::new();
    for node in nodes {
        for pod in kube_proxy_on(cluster, node).into_iter().chain(network_plugin_on(cluster, node)) {
            let Some(container) = pod.spec.containers.first() else { continue };
            let request = running(pod, &container.name);
            let is_known = wanted.iter().any(|known| known.namespace == request.namespace && known.pod == request.pod);
            if !is_known && !agents.contains(&request) {
                agents.push(request);
            }
        }
    }
    agents.truncate(MAX_AGENT_LOGS);
    agents
}

/// Whether a pod on another node, with the same owner, is ready.
fn works_elsewhere(cluster: &Cluster, pod: &Pod) -> bool {
    let is_elsewhere = |other: &Pod| other.is_ready() && other.spec.node_name != pod.spec.node_name;
    let group = cluster.group_of_owner(&cluster.owner_of(pod));
    !pod.spec.node_name.is_empty() && group.is_some_and(|group| cluster.pods_of(group).any(is_elsewhere))
}

/// Ordered from most to least severe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    Loop,
    Failed,
    Restarted,
    Unready,
}

fn worst(cluster: &Cluster, group: &PodGroup) -> Option<(Trouble, LogRequest)> {
    let mut candidates: Vec<(Trouble, std::cmp::Reverse<i32>, PodContainer)> = Vec::new();
    for container in judged(cluster, group).chain(failed_attempt(cluster, group)).flat_map(containers) {
        if let Some(trouble) = trouble(cluster, &container) {
            candidates.push((trouble, std::cmp::Reverse(container.status.restart_count), container));
        }
    }
    let (trouble, _, container) = candidates.into_iter().min_by_key(|(trouble, restarts, _)| (*trouble, *restarts))?;
    let request = LogRequest {
        namespace: container.pod.metadata.namespace.to_string(),
        pod: container.pod.metadata.name.clone(),
        container: container.name().to_string(),
        previous_first: container.runs() && trouble != Trouble::Unready,
    };
    Some((trouble, request))
}

fn trouble(cluster: &Cluster, container: &PodContainer) -> Option<Trouble> {
    let never_ran =
        container.last_end().is_some_and(|end| matches!(end.reason.as_str(), "StartError" | "ContainerCannotRun"));
    if never_ran && !container.runs() {
        return None;
    }
    if container.loops(cluster) {
        return Some(Trouble::Loop);
    }
    let end = container.last_end();
    if container.pod.is_finished() || !container.is_restarted() {
        return end.filter(|end| end.exit_code != 0).map(|_| Trouble::Failed);
    }
    let recently = container.ended_ago(cluster).is_some_and(|ago| ago < RECENT);
    if container.ends() >= 1 && recently && end.is_some_and(|end| end.exit_code != 0) {
        return Some(Trouble::Restarted);
    }
    let long = container.runs_for(cluster).is_some_and(|run| run >= to_start(&container.pod.spec));
    (long && (container.is_init || !container.status.ready)).then_some(Trouble::Unready)
}

#[cfg(test)]
mod tests {
    use super::logs_wanted;
    use crate::testing::TestCluster;

    fn wanted(documents: &[&str]) -> Vec<String> {
        let requests = logs_wanted(&TestCluster::new(documents).build());
        requests.iter().map(|r| format!("{}/{} {} {}", r.namespace, r.pod, r.container, r.previous_first)).collect()
    }

    fn pod(name: &str, restarts: u32, state: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: Pod
            metadata: {{name: {name}, namespace: shop, creationTimestamp: '2026-11-21T11:00:00Z', ownerReferences: [
              {{apiVersion: apps/v1, kind: StatefulSet, name: {}, controller: true}}]}}
            spec: {{restartPolicy: Always, containers: [{{name: app}}]}}
            status: {{phase: Running, containerStatuses: [{{name: app, restartCount: {restarts}, state: {state},
              lastState: {{terminated: {{exitCode: 1, startedAt: '2026-11-21T11:59:40Z', finishedAt: '2026-11-21T11:59:45Z'}}}}}}]}}",
            name.rsplit_once('-').unwrap().0
        )
    }

    #[test]
    fn one_container_per_workload_the_most_severe_first() {
        let once = pod("api-0", 1, "{running: {startedAt: '2026-11-21T11:59:46Z'}}");
        let waiting = pod("db-0", 3, "{waiting: {reason: CrashLoopBackOff}}");
        let worse = pod("db-1", 5, "{running: {startedAt: '2026-11-21T11:59:55Z'}}");
        assert_eq!(wanted(&[&once, &waiting, &worse]), ["shop/db-1 app true", "shop/api-0 app true"]);
        assert_eq!(wanted(&[&waiting]), ["shop/db-0 app false"]);
    }

    #[test]
    fn the_network_of_a_node_where_only_one_pod_fails() {
        let on = |pod: String, node: &str| pod.replace("spec: {", &format!("spec: {{nodeName: {node}, "));
        let failing = on(pod("api-0", 3, "{waiting: {reason: CrashLoopBackOff}}"), "n1");
        let ready = on(pod("api-1", 0, "{running: {}}"), "n2")
            .replace("phase: Running,", "phase: Running, conditions: [{type: Ready, status: 'True'}],");
        let proxy = "{apiVersion: v1, kind: Pod, metadata: {name: kube-proxy-n1, namespace: kube-system, labels: {k8s-app: kube-proxy}},
            spec: {nodeName: n1, hostNetwork: true, containers: [{name: kube-proxy}]}, status: {phase: Running}}";
        assert_eq!(
            wanted(&[&failing, &ready, proxy]),
            ["shop/api-0 app false", "kube-system/kube-proxy-n1 kube-proxy false"]
        );
        assert_eq!(wanted(&[&failing, proxy]), ["shop/api-0 app false"]);
    }

    #[test]
    fn at_most_twenty() {
        let pods: Vec<String> =
            (0..30).map(|n| pod(&format!("s{n}-0"), 3, "{waiting: {reason: CrashLoopBackOff}}")).collect();
        let documents: Vec<&str> = pods.iter().map(String::as_str).collect();
        assert_eq!(wanted(&documents).len(), 20);
    }

    #[test]
    fn failed_jobs_but_not_retries_that_succeeded() {
        let attempt = |name: &str, phase: &str, code: u32| {
            format!(
                "
                apiVersion: v1
                kind: Pod
                metadata: {{name: {name}, namespace: shop, creationTimestamp: '2026-11-21T11:00:00Z', ownerReferences: [
                  {{apiVersion: batch/v1, kind: Job, name: import, controller: true}}]}}
                spec: {{restartPolicy: Never, containers: [{{name: job}}]}}
                status: {{phase: {phase}, containerStatuses: [{{name: job, state: {{terminated: {{exitCode: {code}}}}}}}]}}"
            )
        };
        let job = |condition: &str| {
            format!(
                "{{apiVersion: batch/v1, kind: Job, metadata: {{name: import, namespace: shop}},
                 status: {{conditions: [{{type: {condition}, status: 'True'}}]}}}}"
            )
        };
        let failed = attempt("import-a", "Failed", 3);
        assert_eq!(wanted(&[&failed, &job("Failed")]), ["shop/import-a job false"]);
        let succeeded = attempt("import-b", "Succeeded", 0);
        assert!(wanted(&[&failed, &succeeded, &job("Complete")]).is_empty());
    }

    #[test]
    fn nothing_for_containers_that_never_ran() {
        let pod = pod("db-0", 3, "{waiting: {reason: CrashLoopBackOff}}")
            .replace("exitCode: 1,", "exitCode: 128, reason: StartError,");
        assert!(wanted(&[&pod]).is_empty());
    }
}
