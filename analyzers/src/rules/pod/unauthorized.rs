use std::collections::{BTreeMap, BTreeSet};

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::nodes::node_agents::{is_kube_proxy, reported_on};
use crate::kubernetes::workloads::log_lines::log_lines;
use crate::kubernetes::workloads::restarts::{PodContainer, containers};
use crate::snapshot::model::Pod;
use crate::snapshot::{Cluster, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::{list, shorten_middle};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks logs for a client of the API server whose credentials are rejected: it repeats
    /// `failed to list *v1.Service: Unauthorized` up to the end of its log. That is another error than missing
    /// permissions (`Forbidden`, see `rbac/denied`).
    ///
    /// ## Why it matters
    ///
    /// The program runs and may be ready, but works with what it knew before. kube-proxy then keeps the Service rules of
    /// that time: connections from pods on its node go to pods that no longer exist, while other nodes work.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE logs POD --tail=20` shows the error until now. `openssl x509 -enddate` on the client
    /// certificate in the program's kubeconfig shows whether it has expired.
    ///
    /// ## How to fix
    ///
    /// Renew the client certificate or token in the program's kubeconfig on the node and restart it. A pod that uses its
    /// ServiceAccount gets a new token when it is recreated.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for a single such error, nor if the log continues with other lines. It needs the log of
    /// the pod: those of kube-proxy and of the network plugin are read for nodes whose pods fail.
    "pod/unauthorized": Error,
    "the API server rejects the credentials of a pod",
    needs: [Pod],
    optional: [ReplicaSet],
    explained_by: ["serviceaccount/missing"],
}

/// Fewer rejected requests may be a coincidence, such as a rotation of keys.
const MIN_LINES: usize = 3;
const LAST_LINES: usize = 30;

fn check(cluster: &Cluster, report: &mut Report) {
    let mut found: BTreeMap<ObjectRef, Finding> = BTreeMap::new();
    for (namespace, name, container) in cluster.logs().keys() {
        let Some(pod) = cluster.get::<Pod>(namespace, name).found().filter(|pod| pod.is_active()) else { continue };
        let Some(container) = containers(pod).find(|c| c.name() == container) else { continue };
        if let Some((line, resources)) = rejected(cluster, &container) {
            let object = reported_on(cluster, pod);
            found.entry(object.clone()).or_insert_with(|| finding(object, &container, &line, &resources)).pods += 1;
        }
    }
    found.into_values().for_each(|finding| report.add(finding));
}

/// The last rejected request, and the resources of all.
fn rejected(cluster: &Cluster, container: &PodContainer) -> Option<(String, BTreeSet<String>)> {
    let lines = log_lines(cluster, container);
    let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
    let is_rejected = |line: &&String| {
        line.contains("failed to list") && (line.contains(": Unauthorized") || line.contains("logged in to the server"))
    };
    let rejected: Vec<&String> = last.iter().filter(is_rejected).collect();
    let still = last.iter().rev().take(MIN_LINES).any(|line| is_rejected(&line));
    let is_rule = rejected.len() >= MIN_LINES && rejected.len() * 2 > last.len() && still;
    let resource = |line: &&String| {
        let (_, rest) = line.split_once("failed to list *")?;
        let kind = rest.split(':').next()?.rsplit('.').next()?;
        (!kind.is_empty() && kind.chars().all(char::is_alphanumeric)).then(|| kind.to_string())
    };
    let resources = rejected.iter().filter_map(resource).collect();
    is_rule.then(|| (rejected.last().map(|line| (*line).clone()).unwrap_or_default(), resources))
}

fn finding(object: ObjectRef, container: &PodContainer, line: &str, resources: &BTreeSet<String>) -> Finding {
    let pod = container.pod;
    let node = pod.spec.node_name.as_str();
    let names: Vec<&str> = resources.iter().map(String::as_str).collect();
    let what = if names.is_empty() { "objects".to_string() } else { list(&names, 3) };
    let effect = if is_kube_proxy(pod) && !node.is_empty() {
        format!(", so the Service rules of node {node} are out of date")
    } else {
        String::new()
    };
    let message = format!(
        "the API server rejects the credentials of Pod {} (Unauthorized): it cannot list {what}{effect}",
        pod.name()
    );
    let finding = Finding::error(object, message).container(container.name()).evidence(
        format!("log of {}: {}", container.name(), shorten_middle(line, 200)),
        &pod.reference(),
        "",
    );
    match kubeconfig(container) {
        Some(path) => {
            let path_text = format!("its kubeconfig is {path}");
            let finding = finding.evidence(path_text, &pod.reference(), &format!("{}.args", container.spec_path()));
            finding.fix(format!(
                "Renew the client certificate in the kubeconfig {path} on node {node}, then restart Pod {}",
                pod.name()
            ))
        }
        None => finding.fix_command(
            "Recreate the pod, so that it gets a new token of its ServiceAccount; if that is rejected too, check the API \
             server's keys for ServiceAccount tokens",
            kubectl(["-n", pod.namespace(), "delete", "pod", pod.name()]),
        ),
    }
}

/// The path in the argument `--kubeconfig` of a container.
fn kubeconfig<'a>(container: &PodContainer<'a>) -> Option<&'a str> {
    let words: Vec<&str> = container.spec.command.iter().chain(&container.spec.args).map(String::as_str).collect();
    let joined = words.iter().find_map(|word| word.strip_prefix("--kubeconfig="));
    joined.or_else(|| words.windows(2).find(|pair| pair[0] == "--kubeconfig").map(|pair| pair[1]))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::{Findings, TestCluster};

    const LINE: &str =
        "E1124 reflector.go:200] \"Failed to watch\" err=\"failed to list *v1.EndpointSlice: Unauthorized\"";

    fn said(lines: &[&str]) -> Findings {
        let pod = "
            apiVersion: v1
            kind: Pod
            metadata: {name: kube-proxy-n1, namespace: kube-system, labels: {k8s-app: kube-proxy}, annotations: {
              kubernetes.io/config.mirror: x}}
            spec: {nodeName: n1, hostNetwork: true, containers: [{name: kube-proxy, args: [--kubeconfig=/var/lib/k]}]}
            status: {phase: Running, containerStatuses: [{name: kube-proxy, ready: true}]}";
        TestCluster::new(&[pod]).log("kube-system", "kube-proxy-n1", "kube-proxy", lines).check(&RULE)
    }

    #[test]
    fn fires_for_kube_proxy_whose_certificate_is_rejected() {
        let said = said(&["started", LINE, LINE, LINE]);
        said.finds(&[
            "error Pod kube-system/kube-proxy-n1: the API server rejects the credentials of Pod kube-proxy-n1 \
             (Unauthorized): it cannot list EndpointSlice, so the Service rules of node n1 are out of date",
        ]);
        assert!(said.finding().fix[0].text.contains("/var/lib/k on node n1"));
    }

    #[test]
    fn quiet_for_few_errors_and_after_recovery() {
        said(&[LINE, LINE]).finds_nothing();
        said(&[LINE, LINE, LINE, "Syncing", "Syncing", "Syncing", "Syncing"]).finds_nothing();
        said(&["failed to list *v1.Service: services is forbidden", "x", "y"]).finds_nothing();
    }
}
