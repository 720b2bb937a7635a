//! Whether kube-proxy keeps the rules of a node up to date.

use crate::snapshot::model::Pod;
use crate::snapshot::{Cluster, Object, ObjectRef};
use crate::text::words;

/// How many lines from the end of a log are read.
const LINES: usize = 20;

/// The kube-proxy of a node whose log ends with failed attempts to read Services or EndpointSlices, and the last such
/// line. Its rules are those of the time before.
pub fn outdated_on(cluster: &Cluster, node: &str) -> Option<(ObjectRef, String)> {
    let is_proxy = |pod: &&Pod| {
        let label = |key: &str| pod.metadata.labels.get(key) == Some("kube-proxy");
        pod.is_active() && (label("k8s-app") || label("component") || pod.name().starts_with("kube-proxy-"))
    };
    let pod = cluster.pods_on_node(node).into_iter().find(is_proxy)?;
    let container = pod.spec.running_containers().next()?;
    let log = cluster.log(pod.namespace(), pod.name(), &container.name)?;
    let last: Vec<&String> = log.lines.iter().rev().filter(|line| !line.trim().is_empty()).take(LINES).collect();
    let fails = |line: &str| {
        let lower = line.to_lowercase();
        lower.contains("failed to watch") || lower.contains("failed to list")
    };
    let about = |line: &&&String| fails(line) && (line.contains("*v1.EndpointSlice") || line.contains("*v1.Service"));
    let failed = last.iter().filter(|line| fails(line)).count();
    let line = last.iter().find(about)?;
    // A watch that was restored continues with lines about the rules.
    (failed * 2 > last.len()).then(|| (pod.reference(), words::shorten(&words::plain(line), 200)))
}
