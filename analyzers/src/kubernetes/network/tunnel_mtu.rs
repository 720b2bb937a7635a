//! Tunnels whose configured MTU the network plugin cannot set, because the network between the nodes has a smaller one.

use crate::kubernetes::workloads::restarts::containers;
use crate::snapshot::model::{Container, Pod};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::words::plain;

/// A configured MTU that the tunnel device cannot have.
#[derive(Clone, Debug)]
pub struct TunnelMtu {
    /// The ConfigMap with the MTU, or else the owner of the network plugin's pods.
    pub object: ObjectRef,
    /// The key or variable.
    pub field: String,
    pub pod: ObjectRef,
    pub owner: ObjectRef,
    pub configured: u32,
    pub possible: u32,
    pub line: String,
}

/// The tunnel's MTU, if the network plugin reports that it cannot set the configured one.
pub fn tunnel_mtu(cluster: &Cluster) -> Option<&TunnelMtu> {
    cluster.derived(|| Found(find(cluster))).0.as_ref()
}

struct Found(Option<TunnelMtu>);

fn find(cluster: &Cluster) -> Option<TunnelMtu> {
    cluster.logs().iter().find_map(|((namespace, pod, container), log)| {
        let (configured, possible, line) = rejected(&log.lines)?;
        let pod = cluster.get::<Pod>(namespace, pod).found().filter(|pod| pod.spec.host_network)?;
        let container = containers(pod).find(|c| c.name() == container)?;
        let owner = cluster.owner_of(pod).into_owned();
        let (object, field) = source(namespace, container.spec).unwrap_or((owner.clone(), "the MTU".to_string()));
        Some(TunnelMtu { object, field, pod: pod.reference(), owner, configured, possible, line })
    })
}

/// The variable with the MTU of the tunnel, if it comes from a ConfigMap.
fn source(namespace: &str, container: &Container) -> Option<(ObjectRef, String)> {
    let variables = container.env.iter().filter(|variable| variable.name.to_ascii_uppercase().contains("MTU"));
    let keys = variables.filter_map(|v| v.value_from.as_deref()?.config_map_key_ref.as_ref());
    keys.map(|key| (ObjectRef::new(Kind::ConfigMap, namespace, &key.name), key.key.clone())).next()
}

/// `MTU needs to be updated … new=1500 old=1450` and `Failed to set … MTU`, as Felix of Calico logs them.
fn rejected(lines: &[String]) -> Option<(u32, u32, String)> {
    let recent = &lines[lines.len().saturating_sub(50)..];
    let fails = recent.iter().rfind(|line| line.contains("Failed to set") && line.contains("MTU"))?;
    let (configured, possible) = recent.iter().rev().filter(|line| line.contains("MTU")).find_map(|line| {
        let number = |key: &str| line.split_once(key)?.1.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
        Some((number(" new=")?, number(" old=")?))
    })?;
    (possible > 0 && configured > possible).then(|| (configured, possible, plain(fails)))
}
