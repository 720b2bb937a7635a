//! Host ports.

use super::Refusal;
use crate::snapshot::Cluster;
use crate::snapshot::model::{ContainerPort, Pod};

pub(super) fn check(cluster: &Cluster, pod: &Pod, others: &[&Pod], why: &mut Vec<Refusal>) {
    let holder = |wanted: &ContainerPort| {
        others.iter().copied().find(|other| host_ports(other).any(|port| conflict(wanted, port)))
    };
    let mut wanted: Vec<(&ContainerPort, &Pod)> =
        host_ports(pod).filter_map(|port| Some((port, holder(port)?))).collect();
    wanted.dedup_by_key(|(port, _)| (port.host_port, port.protocol().to_string()));
    for (port, holder) in wanted {
        let protocol = port.protocol();
        let protocol = if protocol == "TCP" { String::new() } else { format!("/{protocol}") };
        let holder = cluster.owner_of(holder).into_owned();
        why.push(Refusal::HostPort { port: format!("{}{protocol}", port.host_port), holder });
    }
}

/// The host ports of containers and sidecars. With `hostNetwork` the API server sets `hostPort` itself.
fn host_ports(pod: &Pod) -> impl Iterator<Item = &ContainerPort> {
    pod.spec.running_containers().flat_map(|container| &container.ports).filter(|port| port.host_port > 0)
}

/// An empty host IP stands for all addresses.
fn conflict(a: &ContainerPort, b: &ContainerPort) -> bool {
    let is_any = |ip: &str| matches!(ip, "" | "0.0.0.0" | "::");
    a.host_port == b.host_port
        && a.protocol() == b.protocol()
        && (a.host_ip == b.host_ip || is_any(&a.host_ip) || is_any(&b.host_ip))
}
