//! An index of a cluster's policies and of the pods that they apply to, built once for all rules.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::OnceLock;

use super::admin::AdminPolicies;
use super::endpoint::{PodEnd, Subject};
use super::foreign::Foreign;
use super::policy::Terms;
use crate::snapshot::model::{Labels, NetworkPolicy, Pod};
use crate::snapshot::{Cluster, LabelIndex, Object, ObjectRef, SelectorIndex};

/// The policies of a cluster, compiled.
#[derive(Debug)]
pub(crate) struct Index {
    /// One per NetworkPolicy, in order.
    pub(super) terms: Vec<Terms>,
    pub(super) by_selector: SelectorIndex,
    pub(super) admin: AdminPolicies,
    pub(super) foreign: Foreign,
    subjects: OnceLock<SubjectIndex>,
}

impl Index {
    pub(crate) fn new(cluster: &Cluster) -> Index {
        let policies = cluster.all::<NetworkPolicy>();
        let terms: Vec<Terms> = policies.iter().map(Terms::of).collect();
        let selectors = policies.iter().zip(&terms).map(|(policy, terms)| (policy.namespace(), &terms.selector));
        Index {
            by_selector: SelectorIndex::new(selectors),
            terms,
            admin: AdminPolicies::new(cluster),
            foreign: Foreign::new(cluster),
            subjects: OnceLock::new(),
        }
    }

    pub(super) fn subjects(&self, cluster: &Cluster) -> &SubjectIndex {
        self.subjects.get_or_init(|| SubjectIndex::new(cluster))
    }
}

/// The owners of pods, by namespace and by the labels of their pods.
#[derive(Debug, Default)]
pub(super) struct SubjectIndex {
    /// By namespace and owner.
    rows: Vec<Row>,
    namespaces: BTreeMap<String, Range<usize>>,
    /// By namespace, key and value.
    pub by_label: LabelIndex<u32>,
    /// By key and value, with an empty namespace.
    by_label_anywhere: OnceLock<LabelIndex<u32>>,
}

/// A [`Subject`], without the references into the cluster.
#[derive(Debug)]
struct Row {
    owner: ObjectRef,
    /// The index of its first active pod; `None` for a workload that has no pods yet.
    pod: Option<u32>,
    pods: usize,
}

impl SubjectIndex {
    fn new(cluster: &Cluster) -> SubjectIndex {
        let mut index = SubjectIndex::default();
        for (namespace, rows) in rows(cluster) {
            let first = index.rows.len();
            index.rows.extend(rows);
            index.namespaces.insert(namespace.to_string(), first..index.rows.len());
        }
        let by_label = by_label(index.all(cluster).iter().map(|subject| (subject.end.namespace, subject.end.labels)));
        SubjectIndex { by_label, ..index }
    }

    /// The subjects of all namespaces, in order.
    pub(super) fn all<'a>(&'a self, cluster: &'a Cluster) -> Vec<Subject<'a>> {
        let end = |row: &'a Row| match row.pod {
            Some(n) => Some(PodEnd::of(&cluster.all::<Pod>()[n as usize])),
            None => Some(PodEnd::of_template(row.owner.namespace(), cluster.template(&row.owner)?)),
        };
        let owner = |row: &'a Row| Cow::Borrowed(&row.owner);
        // Every template is found, because a cluster never changes.
        self.rows.iter().filter_map(|row| Some(Subject { owner: owner(row), end: end(row)?, pods: row.pods })).collect()
    }

    /// The indices of the subjects of a namespace.
    pub(super) fn range(&self, namespace: &str) -> Range<usize> {
        self.namespaces.get(namespace).cloned().unwrap_or_default()
    }

    pub(super) fn by_label_anywhere(&self, cluster: &Cluster) -> &LabelIndex<u32> {
        self.by_label_anywhere.get_or_init(|| by_label(self.all(cluster).iter().map(|s| ("", s.end.labels))))
    }
}

fn rows(cluster: &Cluster) -> BTreeMap<&str, Vec<Row>> {
    let mut rows: BTreeMap<&str, Vec<Row>> = BTreeMap::new();
    for group in cluster.pod_groups() {
        let mut active = group.pods.iter().filter(|n| cluster.all::<Pod>()[**n as usize].is_active());
        let Some(first) = active.next() else { continue };
        let namespace = &cluster.all::<Pod>()[*first as usize].metadata.namespace;
        let row = Row { owner: group.owner.clone(), pod: Some(*first), pods: 1 + active.count() };
        rows.entry(namespace).or_default().push(row);
    }
    for namespace in cluster.workload_namespaces() {
        let here = rows.entry(namespace).or_default();
        // Sorted by owner, as the groups are.
        let with_pods = here.len();
        for workload in cluster.workloads_in(namespace) {
            let has_pods = here[..with_pods].binary_search_by(|row| row.owner.cmp(&workload.object)).is_ok();
            if !workload.is_scaled_to_zero() && !has_pods {
                here.push(Row { owner: workload.object, pod: None, pods: 0 });
            }
        }
        here.sort_by(|a, b| a.owner.cmp(&b.owner));
    }
    rows
}

fn by_label<'l>(labels: impl Iterator<Item = (&'l str, &'l Labels)>) -> LabelIndex<u32> {
    let mut index = LabelIndex::default();
    for (n, (namespace, labels)) in (0u32..).zip(labels) {
        index.add(namespace, labels, n);
    }
    index
}
