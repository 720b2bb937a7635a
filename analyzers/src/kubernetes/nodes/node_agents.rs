//! The pods that implement the network of a node: kube-proxy and the network plugin.

use crate::snapshot::model::Pod;
use crate::snapshot::{Cluster, Object, ObjectRef};

/// Labels of the pods of network plugins.
const PLUGINS: [&str; 12] = [
    "calico-node",
    "cilium",
    "cilium-agent",
    "canal",
    "flannel",
    "kube-flannel-ds",
    "weave-net",
    "kube-router",
    "antrea",
    "aws-node",
    "azure-cns",
    "ovnkube-node",
];

/// Whether a pod is kube-proxy of its node.
pub fn is_kube_proxy(pod: &Pod) -> bool {
    has_name(pod, |name| name == "kube-proxy") && pod.spec.host_network
}

/// The pod of kube-proxy on a node.
pub fn kube_proxy_on<'a>(cluster: &'a Cluster, node: &str) -> Option<&'a Pod> {
    cluster.pods_on_node(node).into_iter().find(|pod| pod.is_active() && is_kube_proxy(pod))
}

/// The pods of the network plugin on a node: those that install it, or that are known by name.
pub fn network_plugin_on<'a>(cluster: &'a Cluster, node: &str) -> Vec<&'a Pod> {
    cluster.pods_on_node(node).into_iter().filter(|pod| pod.is_active() && is_network_plugin(pod)).collect()
}

fn is_network_plugin(pod: &Pod) -> bool {
    let installs = || {
        let paths = pod.spec.volumes.iter().filter_map(|volume| volume.host_path.as_ref());
        paths.map(|path| path.path.as_str()).any(|path| path.contains("/cni/bin") || path.contains("/cni/net.d"))
    };
    pod.spec.host_network && (has_name(pod, |name| PLUGINS.contains(&name)) || installs())
}

fn has_name(pod: &Pod, is: impl Fn(&str) -> bool) -> bool {
    let labels = ["k8s-app", "component", "app.kubernetes.io/name", "app", "name"];
    labels.iter().filter_map(|key| pod.metadata.labels.get(key)).any(is)
}

/// The object on which findings about such a pod are reported: the static pod, or else the topmost owner.
pub fn reported_on(cluster: &Cluster, pod: &Pod) -> ObjectRef {
    if pod.is_static() { pod.reference() } else { cluster.owner_of(pod).into_owned() }
}
