//! The claims of a pod: whether they are bound, and which nodes can access their volumes.
//!
//! Source: <https://kubernetes.io/docs/concepts/storage/persistent-volumes/>

use super::{Obstacle, Refusal, claim_names, node_affinity};
use crate::snapshot::model::{LabelSet, Node, PersistentVolume, PersistentVolumeClaim, Pod, StorageClass};
use crate::snapshot::{Amount, Cluster, Kind, Lookup, Object};

/// Which nodes can use the volume of a claim.
enum Reach<'a> {
    /// An existing volume.
    Of(&'a PersistentVolume),
    /// The available volumes of a class, by the class name. The claim is bound once the pod is scheduled.
    OneOf(&'a str, Vec<&'a PersistentVolume>),
    /// The nodes for which a class can provision volumes.
    MadeBy(&'a StorageClass),
}

pub(super) struct Claims<'a> {
    pub obstacles: Vec<Obstacle>,
    reaches: Vec<Reach<'a>>,
}

impl<'a> Claims<'a> {
    pub(super) fn new(cluster: &'a Cluster, pod: &Pod) -> Claims<'a> {
        let mut claims = Claims { obstacles: Vec::new(), reaches: Vec::new() };
        for name in claim_names(pod) {
            match cluster.get::<PersistentVolumeClaim>(&pod.metadata.namespace, &name) {
                Lookup::Missing => claims.obstacles.push(Obstacle::ClaimMissing(name)),
                Lookup::Unknown => {}
                Lookup::Found(claim) => claims.add(cluster, pod, claim),
            }
        }
        claims
    }

    fn add(&mut self, cluster: &'a Cluster, pod: &Pod, claim: &'a PersistentVolumeClaim) {
        let name = claim.name().to_string();
        if claim.deleted().is_some() {
            return self.obstacles.push(Obstacle::ClaimTerminating(name));
        }
        let status = claim.status.as_ref();
        let spec = claim.spec.as_ref();
        if status.and_then(|status| status.phase.as_deref()) == Some("Lost") {
            return self.obstacles.push(Obstacle::ClaimLost(name));
        }
        if let Some(user) = only_user(cluster, pod, claim) {
            self.obstacles.push(Obstacle::ClaimInUse { claim: name.clone(), pod: user.to_string() });
        }
        let volume = spec.and_then(|spec| spec.volume_name.as_deref()).filter(|volume| !volume.is_empty());
        // A claim that requests a volume by name is bound immediately or never.
        let is_pending = status.and_then(|status| status.phase.as_deref()) == Some("Pending");
        let is_bound = claim.annotation("pv.kubernetes.io/bind-completed").is_some();
        if volume.is_some() && is_pending && !is_bound {
            return self.obstacles.push(Obstacle::ClaimUnbound(name));
        }
        if let Some(volume) = volume {
            match cluster.get::<PersistentVolume>("", volume) {
                Lookup::Found(volume) => self.reaches.push(Reach::Of(volume)),
                Lookup::Missing => self.obstacles.push(Obstacle::ClaimLost(name)),
                Lookup::Unknown => {}
            }
            return;
        }
        let class = spec.and_then(|spec| spec.storage_class_name.as_deref()).unwrap_or_default();
        match cluster.get::<StorageClass>("", class) {
            Lookup::Found(class) if waits_for_pod(class) => self.reaches.push(reach_of(cluster, claim, class)),
            // A claim without a class, or whose class does not exist, is bound immediately or never.
            Lookup::Found(_) | Lookup::Missing => self.obstacles.push(Obstacle::ClaimUnbound(name)),
            Lookup::Unknown => {}
        }
    }

    pub(super) fn check(&self, node: &Node, why: &mut Vec<Refusal>) {
        for reach in &self.reaches {
            match reach {
                Reach::Of(volume) => why.extend(out_of_reach(volume, node).map(Refusal::Volume)),
                Reach::OneOf(class, volumes) => {
                    if !volumes.iter().any(|volume| out_of_reach(volume, node).is_none()) {
                        why.push(Refusal::Volume(format!(
                            "cannot bind a volume: no PersistentVolume of class {class} is available there"
                        )));
                    }
                }
                Reach::MadeBy(class) => {
                    if !can_provision_at(class, node) {
                        why.push(Refusal::Volume(format!(
                            "cannot provision a volume: not in allowedTopologies of StorageClass {}",
                            class.name()
                        )));
                    }
                }
            }
        }
    }
}

fn waits_for_pod(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

fn reach_of<'a>(cluster: &'a Cluster, claim: &PersistentVolumeClaim, class: &'a StorageClass) -> Reach<'a> {
    // Existing volumes are bound before one is provisioned. A class without a provisioner has only those.
    if class.provisioner != "kubernetes.io/no-provisioner" || !cluster.covers_all(Kind::PersistentVolume) {
        return Reach::MadeBy(class);
    }
    let volumes = cluster.all::<PersistentVolume>().iter().filter(|volume| satisfies(volume, claim)).collect();
    Reach::OneOf(class.name(), volumes)
}

/// Whether an available volume satisfies a claim.
fn satisfies(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(has), Some(wants)) = (&volume.spec, &claim.spec) else { return false };
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    let is_free = match &has.claim_ref {
        None => phase == Some("Available"),
        Some(reserved) => {
            reserved.name.as_deref() == Some(claim.name()) && reserved.namespace.as_deref() == Some(claim.namespace())
        }
    };
    let size = |quantities: Option<&std::collections::BTreeMap<String, _>>| {
        quantities.and_then(|quantities| quantities.get("storage")).and_then(Amount::of).unwrap_or_default()
    };
    let wanted = size(wants.resources.as_ref().and_then(|resources| resources.requests.as_ref()));
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_string());
    is_free
        && has.storage_class_name == wants.storage_class_name
        && size(has.capacity.as_ref()) >= wanted
        && mode(&has.volume_mode) == mode(&wants.volume_mode)
        && wants.access_modes.iter().flatten().all(|mode| has.access_modes.iter().flatten().any(|m| m == mode))
}

/// Why a volume cannot be used on a node: its node affinity, or the zone it is labeled with.
fn out_of_reach(volume: &PersistentVolume, node: &Node) -> Option<String> {
    let required = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref()?.required.as_ref());
    if let Some(required) = required.filter(|required| !node_affinity::matches(required, node)) {
        return Some(format!(
            "cannot access volume {} (requires {})",
            volume.name(),
            node_affinity::unmet_of(required, node)
        ));
    }
    let zones = [
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
    ];
    for key in zones {
        let Some(values) = volume.labels().value(key) else { continue };
        // A regional volume lists its zones, separated by `__`.
        let is_here = |zone: &str| values.split("__").any(|value| value == zone);
        // A node without a zone label is not checked (clusters without a cloud provider).
        if node.metadata.labels.value(key).is_some_and(|zone| !is_here(zone)) {
            return Some(format!("cannot access volume {} (in {key}={values})", volume.name()));
        }
    }
    None
}

/// `allowedTopologies`: one of the terms must hold. Without terms, every node is allowed.
fn can_provision_at(class: &StorageClass, node: &Node) -> bool {
    let Some(terms) = class.allowed_topologies.as_ref().filter(|terms| !terms.is_empty()) else { return true };
    terms.iter().any(|term| {
        term.match_label_expressions.iter().flatten().all(|requirement| {
            let value = node.metadata.labels.value(&requirement.key);
            value.is_some_and(|value| requirement.values.iter().any(|v| v == value))
        })
    })
}

/// The other pod that uses a ReadWriteOncePod claim (KEP-2485).
fn only_user<'a>(cluster: &'a Cluster, pod: &Pod, claim: &PersistentVolumeClaim) -> Option<&'a str> {
    let modes = claim.spec.as_ref()?.access_modes.as_ref()?;
    if !modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        return None;
    }
    let others = cluster.in_namespace::<Pod>(&pod.metadata.namespace).iter();
    let mut users = others.filter(|other| {
        other.metadata.name != pod.metadata.name
            && !other.spec.node_name.is_empty()
            && !other.is_finished()
            && claim_names(other).iter().any(|name| name == claim.name())
    });
    users.next().map(|user| user.metadata.name.as_str())
}
