//! Workloads that users manage themselves: the ones that the rules of the `strict` profile check.

use crate::engine::Finding;
use crate::kubernetes::disruption;
use crate::kubernetes::workloads::autoscaler;
use crate::snapshot::model::{
    Condition, Container, HorizontalPodAutoscaler, Job, Labels, Meta, Node, Pod, PodDisruptionBudget, PodSpec, Service,
};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::list;

/// A workload from a manifest or chart of the user, or a pod without an owner.
pub(crate) struct UserManaged<'a> {
    pub object: ObjectRef,
    /// The metadata of the workload.
    pub metadata: &'a Meta,
    /// The labels of its pods.
    pub labels: &'a Labels,
    pub spec: &'a PodSpec,
    /// `spec.replicas`; `None` for kinds without it (DaemonSet, Job, CronJob, Pod).
    pub replicas: Option<i32>,
    /// Its active pods.
    pub pods: Vec<&'a Pod>,
}

/// The workloads that users manage.
pub(super) trait UserManagedExt {
    /// The workloads that users manage, sorted by namespace, kind and name. Excludes workloads of Kubernetes and its
    /// distributions, static pods, workloads that an operator created for a custom resource, and finished Jobs.
    fn user_managed(&self) -> Vec<UserManaged<'_>>;
    /// Whether there are several nodes, so that pods can be spread and rescheduled after a drain.
    fn has_many_nodes(&self) -> bool;
}

impl UserManagedExt for Cluster {
    fn user_managed(&self) -> Vec<UserManaged<'_>> {
        let workloads =
            self.workloads().into_iter().filter(|workload| !is_finished(self, &workload.object)).map(|workload| {
                let group = self.group_of_owner(&workload.object);
                UserManaged {
                    metadata: workload.metadata,
                    labels: &workload.template.metadata.labels,
                    spec: &workload.template.spec,
                    replicas: workload.replicas,
                    pods: group
                        .into_iter()
                        .flat_map(|group| self.pods_of(group))
                        .filter(|pod| pod.is_active())
                        .collect(),
                    object: workload.object,
                }
            });
        let is_alone = |pod: &&Pod| pod.is_active() && !pod.is_static();
        let pods = self.all::<Pod>().iter().filter(is_alone).map(|pod| UserManaged {
            object: pod.reference(),
            metadata: &pod.metadata,
            labels: &pod.metadata.labels,
            spec: &pod.spec,
            replicas: None,
            pods: vec![pod],
        });
        let is_user_managed = |user_managed: &UserManaged| {
            let metadata = user_managed.metadata;
            metadata.controller().is_none()
                && metadata.deletion_timestamp.is_none()
                && !is_platform(&metadata.namespace)
        };
        let mut all: Vec<UserManaged> = workloads.chain(pods).filter(is_user_managed).collect();
        all.sort_by(|a, b| {
            let key =
                |a: &UserManaged<'_>| (a.metadata.namespace.clone(), a.object.kind.clone(), a.object.name.clone());
            key(a).cmp(&key(b))
        });
        all
    }

    fn has_many_nodes(&self) -> bool {
        self.all::<Node>().len() > 1 || !self.covers_all(Kind::Node)
    }
}

/// A pod template, or the spec of a pod without an owner.
pub(crate) struct Specified<'a> {
    pub object: ObjectRef,
    pub spec: &'a PodSpec,
    /// The path of the pod's spec in the object.
    pub path: &'static str,
    /// Whether it has pods that are neither finished nor terminating, and whether one of them is ready.
    pub has_pods: bool,
    pub has_ready_pods: bool,
}

/// The templates of all topmost workloads that are not scaled to zero, and the specs of pods without an owner.
pub(crate) fn specified(cluster: &Cluster) -> Vec<Specified<'_>> {
    let workloads = cluster.workloads().into_iter().filter(|w| w.metadata.deletion_timestamp.is_none());
    let workloads =
        workloads.filter(|workload| !workload.is_scaled_to_zero() && !is_finished(cluster, &workload.object));
    let mut all: Vec<Specified> = workloads
        .map(|workload| {
            let pods = || cluster.group_of_owner(&workload.object).into_iter().flat_map(|group| cluster.pods_of(group));
            Specified {
                spec: &workload.template.spec,
                path: template_path(&workload.object),
                has_pods: pods().any(Pod::is_active),
                has_ready_pods: pods().any(|pod| pod.is_active() && pod.is_ready()),
                object: workload.object,
            }
        })
        .collect();
    let alone = cluster.pod_groups().iter().filter(|group| group.owner.is(Kind::Pod));
    let alone = alone.flat_map(|group| cluster.pods_of(group)).filter(|pod| pod.is_active() && !pod.is_static());
    all.extend(alone.map(|pod| Specified {
        object: pod.reference(),
        spec: &pod.spec,
        path: "spec",
        has_pods: pod.metadata.is_live(),
        has_ready_pods: pod.is_ready(),
    }));
    all
}

fn is_finished(cluster: &Cluster, object: &ObjectRef) -> bool {
    let job = cluster.get::<Job>(object.namespace(), &object.name).found().filter(|_| object.is(Kind::Job));
    job.is_some_and(|job| {
        let is_over = |c: &Condition| matches!(c.type_.as_str(), "Complete" | "Failed") && c.is_true();
        job.status.conditions.iter().any(is_over)
    })
}

/// The path of the pod template's spec in a workload.
pub(crate) fn template_path(object: &ObjectRef) -> &'static str {
    match () {
        () if object.is(Kind::Pod) => "spec",
        () if object.is(Kind::CronJob) => "spec.jobTemplate.spec.template.spec",
        () => "spec.template.spec",
    }
}

impl<'a> Specified<'a> {
    /// The init containers and containers with their paths.
    pub(crate) fn containers(&self) -> impl Iterator<Item = (&'a Container, String)> {
        let path = self.path;
        let of = move |list: &'static str, containers: &'a [Container]| {
            containers.iter().map(move |container| (container, format!("{path}.{list}[{}]", container.name)))
        };
        of("initContainers", &self.spec.init_containers).chain(of("containers", &self.spec.containers))
    }
}

/// Namespaces of Kubernetes and its distributions, whose workloads their vendors manage.
pub(crate) fn is_platform(namespace: &str) -> bool {
    const PREFIXES: [&str; 8] =
        ["kube-", "openshift-", "gke-", "gmp-", "aks-", "cattle-", "calico-", "local-path-storage"];
    matches!(namespace, "openshift" | "tigera-operator") || PREFIXES.iter().any(|prefix| namespace.starts_with(prefix))
}

/// `Service a and Service b`; beyond two the rest is counted.
pub(crate) fn named(services: &[&Service]) -> String {
    let titles: Vec<String> = services.iter().map(|service| service.reference().title()).collect();
    list(&titles, 2)
}

impl<'a> UserManaged<'a> {
    /// Whether it runs permanently: not a Job or CronJob.
    pub(super) fn is_lasting(&self) -> bool {
        !self.object.is(Kind::Job) && !self.object.is(Kind::CronJob)
    }

    /// Whether it has `spec.replicas`: a Deployment, StatefulSet, ReplicaSet or ReplicationController.
    pub(super) fn has_replicas(&self) -> bool {
        let kinds = [Kind::Deployment, Kind::StatefulSet, Kind::ReplicaSet, Kind::ReplicationController];
        kinds.iter().any(|kind| self.object.is(*kind))
    }

    /// Whether it runs one pod per node, usually an agent that works on the node itself.
    pub(super) fn is_on_every_node(&self) -> bool {
        self.object.is(Kind::DaemonSet)
    }

    pub(super) fn runs_on_windows(&self) -> bool {
        self.spec.node_selector.get("kubernetes.io/os").is_some_and(|os| os == "windows")
    }

    /// The Services that select its pods, sorted by name.
    pub(super) fn services(&self, cluster: &'a Cluster) -> Vec<&'a Service> {
        let selects = |service: &&Service| {
            let selector = &service.spec.selector;
            !selector.is_empty() && selector.iter().all(|(key, value)| self.labels.get(key) == Some(value))
        };
        cluster.in_namespace::<Service>(self.object.namespace()).iter().filter(selects).collect()
    }

    /// The HorizontalPodAutoscaler that scales it.
    pub(super) fn autoscaler(&self, cluster: &'a Cluster) -> Option<&'a HorizontalPodAutoscaler> {
        let mut all = cluster.in_namespace::<HorizontalPodAutoscaler>(self.object.namespace()).iter();
        all.find(|hpa| {
            let target = autoscaler::target_reference(hpa);
            target.kind == self.object.kind && target.name == self.object.name
        })
    }

    /// The minimum number of replicas; 0 if it is scaled to zero.
    pub(super) fn least_replicas(&self, cluster: &Cluster) -> i32 {
        let wanted = self.replicas.unwrap_or(1);
        match self.autoscaler(cluster) {
            Some(hpa) if wanted > 0 => hpa.spec.min_replicas.unwrap_or(1),
            _ => wanted,
        }
    }

    /// Whether a PodDisruptionBudget covers its pods.
    pub(super) fn has_disruption_budget(&self, cluster: &Cluster) -> bool {
        let budgets = cluster.in_namespace::<PodDisruptionBudget>(self.object.namespace()).iter();
        budgets.filter_map(disruption::selector).any(|selector| selector.matches(self.labels))
    }

    /// The container of a running pod, including what a LimitRange, an autoscaler or a webhook has set.
    pub(super) fn running(&self, container: &str) -> Option<&'a Container> {
        self.pods.first()?.spec.container(container)
    }

    /// The path of a field of the pod's spec: `spec.template.spec.hostNetwork`.
    pub(super) fn path(&self, field: &str) -> String {
        let spec = template_path(&self.object);
        format!("{spec}.{field}")
    }

    /// `kubectl -n shop edit deployment/cart`.
    pub(super) fn edit(&self) -> String {
        kubectl(["-n", self.object.namespace(), "edit", &self.object.target()])
    }

    /// A finding about all of its pods.
    pub(super) fn finding(&self, severity: crate::engine::Severity, message: String) -> Finding {
        Finding::new(severity, self.object.clone(), message).pods(self.pods.len())
    }
}

#[cfg(test)]
mod tests {
    use super::UserManagedExt;
    use crate::testing::TestCluster;

    fn user_managed(documents: &[&str]) -> Vec<String> {
        TestCluster::new(documents)
            .build()
            .user_managed()
            .iter()
            .map(|user_managed| user_managed.object.to_string())
            .collect()
    }

    const CART: &str = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: cart, namespace: shop}}";

    #[test]
    fn user_managed_workloads_are_included() {
        let pod = "{apiVersion: v1, kind: Pod, metadata: {name: debug, namespace: shop}}";
        let job = "{apiVersion: batch/v1, kind: Job, metadata: {name: load, namespace: shop}}";
        assert_eq!(user_managed(&[CART, pod, job]), ["Deployment shop/cart", "Job shop/load", "Pod shop/debug"]);
    }

    #[test]
    fn workloads_of_others_are_excluded() {
        let owned = "ownerReferences: [{apiVersion: a.io/v1, kind: Shop, name: s, controller: true}]";
        assert!(user_managed(&[&CART.replace("namespace: shop", &format!("namespace: shop, {owned}"))]).is_empty());
        assert!(user_managed(&[&CART.replace("shop", "kube-system")]).is_empty());
        assert!(user_managed(&[&CART.replace("shop", "openshift-dns")]).is_empty());
        let mirror = "{apiVersion: v1, kind: Pod, metadata: {name: etcd, namespace: infra,
                       annotations: {kubernetes.io/config.mirror: x}}}";
        assert!(user_managed(&[mirror]).is_empty());
        let over = "{apiVersion: batch/v1, kind: Job, metadata: {name: load, namespace: shop},
                     status: {conditions: [{type: Complete, status: 'True'}]}}";
        assert!(user_managed(&[over]).is_empty());
    }
}
