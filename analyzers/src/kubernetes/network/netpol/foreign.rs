//! Policies of other engines, which may allow what NetworkPolicies do not: Cilium's are additive to NetworkPolicies,
//! Calico's and Antrea's precede them. Their objects are not evaluated here; their existence makes a denial uncertain.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::snapshot::model::{CiliumNetworkPolicy, Labels};
use crate::snapshot::{Cluster, Kind};

/// The API groups of these engines.
pub const GROUPS: &[&str] =
    &["cilium.io", "crd.projectcalico.org", "projectcalico.org", "crd.antrea.io", "policy.networking.k8s.io"];

#[derive(Debug, Default)]
pub(super) struct Foreign {
    everywhere: bool,
    namespaces: BTreeSet<String>,
}

impl Foreign {
    pub(super) fn new(cluster: &Cluster) -> Foreign {
        let of_cluster = [Kind::ClusterNetworkPolicy, Kind::CiliumClusterwideNetworkPolicy, Kind::GlobalNetworkPolicy];
        let mut foreign = Foreign {
            everywhere: of_cluster.iter().any(|kind| cluster.objects().count(*kind) > 0),
            namespaces: cluster.all::<CiliumNetworkPolicy>().iter().map(|p| p.metadata.namespace.to_string()).collect(),
        };
        for object in cluster.custom() {
            if !GROUPS.contains(&object.group()) || !object.kind.ends_with("NetworkPolicy") {
                continue;
            }
            // Calico mirrors every Kubernetes NetworkPolicy as one of its own; these add nothing.
            if object.metadata.name.starts_with("knp.default.") {
                continue;
            }
            if object.metadata.namespace.is_empty() {
                foreign.everywhere = true;
            } else {
                foreign.namespaces.insert(object.metadata.namespace.to_string());
            }
        }
        foreign
    }

    pub(super) fn acts_in(&self, namespace: &str) -> bool {
        self.everywhere || self.namespaces.contains(namespace)
    }
}

/// The labels of the pod templates in the custom resources of each namespace, such as an Argo Rollout or a Knative
/// Service, which may have no pods at the moment.
pub(super) fn templates(cluster: &Cluster) -> BTreeMap<&str, Vec<Labels>> {
    let mut templates: BTreeMap<&str, Vec<Labels>> = BTreeMap::new();
    for object in cluster.custom() {
        let Some(Value::Object(labels)) = object.spec.pointer("/template/metadata/labels") else { continue };
        let labels = labels.iter().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?))).collect();
        templates.entry(&object.metadata.namespace).or_default().push(labels);
    }
    templates
}
