//! Detection of the platform and of components that run in the cluster.

use crate::snapshot::Cluster;
use crate::snapshot::model::{Node, Pod, Service};

/// The platform of a cluster.
pub trait PlatformExt {
    /// Google Kubernetes Engine: some of its controllers and its DNS run outside the cluster.
    fn is_gke(&self) -> bool;
    fn is_openshift(&self) -> bool;
    /// The cloud of the nodes, from the scheme of their `providerID`: `aws`, `gce`, `azure` … Local clusters (kind,
    /// k3s, kwok) have provider ids without a cloud.
    fn cloud(&self) -> Option<&str>;
    /// Whether the image, command or arguments of any active container contain one of these words.
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
