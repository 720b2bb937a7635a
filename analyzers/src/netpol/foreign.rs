//! Policies of other engines, which may let through what a NetworkPolicy does not: Cilium's add to what NetworkPolicies
//! allow, Calico's and Antrea's come before them. Their objects are not evaluated here; that they are there makes a
//! refusal uncertain.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::cluster::Cluster;
use crate::kind::Kind;
use crate::model::{CiliumNetworkPolicy, Labels};
use crate::selector::Selector;

const GROUPS: &[&str] =
    &["cilium.io", "crd.projectcalico.org", "projectcalico.org", "crd.antrea.io", "policy.networking.k8s.io"];

#[derive(Debug, Default)]
pub(super) struct Foreign {
    everywhere: bool,
    namespaces: BTreeSet<String>,
}

impl Foreign {
    pub fn new(cluster: &Cluster) -> Foreign {
        let of_cluster = [Kind::ClusterNetworkPolicy, Kind::CiliumClusterwideNetworkPolicy, Kind::GlobalNetworkPolicy];
        let mut foreign = Foreign {
            everywhere: of_cluster.iter().any(|kind| cluster.objects().count(*kind) > 0),
            namespaces: cluster.all::<CiliumNetworkPolicy>().iter().map(|p| p.metadata.namespace.clone()).collect(),
        };
        for object in cluster.custom() {
            if !GROUPS.contains(&object.group()) || !object.kind.ends_with("NetworkPolicy") {
                continue;
            }
            // Calico writes every NetworkPolicy of the API as one of its own, too: those say nothing new.
            if object.metadata.name.starts_with("knp.default.") {
                continue;
            }
            if object.metadata.namespace.is_empty() {
                foreign.everywhere = true;
            } else {
                foreign.namespaces.insert(object.metadata.namespace.clone());
            }
        }
        foreign
    }

    pub fn acts_in(&self, namespace: &str) -> bool {
        self.everywhere || self.namespaces.contains(namespace)
    }
}

/// Whether a custom resource of a namespace holds a pod template with labels that a selector matches: an Argo Rollout,
/// a Knative Service, which may have no pods at the moment.
pub(super) fn template_matches(cluster: &Cluster, namespace: &str, selector: &Selector) -> bool {
    cluster.custom().iter().filter(|object| object.metadata.namespace == namespace).any(|object| {
        let Some(Value::Object(labels)) = object.spec.pointer("/template/metadata/labels") else { return false };
        let pairs = labels.iter().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)));
        let labels: Labels = pairs.collect();
        selector.matches(&labels)
    })
}
