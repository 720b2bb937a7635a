//! CSI drivers and the workloads that run them: controllers with their sidecars, and node plugins.
//!
//! No object names the workload of a driver. It is recognized by the driver's name in its arguments, variables and
//! paths, by the leader leases of its sidecars, or else by the words of the driver's name.
//!
//! Source: <https://kubernetes-csi.github.io/docs/sidecar-containers.html>

use std::collections::{BTreeMap, BTreeSet};

use super::{
    NO_PROVISIONER, capacity_of, class_of, driver_of, is_attached, phase, requested, volume_of, waits_for_consumer,
};
use crate::kubernetes::time::{PROVISION, age};
use crate::snapshot::model::{
    CSIDriver, CSINode, Container, CustomResource, Lease, PersistentVolume, PersistentVolumeClaim, Pod, PodSpec,
    StorageClass, VolumeAttachment,
};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};

/// The containers that connect a driver with Kubernetes, and the controller that all drivers share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sidecar {
    Provisioner,
    Attacher,
    Resizer,
    Snapshotter,
    /// Registers the node plugin at the kubelet.
    Registrar,
    /// Not a sidecar: one per cluster, independent of drivers.
    SnapshotController,
}

impl Sidecar {
    const ALL: [Sidecar; 6] = [
        Sidecar::Provisioner,
        Sidecar::Attacher,
        Sidecar::Resizer,
        Sidecar::Snapshotter,
        Sidecar::Registrar,
        Sidecar::SnapshotController,
    ];

    /// The name of its image.
    pub const fn name(self) -> &'static str {
        match self {
            Sidecar::Provisioner => "csi-provisioner",
            Sidecar::Attacher => "csi-attacher",
            Sidecar::Resizer => "csi-resizer",
            Sidecar::Snapshotter => "csi-snapshotter",
            Sidecar::Registrar => "csi-node-driver-registrar",
            Sidecar::SnapshotController => "snapshot-controller",
        }
    }

    /// Parts of the names of its image or container.
    const fn parts(self) -> &'static [&'static str] {
        match self {
            // Also those that are not sidecars: local-path-provisioner, nfs-client-provisioner.
            Sidecar::Provisioner => &["provisioner"],
            Sidecar::Attacher => &["csi-attacher", "external-attacher"],
            Sidecar::Resizer => &["csi-resizer", "external-resizer"],
            Sidecar::Snapshotter => &["csi-snapshotter", "external-snapshotter"],
            Sidecar::Registrar => &["driver-registrar", "node-registrar"],
            Sidecar::SnapshotController => &["snapshot-controller"],
        }
    }

    fn is(self, container: &Container) -> bool {
        let image = base_name(&container.image);
        let is_named = |part: &&str| image.contains(*part) || container.name.contains(*part);
        // An operator installs the controller, but is not one.
        let is_operator = container.name.ends_with("-operator") || image.ends_with("-operator");
        self.parts().iter().any(is_named) && !is_operator
    }
}

/// `csi-attacher` of `registry.k8s.io/sig-storage/csi-attacher:v4.10.0`.
fn base_name(image: &str) -> &str {
    let image = image.split_once('@').map_or(image, |(image, _)| image);
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split_once(':').map_or(last, |(name, _)| name)
}

/// An image without its registry: `sig-storage/csi-attacher:v4.10.0`.
fn path_of(image: &str) -> &str {
    let is_registry = |host: &str| host.contains(['.', ':']) || host == "localhost";
    image.split_once('/').filter(|(host, _)| is_registry(host)).map_or(image, |(_, path)| path)
}

/// A workload with containers of a CSI driver.
#[derive(Debug)]
pub struct CsiWorkload {
    pub object: ObjectRef,
    pub is_scaled_to_zero: bool,
    /// Each with the name of its container.
    sidecars: Vec<(Sidecar, String)>,
    /// The words of its name, namespace and images.
    words: BTreeSet<String>,
    /// Arguments, values of variables, and paths.
    texts: Vec<String>,
    /// The drivers for which its pods hold a leader lease.
    leads: BTreeSet<String>,
}

impl CsiWorkload {
    fn new(object: ObjectRef, spec: &PodSpec, is_scaled_to_zero: bool) -> Option<CsiWorkload> {
        let of = |container: &Container| {
            let is = Sidecar::ALL.into_iter().find(|sidecar| sidecar.is(container))?;
            Some((is, container.name.to_string()))
        };
        let sidecars: Vec<(Sidecar, String)> = spec.running_containers().filter_map(of).collect();
        let images = spec.running_containers().map(|container| path_of(&container.image).to_string());
        let names = [object.name.clone(), object.namespace().to_string()];
        let words: BTreeSet<String> = names.into_iter().chain(images).flat_map(|name| words(&name)).collect();
        let is_csi = object.is(Kind::DaemonSet) && words.iter().any(|word| word.contains("csi"));
        if sidecars.is_empty() && !is_csi {
            return None;
        }
        let args = spec.running_containers().flat_map(|container| {
            let env = container.env.iter().map(|variable| &variable.value);
            container.command.iter().chain(&container.args).chain(env).map(String::to_string).collect::<Vec<_>>()
        });
        let paths = spec.volumes.iter().filter_map(|volume| Some(volume.host_path.as_ref()?.path.clone()));
        let texts = args.chain(paths).collect();
        Some(CsiWorkload { object, is_scaled_to_zero, sidecars, words, texts, leads: BTreeSet::new() })
    }

    /// The name of the container that is this sidecar.
    pub fn container(&self, sidecar: Sidecar) -> Option<&str> {
        self.sidecars.iter().find(|(is, _)| *is == sidecar).map(|(_, name)| name.as_str())
    }

    /// The sidecars of its controller, by the names of their images.
    pub fn sidecars(&self) -> Vec<&'static str> {
        self.sidecars.iter().map(|(sidecar, _)| sidecar.name()).collect()
    }

    fn is_node_plugin(&self) -> bool {
        self.container(Sidecar::Registrar).is_some() || self.object.is(Kind::DaemonSet)
    }

    /// How much it has to do with a driver; 0 for nothing.
    fn score(&self, driver: &str) -> usize {
        const CERTAIN: usize = 1000;
        if self.leads.contains(driver) || self.texts.iter().any(|text| mentions(text, driver)) {
            return CERTAIN;
        }
        let has = |word: &String| {
            self.words
                .iter()
                .any(|own| own.starts_with(word.as_str()) || word.len() >= 4 && own.contains(word.as_str()))
        };
        significant(driver).iter().filter(|word| has(word)).count()
    }
}

fn words(name: &str) -> Vec<String> {
    let parts = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    parts.map(str::to_ascii_lowercase).collect()
}

/// The words of a driver's name that distinguish it from others.
fn significant(driver: &str) -> BTreeSet<String> {
    const COMMON: &[&str] =
        &["csi", "com", "io", "org", "net", "dev", "k8s", "kubernetes", "storage", "driver", "plugin", "sigs", "cloud"];
    words(driver).into_iter().filter(|word| word.len() > 1 && !COMMON.contains(&word.as_str())).collect()
}

/// Whether a text contains the name of a driver, not just as a part of a longer name.
fn mentions(text: &str, driver: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    !driver.is_empty()
        && text.match_indices(driver).any(|(at, _)| {
            let before = text[..at].chars().next_back();
            let after = text[at + driver.len()..].chars().next();
            !before.is_some_and(is_part) && !after.is_some_and(is_part)
        })
}

/// The CSI drivers of a cluster and the workloads that may run them.
#[derive(Debug)]
pub struct CsiDrivers {
    workloads: Vec<CsiWorkload>,
    names: BTreeSet<String>,
}

/// Access to the drivers of a cluster, which are found once.
pub trait CsiExt {
    fn csi(&self) -> &CsiDrivers;
}

impl CsiExt for Cluster {
    fn csi(&self) -> &CsiDrivers {
        self.derived(|| CsiDrivers::new(self))
    }
}

impl CsiDrivers {
    fn new(cluster: &Cluster) -> CsiDrivers {
        let mut found: Vec<CsiWorkload> = Vec::new();
        for workload in cluster.workloads() {
            let parked = workload.is_scaled_to_zero();
            found.extend(CsiWorkload::new(workload.object, &workload.template.spec, parked));
        }
        // Pods of operators, static pods and pods whose workload was not read.
        for group in cluster.pod_groups().iter().filter(|group| cluster.template(&group.owner).is_none()) {
            let sample = cluster.pods_of(group).find(|pod| !pod.is_finished());
            found.extend(sample.and_then(|pod| CsiWorkload::new(group.owner.clone(), &pod.spec, false)));
        }
        let drivers = cluster.all::<CSIDriver>().iter().map(|driver| driver.name().to_string());
        let nodes = cluster.all::<CSINode>().iter().flat_map(|node| &node.spec.drivers);
        let classes = cluster.all::<StorageClass>().iter().map(|class| class.provisioner.clone());
        let names = drivers.chain(nodes.map(|driver| driver.name.clone())).chain(classes);
        let names: BTreeSet<String> = names.filter(|name| !name.starts_with("kubernetes.io/")).collect();
        let leaders = leaders(cluster, &names);
        for workload in &mut found {
            workload.leads = leaders.get(&workload.object).cloned().unwrap_or_default();
        }
        CsiDrivers { workloads: found, names }
    }

    /// The workload whose sidecar serves a driver, if it can be told from those of other drivers.
    pub fn running(&self, driver: &str, sidecar: Sidecar) -> Option<&CsiWorkload> {
        match self.best(driver, |workload| workload.container(sidecar).is_some()).as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }

    /// The DaemonSets that run a driver on the nodes; several if they are for different nodes.
    pub fn node_plugins(&self, driver: &str) -> Vec<&CsiWorkload> {
        self.best(driver, CsiWorkload::is_node_plugin)
    }

    /// Whether any workload with this sidecar may serve a driver: none that evidently serves another.
    pub fn may_run(&self, driver: &str, sidecar: Sidecar) -> bool {
        let has = |workload: &&CsiWorkload| workload.container(sidecar).is_some();
        self.workloads.iter().filter(has).any(|workload| !self.serves_another(workload, driver))
    }

    /// The workloads that run the snapshot-controller.
    pub fn snapshot_controllers(&self) -> impl Iterator<Item = &CsiWorkload> {
        self.workloads.iter().filter(|workload| workload.container(Sidecar::SnapshotController).is_some())
    }

    fn serves_another(&self, workload: &CsiWorkload, driver: &str) -> bool {
        let score = workload.score(driver);
        self.names.iter().any(|other| other != driver && workload.score(other) > score)
    }

    fn best(&self, driver: &str, is: impl Fn(&CsiWorkload) -> bool) -> Vec<&CsiWorkload> {
        let candidates = self.workloads.iter().filter(|workload| is(workload));
        let candidates = candidates.filter(|workload| !self.serves_another(workload, driver));
        let scored: Vec<(usize, &CsiWorkload)> =
            candidates.map(|workload| (workload.score(driver), workload)).collect();
        let best = scored.iter().map(|(score, _)| *score).max().unwrap_or_default();
        // A workload without any hint serves the driver only if there is no choice.
        let is_only = scored.len() == 1
            && self.names.iter().all(|name| name == driver)
            && self.workloads.iter().all(|workload| workload.score(driver) == 0);
        if best == 0 && !is_only {
            return Vec::new();
        }
        scored.into_iter().filter(|(score, _)| *score == best).map(|(_, workload)| workload).collect()
    }
}

/// The drivers for which the pods of each workload hold a leader lease.
fn leaders(cluster: &Cluster, drivers: &BTreeSet<String>) -> BTreeMap<ObjectRef, BTreeSet<String>> {
    let mut lease_names: BTreeMap<String, &String> = BTreeMap::new();
    for driver in drivers {
        let dashed: String = driver.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        for prefix in ["", "external-attacher-leader-", "external-resizer-", "external-snapshotter-leader-"] {
            lease_names.insert(format!("{prefix}{dashed}"), driver);
        }
    }
    let mut leaders: BTreeMap<ObjectRef, BTreeSet<String>> = BTreeMap::new();
    for lease in cluster.all::<Lease>() {
        let Some(driver) = lease_names.get(lease.name()) else { continue };
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        if let Some(pod) = cluster.get::<Pod>(lease.namespace(), holder).found() {
            leaders.entry(cluster.owner_of(pod).into_owned()).or_default().insert((*driver).clone());
        }
    }
    leaders
}

/// Whether an attachment has been waiting for an external-attacher for too long: no attacher has added its finalizer,
/// attached the volume or reported an error.
pub fn is_unattended(cluster: &Cluster, attachment: &VolumeAttachment) -> bool {
    let has_error = attachment.status.as_ref().is_some_and(|status| status.attach_error.is_some());
    let has_attacher = attachment.finalizers().iter().any(|finalizer| finalizer.starts_with("external-attacher/"));
    !is_attached(attachment)
        && !has_error
        && !has_attacher
        && attachment.deleted().is_none()
        && attachment.created().is_some_and(|created| age(cluster.now(), created) >= PROVISION)
}

/// Whether a claim requests more than it has and nothing has started to resize it.
pub fn waits_for_resizer(claim: &PersistentVolumeClaim) -> bool {
    let is_larger = requested(claim).zip(capacity_of(claim)).is_some_and(|(asked, has)| asked > has);
    let status = claim.status.as_ref();
    let is_started = status.is_some_and(|status| {
        let conditions = status.conditions.iter().flatten();
        conditions.into_iter().any(|c| c.type_.contains("Resiz"))
            || status.allocated_resource_statuses.iter().flatten().next().is_some()
    });
    is_larger && !is_started && phase(claim) == "Bound" && claim.deleted().is_none()
}

/// The provisioner that a pending claim has been waiting for.
fn awaited_provisioner<'a>(cluster: &'a Cluster, claim: &PersistentVolumeClaim) -> Option<&'a str> {
    let waited = claim.created().is_some_and(|created| age(cluster.now(), created) >= PROVISION);
    if phase(claim) != "Pending" || !waited || claim.deleted().is_some() || volume_of(claim).is_some() {
        return None;
    }
    let class = cluster.get::<StorageClass>("", class_of(claim)?).found()?;
    let is_unscheduled = claim.annotation("volume.kubernetes.io/selected-node").is_none();
    let is_manual = class.provisioner == NO_PROVISIONER || waits_for_consumer(class) && is_unscheduled;
    (!is_manual).then_some(class.provisioner.as_str())
}

/// The containers that something has been waiting for: a claim to be provisioned or resized, a volume to be attached, a
/// snapshot to be taken. Their logs are of interest even if their pods are ready.
pub fn awaited_containers(cluster: &Cluster) -> Vec<(&Pod, &str)> {
    let mut awaited: BTreeSet<(&str, Sidecar)> = BTreeSet::new();
    for claim in cluster.all::<PersistentVolumeClaim>() {
        awaited.extend(awaited_provisioner(cluster, claim).map(|driver| (driver, Sidecar::Provisioner)));
        if waits_for_resizer(claim) {
            let volume = volume_of(claim).and_then(|volume| cluster.get::<PersistentVolume>("", volume).found());
            awaited.extend(volume.and_then(driver_of).map(|driver| (driver, Sidecar::Resizer)));
        }
    }
    let unattended = cluster.all::<VolumeAttachment>().iter().filter(|attachment| is_unattended(cluster, attachment));
    awaited.extend(unattended.map(|attachment| (attachment.spec.attacher.as_str(), Sidecar::Attacher)));
    let mut containers = Vec::new();
    for (driver, sidecar) in awaited {
        let Some(workload) = cluster.csi().running(driver, sidecar) else { continue };
        containers.extend(containers_of(cluster, workload, sidecar));
    }
    if unhandled_snapshots(cluster).next().is_some() {
        let controllers = cluster.csi().snapshot_controllers();
        containers.extend(controllers.flat_map(|w| containers_of(cluster, w, Sidecar::SnapshotController)));
    }
    containers
}

/// The container of a sidecar in the first pods of a workload.
fn containers_of<'a>(cluster: &'a Cluster, workload: &'a CsiWorkload, sidecar: Sidecar) -> Vec<(&'a Pod, &'a str)> {
    let (Some(name), Some(group)) = (workload.container(sidecar), cluster.group_of_owner(&workload.object)) else {
        return Vec::new();
    };
    cluster.pods_of(group).filter(|pod| pod.is_active()).take(3).map(|pod| (pod, name)).collect()
}

pub fn snapshots(cluster: &Cluster) -> impl Iterator<Item = &CustomResource> {
    let all = cluster.custom().iter();
    all.filter(|custom| custom.kind == "VolumeSnapshot" && custom.group() == "snapshot.storage.k8s.io")
}

/// The VolumeSnapshots that no controller has handled for minutes: they have no status.
pub fn unhandled_snapshots(cluster: &Cluster) -> impl Iterator<Item = &CustomResource> {
    snapshots(cluster).filter(|custom| {
        let created = custom.metadata.creation_timestamp;
        custom.status.as_object().is_none_or(serde_json::Map::is_empty)
            && custom.metadata.deletion_timestamp.is_none()
            && created.is_some_and(|created| age(cluster.now(), created) >= PROVISION)
    })
}

#[cfg(test)]
mod tests {
    use super::{CsiExt, Sidecar, mentions};
    use crate::testing::TestCluster;

    fn deployment(namespace: &str, name: &str, containers: &str) -> String {
        format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}, namespace: {namespace}}},
             spec: {{template: {{spec: {{containers: [{containers}]}}}}}}}}"
        )
    }

    fn drivers(names: &[&str]) -> String {
        let driver = |name: &&str| {
            format!("{{apiVersion: storage.k8s.io/v1, kind: CSIDriver, metadata: {{name: {name}}}, spec: {{}}}}")
        };
        names.iter().map(driver).collect::<Vec<_>>().join("\n---\n")
    }

    const PROVISIONER: &str = "{name: csi-provisioner, image: 'registry.k8s.io/sig-storage/csi-provisioner:v5.3.0'}";

    #[test]
    fn the_words_of_its_name_tell_a_driver_from_others() {
        let block = deployment("ceph", "csi-rbdplugin-provisioner", PROVISIONER);
        let files = deployment("ceph", "csi-cephfsplugin-provisioner", PROVISIONER);
        let cluster =
            TestCluster::new(&[&block, &files, &drivers(&["rbd.csi.ceph.com", "cephfs.csi.ceph.com"])]).build();
        let of = |driver: &str| cluster.csi().running(driver, Sidecar::Provisioner).map(|w| w.object.name.clone());
        assert_eq!(of("rbd.csi.ceph.com").as_deref(), Some("csi-rbdplugin-provisioner"));
        assert_eq!(of("cephfs.csi.ceph.com").as_deref(), Some("csi-cephfsplugin-provisioner"));
        assert_eq!(of("ebs.csi.aws.com"), None);
        assert!(!cluster.csi().may_run("rbd.csi.ceph.com", Sidecar::Resizer));
    }

    #[test]
    fn a_sidecar_without_any_hint_may_serve_the_driver() {
        let other = deployment("tools", "controller", "{name: r, image: 'example.com/csi-resizer:v1'}");
        let cluster = TestCluster::new(&[&other, &drivers(&["disk.csi.example.com", "file.csi.example.org"])]).build();
        assert!(cluster.csi().may_run("disk.csi.example.com", Sidecar::Resizer));
        assert!(cluster.csi().running("disk.csi.example.com", Sidecar::Resizer).is_none());
    }

    #[test]
    fn a_driver_is_mentioned_by_its_whole_name() {
        assert!(mentions("--path=/var/lib/kubelet/plugins/rbd.csi.ceph.com/csi.sock", "rbd.csi.ceph.com"));
        assert!(!mentions("/plugins/rook-ceph.rbd.csi.ceph.com/csi.sock", "rbd.csi.ceph.com"));
        assert!(!mentions("anything", ""));
    }
}
