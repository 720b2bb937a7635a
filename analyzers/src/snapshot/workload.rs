//! A common view of all kinds that create pods from a template.

use crate::snapshot::cluster::Cluster;
use crate::snapshot::kind::Kind;
use crate::snapshot::model::{
    CronJob, DaemonSet, Deployment, Job, Meta, PodTemplate, ReplicaSet, ReplicationController, StatefulSet,
};
use crate::snapshot::object_ref::ObjectRef;
use crate::snapshot::objects::{Object, Objects};
use crate::snapshot::selector::{LabelIndex, Selector};

/// A topmost workload: it creates pods and has no controller that is a workload itself.
#[derive(Debug)]
pub struct Workload<'a> {
    pub object: ObjectRef,
    pub metadata: &'a Meta,
    pub template: &'a PodTemplate,
    /// The selector of its pods; `None` for Jobs and CronJobs, whose selectors are generated.
    pub selector: Option<Selector>,
    /// The desired number of pods; `None` if the spec has no such number (DaemonSet, Job, CronJob).
    pub replicas: Option<i32>,
}

impl Workload<'_> {
    /// Scaled to zero, or suspended.
    pub fn is_scaled_to_zero(&self) -> bool {
        self.replicas == Some(0)
    }
}

/// The kinds of workloads, in the order of listing.
const KINDS: [Kind; 7] = [
    Kind::Deployment,
    Kind::StatefulSet,
    Kind::DaemonSet,
    Kind::ReplicaSet,
    Kind::ReplicationController,
    Kind::CronJob,
    Kind::Job,
];

/// The template of an object of one of [`KINDS`], by its index in the table; `None` if another workload controls it.
fn template_at(objects: &Objects, kind: Kind, n: usize) -> Option<&PodTemplate> {
    Some(match kind {
        Kind::Deployment => &objects.deployments.all().get(n)?.spec.template,
        Kind::StatefulSet => &objects.stateful_sets.all().get(n)?.spec.template,
        Kind::DaemonSet => &objects.daemon_sets.all().get(n)?.spec.template,
        Kind::ReplicaSet => {
            let set = objects.replica_sets.all().get(n)?;
            set.metadata.controller().is_none().then_some(&set.spec.template)?
        }
        Kind::ReplicationController => &objects.replication_controllers.all().get(n)?.spec.template,
        Kind::CronJob => &objects.cron_jobs.all().get(n)?.spec.job_template.spec.template,
        Kind::Job => {
            let job = objects.jobs.all().get(n)?;
            job.metadata.controller().is_none().then_some(&job.spec.template)?
        }
        _ => return None,
    })
}

/// Workloads by the labels of their templates.
#[derive(Debug, Default)]
pub(crate) struct WorkloadIndex {
    /// Indexes into [`KINDS`] and into the table of the kind.
    by_label: LabelIndex<(u8, u32)>,
}

impl WorkloadIndex {
    pub(crate) fn new(objects: &Objects) -> WorkloadIndex {
        let mut index = WorkloadIndex::default();
        for (place, kind) in (0u8..).zip(KINDS) {
            for (n, namespace) in (0u32..).zip(objects.namespace_of_each(kind)) {
                let Some(template) = template_at(objects, kind, n as usize) else { continue };
                index.by_label.add(namespace, &template.metadata.labels, (place, n));
            }
        }
        index
    }
}

impl Cluster {
    /// The topmost workloads of a namespace, by kind and name. To find one use [`Cluster::workload`], to find some use
    /// [`Cluster::workloads_matching`].
    pub fn workloads_in(&self, namespace: &str) -> Vec<Workload<'_>> {
        let all = KINDS
            .into_iter()
            .flat_map(|kind| self.objects().range(kind, namespace).filter_map(move |n| self.workload_at(kind, n)));
        all.collect()
    }

    /// The topmost workloads of all namespaces.
    pub fn workloads(&self) -> Vec<Workload<'_>> {
        self.workload_namespaces().iter().flat_map(|namespace| self.workloads_in(namespace)).collect()
    }

    /// The object as a workload, if it is a topmost workload.
    pub fn workload(&self, object: &ObjectRef) -> Option<Workload<'_>> {
        let (kind, n) = self.place_of_workload(object)?;
        self.workload_at(kind, n)
    }

    /// The pod template of the object, if it is a topmost workload.
    pub(crate) fn template(&self, object: &ObjectRef) -> Option<&PodTemplate> {
        let (kind, n) = self.place_of_workload(object)?;
        template_at(self.objects(), kind, n)
    }

    fn place_of_workload(&self, object: &ObjectRef) -> Option<(Kind, usize)> {
        let kind = KINDS.into_iter().find(|kind| object.is(*kind))?;
        Some((kind, self.objects().position(kind, object.namespace(), &object.name)?))
    }

    /// The topmost workloads of a namespace whose template labels match a selector, by kind and name. An empty selector
    /// matches all of them.
    pub fn workloads_matching(&self, namespace: &str, selector: &Selector) -> Vec<Workload<'_>> {
        let matches = |workload: &Workload| selector.matches(&workload.template.metadata.labels);
        let Some(places) =
            selector.candidates(namespace, &self.derived(|| WorkloadIndex::new(self.objects())).by_label)
        else {
            return self.workloads_in(namespace).into_iter().filter(matches).collect();
        };
        let found = places.iter().filter_map(|(place, n)| self.workload_at(KINDS[usize::from(*place)], *n as usize));
        found.filter(|workload| workload.metadata.namespace == namespace && matches(workload)).collect()
    }

    fn workload_at(&self, kind: Kind, n: usize) -> Option<Workload<'_>> {
        let template = template_at(self.objects(), kind, n)?;
        let view = |object: ObjectRef, metadata, selector, replicas| Workload {
            object,
            metadata,
            template,
            selector,
            replicas,
        };
        Some(match kind {
            Kind::Deployment => {
                let d = self.all::<Deployment>().get(n)?;
                let selector = Selector::from(&d.spec.selector);
                view(d.reference(), &d.metadata, Some(selector), Some(d.spec.replicas.unwrap_or(1)))
            }
            Kind::StatefulSet => {
                let s = self.all::<StatefulSet>().get(n)?;
                let selector = Selector::from(&s.spec.selector);
                view(s.reference(), &s.metadata, Some(selector), Some(s.spec.replicas.unwrap_or(1)))
            }
            Kind::DaemonSet => {
                let d = self.all::<DaemonSet>().get(n)?;
                view(d.reference(), &d.metadata, Some(Selector::from(&d.spec.selector)), None)
            }
            Kind::ReplicaSet => {
                let r = self.all::<ReplicaSet>().get(n)?;
                let selector = Selector::from(&r.spec.selector);
                view(r.reference(), &r.metadata, Some(selector), Some(r.spec.replicas.unwrap_or(1)))
            }
            Kind::ReplicationController => {
                let r = self.all::<ReplicationController>().get(n)?;
                let selector = Selector::equals(&r.spec.selector);
                view(r.reference(), &r.metadata, Some(selector), Some(r.spec.replicas.unwrap_or(1)))
            }
            Kind::CronJob => {
                let c = self.all::<CronJob>().get(n)?;
                view(c.reference(), &c.metadata, None, c.spec.suspend.then_some(0))
            }
            Kind::Job => {
                let j = self.all::<Job>().get(n)?;
                view(j.reference(), &j.metadata, None, j.spec.suspend.then_some(0))
            }
            _ => return None,
        })
    }
}
