//! What can be seen of where a cluster runs and of what runs beside it, for the rules that must know who does a job.

use crate::snapshot::Cluster;
use crate::snapshot::model::{Node, Pod, Service};

/// What a cluster runs on.
pub trait PlatformExt {
    /// Google Kubernetes Engine: some of its controllers and its DNS run outside the cluster.
    fn is_gke(&self) -> bool;
    fn is_openshift(&self) -> bool;
    /// The cloud that the nodes belong to, by the scheme of their `providerID`: `aws`, `gce`, `azure` … Clusters on one
    /// machine (kind, k3s, kwok) have such ids too, and no cloud.
    fn cloud(&self) -> Option<&str>;
    /// Whether a container of some active pod has one of these words in its image, command or arguments.
    fn runs(&self, words: &[&str]) -> bool;
}

impl PlatformExt for Cluster {
    fn is_gke(&self) -> bool {
        self.all::<Node>().iter().any(|node| {
            node.metadata.labels.get("cloud.google.com/gke-nodepool").is_some()
                || node.status.node_info.kubelet_version.contains("-gke.")
        })
    }

    fn is_openshift(&self) -> bool {
        !self.in_namespace::<Service>("openshift-dns").is_empty()
            || self.all::<Node>().iter().any(|node| node.metadata.labels.get("node.openshift.io/os_id").is_some())
    }

    fn cloud(&self) -> Option<&str> {
        let schemes = self.all::<Node>().iter().filter_map(|node| node.spec.provider_id.split_once("://"));
        schemes.map(|(scheme, _)| scheme).find(|scheme| !matches!(*scheme, "kind" | "k3s" | "rke2" | "kwok" | "k3d"))
    }

    fn runs(&self, words: &[&str]) -> bool {
        let named = |text: &str| words.iter().any(|word| text.contains(word));
        self.all::<Pod>().iter().filter(|pod| pod.is_active()).any(|pod| {
            pod.spec.running_containers().any(|container| {
                let mut arguments = container.command.iter().chain(&container.args);
                named(&container.image) || arguments.any(|argument| named(argument))
            })
        })
    }
}
