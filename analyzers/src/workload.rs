//! One view of everything that makes pods from a template.

use crate::cluster::Cluster;
use crate::finding::ObjectRef;
use crate::kind::Object;
use crate::model::{
    CronJob, DaemonSet, Deployment, Job, Meta, PodTemplate, ReplicaSet, ReplicationController, StatefulSet,
};
use crate::selector::Selector;

/// A topmost workload: what makes pods and is not itself made by another workload.
#[derive(Debug)]
pub struct Workload<'a> {
    pub object: ObjectRef,
    pub metadata: &'a Meta,
    pub template: &'a PodTemplate,
    /// Which pods it counts as its own; Jobs and CronJobs have none that a person wrote.
    pub selector: Option<Selector>,
    /// How many pods it wants; `None` where that is not a number in its spec (DaemonSet, Job, CronJob).
    pub replicas: Option<i32>,
}

impl Workload<'_> {
    /// Asked for no pods at all, or suspended.
    pub fn is_scaled_to_zero(&self) -> bool {
        self.replicas == Some(0)
    }
}

impl Cluster {
    /// The topmost workloads of a namespace, by kind and name.
    pub fn workloads_in(&self, namespace: &str) -> Vec<Workload<'_>> {
        let mut workloads = Vec::new();
        workloads.extend(self.in_namespace::<Deployment>(namespace).iter().map(|d| Workload {
            object: d.reference(),
            metadata: &d.metadata,
            template: &d.spec.template,
            selector: Some(Selector::new(&d.spec.selector)),
            replicas: Some(d.spec.replicas.unwrap_or(1)),
        }));
        workloads.extend(self.in_namespace::<StatefulSet>(namespace).iter().map(|s| Workload {
            object: s.reference(),
            metadata: &s.metadata,
            template: &s.spec.template,
            selector: Some(Selector::new(&s.spec.selector)),
            replicas: Some(s.spec.replicas.unwrap_or(1)),
        }));
        workloads.extend(self.in_namespace::<DaemonSet>(namespace).iter().map(|d| Workload {
            object: d.reference(),
            metadata: &d.metadata,
            template: &d.spec.template,
            selector: Some(Selector::new(&d.spec.selector)),
            replicas: None,
        }));
        let bare = self.in_namespace::<ReplicaSet>(namespace).iter().filter(|r| r.metadata.controller().is_none());
        workloads.extend(bare.map(|r| Workload {
            object: r.reference(),
            metadata: &r.metadata,
            template: &r.spec.template,
            selector: Some(Selector::new(&r.spec.selector)),
            replicas: Some(r.spec.replicas.unwrap_or(1)),
        }));
        workloads.extend(self.in_namespace::<ReplicationController>(namespace).iter().map(|r| Workload {
            object: r.reference(),
            metadata: &r.metadata,
            template: &r.spec.template,
            selector: Some(Selector::equals(&r.spec.selector)),
            replicas: Some(r.spec.replicas.unwrap_or(1)),
        }));
        workloads.extend(self.in_namespace::<CronJob>(namespace).iter().map(|c| Workload {
            object: c.reference(),
            metadata: &c.metadata,
            template: &c.spec.job_template.spec.template,
            selector: None,
            replicas: c.spec.suspend.then_some(0),
        }));
        let bare = self.in_namespace::<Job>(namespace).iter().filter(|j| j.metadata.controller().is_none());
        workloads.extend(bare.map(|j| Workload {
            object: j.reference(),
            metadata: &j.metadata,
            template: &j.spec.template,
            selector: None,
            replicas: j.spec.suspend.then_some(0),
        }));
        workloads
    }

    /// The topmost workloads of all namespaces.
    pub fn workloads(&self) -> Vec<Workload<'_>> {
        self.workload_namespaces().iter().flat_map(|namespace| self.workloads_in(namespace)).collect()
    }
}
