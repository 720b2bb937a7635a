//! The snapshot that rules check: all objects, indexed, and how complete they are.

use std::any::Any;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::snapshot::coverage::{Broken, Coverage, Extent, Gap, GroupKind};
use crate::snapshot::derived::Derived;
use crate::snapshot::kind::Kind;
use crate::snapshot::model::{
    CronJob, CustomResource, DaemonSet, Deployment, EndpointSlice, Event, Job, LabelSet, Pod, ReplicaSet,
    ReplicationController, Route, StatefulSet, Timestamp,
};
use crate::snapshot::object_ref::ObjectRef;
use crate::snapshot::objects::{Batch, Object, Objects};
use crate::snapshot::owner::{PodGroup, by_owner};
use crate::snapshot::raw::{RawObject, RawObjects};
use crate::snapshot::selector::{LabelIndex, Selector};
use crate::text::hash::hash;

/// Where the objects come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A cluster, or a recording of a complete cluster.
    Cluster,
    /// Files with some objects of a cluster.
    Extract,
    /// Manifests that have not been applied: without status, and objects that they refer to may exist in the cluster.
    Manifests,
}

/// The time of the snapshot.
#[derive(Clone, Copy, Debug)]
pub enum Now {
    At(Timestamp),
    /// The newest timestamp in the data, for recordings.
    NewestInData,
}

/// The result of a lookup by name.
#[derive(Debug)]
pub enum Lookup<'a, T> {
    Found(&'a T),
    /// The object does not exist: everything that could contain it was read.
    Missing,
    /// The object was not found, but not everything was read.
    Unknown,
}

impl<T> Clone for Lookup<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Lookup<'_, T> {}

impl<'a, T> Lookup<'a, T> {
    pub fn found(self) -> Option<&'a T> {
        match self {
            Lookup::Found(object) => Some(object),
            _ => None,
        }
    }

    pub fn is_missing(self) -> bool {
        matches!(self, Lookup::Missing)
    }
}

/// The end of a container's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerLog {
    pub lines: Vec<String>,
    /// Whether it is the log of the previous run.
    pub previous: bool,
}

/// Collects what was read and builds a [`Cluster`] with [`Builder::build`].
#[derive(Debug, Default)]
pub struct Builder {
    objects: Objects,
    coverage: Coverage,
    logs: BTreeMap<(String, String, String), ContainerLog>,
    server_version: Option<String>,
    unread_secrets: BTreeMap<(String, String), Gap>,
}

impl Builder {
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Adds decoded objects except Normal events: no rule reads them, and they are not requested from clusters.
    pub fn add(&mut self, batch: Batch) {
        let mut objects = Objects::default();
        objects.extend(batch);
        self.add_all(objects);
    }

    /// Like [`add`](Builder::add), but for many pages.
    pub fn add_all(&mut self, mut objects: Objects) {
        objects.events.retain(|event| event.type_ != "Normal");
        self.objects.append(objects);
    }

    pub fn add_custom(&mut self, object: CustomResource) {
        self.objects.custom.push(object);
    }

    pub fn cover(&mut self, kind: Kind, extent: Extent) {
        self.coverage.set(kind, extent);
    }

    /// Sets how much was read of a kind that has no type in the model.
    pub fn cover_custom(&mut self, kind: GroupKind, extent: Extent) {
        self.coverage.set_custom(kind, extent);
    }

    /// Records an object that could not be decoded.
    pub fn add_broken(&mut self, broken: Broken) {
        self.coverage.broken.push(broken);
    }

    /// Records that a Secret with a certificate exists but its data could not be read.
    pub fn unread_secret(&mut self, namespace: &str, name: &str, gap: Gap) {
        self.unread_secrets.insert((namespace.to_string(), name.to_string()), gap);
    }

    /// Adds the log of one container. If both are given, the log of the previous run is kept because it shows why that
    /// run ended.
    pub fn add_log(&mut self, namespace: &str, pod: &str, container: &str, log: ContainerLog) {
        let entry = self.logs.entry((namespace.to_string(), pod.to_string(), container.to_string()));
        let kept = entry.or_default();
        if kept.lines.is_empty() || (log.previous && !log.lines.is_empty()) {
            *kept = log;
        }
    }

    /// Sets the API server's version as it reports it: `v1.36.3`.
    pub fn server_version(&mut self, version: &str) {
        self.server_version = Some(version.to_string());
    }

    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Replaces all objects of a kind, or those in one namespace.
    pub fn replace<T: Object>(&mut self, namespace: Option<&str>, objects: Vec<T>) {
        let table = T::table_mut(&mut self.objects);
        table.retain(|object| namespace.is_some_and(|namespace| object.namespace() != namespace));
        table.extend(objects);
    }

    /// Adds or replaces objects, and removes those that are `None`. By namespace and name.
    pub fn change<T: Object>(&mut self, changes: BTreeMap<(String, String), Option<T>>) {
        let mut gone: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut changed = Vec::new();
        for ((namespace, name), object) in changes {
            match object {
                Some(object) => changed.push(object),
                None => drop(gone.entry(namespace).or_default().insert(name)),
            }
        }
        let table = T::table_mut(&mut self.objects);
        if !gone.is_empty() {
            table.retain(|o| gone.get(o.namespace()).is_none_or(|names| !names.contains(o.name())));
        }
        table.extend(changed);
    }

    /// Removes all objects of these kinds, and what was recorded about them, before they are read again.
    pub fn forget(&mut self, kinds: &BTreeSet<Kind>) {
        for kind in kinds {
            self.objects.clear(*kind);
            self.forget_broken(*kind);
        }
    }

    /// Removes the records of objects of a kind that could not be decoded.
    pub fn forget_broken(&mut self, kind: Kind) {
        self.coverage.broken.retain(|broken| broken.kind != Some(kind));
    }

    /// Removes all custom resources before they are read again.
    pub fn forget_custom(&mut self) {
        self.objects.custom.clear();
        self.coverage.forget_custom();
    }

    /// Removes the records of unreadable Secrets before they are read again.
    pub fn forget_unread_secrets(&mut self) {
        self.unread_secrets.clear();
    }

    /// Keeps only the logs of the selected containers: namespace, pod and container.
    pub fn keep_logs(&mut self, keep: impl Fn(&str, &str, &str) -> bool) {
        self.logs.retain(|(namespace, pod, container), _| keep(namespace, pod, container));
    }

    /// Adds the objects and the coverage of another builder.
    pub fn append(&mut self, other: Builder) {
        self.objects.append(other.objects);
        self.coverage.append(other.coverage);
        self.logs.extend(other.logs);
        self.unread_secrets.extend(other.unread_secrets);
        self.server_version = other.server_version.or(self.server_version.take());
    }

    /// Drops manifests next to the recording of a cluster: they are not part of the cluster's state. Returns the number
    /// of dropped objects.
    pub fn drop_unapplied(&mut self) -> usize {
        self.objects.drop_unapplied()
    }

    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// Removes a custom resource, if it exists, before another version of it is added.
    pub fn remove_custom(&mut self, object: &ObjectRef) {
        self.objects.custom.retain(|custom| !custom.reference().same_as(object));
    }

    /// Removes what was derived from an object's old spec. For a workload: its pods, the ReplicaSets and Jobs in
    /// between, the events about them, and their endpoint addresses. For a Service: its EndpointSlices.
    pub fn forget_children(&mut self, owner: &ObjectRef) {
        if owner.is(Kind::Service) {
            let of_owner = |namespace: &str, service: &str| namespace == owner.namespace() && service == owner.name;
            self.objects
                .endpoint_slices
                .retain(|slice| !of_owner(slice.namespace(), slice.service().unwrap_or_default()));
            self.objects.endpoints.retain(|endpoints| !of_owner(endpoints.namespace(), endpoints.name()));
            return;
        }
        let mut gone = BTreeSet::from([owner.clone()]);
        let mut stays = |object: ObjectRef, controller: Option<ObjectRef>| {
            let is_gone = controller.is_some_and(|controller| gone.iter().any(|owner| owner.same_as(&controller)));
            if is_gone {
                gone.insert(object);
            }
            !is_gone
        };
        self.objects.replica_sets.retain(|o| stays(o.reference(), o.controller()));
        self.objects.jobs.retain(|o| stays(o.reference(), o.controller()));
        self.objects.pods.retain(|o| stays(o.reference(), o.controller()));
        let is_gone = |kind: &str, namespace: &str, name: &str| {
            gone.iter().any(|o| o.kind == kind && o.namespace() == namespace && o.name == name)
        };
        self.objects.events.retain(|event| {
            let about = &event.involved_object;
            !is_gone(&about.kind, &about.namespace, &about.name)
        });
        for slice in self.objects.endpoint_slices.iter_mut() {
            let mut endpoints = std::mem::take(&mut slice.endpoints).into_vec();
            endpoints.retain(|e| !e.target_ref.as_ref().is_some_and(|t| is_gone(&t.kind, &t.namespace, &t.name)));
            slice.endpoints = endpoints.into();
        }
    }

    pub fn build(mut self, now: Now, origin: Origin) -> Cluster {
        self.objects.sort();
        let now = match now {
            Now::At(now) => now,
            Now::NewestInData => newest(&self.objects).unwrap_or(Timestamp::UNIX_EPOCH),
        };
        let index = Index::new(&self.objects);
        Cluster {
            objects: self.objects,
            coverage: self.coverage,
            now,
            origin,
            index,
            logs: self.logs,
            server_version: self.server_version,
            unread_secrets: self.unread_secrets,
            raw: None,
            derived: Derived::default(),
        }
    }
}

/// A snapshot of a cluster, shared by all rules.
#[derive(Debug)]
pub struct Cluster {
    objects: Objects,
    coverage: Coverage,
    now: Timestamp,
    origin: Origin,
    index: Index,
    logs: BTreeMap<(String, String, String), ContainerLog>,
    server_version: Option<String>,
    unread_secrets: BTreeMap<(String, String), Gap>,
    raw: Option<RawObjects>,
    derived: Derived,
}

/// Indexes for the lookups of rules. Keys are hashes of names: every hit must be compared with the actual values.
#[derive(Debug, Default)]
struct Index {
    pods_by_label: LabelIndex<u32>,
    /// By the label `app.kubernetes.io/name`, in all namespaces.
    pods_by_app: HashMap<u64, Vec<u32>>,
    pods_by_node: HashMap<u64, Vec<u32>>,
    slices_by_service: HashMap<u64, Vec<u32>>,
    events_by_object: HashMap<u64, Vec<u32>>,
    /// The namespaces that are being deleted.
    leaving: BTreeSet<String>,
    groups: Vec<PodGroup>,
    /// The group of each pod.
    group_of: Vec<u32>,
}

/// The label that most charts use for the name of the application.
const APP_LABEL: &str = "app.kubernetes.io/name";

impl Index {
    fn new(objects: &Objects) -> Index {
        let leaving = objects.namespaces.iter().filter(|namespace| namespace.deleted().is_some());
        let mut index =
            Index { leaving: leaving.map(|namespace| namespace.name().to_string()).collect(), ..Index::default() };
        for (n, pod) in (0u32..).zip(objects.pods.iter()) {
            index.pods_by_label.add(&pod.metadata.namespace, &pod.metadata.labels, n);
            if let Some(app) = pod.metadata.labels.get(APP_LABEL) {
                index.pods_by_app.entry(hash(&[app])).or_default().push(n);
            }
            if !pod.spec.node_name.is_empty() {
                index.pods_by_node.entry(hash(&[&pod.spec.node_name])).or_default().push(n);
            }
        }
        index.group_of = vec![0; objects.pods.len()];
        for (n, (owner, pods)) in (0u32..).zip(by_owner(objects)) {
            for pod in &pods {
                index.group_of[*pod as usize] = n;
            }
            index.groups.push(PodGroup { owner, pods });
        }
        for (n, slice) in (0u32..).zip(objects.endpoint_slices.iter()) {
            if let Some(service) = slice.service() {
                index.slices_by_service.entry(hash(&[&slice.metadata.namespace, service])).or_default().push(n);
            }
        }
        for (n, event) in (0u32..).zip(objects.events.iter()) {
            let about = &event.involved_object;
            index.events_by_object.entry(hash(&[&about.kind, &about.namespace, &about.name])).or_default().push(n);
        }
        index
    }
}

impl Cluster {
    /// Converts the snapshot back into a builder, to create the next one without reading everything again. The objects
    /// of [`Cluster::raw`] are dropped.
    pub fn into_builder(self) -> Builder {
        Builder {
            objects: self.objects,
            coverage: self.coverage,
            logs: self.logs,
            server_version: self.server_version,
            unread_secrets: self.unread_secrets,
        }
    }

    /// The time from which ages are computed.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    pub fn origin(&self) -> Origin {
        self.origin
    }

    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// The API server's version, if known: `v1.36.3`.
    pub fn server_version(&self) -> Option<&str> {
        self.server_version.as_deref()
    }

    /// All objects of a kind, sorted by namespace and name.
    pub fn all<T: Object>(&self) -> &[T] {
        T::table(&self.objects).all()
    }

    /// The objects of a kind in one namespace, sorted by name.
    pub fn in_namespace<T: Object>(&self, namespace: &str) -> &[T] {
        let table = T::table(&self.objects);
        &table.all()[table.range(namespace)]
    }

    /// One object by name (`namespace` is empty for cluster-scoped objects).
    pub fn get<T: Object>(&self, namespace: &str, name: &str) -> Lookup<'_, T> {
        match T::table(&self.objects).get(namespace, name) {
            Some(object) => Lookup::Found(object),
            None if self.coverage.covers(T::KIND, namespace) => Lookup::Missing,
            None => Lookup::Unknown,
        }
    }

    /// Whether an object, or the namespace it is in, is being deleted.
    pub fn is_terminating<T: Object>(&self, object: &T) -> bool {
        object.deleted().is_some() || self.is_namespace_terminating(object.namespace())
    }

    /// Whether a namespace is being deleted.
    pub fn is_namespace_terminating(&self, namespace: &str) -> bool {
        self.index.leaving.contains(namespace)
    }

    /// The labels of an object, if it is in the snapshot.
    pub fn labels_of(&self, object: &ObjectRef) -> Option<&dyn LabelSet> {
        match Kind::from_api(&object.api_version, &object.kind) {
            Some(kind) => self.objects.labels(kind, object.namespace(), &object.name),
            None => self.custom_object(object).map(|custom| &custom.metadata.labels as &dyn LabelSet),
        }
    }

    /// The value of an annotation of an object, if it is in the snapshot and has it.
    pub fn annotation_of(&self, object: &ObjectRef, key: &str) -> Option<&str> {
        match Kind::from_api(&object.api_version, &object.kind) {
            Some(kind) => self.objects.annotation(kind, object.namespace(), &object.name, key),
            None => self.custom_object(object)?.metadata.annotations.get(key),
        }
    }

    /// The objects that have an annotation, each with its value, sorted. Objects with a controller are excluded,
    /// because their annotations come from a template.
    pub fn annotated(&self, key: &str) -> Vec<(ObjectRef, &str)> {
        let mut found = self.objects.annotated_by_hand(key);
        found.extend(self.objects.custom.iter().filter_map(|object| {
            let value = object.metadata.annotations.get(key)?;
            object.metadata.controller().is_none().then(|| (object.reference(), value))
        }));
        found.sort();
        found
    }

    fn custom_object(&self, object: &ObjectRef) -> Option<&CustomResource> {
        self.objects.custom.iter().find(|custom| {
            custom.api_version == object.api_version
                && custom.kind == object.kind
                && custom.metadata.namespace == object.namespace()
                && custom.metadata.name == object.name
        })
    }

    /// Custom resources and objects of kinds that have no type in the model.
    pub fn custom(&self) -> &[CustomResource] {
        &self.objects.custom
    }

    /// Whether all objects of a kind in a namespace are known.
    pub fn covers(&self, kind: Kind, namespace: &str) -> bool {
        self.coverage.covers(kind, namespace)
    }

    /// Whether all objects of a kind in the whole cluster are known.
    pub fn covers_all(&self, kind: Kind) -> bool {
        self.coverage.covers_all(kind)
    }

    /// All Gateway API routes of any kind.
    pub fn routes(&self) -> impl Iterator<Item = (Kind, &Route)> {
        let o = &self.objects;
        (o.http_routes.iter().map(|r| (Kind::HTTPRoute, &r.0)))
            .chain(o.grpc_routes.iter().map(|r| (Kind::GRPCRoute, &r.0)))
            .chain(o.tls_routes.iter().map(|r| (Kind::TLSRoute, &r.0)))
            .chain(o.tcp_routes.iter().map(|r| (Kind::TCPRoute, &r.0)))
            .chain(o.udp_routes.iter().map(|r| (Kind::UDPRoute, &r.0)))
    }

    /// The pods of a namespace that a selector matches, sorted by name. An empty selector matches all pods.
    pub fn pods_matching(&self, namespace: &str, selector: &Selector) -> Vec<&Pod> {
        self.matching(namespace, selector).collect()
    }

    /// Whether a selector matches any pod of a namespace.
    pub fn any_pod_matches(&self, namespace: &str, selector: &Selector) -> bool {
        self.matching(namespace, selector).next().is_some()
    }

    fn matching<'a: 's, 's>(
        &'a self,
        namespace: &'s str,
        selector: &'s Selector,
    ) -> Box<dyn Iterator<Item = &'a Pod> + 's> {
        let matches = move |pod: &&Pod| pod.metadata.namespace == namespace && selector.matches(&pod.metadata.labels);
        let pods = self.all::<Pod>();
        match selector.candidates(namespace, &self.index.pods_by_label) {
            None => Box::new(self.in_namespace::<Pod>(namespace).iter().filter(matches)),
            Some(Cow::Borrowed(found)) => Box::new(found.iter().map(|n| &pods[*n as usize]).filter(matches)),
            Some(Cow::Owned(found)) => Box::new(found.into_iter().map(|n| &pods[n as usize]).filter(matches)),
        }
    }

    /// The pods of all namespaces with this label `app.kubernetes.io/name`, sorted by namespace and name.
    pub fn pods_of_app(&self, app: &str) -> impl Iterator<Item = &Pod> {
        let found = self.index.pods_by_app.get(&hash(&[app])).into_iter().flatten();
        let pods = found.map(|n| &self.all::<Pod>()[*n as usize]);
        pods.filter(move |pod| pod.metadata.labels.get(APP_LABEL) == Some(app))
    }

    /// The pods bound to a node, including finished ones.
    pub fn pods_on_node(&self, node: &str) -> Vec<&Pod> {
        let found = self.index.pods_by_node.get(&hash(&[node]));
        let pods = found.into_iter().flatten().map(|n| &self.all::<Pod>()[*n as usize]);
        pods.filter(|p| p.spec.node_name == node).collect()
    }

    /// A value that an upper layer derives from the whole snapshot: computed once, on the first call.
    pub(crate) fn derived<T: Any + Send + Sync>(&self, compute: impl FnOnce() -> T) -> &T {
        self.derived.get_or_init(compute)
    }

    /// All pods by their topmost owner, sorted by owner.
    pub fn pod_groups(&self) -> &[PodGroup] {
        &self.index.groups
    }

    /// The pods of a group, sorted by namespace and name.
    pub fn pods_of<'a>(&'a self, group: &'a PodGroup) -> impl Iterator<Item = &'a Pod> {
        group.pods.iter().map(|n| &self.all::<Pod>()[*n as usize])
    }

    /// The topmost owner of a pod of this cluster; the pod itself if nothing controls it.
    pub fn owner_of(&self, pod: &Pod) -> Cow<'_, ObjectRef> {
        match self.place_of(pod) {
            Some(at) => Cow::Borrowed(&self.index.groups[self.index.group_of[at] as usize].owner),
            None => Cow::Owned(pod.reference()),
        }
    }

    /// The index of a pod among all pods. If it is not a copy, its address gives the index without a search.
    fn place_of(&self, pod: &Pod) -> Option<usize> {
        let pods = self.all::<Pod>();
        let offset = std::ptr::from_ref(pod).addr().wrapping_sub(pods.as_ptr().addr());
        let place = offset / size_of::<Pod>();
        if pods.get(place).is_some_and(|found| std::ptr::eq(found, pod)) {
            return Some(place);
        }
        Pod::table(&self.objects).position(&pod.metadata.namespace, &pod.metadata.name)
    }

    /// The pods of a topmost owner, if it has any.
    pub fn group_of_owner(&self, owner: &ObjectRef) -> Option<&PodGroup> {
        let at = self.index.groups.binary_search_by(|group| group.owner.cmp(owner)).ok()?;
        Some(&self.index.groups[at])
    }

    /// All EndpointSlices of a Service.
    pub fn endpoint_slices(&self, namespace: &str, service: &str) -> Vec<&EndpointSlice> {
        let found = self.index.slices_by_service.get(&hash(&[namespace, service]));
        let slices = found.into_iter().flatten().map(|n| &self.all::<EndpointSlice>()[*n as usize]);
        slices.filter(|s| s.metadata.namespace == namespace && s.service() == Some(service)).collect()
    }

    /// The Warning events about an object, the newest first.
    pub fn events(&self, object: &ObjectRef) -> Vec<&Event> {
        let found = self.index.events_by_object.get(&hash(&[&object.kind, object.namespace(), &object.name]));
        let mut events: Vec<&Event> = found
            .into_iter()
            .flatten()
            .map(|n| &self.all::<Event>()[*n as usize])
            .filter(|event| {
                let about = &event.involved_object;
                about.kind == object.kind && about.namespace == object.namespace() && about.name == object.name
            })
            .collect();
        events.sort_by(|a, b| b.last_seen().cmp(&a.last_seen()).then_with(|| a.metadata.name.cmp(&b.metadata.name)));
        events
    }

    /// The end of a container's log, if it was fetched.
    pub fn log(&self, namespace: &str, pod: &str, container: &str) -> Option<&ContainerLog> {
        self.logs.get(&(namespace.to_string(), pod.to_string(), container.to_string()))
    }

    /// All fetched logs, by namespace, pod and container.
    pub fn logs(&self) -> &BTreeMap<(String, String, String), ContainerLog> {
        &self.logs
    }

    /// The Secrets whose data could not be read, by namespace and name; see [`Cluster::unread_secret`].
    pub fn unread_secrets(&self) -> &BTreeMap<(String, String), Gap> {
        &self.unread_secrets
    }

    /// Records objects that could not be decoded, after the snapshot was built.
    #[must_use]
    pub fn with_broken(mut self, broken: impl IntoIterator<Item = Broken>) -> Cluster {
        self.coverage.broken.extend(broken);
        self
    }

    /// Sets the full objects of the kinds that user-defined rules check.
    pub fn set_raw(&mut self, raw: RawObjects) {
        self.raw = Some(raw);
    }

    /// Whether full objects were kept.
    pub fn has_raw(&self) -> bool {
        self.raw.is_some()
    }

    /// The full objects of a kind, if a rule requested it, sorted by namespace and name.
    pub fn raw(&self, kind: &GroupKind) -> impl Iterator<Item = &RawObject> {
        self.raw.iter().flat_map(|raw| raw.of(kind))
    }

    /// Adds logs that were fetched after the snapshot was built.
    pub fn add_log(&mut self, namespace: &str, pod: &str, container: &str, log: ContainerLog) {
        self.logs.insert((namespace.to_string(), pod.to_string(), container.to_string()), log);
    }

    /// Why the data of an existing Secret of an Ingress or a Gateway could not be read. Whether its certificate is
    /// valid is then unknown.
    pub fn unread_secret(&self, namespace: &str, name: &str) -> Option<&Gap> {
        self.unread_secrets.get(&(namespace.to_string(), name.to_string()))
    }

    /// The namespaces that contain workloads.
    pub(crate) fn workload_namespaces(&self) -> BTreeSet<&str> {
        fn of<T: Object>(cluster: &Cluster) -> impl Iterator<Item = &str> {
            cluster.all::<T>().iter().map(Object::namespace)
        }
        of::<Deployment>(self)
            .chain(of::<StatefulSet>(self))
            .chain(of::<DaemonSet>(self))
            .chain(of::<ReplicaSet>(self))
            .chain(of::<ReplicationController>(self))
            .chain(of::<CronJob>(self))
            .chain(of::<Job>(self))
            .collect()
    }
}

/// The newest timestamp that a component of the cluster wrote: approximately the time of the recording.
fn newest(objects: &Objects) -> Option<Timestamp> {
    let leases = objects.leases.iter().filter_map(|lease| {
        let spec = lease.spec.as_ref()?;
        spec.renew_time.as_ref().map(|t| t.0)
    });
    let events = objects.events.iter().filter_map(Event::last_seen);
    let nodes = objects.nodes.iter().flat_map(|node| &node.status.conditions);
    let pods = objects.pods.iter().flat_map(|pod| &pod.status.conditions);
    let deployments = objects.deployments.iter().flat_map(|deployment| &deployment.status.conditions);
    let jobs = objects.jobs.iter().flat_map(|job| &job.status.conditions);
    let conditions = nodes.chain(pods).chain(deployments).chain(jobs);
    let conditions = conditions.flat_map(|c| [c.last_transition_time, c.last_update_time]).flatten();
    let containers = objects.pods.iter().flat_map(Pod::container_statuses).filter_map(|status| {
        let running = status.state.running().and_then(|state| state.started_at);
        let ended = status.state.terminated().and_then(|state| state.finished_at);
        running.max(ended)
    });
    leases.chain(events).chain(conditions).chain(containers).chain(objects.newest_created()).max()
}
