//! Pods by their topmost owner, the workload that users manage.

use std::collections::{BTreeMap, HashMap};

use crate::snapshot::kind::Kind;
use crate::snapshot::model::{Pod, PodSpec};
use crate::snapshot::object_ref::ObjectRef;
use crate::snapshot::objects::{Object, Objects};

/// The label by which a Deployment distinguishes the pods of its ReplicaSets.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// The pods of one topmost owner, or one pod without a controller.
#[derive(Debug)]
pub struct PodGroup {
    /// Deployment, StatefulSet, DaemonSet, Job, CronJob, ReplicaSet, ReplicationController, a custom resource that
    /// creates pods directly, or the Pod.
    pub owner: ObjectRef,
    /// Indexes into the table of pods, ascending.
    pub(crate) pods: Vec<u32>,
}

/// All pods, as indexes into the table, by their topmost owner.
pub(crate) fn by_owner(objects: &Objects) -> BTreeMap<ObjectRef, Vec<u32>> {
    // Pods of the same controller share a topmost owner, which is looked up once.
    let mut siblings: HashMap<_, (ObjectRef, Vec<u32>)> = HashMap::new();
    let mut groups: BTreeMap<ObjectRef, Vec<u32>> = BTreeMap::new();
    for (n, pod) in (0u32..).zip(objects.pods.iter()) {
        let metadata = &pod.metadata;
        match metadata.controller().filter(|owner| owner.kind != "Node") {
            Some(owner) => {
                let hash = metadata.labels.get(TEMPLATE_HASH);
                let key = (&metadata.namespace, &owner.api_version, &owner.kind, &owner.name, hash);
                siblings.entry(key).or_insert_with(|| (topmost(objects, pod), Vec::new())).1.push(n);
            }
            None => groups.entry(topmost(objects, pod)).or_default().push(n),
        }
    }
    for (owner, pods) in siblings.into_values() {
        groups.entry(owner).or_default().extend(pods);
    }
    groups.values_mut().for_each(|pods| pods.sort_unstable());
    groups
}

/// Whether two pods share the same spec, as pods of one template do. Results that depend only on the spec can be
/// reused.
pub(crate) fn share_spec(one: &Pod, other: &Pod) -> bool {
    std::ptr::eq::<PodSpec>(&*one.spec, &*other.spec)
}

/// The workload at the top: Pod → ReplicaSet → Deployment, Pod → Job → CronJob. A custom resource that owns a
/// Deployment, StatefulSet, DaemonSet, Job or CronJob is not the topmost owner, because users manage the workload.
/// One that owns pods or ReplicaSets directly (Argo Rollouts, Strimzi) is the workload.
fn topmost(objects: &Objects, pod: &Pod) -> ObjectRef {
    let namespace = &pod.metadata.namespace;
    // A static pod is "owned" by its Node (kubernetes.io/docs/tasks/configure-pod-container/static-pod).
    let Some(owner) = pod.controller().filter(|owner| !owner.is(Kind::Node)) else {
        return pod.reference();
    };
    if owner.is(Kind::ReplicaSet) {
        return match objects.replica_sets.get(namespace, &owner.name) {
            Some(replica_set) => replica_set.controller().unwrap_or(owner),
            None => deployment_of(pod, &owner).unwrap_or(owner),
        };
    }
    if owner.is(Kind::Job) {
        let job = objects.jobs.get(namespace, &owner.name);
        return job.and_then(Object::controller).filter(|above| above.is(Kind::CronJob)).unwrap_or(owner);
    }
    owner
}

/// The Deployment of a ReplicaSet that could not be read: the name of the ReplicaSet consists of the Deployment's name
/// and the template hash, which is also a label of its pods.
fn deployment_of(pod: &Pod, replica_set: &ObjectRef) -> Option<ObjectRef> {
    let hash = pod.metadata.labels.get(TEMPLATE_HASH)?;
    let name = replica_set.name.strip_suffix(hash)?.strip_suffix('-')?;
    Some(ObjectRef::new(Kind::Deployment, &pod.metadata.namespace, name))
}
