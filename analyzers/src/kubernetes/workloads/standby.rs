//! Standby replicas: pods that wait for the lease that another pod holds, and serve only when they get it.

use crate::kubernetes::time::age;
use crate::kubernetes::workloads::log_lines::log_lines;
use crate::kubernetes::workloads::restarts::containers;
use crate::snapshot::Cluster;
use crate::snapshot::model::{Lease, Pod};

/// How many of the last lines of a log may follow the one about the lease.
const LAST_LINES: usize = 5;

/// Whether an unready pod waits for a lease that another ready pod of its owner holds and renews. That is the design
/// of controllers that serve only as the leader; a stale lease, or one that nobody holds, is a fault.
pub fn is_standby(cluster: &Cluster, pod: &Pod) -> bool {
    if pod.is_ready() || !pod.is_active() || pod.status.phase != "Running" {
        return false;
    }
    let awaited = containers(pod).filter(super::restarts::PodContainer::runs).find_map(|container| {
        let lines = log_lines(cluster, &container);
        let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
        last.iter().rev().find_map(|line| awaited_lease(line, &pod.metadata.namespace))
    });
    let Some((namespace, name)) = awaited else { return false };
    let Some(lease) = cluster.get::<Lease>(&namespace, &name).found() else { return false };
    is_renewed(cluster, lease) && is_held_by_sibling(cluster, lease, pod)
}

/// `attempting to acquire leader lease NAMESPACE/NAME...` of client-go.
fn awaited_lease(line: &str, own_namespace: &str) -> Option<(String, String)> {
    let (_, rest) = line.split_once("ttempting to acquire leader lease ")?;
    let word = rest.split([' ', '"', '\\', ',']).next()?.trim_end_matches('.');
    match word.split_once('/') {
        Some((namespace, name)) => Some((namespace.to_string(), name.to_string())),
        None => Some((own_namespace.to_string(), word.to_string())),
    }
    .filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty())
}

fn is_renewed(cluster: &Cluster, lease: &Lease) -> bool {
    let Some(spec) = &lease.spec else { return false };
    let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or(15)).unwrap_or(15);
    spec.renew_time.as_ref().is_some_and(|renewed| age(cluster.now(), renewed.0).as_secs() <= seconds.saturating_mul(2))
}

/// Holders call themselves by their pod's name, with a random suffix: `NAME_UUID`.
fn is_held_by_sibling(cluster: &Cluster, lease: &Lease, pod: &Pod) -> bool {
    let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
    let owner = cluster.owner_of(pod);
    let Some(group) = cluster.group_of_owner(&owner) else { return false };
    cluster.pods_of(group).any(|other| {
        let name = other.metadata.name.as_str();
        let is_holder = holder.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['_', '-']));
        is_holder && name != pod.metadata.name && other.is_ready()
    })
}

#[cfg(test)]
mod tests {
    use super::is_standby;
    use crate::snapshot::model::Pod;
    use crate::testing::TestCluster;

    fn pod(name: &str, ready: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: shop, ownerReferences: [
               {{apiVersion: apps/v1, kind: StatefulSet, name: c, controller: true}}]}},
               spec: {{containers: [{{name: manager}}]}},
               status: {{phase: Running, conditions: [{{type: Ready, status: '{ready}'}}],
                 containerStatuses: [{{name: manager, state: {{running: {{}}}}}}]}}}}"
        )
    }

    fn waits(holder: &str, renewed: &str) -> bool {
        let lease = format!(
            "{{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {{name: leader, namespace: shop}},
               spec: {{holderIdentity: {holder}, leaseDurationSeconds: 15, renewTime: '{renewed}'}}}}"
        );
        let line = r#"{"msg":"attempting to acquire leader lease shop/leader...\n"}"#;
        let world = TestCluster::new(&[&pod("c-0", "True"), &pod("c-1", "False"), &lease]);
        let cluster = world.log("shop", "c-1", "manager", &["starting", line]).build();
        is_standby(&cluster, cluster.get::<Pod>("shop", "c-1").found().unwrap())
    }

    #[test]
    fn only_while_a_ready_sibling_renews_the_lease() {
        assert!(waits("c-0_1234", "2026-11-21T11:59:55.000000Z"));
        assert!(!waits("c-0_1234", "2026-11-21T11:58:00.000000Z"));
        assert!(!waits("other-0_1234", "2026-11-21T11:59:55.000000Z"));
        assert!(!waits("''", "2026-11-21T11:59:55.000000Z"));
    }
}
