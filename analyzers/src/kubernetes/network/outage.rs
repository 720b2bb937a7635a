//! Why a Service has nothing that it could send traffic to: asked by the rules about Services, the cluster's DNS,
//! Ingresses, routes, webhooks and APIServices, so that all of them give the same answer.

use crate::kubernetes::nearest::NearestExt;
use crate::kubernetes::network::endpoints::EndpointsExt;
use crate::kubernetes::nodes::kubelet::KubeletExt;
use std::collections::BTreeMap;

use crate::kubernetes::network::endpoints::Backends;
use crate::kubernetes::time;
use crate::kubernetes::workloads::readiness;
use crate::snapshot::model::{DaemonSet, LabelSet, Labels, Pod, Service, Timestamp};
use crate::snapshot::{Cluster, Extent, Gap, Kind, Object, ObjectRef, Origin, Selector, Workload};
use crate::text::words;

/// Why a Service has no endpoint that takes traffic.
#[derive(Debug)]
pub enum Outage<'a> {
    /// Its selector matches no pod and no workload's template.
    SelectsNothing,
    /// Pods are there, but none has the label that something gives to their leader at run time (`role=master`).
    NoLeader {
        label: String,
    },
    /// The workload that would make its pods is asked for none; `why` is what is to be read after its name.
    Parked {
        workload: ObjectRef,
        why: String,
    },
    /// Workloads that should have made pods have none.
    NoPods(Vec<ObjectRef>),
    NotReady(NotReady<'a>),
    /// Pods have been ready for a while, yet no EndpointSlice lists them.
    NotPublished(Vec<&'a Pod>),
    /// It has no selector, and nothing gave it an address.
    NoAddress,
}

/// Pods that a Service selects, none of which is ready, and some of which should be by now.
#[derive(Debug)]
pub struct NotReady<'a> {
    pods: Vec<&'a Pod>,
    /// Their topmost owners, whose findings explain it.
    pub owners: Vec<ObjectRef>,
    /// When the last one stopped being ready.
    pub since: Option<Timestamp>,
}

impl NotReady<'_> {
    pub fn pods(&self) -> &[&Pod] {
        &self.pods
    }

    /// `both pods of Deployment cart are not ready`.
    fn who(&self) -> String {
        let owners = names(&self.owners);
        let are = if self.pods.len() == 1 { "is" } else { "are" };
        let all = match self.pods.len() {
            1 => "the only pod of ",
            2 => "both pods of ",
            _ => "all pods of ",
        };
        let all = if self.owners.iter().all(|owner| owner.is(Kind::Pod)) { "" } else { all };
        format!("{all}{owners} {are} not ready")
    }
}

/// `Deployment cart and StatefulSet db`.
fn names(objects: &[ObjectRef]) -> String {
    let names: Vec<String> = objects.iter().map(|object| format!("{} {}", object.kind, object.name)).collect();
    words::list(&names, 3)
}

impl Outage<'_> {
    /// A clause that says it, to go after "has no endpoint: ".
    pub fn why(&self) -> String {
        match self {
            Outage::SelectsNothing => "its selector matches no pod".to_string(),
            Outage::NoLeader { label } => format!("no pod has the label {label}"),
            Outage::Parked { workload, why } => format!("{} {} {why}", workload.kind, workload.name),
            Outage::NoPods(workloads) => {
                let has = if workloads.len() == 1 { "has" } else { "have" };
                format!("{} {has} no pod", names(workloads))
            }
            Outage::NotReady(not_ready) => not_ready.who(),
            Outage::NotPublished(pods) => {
                format!("nothing puts its {} into an EndpointSlice", words::count(pods.len(), "ready pod"))
            }
            Outage::NoAddress => "it has no selector and no EndpointSlice".to_string(),
        }
    }

    /// The objects whose findings explain it, apart from the Service.
    pub fn causes(&self) -> Vec<ObjectRef> {
        match self {
            Outage::NoPods(workloads) => workloads.clone(),
            Outage::NotReady(not_ready) => {
                // Of those that are not marked yet nothing else is said.
                let nodes = not_ready.pods.iter().filter(|pod| readiness::is_lost(pod) || pod.is_ready());
                let nodes = nodes.map(|pod| ObjectRef::new(Kind::Node, "", &pod.spec.node_name));
                not_ready.owners.iter().cloned().chain(nodes).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// What keeps the Services of a cluster from taking traffic.
pub trait OutageExt {
    /// Why a Service has no endpoint that takes traffic. `None` if it has one, if too little was read to tell, and as
    /// long as its pods have not had the time that they take.
    fn outage(&self, service: &Service) -> Option<Outage<'_>>;
    /// Why not all workloads of a namespace are known, if so.
    fn unread_workloads(&self, namespace: &str) -> Option<(Kind, Option<Gap>)>;
    /// Whether the selector of a Service in manifests misses a workload beside it by a slip of the pen. Manifests need not
    /// hold every workload, so what merely matches nothing may be elsewhere; but not if it is all but spelled out, and
    /// nothing else selects that workload.
    fn is_misspelled(&self, service: &Service) -> bool;
    /// Whether a selector matches nothing only because it asks for a mark that pods are given at run time: that of a
    /// leader, or a flag like `critical-operation=true`, which no template has.
    fn asks_for_mark(&self, namespace: &str, selector: &Selector) -> bool;
}

impl OutageExt for Cluster {
    fn outage(&self, service: &Service) -> Option<Outage<'_>> {
        if self.takes_traffic(service)
            || service.is_external_name()
            || self.is_going_away(service)
            || is_shared_between_clusters(service)
        {
            return None;
        }
        let backends = self.backends(service);
        if service.spec.selector.is_empty() {
            return backends.and_then(|_| without_selector(self, service));
        }
        let namespace = service.namespace();
        if !self.covers(Kind::Pod, namespace) {
            return None;
        }
        let pods = self.pods_matching(namespace, &Selector::equals(&service.spec.selector));
        if pods.iter().any(|pod| pod.is_active()) {
            with_pods(self, service, &pods, &backends?)
        } else {
            without_pods(self, service, &pods)
        }
    }

    fn unread_workloads(&self, namespace: &str) -> Option<(Kind, Option<Gap>)> {
        const WORKLOADS: [Kind; 7] = [
            Kind::Deployment,
            Kind::StatefulSet,
            Kind::DaemonSet,
            Kind::ReplicaSet,
            Kind::ReplicationController,
            Kind::Job,
            Kind::CronJob,
        ];
        let unread = WORKLOADS.into_iter().find(|kind| !self.covers(*kind, namespace))?;
        Some((unread, self.coverage().gap(unread).cloned()))
    }

    fn is_misspelled(&self, service: &Service) -> bool {
        let namespace = service.namespace();
        let selector = Selector::equals(&service.spec.selector);
        if self.origin() != Origin::Manifests || !self.workloads_matching(namespace, &selector).is_empty() {
            return false;
        }
        let Some(nearest) = self.nearest_workload(namespace, &selector).filter(|nearest| nearest.is_slip) else {
            return false;
        };
        let workloads = self.workloads_in(namespace);
        let meant = workloads.iter().find(|workload| workload.object == nearest.object);
        let is_selected = |labels: &Labels| {
            let others = self.in_namespace::<Service>(namespace).iter().map(|other| &other.spec.selector);
            others.filter(|asked| !asked.is_empty()).any(|asked| Selector::equals(asked).matches(labels))
        };
        meant.is_some_and(|workload| !is_selected(&workload.template.metadata.labels))
    }

    fn asks_for_mark(&self, namespace: &str, selector: &Selector) -> bool {
        let asked: BTreeMap<&str, &str> = selector.equalities().collect();
        let is_mark = |key: &str, value: &str| value == "true" || (is_given_at_run_time(key) && is_leader(value));
        asked.len() == selector.len()
            && missing_role(self, namespace, asked.into_iter(), &self.workloads_in(namespace), is_mark).is_some()
    }
}

fn without_selector<'a>(cluster: &'a Cluster, service: &Service) -> Option<Outage<'a>> {
    let (namespace, name) = (service.namespace(), service.name());
    // Slices or Endpoints without an address are how some controllers keep their state (Patroni).
    let has_state = !cluster.endpoint_slices(namespace, name).is_empty()
        || cluster.get::<crate::snapshot::model::Endpoints>(namespace, name).found().is_some();
    let made_by_operator = service.metadata.controller().is_some();
    let needs_none = service.is_headless() && service.spec.ports.is_empty();
    let known = has_state || made_by_operator || needs_none;
    (!known && !is_younger(cluster, service.created(), time::START)).then_some(Outage::NoAddress)
}

/// For a Service that no active pod belongs to; `pods` are finished or on their way out.
fn without_pods<'a>(cluster: &'a Cluster, service: &Service, pods: &[&Pod]) -> Option<Outage<'a>> {
    let namespace = service.namespace();
    if cluster.unread_workloads(namespace).is_some() {
        return (pods.is_empty() && cluster.is_misspelled(service)).then_some(Outage::SelectsNothing);
    }
    let selector = Selector::equals(&service.spec.selector);
    let matching = cluster.workloads_matching(namespace, &selector);
    if matching.is_empty() {
        return if pods.is_empty() {
            selects_nothing(cluster, service, &cluster.workloads_in(namespace))
        } else {
            None
        };
    }
    if let Some(parked) = matching.iter().find(|w| w.is_scaled_to_zero())
        && matching.iter().all(|w| w.is_scaled_to_zero() || is_batch(w))
    {
        return Some(Outage::Parked { workload: parked.object.clone(), why: "is scaled to zero".to_string() });
    }
    let leaving = pods.iter().any(|pod| pod.is_terminating() && !readiness::is_overdue(cluster, pod));
    let wanting = matching.iter().filter(|w| should_have_pods(cluster, w)).map(|w| w.object.clone());
    let wanting: Vec<ObjectRef> = wanting.collect();
    (!leaving && !wanting.is_empty()).then_some(Outage::NoPods(wanting))
}

/// Whether a workload that has no pod should have had one by now.
fn should_have_pods(cluster: &Cluster, workload: &Workload) -> bool {
    // A DaemonSet for nodes that an autoscaler has not made yet runs nowhere, and rightly so.
    let wants_none = cluster
        .get::<DaemonSet>(workload.object.namespace(), &workload.object.name)
        .found()
        .is_some_and(|d| workload.object.is(Kind::DaemonSet) && d.status.desired_number_scheduled == 0);
    workload.metadata.is_live()
        && !workload.is_scaled_to_zero()
        && !is_batch(workload)
        && !wants_none
        && !is_younger(cluster, workload.metadata.creation_timestamp, time::START)
}

fn selects_nothing<'a>(cluster: &'a Cluster, service: &Service, workloads: &[Workload]) -> Option<Outage<'a>> {
    // An operator makes the Service first and the pods in its own time.
    let grace = if service.metadata.controller().is_some() { time::START } else { time::START / 4 };
    if is_younger(cluster, service.created(), grace) || watches_absent_component(service) {
        return None;
    }
    if let Some(outage) = pod_of_set(service, workloads) {
        return Some(outage);
    }
    let asked = service.spec.selector.pairs();
    match missing_role(cluster, service.namespace(), asked, workloads, |key, _| is_given_at_run_time(key)) {
        None => Some(Outage::SelectsNothing),
        Some(role) if role.is_follower => None,
        Some(role) => Some(Outage::NoLeader { label: role.label }),
    }
}

/// The label by which a selector follows a role that pods are given at run time, if the rest of it matches pods, or
/// templates of pods.
fn missing_role<'s>(
    cluster: &Cluster,
    namespace: &str,
    asked: impl Iterator<Item = (&'s str, &'s str)>,
    workloads: &[Workload],
    is_mark: impl Fn(&str, &str) -> bool,
) -> Option<Role> {
    let in_templates = |key: &str| workloads.iter().any(|w| w.template.metadata.labels.get(key).is_some());
    let (roles, rest): (BTreeMap<&str, &str>, BTreeMap<&str, &str>) =
        asked.partition(|(key, value)| is_mark(key, value) && !in_templates(key));
    let (key, value) = roles.first_key_value()?;
    let rest: BTreeMap<String, String> = rest.into_iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let selector = Selector::equals(&rest);
    let followed = !rest.is_empty()
        && (cluster.any_pod_matches(namespace, &selector)
            || workloads.iter().any(|w| selector.matches(&w.template.metadata.labels)));
    followed.then(|| Role { label: format!("{key}={value}"), is_follower: !is_leader(value) })
}

fn with_pods<'a>(
    cluster: &'a Cluster,
    service: &Service,
    pods: &[&'a Pod],
    backends: &Backends<'_>,
) -> Option<Outage<'a>> {
    let active: Vec<&Pod> = pods.iter().copied().filter(|pod| pod.is_active()).collect();
    // Those of a lost node are about to be marked as not ready.
    let is_ready = |pod: &&Pod| pod.is_ready() && !cluster.is_on_down_node(pod);
    let ready: Vec<&Pod> = active.iter().copied().filter(is_ready).collect();
    if !ready.is_empty() {
        let by_slices = !matches!(cluster.coverage().extent(Kind::EndpointSlice), Extent::NotServed);
        let settled = |pod: &&Pod| !is_younger(cluster, readiness::since(pod), time::SCHEDULE);
        let unlisted = by_slices
            && service.is_live()
            && ready.iter().any(settled)
            && ready.iter().all(|pod| !backends.backends.iter().any(|b| b.pod == Some(pod.name()) && b.ready))
            && !is_younger(cluster, service.created(), time::SCHEDULE);
        return unlisted.then_some(Outage::NotPublished(ready));
    }
    let serving: Vec<&Pod> = active.into_iter().filter(|pod| !is_of_a_job(cluster, pod)).collect();
    // It has been down since the node was lost, whose evicted pods these may have come after.
    let is_evicted = |pod: &&Pod| pod.is_terminating() && cluster.is_on_down_node(pod);
    if serving.is_empty()
        || !serving.iter().any(|pod| readiness::is_overdue(cluster, pod)) && !pods.iter().any(is_evicted)
    {
        return None;
    }
    let mut owners: Vec<ObjectRef> = serving.iter().map(|pod| cluster.owner_of(pod).into_owned()).collect();
    owners.sort();
    owners.dedup();
    let since = serving.iter().filter_map(|pod| readiness::since(pod)).max();
    Some(Outage::NotReady(NotReady { pods: serving, owners, since }))
}

fn is_of_a_job(cluster: &Cluster, pod: &Pod) -> bool {
    let owner = cluster.owner_of(pod);
    owner.is(Kind::Job) || owner.is(Kind::CronJob)
}

fn is_younger(cluster: &Cluster, created: Option<Timestamp>, than: std::time::Duration) -> bool {
    created.is_some_and(|created| time::age(cluster.now(), created) < than)
}

struct Role {
    label: String,
    is_follower: bool,
}

fn is_batch(workload: &Workload) -> bool {
    workload.object.is(Kind::Job) || workload.object.is(Kind::CronJob)
}

/// A Service for one pod of a StatefulSet, by the label that the StatefulSet controller puts on it.
fn pod_of_set<'a>(service: &Service, workloads: &[Workload]) -> Option<Outage<'a>> {
    let pod = service.spec.selector.get("statefulset.kubernetes.io/pod-name")?;
    let (set, ordinal) = pod.rsplit_once('-')?;
    let ordinal: i32 = ordinal.parse().ok()?;
    let set = workloads.iter().find(|w| w.object.is(Kind::StatefulSet) && w.object.name == set)?;
    let replicas = set.replicas.unwrap_or(1);
    Some(match replicas {
        0 => Outage::Parked { workload: set.object.clone(), why: "is scaled to zero".to_string() },
        _ if ordinal >= replicas => {
            Outage::Parked { workload: set.object.clone(), why: format!("is scaled to {replicas}") }
        }
        _ => Outage::NoPods(vec![set.object.clone()]),
    })
}

/// Labels that no template has because something gives them to single pods at run time: Patroni, Vault,
/// CloudNativePG, Redis operators and others mark the leader, Argo Rollouts the pods of one revision.
fn is_given_at_run_time(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or(key).to_ascii_lowercase();
    let marks = ["role", "leader", "master", "primary", "active", "pod-name", "pod-index", "hash"];
    marks.iter().any(|mark| name.contains(mark))
}

/// Whether a role's value means the one that has to be there, and not the others, of which there may be none.
fn is_leader(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    ["master", "primary", "leader", "main", "active", "true", "read-write", "rw"].contains(&value.as_str())
}

/// Headless Services of monitoring stacks for components that not every cluster runs as pods: managed clusters hide
/// their control plane, some network plugins replace kube-proxy, and DNS is either kube-dns or CoreDNS.
fn watches_absent_component(service: &Service) -> bool {
    const COMPONENTS: [&str; 6] =
        ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd", "kube-proxy", "kube-dns"];
    service.namespace() == "kube-system"
        && service.is_headless()
        && service.spec.selector.pairs().any(|(_, value)| COMPONENTS.contains(&value))
}

/// Endpoints in another cluster count, and cannot be seen from here (Cilium Cluster Mesh).
fn is_shared_between_clusters(service: &Service) -> bool {
    ["service.cilium.io/global", "io.cilium/global-service"].iter().any(|key| service.annotation(key) == Some("true"))
}

#[cfg(test)]
mod tests {
    use super::{Outage, OutageExt};
    use crate::snapshot::model::Service;
    use crate::testing::World;

    fn outage(selector: &str, more: &[&str]) -> String {
        let service = format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: db, namespace: shop}}, spec: {{selector: {selector}}}}}"
        );
        let documents: Vec<&str> = [service.as_str()].into_iter().chain(more.iter().copied()).collect();
        let cluster = World::new(&documents).build();
        let service = cluster.get::<Service>("shop", "db").found().unwrap();
        match cluster.outage(service) {
            None => "none".to_string(),
            Some(Outage::SelectsNothing) => "selects nothing".to_string(),
            Some(Outage::NoLeader { label }) => format!("no leader {label}"),
            Some(Outage::Parked { workload, why }) => format!("{} {why}", workload.name),
            Some(Outage::NoPods(workloads)) => format!("no pods of {}", workloads[0].name),
            Some(Outage::NotReady(not_ready)) => format!("{} not ready", not_ready.pods().len()),
            Some(Outage::NotPublished(pods)) => format!("{} not published", pods.len()),
            Some(Outage::NoAddress) => "no address".to_string(),
        }
    }

    const SET: &str = "
        apiVersion: apps/v1
        kind: StatefulSet
        metadata: {name: db, namespace: shop, creationTimestamp: '2026-11-20T12:00:00Z'}
        spec: {replicas: 2, template: {metadata: {labels: {app: db, version: v2}}}}";

    #[test]
    fn roles_that_are_given_at_run_time() {
        assert_eq!(outage("{app: db, role: master}", &[SET]), "no leader role=master");
        // There may well be no replica.
        assert_eq!(outage("{app: db, role: replica}", &[SET]), "none");
        assert_eq!(outage("{app: db, version: v1}", &[SET]), "selects nothing");
        assert_eq!(outage("{app: dbs, role: master}", &[SET]), "selects nothing");
    }

    #[test]
    fn services_of_single_pods() {
        assert_eq!(outage("{statefulset.kubernetes.io/pod-name: db-1}", &[SET]), "no pods of db");
        assert_eq!(outage("{statefulset.kubernetes.io/pod-name: db-2}", &[SET]), "db is scaled to 2");
        assert_eq!(outage("{statefulset.kubernetes.io/pod-name: other-0}", &[SET]), "selects nothing");
    }

    #[test]
    fn workloads_without_pods() {
        assert_eq!(outage("{app: db}", &[SET]), "no pods of db");
        let pod = "{apiVersion: v1, kind: Pod, metadata: {name: db-0, namespace: shop, labels: {app: db}, \
                   deletionTimestamp: '2026-11-21T11:59:50Z'}}";
        assert_eq!(outage("{app: db}", &[SET, pod]), "none");
    }
}
