//! Where pods ask the cluster's DNS.

use super::{Endpoint, Port, Protocol};
use crate::kubernetes::network::cluster_dns::ClusterDns;

/// Where the node-local cache listens, unless told otherwise.
pub const NODE_LOCAL: &str = "169.254.20.10";

/// Everything that answers DNS: a plugin may judge a packet before or after the Service's address was replaced.
pub fn dns_targets<'a>(dns: &ClusterDns<'a>) -> Vec<(Endpoint<'a>, Port)> {
    let mut targets = Vec::new();
    for pod in &dns.pods {
        for port in dns.ports_of(pod) {
            if let Some(protocol) = Protocol::parse(&port.protocol) {
                targets.push((Endpoint::pod(pod), Port { number: port.target, protocol }));
            }
        }
    }
    let mut addresses = dns.cluster_ips();
    if !dns.node_local.is_empty() {
        addresses.insert(NODE_LOCAL);
    }
    for ip in addresses.iter().filter_map(|ip| ip.parse().ok()) {
        targets.push((Endpoint::Address(ip), Port::udp(53)));
        targets.push((Endpoint::Address(ip), Port::tcp(53)));
    }
    targets
}
