//! Claims, the classes and volumes that could satisfy them, and the pods that use them.

use crate::snapshot::model::{PersistentVolume, PersistentVolumeClaim, Pod, StorageClass, Timestamp, Volume};
use crate::snapshot::{Amount, Cluster, Object, Selector};
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

fn capacity(volume: &PersistentVolume) -> Option<Amount> {
    volume.spec.as_ref()?.capacity.as_ref()?.get("storage").and_then(Amount::of)
}

/// Why a volume of the right class cannot be bound to a claim; empty if it can. Follows the volume binder:
/// <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#binding>
pub fn misfits(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Vec<String> {
    let mut misfits = Vec::new();
    let (requests, has) = (claim.spec.clone().unwrap_or_default(), volume.spec.clone().unwrap_or_default());
    let owner = has.claim_ref.as_ref();
    let is_ours = owner.is_some_and(|owner| {
        owner.namespace.as_deref() == Some(claim.namespace()) && owner.name.as_deref() == Some(claim.name())
    });
    if let Some(owner) = owner.filter(|_| !is_ours) {
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
