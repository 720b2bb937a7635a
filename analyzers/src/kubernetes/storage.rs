//! Claims, the classes and volumes that could satisfy them, and the pods that use them.

pub mod csi;

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::core::v1::NodeSelectorRequirement;

use crate::snapshot::model::{
    LabelSet, Node, PersistentVolume, PersistentVolumeClaim, Pod, StorageClass, Timestamp, Volume, VolumeAttachment,
};
use crate::snapshot::{Amount, Cluster, Object, Selector};
use crate::text::hash::hash;
use crate::text::words::list;

/// The provisioner of classes whose volumes are created manually.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// The class of a claim. `Some("")` requests a volume without a class, `None` the default class.
pub fn class_of(claim: &PersistentVolumeClaim) -> Option<&str> {
    let named = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    named.or_else(|| claim.annotation("volume.beta.kubernetes.io/storage-class"))
}

/// The class of a volume; empty if it has none.
pub fn class_of_volume(volume: &PersistentVolume) -> &str {
    let named = volume.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    named.or_else(|| volume.annotation("volume.beta.kubernetes.io/storage-class")).unwrap_or_default()
}

pub fn is_default(class: &StorageClass) -> bool {
    let annotations =
        ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    annotations.iter().any(|key| class.annotation(key) == Some("true"))
}

/// Whether the class provisions or binds a volume only once a pod that uses the claim is scheduled.
pub fn waits_for_consumer(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

pub fn phase(claim: &PersistentVolumeClaim) -> &str {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

pub fn phase_of_volume(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

pub fn phase_changed(volume: &PersistentVolume) -> Option<Timestamp> {
    volume.status.as_ref()?.last_phase_transition_time.as_ref().map(|time| time.0)
}

/// The volume that a claim is bound to, or that it requests by name.
pub fn volume_of(claim: &PersistentVolumeClaim) -> Option<&str> {
    let name = claim.spec.as_ref()?.volume_name.as_deref()?;
    (!name.is_empty()).then_some(name)
}

/// The claim behind a volume of a pod. The claim of a generic ephemeral volume is named after pod and volume.
pub fn claim_of(pod: &Pod, volume: &Volume) -> Option<String> {
    if volume.ephemeral.is_some() {
        return Some(format!("{}-{}", pod.metadata.name, volume.name));
    }
    volume.persistent_volume_claim.as_ref().map(|source| source.claim_name.clone())
}

/// The pods that use a claim, except finished ones.
pub fn users<'a>(cluster: &'a Cluster, claim: &PersistentVolumeClaim) -> Vec<&'a Pod> {
    let uses = |pod: &&Pod| {
        !pod.is_finished()
            && pod.spec.volumes.iter().any(|volume| claim_of(pod, volume).as_deref() == Some(claim.name()))
    };
    cluster.in_namespace::<Pod>(claim.namespace()).iter().filter(uses).collect()
}

/// The requested size of a claim.
pub fn requested(claim: &PersistentVolumeClaim) -> Option<Amount> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    requests.get("storage").and_then(Amount::of)
}

/// The size that a bound claim has.
pub fn capacity_of(claim: &PersistentVolumeClaim) -> Option<Amount> {
    claim.status.as_ref()?.capacity.as_ref()?.get("storage").and_then(Amount::of)
}

fn capacity(volume: &PersistentVolume) -> Option<Amount> {
    volume.spec.as_ref()?.capacity.as_ref()?.get("storage").and_then(Amount::of)
}

/// The volume of a pod's volume that is a bound claim.
pub fn bound_volume<'a>(cluster: &'a Cluster, pod: &Pod, volume: &Volume) -> Option<&'a PersistentVolume> {
    let claim = claim_of(pod, volume)?;
    let claim = cluster.get::<PersistentVolumeClaim>(&pod.metadata.namespace, &claim).found()?;
    cluster.get::<PersistentVolume>("", volume_of(claim)?).found()
}

/// The CSI driver of a volume.
pub fn driver_of(volume: &PersistentVolume) -> Option<&str> {
    Some(volume.spec.as_ref()?.csi.as_ref()?.driver.as_str()).filter(|driver| !driver.is_empty())
}

/// The attachments of a volume to nodes.
pub fn attachments<'a>(cluster: &'a Cluster, volume: &'a str) -> impl Iterator<Item = &'a VolumeAttachment> {
    let all = cluster.all::<VolumeAttachment>().iter();
    all.filter(move |a| a.spec.source.persistent_volume_name.as_deref() == Some(volume))
}

pub fn is_attached(attachment: &VolumeAttachment) -> bool {
    attachment.status.as_ref().is_some_and(|status| status.attached)
}

/// Whether a volume refers to a deleted claim with the name of this one: the `uid` in its `claimRef` is another.
/// Kubernetes then never binds it to the new claim.
pub fn refers_to_predecessor(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(owner) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else { return false };
    let uid = owner.uid.as_deref().unwrap_or_default();
    owner.namespace.as_deref() == Some(claim.namespace())
        && owner.name.as_deref() == Some(claim.name())
        && !uid.is_empty()
        && !claim.uid().is_empty()
        && *uid != *claim.uid()
}

/// A node whose name a volume's node affinity requires as the value of a label that has another value.
#[derive(Debug)]
pub struct Misnamed<'a> {
    pub node: &'a Node,
    pub key: &'a str,
    pub wanted: &'a str,
    /// The value of the label; `None` if the node does not have it.
    pub has: Option<&'a str>,
}

/// The names and labels of all nodes.
struct NodeNames {
    /// By the name without its domain.
    by_host: HashMap<u64, Vec<u32>>,
    /// The hashes of keys and values.
    labels: HashSet<u64>,
}

impl NodeNames {
    fn new(cluster: &Cluster) -> NodeNames {
        let mut names = NodeNames { by_host: HashMap::new(), labels: HashSet::new() };
        for (n, node) in (0u32..).zip(cluster.all::<Node>()) {
            names.by_host.entry(hash(&[host_of(node.name())])).or_default().push(n);
            names.labels.extend(node.metadata.labels.iter().map(|(key, value)| hash(&[key, value])));
        }
        names
    }
}

fn host_of(name: &str) -> &str {
    name.split_once('.').map_or(name, |(host, _)| host)
}

/// Finds the node that a local volume is pinned to by name where the node's label differs from its name.
pub fn misnamed<'a>(cluster: &'a Cluster, volume: &'a PersistentVolume) -> Option<Misnamed<'a>> {
    let terms = &volume.spec.as_ref()?.node_affinity.as_ref()?.required.as_ref()?.node_selector_terms;
    let names = cluster.derived(|| NodeNames::new(cluster));
    let pinned = |what: &'a NodeSelectorRequirement| {
        let [wanted] = what.values.as_deref()? else { return None };
        if what.operator != "In" || names.labels.contains(&hash(&[&what.key, wanted])) {
            return None;
        }
        let same_host = names.by_host.get(&hash(&[host_of(wanted)])).into_iter().flatten();
        let nodes = same_host.map(|n| &cluster.all::<Node>()[*n as usize]);
        // One of the names has a domain, or neither.
        let is_same = |node: &&Node| {
            let name = node.name();
            name == wanted || host_of(name) == wanted || name == host_of(wanted)
        };
        let [node] = nodes.filter(is_same).collect::<Vec<_>>()[..] else { return None };
        let has = node.metadata.labels.value(&what.key);
        Some(Misnamed { node, key: &what.key, wanted, has })
    };
    terms.iter().flat_map(|term| term.match_expressions.iter().flatten()).find_map(pinned)
}

/// How a volume shows that it belonged to a deleted claim.
pub const OTHER_UID: &str = "spec.claimRef.uid is that of the deleted claim";

/// Why a volume of the right class cannot be bound to a claim; empty if it can. Follows the volume binder:
/// <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#binding>
pub fn misfits(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Vec<String> {
    let mut misfits = Vec::new();
    let (requests, has) = (claim.spec.clone().unwrap_or_default(), volume.spec.clone().unwrap_or_default());
    let owner = has.claim_ref.as_ref();
    let is_ours = owner.is_some_and(|owner| {
        owner.namespace.as_deref() == Some(claim.namespace()) && owner.name.as_deref() == Some(claim.name())
    });
    if refers_to_predecessor(volume, claim) {
        misfits.push(format!("is reserved for a deleted claim of the same name ({OTHER_UID})"));
    } else if let Some(owner) = owner.filter(|_| !is_ours) {
        let (namespace, name) = (owner.namespace.as_deref().unwrap_or("?"), owner.name.as_deref().unwrap_or("?"));
        misfits.push(format!("belongs to claim {namespace}/{name}"));
    } else if let phase @ ("Released" | "Failed") = phase_of_volume(volume) {
        misfits.push(format!("is {phase}"));
    }
    if let (Some(asked), Some(size)) = (requested(claim), capacity(volume))
        && size < asked
    {
        misfits.push(format!("has {}, claim requests {}", size.text("storage"), asked.text("storage")));
    }
    let modes = has.access_modes.unwrap_or_default();
    let lacking: Vec<String> =
        requests.access_modes.unwrap_or_default().into_iter().filter(|m| !modes.contains(m)).collect();
    if !lacking.is_empty() {
        misfits.push(format!("has access mode {}, claim requests {}", list(&modes, 4), list(&lacking, 4)));
    }
    let filesystem = || "Filesystem".to_string();
    let mode = has.volume_mode.unwrap_or_else(filesystem);
    let asked_mode = requests.volume_mode.unwrap_or_else(filesystem);
    if mode != asked_mode {
        misfits.push(format!("has volumeMode {mode}, claim requests {asked_mode}"));
    }
    if let Some(selector) = requests.selector.as_ref().map(Selector::new).filter(|s| !s.matches(volume.labels())) {
        misfits.push(format!("does not match selector {selector}"));
    }
    misfits
}
