//! Karpenter: which of its node pools have reached their limits.
//!
//! Source: <https://karpenter.sh/docs/concepts/nodepools/#speclimits>

use crate::kubernetes::time::{RECENT, age};
use crate::snapshot::model::{CustomResource, Event, Pod};
use crate::snapshot::{Amount, Cluster, Object};

/// The label of a node with the name of its pool.
pub const POOL_LABEL: &str = "karpenter.sh/nodepool";

/// The node pools; `Provisioner` is their name before Karpenter 0.32.
pub fn pools(cluster: &Cluster) -> Vec<&CustomResource> {
    let is_pool = |custom: &&CustomResource| {
        custom.group() == "karpenter.sh" && matches!(custom.kind.as_str(), "NodePool" | "Provisioner")
    };
    cluster.custom().iter().filter(is_pool).collect()
}

/// A limit of a pool: the resource, the amount in use and the limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    pub resource: String,
    pub used: Amount,
    pub limit: Amount,
}

impl Limit {
    pub fn is_reached(&self) -> bool {
        self.used >= self.limit
    }
}

/// The limits of a pool, sorted by resource.
pub fn limits(pool: &CustomResource) -> Vec<Limit> {
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let limits = pool.spec.get("limits").and_then(|limits| limits.get("resources").or(Some(limits)));
    let limits = limits.and_then(serde_json::Value::as_object).into_iter().flatten();
    let limits = limits.filter_map(|(resource, limit)| {
        let limit = Amount::parse(&text(limit)?)?;
        let used = pool.status.get("resources").and_then(|used| text(used.get(resource)?));
        let used = used.map_or(Some(Amount::ZERO), |used| Amount::parse(&used))?;
        Some(Limit { resource: resource.clone(), used, limit })
    });
    let mut limits: Vec<Limit> = limits.collect();
    limits.sort_by(|a, b| a.resource.cmp(&b.resource));
    limits
}

/// Karpenter's recent event that it cannot create a node for a pod.
pub fn failure<'a>(cluster: &'a Cluster, pod: &Pod) -> Option<&'a Event> {
    let events = cluster.events(&pod.reference());
    events.into_iter().find(|event| {
        let component = event.source.component.as_str();
        let is_karpenter = component.contains("karpenter") || event.reporting_component.contains("karpenter");
        is_karpenter
            && event.reason == "FailedScheduling"
            && event.last_seen().is_none_or(|seen| age(cluster.now(), seen) < RECENT)
    })
}

/// The pools whose limits an event names as the obstacle. The message has a part for each pool, separated by
/// semicolons: `all available instance types exceed limits for nodepool: "default"`.
pub fn limited<'a>(pools: &[&'a CustomResource], event: &Event) -> Vec<&'a CustomResource> {
    let about_limits =
        event.message.split(';').filter(|part| part.contains("exceed limits") || part.contains("limits exceeded"));
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    let words: Vec<&str> = about_limits.flat_map(|part| part.split(|c| !is_name(c))).collect();
    pools.iter().filter(|pool| words.contains(&pool.metadata.name.as_str())).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::{limited, limits, pools};
    use crate::snapshot::model::Event;
    use crate::testing::{TestCluster, part};

    #[test]
    fn names_in_events() {
        let pool = |name: &str| format!("{{apiVersion: karpenter.sh/v1, kind: NodePool, metadata: {{name: {name}}}}}");
        let cluster = TestCluster::new(&[&pool("gpu"), &pool("apps")]).build();
        let limited = |message: &str| {
            let event: Event = part(&format!("message: '{message}'"));
            let found = limited(&pools(&cluster), &event);
            found.into_iter().map(|pool| pool.metadata.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(limited("all available instance types exceed limits for nodepool (NodePool=apps)"), ["apps"]);
        assert_eq!(
            limited(
                "incompatible with nodepool \"gpu\"; all available instance types exceed limits for nodepool: \"apps\""
            ),
            ["apps"]
        );
        assert!(limited("incompatible with nodepool \"gpu\", no instance type").is_empty());
    }

    #[test]
    fn limits_and_usage() {
        let pool = "{apiVersion: karpenter.sh/v1, kind: NodePool, metadata: {name: apps},
            spec: {limits: {cpu: 16, memory: 64Gi, bad: [1]}}, status: {resources: {cpu: '16', nodes: '2'}}}";
        let cluster = TestCluster::new(&[pool]).build();
        let found = limits(pools(&cluster)[0]);
        let found: Vec<_> = found.iter().map(|limit| (limit.resource.as_str(), limit.is_reached())).collect();
        assert_eq!(found, [("cpu", true), ("memory", false)]);
    }
}
