//! Host ports.

use super::Refusal;
use crate::snapshot::model::{ContainerPort, Pod};

pub(super) fn check(pod: &Pod, others: &[&Pod], why: &mut Vec<Refusal>) {
    let taken = |wanted: &ContainerPort| others.iter().flat_map(|other| host_ports(other)).any(|p| conflict(wanted, p));
    let mut wanted: Vec<&ContainerPort> = host_ports(pod).filter(|port| taken(port)).collect();
    wanted.dedup_by_key(|port| (port.host_port, port.protocol().to_string()));
    for port in wanted {
        let protocol = port.protocol();
        let protocol = if protocol == "TCP" { String::new() } else { format!("/{protocol}") };
        why.push(Refusal::HostPort(format!("{}{protocol}", port.host_port)));
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
