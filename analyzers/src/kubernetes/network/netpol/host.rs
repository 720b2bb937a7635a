//! Connections from pods on the host network. They come from an address of the node, which no selector matches.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Answer, Direction, Endpoint, Peer, PodEnd, PolicySet, Port, Side, address};
use crate::kubernetes::nodes::platform::PlatformExt;
use crate::snapshot::Cluster;
use crate::snapshot::model::{Node, Pod};

/// Whether the network plugin may match pods on the host network by selectors: OVN-Kubernetes by a namespace of its own,
/// and the agent of the Amazon VPC CNI by the addresses of the pods.
pub fn may_match_host_pods(cluster: &Cluster) -> bool {
    cluster.is_openshift() || cluster.runs(&["ovn-kubernetes", "ovnkube", "network-policy-agent"])
}

/// The addresses from which a pod on the host network connects: those of its node, and of the tunnels of Calico.
pub fn addresses(cluster: &Cluster, pod: &Pod) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = [&*pod.status.host_ip, &*pod.status.pod_ip].into_iter().filter_map(address).collect();
    if let Some(node) = node_of(cluster, pod) {
        let own = node.status.addresses.iter().filter(|a| a.type_ == "InternalIP" || a.type_ == "ExternalIP");
        found.extend(own.filter_map(|own| address(&own.address)));
        let tunnels = node.metadata.annotations.iter().filter(|(key, _)| key.contains("TunnelAddr"));
        found.extend(tunnels.filter_map(|(_, value)| address(value)));
    }
    let mut distinct: Vec<IpAddr> = Vec::new();
    for ip in found {
        if !distinct.contains(&ip) {
            distinct.push(ip);
        }
    }
    distinct
}

fn node_of<'a>(cluster: &'a Cluster, pod: &Pod) -> Option<&'a Node> {
    cluster.get::<Node>("", &pod.spec.node_name).found()
}

/// The result of the policies of a pod for a connection from a pod on the host network.
pub fn side_from_host<'a>(
    set: &PolicySet<'a>,
    from: &'a Pod,
    to: &PodEnd<'a>,
    port: Port,
    may_match: bool,
) -> Side<'a> {
    let (subject, by_selector) = (Endpoint::Pod(*to), Endpoint::pod(from));
    let addresses = addresses(set.cluster(), from);
    if may_match || addresses.is_empty() || to.is_on_node_of(&by_selector) {
        return set.side(Direction::Ingress, &subject, &by_selector, port);
    }
    let rank = |side: &Side| match side.answer {
        Answer::Yes => 0,
        Answer::Unknown => 1,
        Answer::No => 2,
    };
    let sides = addresses.iter().map(|ip| set.side(Direction::Ingress, &subject, &Endpoint::Address(*ip), port));
    let Some(mut best) = sides.min_by_key(rank) else { return Side::open() };
    if best.answer == Answer::No && may_admit_tunnel(set, from, to, port) {
        best.answer = Answer::Unknown;
    }
    best
}

/// Whether a rule admits a part of the node's pod range, in which the address of its tunnel may be.
fn may_admit_tunnel<'a>(set: &PolicySet<'a>, from: &Pod, to: &PodEnd<'a>, port: Port) -> bool {
    let ranges: Vec<IpNet> = node_of(set.cluster(), from)
        .into_iter()
        .flat_map(|node| node.spec.pod_cidrs.iter())
        .filter_map(|range| range.parse().ok())
        .collect();
    let overlaps = |peer: &Peer| match peer {
        Peer::Block { cidr, .. } => ranges.iter().any(|range| range.contains(cidr) || cidr.contains(range)),
        _ => false,
    };
    let policies = set.isolating(Direction::Ingress, to);
    let mut rules = policies.iter().flat_map(|policy| policy.rules(Direction::Ingress).unwrap_or_default());
    rules.any(|rule| rule.allows_port(port, &Endpoint::Pod(*to)) != Answer::No && rule.peers.iter().any(overlaps))
}
