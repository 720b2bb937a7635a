//! Why a Service has no ready endpoints. The rules about Services, cluster DNS, Ingresses, routes, webhooks and
//! APIServices share this code, so that all of them report the same cause.

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

/// Why a Service has no ready endpoints.
#[derive(Debug)]
pub enum Outage<'a> {
    /// The selector matches no pods and no pod template of a workload.
    SelectsNothing,
    /// Pods exist, but none has the label that marks the leader at run time (`role=master`).
    NoLeader {
        label: String,
    },
    /// The workload of its pods is scaled down; `why` is the predicate after its name.
    Parked {
        workload: ObjectRef,
        why: String,
    },
    /// The workloads should have pods but have none.
    NoPods(Vec<ObjectRef>),
    NotReady(NotReady<'a>),
    /// Pods have been ready for a while, but no EndpointSlice lists them.
    NotPublished(Vec<&'a Pod>),
    /// The Service has no selector and no addresses.
    NoAddress,
}

/// The pods of a Service, none of which is ready and some of which are overdue.
#[derive(Debug)]
pub struct NotReady<'a> {
    pods: Vec<&'a Pod>,
    /// Their topmost owners, whose findings explain the outage.
    pub owners: Vec<ObjectRef>,
    /// When the last one stopped being ready.
    pub since: Option<Timestamp>,
}

impl NotReady<'_> {
    pub fn pods(&self) -> &[&Pod] {
        &self.pods
    }

    /// `both pods of Deployment cart are not ready`.
    fn describe(&self) -> String {
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
    /// The cause as a clause, to be used after "has no ready endpoints: ".
    pub fn why(&self) -> String {
        match self {
            Outage::SelectsNothing => "its selector matches no pods".to_string(),
            Outage::NoLeader { label } => format!("no pod has label {label}"),
            Outage::Parked { workload, why } => format!("{} {} {why}", workload.kind, workload.name),
            Outage::NoPods(workloads) => {
                let has = if workloads.len() == 1 { "has" } else { "have" };
                format!("{} {has} no pods", names(workloads))
            }
            Outage::NotReady(not_ready) => not_ready.describe(),
            Outage::NotPublished(pods) => {
                format!("no EndpointSlice lists its {}", words::count(pods.len(), "ready pod"))
            }
            Outage::NoAddress => "it has no selector and no EndpointSlice".to_string(),
        }
    }

    /// The objects whose findings explain the outage, apart from the Service.
    pub fn causes(&self) -> Vec<ObjectRef> {
        match self {
            Outage::NoPods(workloads) => workloads.clone(),
            Outage::NotReady(not_ready) => {
                // No other finding covers pods on a node that is down before they are marked as not ready.
                let nodes = not_ready.pods.iter().filter(|pod| readiness::is_lost(pod) || pod.is_ready());
                let nodes = nodes.map(|pod| ObjectRef::new(Kind::Node, "", &pod.spec.node_name));
                not_ready.owners.iter().cloned().chain(nodes).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// The outages of the Services of a cluster.
pub trait OutageExt {
    /// Why a Service has no ready endpoints. `None` if it has one, if not enough was read to tell, and while its pods
    /// are within their startup time.
    fn outage(&self, service: &Service) -> Option<Outage<'_>>;
    /// The first kind of workload that could not be read in a namespace, with the reason.
    fn unread_workloads(&self, namespace: &str) -> Option<(Kind, Option<Gap>)>;
    /// Whether the selector of a Service in manifests misses a workload of the same namespace because of a typo.
    /// Manifests may be incomplete, so a selector without a match is an error only if it differs from a workload's
    /// labels by a typo and no other Service selects that workload.
    fn is_misspelled(&self, service: &Service) -> bool;
    /// Whether a selector matches nothing only because it requires a label that is set on pods at run time: that of a
    /// leader, or a flag like `critical-operation=true`, which no template has.
    fn selects_runtime_label(&self, namespace: &str, selector: &Selector) -> bool;
}

impl OutageExt for Cluster {
    fn outage(&self, service: &Service) -> Option<Outage<'_>> {
        if self.takes_traffic(service)
            || service.is_external_name()
            || self.is_terminating(service)
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
        let Some(nearest) = self.nearest_workload(namespace, &selector).filter(|nearest| nearest.is_typo) else {
            return false;
        };
        let workloads = self.workloads_in(namespace);
        let intended = workloads.iter().find(|workload| workload.object == nearest.object);
        let is_selected = |labels: &Labels| {
            let others = self.in_namespace::<Service>(namespace).iter().map(|other| &other.spec.selector);
            others.filter(|selector| !selector.is_empty()).any(|selector| Selector::equals(selector).matches(labels))
        };
        intended.is_some_and(|workload| !is_selected(&workload.template.metadata.labels))
    }

    fn selects_runtime_label(&self, namespace: &str, selector: &Selector) -> bool {
        let labels: BTreeMap<&str, &str> = selector.equalities().collect();
        let is_mark = |key: &str, value: &str| value == "true" || (is_given_at_run_time(key) && is_leader(value));
        labels.len() == selector.len()
            && missing_role(self, namespace, labels.into_iter(), &self.workloads_in(namespace), is_mark).is_some()
    }
}

fn without_selector<'a>(cluster: &'a Cluster, service: &Service) -> Option<Outage<'a>> {
    let (namespace, name) = (service.namespace(), service.name());
    // Some controllers store their state in EndpointSlices or Endpoints without addresses (Patroni).
    let has_state = !cluster.endpoint_slices(namespace, name).is_empty()
        || cluster.get::<crate::snapshot::model::Endpoints>(namespace, name).found().is_some();
    let is_operated = service.metadata.controller().is_some();
    let needs_none = service.is_headless() && service.spec.ports.is_empty();
    let known = has_state || is_operated || needs_none;
    (!known && !is_younger(cluster, service.created(), time::START)).then_some(Outage::NoAddress)
}

/// The outage of a Service without active pods; `pods` are finished or terminating.
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
    let are_terminating = pods.iter().any(|pod| pod.is_terminating() && !readiness::is_overdue(cluster, pod));
    let without = matching.iter().filter(|w| should_have_pods(cluster, w)).map(|w| w.object.clone());
    let without: Vec<ObjectRef> = without.collect();
    (!are_terminating && !without.is_empty()).then_some(Outage::NoPods(without))
}

/// Whether a workload without pods should have some.
fn should_have_pods(cluster: &Cluster, workload: &Workload) -> bool {
    // A DaemonSet for nodes that an autoscaler has not created yet has no pods, which is correct.
    let desires_none = cluster
        .get::<DaemonSet>(workload.object.namespace(), &workload.object.name)
        .found()
        .is_some_and(|d| workload.object.is(Kind::DaemonSet) && d.status.desired_number_scheduled == 0);
    workload.metadata.is_live()
        && !workload.is_scaled_to_zero()
        && !is_batch(workload)
        && !desires_none
        && !is_younger(cluster, workload.metadata.creation_timestamp, time::START)
}

fn selects_nothing<'a>(cluster: &'a Cluster, service: &Service, workloads: &[Workload]) -> Option<Outage<'a>> {
    // Operators create the Service before the pods.
    let grace = if service.metadata.controller().is_some() { time::START } else { time::START / 4 };
    if is_younger(cluster, service.created(), grace) || watches_absent_component(service) {
        return None;
    }
    if let Some(outage) = pod_of_set(service, workloads) {
        return Some(outage);
    }
    let labels = service.spec.selector.pairs();
    match missing_role(cluster, service.namespace(), labels, workloads, |key, _| is_given_at_run_time(key)) {
        None => Some(Outage::SelectsNothing),
        Some(role) if role.is_follower => None,
        Some(role) => Some(Outage::NoLeader { label: role.label }),
    }
}

/// The label of a selector for a role that is set on pods at run time, if the rest of the selector matches pods or
/// pod templates.
fn missing_role<'s>(
    cluster: &Cluster,
    namespace: &str,
    labels: impl Iterator<Item = (&'s str, &'s str)>,
    workloads: &[Workload],
    is_mark: impl Fn(&str, &str) -> bool,
) -> Option<Role> {
    let in_templates = |key: &str| workloads.iter().any(|w| w.template.metadata.labels.get(key).is_some());
    let (roles, rest): (BTreeMap<&str, &str>, BTreeMap<&str, &str>) =
        labels.partition(|(key, value)| is_mark(key, value) && !in_templates(key));
    let (key, value) = roles.first_key_value()?;
    let rest: BTreeMap<String, String> = rest.into_iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let selector = Selector::equals(&rest);
    let rest_matches = !rest.is_empty()
        && (cluster.any_pod_matches(namespace, &selector)
            || workloads.iter().any(|w| selector.matches(&w.template.metadata.labels)));
    rest_matches.then(|| Role { label: format!("{key}={value}"), is_follower: !is_leader(value) })
}

fn with_pods<'a>(
    cluster: &'a Cluster,
    service: &Service,
    pods: &[&'a Pod],
    backends: &Backends<'_>,
) -> Option<Outage<'a>> {
    let active: Vec<&Pod> = pods.iter().copied().filter(|pod| pod.is_active()).collect();
    // Pods on a node that is down are about to be marked as not ready.
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
    // These pods may be the replacements of pods that were evicted from a node that is down.
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

/// The outage of a Service for one pod of a StatefulSet, selected by the label that the StatefulSet controller sets.
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

/// Whether a label is set on individual pods at run time and therefore in no template: Patroni, Vault, CloudNativePG,
/// Redis operators and others label the leader, Argo Rollouts labels the pods of one revision.
fn is_given_at_run_time(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or(key).to_ascii_lowercase();
    let marks = ["role", "leader", "master", "primary", "active", "pod-name", "pod-index", "hash"];
    marks.iter().any(|mark| name.contains(mark))
}

/// Whether the value of a role label denotes the leader, which must exist, and not a follower, which need not.
fn is_leader(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    ["master", "primary", "leader", "main", "active", "true", "read-write", "rw"].contains(&value.as_str())
}

/// Whether a Service is one of the headless Services of monitoring stacks for components that not every cluster runs as
/// pods: managed clusters hide their control plane, some network plugins replace kube-proxy, and DNS is either kube-dns
/// or CoreDNS.
fn watches_absent_component(service: &Service) -> bool {
    const COMPONENTS: [&str; 6] =
        ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd", "kube-proxy", "kube-dns"];
    service.namespace() == "kube-system"
        && service.is_headless()
        && service.spec.selector.pairs().any(|(_, value)| COMPONENTS.contains(&value))
}

/// Whether a Service may have endpoints in another cluster, which cannot be read (Cilium Cluster Mesh).
fn is_shared_between_clusters(service: &Service) -> bool {
    ["service.cilium.io/global", "io.cilium/global-service"].iter().any(|key| service.annotation(key) == Some("true"))
}

#[cfg(test)]
mod tests {
    use super::{Outage, OutageExt};
    use crate::snapshot::model::Service;
    use crate::testing::TestCluster;

    fn outage(selector: &str, more: &[&str]) -> String {
        let service = format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: db, namespace: shop}}, spec: {{selector: {selector}}}}}"
        );
        let documents: Vec<&str> = [service.as_str()].into_iter().chain(more.iter().copied()).collect();
        let cluster = TestCluster::new(&documents).build();
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
    fn roles_that_are_set_at_run_time() {
        assert_eq!(outage("{app: db, role: master}", &[SET]), "no leader role=master");
        // A cluster may have no replica.
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
