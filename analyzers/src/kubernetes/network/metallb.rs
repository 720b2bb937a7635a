//! The address pools of MetalLB, and which of them no advertisement announces.

use serde_json::Value;

use crate::kubernetes::nodes::platform::PlatformExt;
use crate::snapshot::model::{CustomResource, LabelSelector, Node, Service};
use crate::snapshot::{Cluster, Extent, GroupKind, Kind, Object, Origin, Selector};

const GROUP: &str = "metallb.io";
const ADVERTISEMENTS: [&str; 2] = ["L2Advertisement", "BGPAdvertisement"];

/// An IPAddressPool that no advertisement announces, and the advertisements of its namespace.
#[derive(Clone, Debug)]
pub struct Unannounced<'a> {
    pub pool: &'a CustomResource,
    pub advertisements: Vec<&'a CustomResource>,
}

/// The pools of which no address is announced to the network.
pub fn unannounced(cluster: &Cluster) -> Vec<Unannounced<'_>> {
    let of_kind = |kind: &'static str| {
        cluster.custom().iter().filter(move |o| o.group() == GROUP && o.kind == kind && !is_deleted(o))
    };
    let mut pools = of_kind("IPAddressPool").peekable();
    if pools.peek().is_none() || ADVERTISEMENTS.iter().any(|kind| is_unread(cluster, kind)) {
        return Vec::new();
    }
    let advertisements: Vec<&CustomResource> = ADVERTISEMENTS.iter().copied().flat_map(of_kind).collect();
    let of_pool = |pool: &'_ CustomResource| {
        let own = advertisements.iter().copied();
        own.filter(|ad| ad.metadata.namespace == pool.metadata.namespace).collect::<Vec<_>>()
    };
    let found = pools.map(|pool| Unannounced { pool, advertisements: of_pool(pool) });
    let is_unannounced =
        |found: &Unannounced<'_>| !found.advertisements.iter().any(|ad| announces(cluster, ad, found.pool));
    // Without any advertisement, something else may announce the addresses that MetalLB only assigns (BGP of Calico).
    let counts = |found: &Unannounced<'_>| {
        !found.advertisements.is_empty()
            || (cluster.origin() == Origin::Cluster && cluster.runs(&["metallb/speaker", "metallb-speaker"]))
    };
    found.filter(|found| is_unannounced(found) && counts(found)).collect()
}

/// The pool that MetalLB assigned a Service's address from.
pub fn pool_of(service: &Service) -> Option<&str> {
    let keys = ["metallb.io/ip-allocated-from-pool", "metallb.universe.tf/ip-allocated-from-pool"];
    keys.iter().find_map(|key| service.annotation(key))
}

/// Whether a speaker reports that it announces a Service.
pub fn is_announced(cluster: &Cluster, service: &Service) -> bool {
    let is = |status: &CustomResource, key: &str, value: &str| status.metadata.labels.get(key) == Some(value);
    cluster.custom().iter().any(|status| {
        status.kind == "ServiceL2Status"
            && is(status, "metallb.io/service-name", service.name())
            && is(status, "metallb.io/service-namespace", service.namespace())
    })
}

/// The names in a list of an advertisement's spec.
pub fn names<'a>(advertisement: &'a CustomResource, field: &str) -> Vec<&'a str> {
    let list = advertisement.spec.get(field).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

fn is_deleted(object: &CustomResource) -> bool {
    object.metadata.deletion_timestamp.is_some()
}

fn is_unread(cluster: &Cluster, kind: &str) -> bool {
    let kind = GroupKind { group: GROUP.to_string(), kind: kind.to_string() };
    let extent = cluster.coverage().custom().get(&kind);
    extent.is_some_and(|extent| !matches!(extent, Extent::Everything | Extent::NotServed | Extent::NotRequested))
}

/// Whether an advertisement covers a pool on at least one node. Without a list and without selectors it covers all pools.
fn announces(cluster: &Cluster, advertisement: &CustomResource, pool: &CustomResource) -> bool {
    let selectors = |field: &str| -> Vec<&Value> {
        advertisement.spec.get(field).and_then(Value::as_array).into_iter().flatten().collect()
    };
    let named = names(advertisement, "ipAddressPools");
    let by_label = selectors("ipAddressPoolSelectors");
    let covers = (named.is_empty() && by_label.is_empty())
        || named.contains(&pool.metadata.name.as_str())
        || by_label.iter().any(|selector| matches(selector, &pool.metadata.labels));
    let of_nodes = selectors("nodeSelectors");
    let all_nodes = of_nodes.is_empty() || !cluster.covers_all(Kind::Node) || cluster.all::<Node>().is_empty();
    let on_node = |node: &Node| of_nodes.iter().any(|selector| matches(selector, &node.metadata.labels));
    covers && (all_nodes || cluster.all::<Node>().iter().any(on_node))
}

/// A selector that cannot be decoded is assumed to match.
fn matches(selector: &Value, labels: &crate::snapshot::model::Labels) -> bool {
    let selector = serde_json::from_value::<LabelSelector>(selector.clone());
    selector.map_or(true, |selector| Selector::new(&selector).matches(labels))
}
