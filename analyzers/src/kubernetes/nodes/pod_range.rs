//! The range of addresses that a node gives to its pods.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use crate::snapshot::model::{CustomResource, Node};
use crate::snapshot::{Cluster, Object, ObjectRef};

/// The addresses of a node for pods.
#[derive(Clone, Debug)]
pub struct PodRange {
    /// `10.200.0.48/28`.
    pub ranges: Vec<String>,
    /// The object that has the range: a CiliumNode or the Node.
    pub source: ObjectRef,
    /// The field of that object.
    pub path: &'static str,
    /// How many pods can have an address.
    pub capacity: usize,
    /// How many addresses of the range the network plugin itself uses.
    pub own: usize,
    /// How many pods have an address of it.
    pub used: usize,
    pub is_cilium: bool,
}

impl PodRange {
    pub fn is_full(&self) -> bool {
        self.used >= self.capacity
    }
}

/// The ranges of the nodes of a cluster.
pub trait PodRangeExt {
    /// The IPv4 range of a node, if it is known.
    fn pod_range(&self, node: &Node) -> Option<PodRange>;
}

impl PodRangeExt for Cluster {
    fn pod_range(&self, node: &Node) -> Option<PodRange> {
        let is_own = |object: &&CustomResource| {
            object.kind == "CiliumNode" && object.group() == "cilium.io" && object.metadata.name == node.name()
        };
        let cilium = self.custom().iter().find(is_own);
        let (texts, source, path): (Vec<&str>, ObjectRef, &'static str) = match cilium {
            Some(cilium) => {
                let ranges = cilium.spec.pointer("/ipam/podCIDRs").and_then(Value::as_array);
                let ranges = ranges.into_iter().flatten().filter_map(Value::as_str).collect();
                (ranges, cilium.reference(), "spec.ipam.podCIDRs")
            }
            None => (node.spec.pod_cidrs.iter().map(String::as_str).collect(), node.reference(), "spec.podCIDRs"),
        };
        let nets: Vec<IpNet> = texts.iter().filter_map(|t| t.parse().ok()).filter(is_ipv4).collect();
        let contains = |ip: &IpAddr| nets.iter().any(|net| net.contains(ip));
        let own = match cilium {
            Some(cilium) => addresses_of_agent(cilium).filter(contains).count(),
            // The gateway of the bridge.
            None => 1,
        };
        let total: usize = nets.iter().map(usable).sum();
        let used = used(self, node, contains);
        let ranges: Vec<String> = nets.iter().map(IpNet::to_string).collect();
        let capacity = total.saturating_sub(own);
        let is_cilium = cilium.is_some();
        (!nets.is_empty()).then_some(PodRange { ranges, source, path, capacity, own, used, is_cilium })
    }
}

fn is_ipv4(net: &IpNet) -> bool {
    matches!(net, IpNet::V4(_))
}

/// The addresses of a range, without its first and last one.
fn usable(net: &IpNet) -> usize {
    let bits = u32::from(32_u8.saturating_sub(net.prefix_len()));
    1_usize.checked_shl(bits).unwrap_or(usize::MAX).saturating_sub(2)
}

/// The addresses that the agent of Cilium has in its node's range.
fn addresses_of_agent(node: &CustomResource) -> impl Iterator<Item = IpAddr> + '_ {
    let addresses = node.spec.get("addresses").and_then(Value::as_array).into_iter().flatten();
    let internal = addresses.filter(|a| a.get("type").and_then(Value::as_str) == Some("CiliumInternalIP"));
    let fields = ["/health/ipv4", "/ingress/ipv4"].into_iter().filter_map(|path| node.spec.pointer(path));
    let texts = internal.filter_map(|a| a.get("ip")).chain(fields).filter_map(Value::as_str);
    texts.filter_map(|text| text.parse().ok())
}

fn used(cluster: &Cluster, node: &Node, contains: impl Fn(&IpAddr) -> bool) -> usize {
    let pods = cluster.pods_on_node(node.name()).into_iter().filter(|pod| !pod.is_finished() && !pod.spec.host_network);
    let has_address = |ip: &str| ip.parse().is_ok_and(|ip| contains(&ip));
    pods.filter(|pod| has_address(&pod.status.pod_ip) || pod.status.pod_ips.iter().any(|ip| has_address(&ip.ip)))
        .count()
}
