//! The destinations of pods' DNS queries.

use super::{Endpoint, Port, Protocol};
use crate::kubernetes::network::cluster_dns::ClusterDns;

/// The default address of the node-local cache.
pub const NODE_LOCAL: &str = "169.254.20.10";

/// All DNS endpoints: a network plugin may apply policies before or after translating the Service's address.
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
