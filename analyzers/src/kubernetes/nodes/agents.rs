//! The workloads that make nodes usable: device plugins, cloud controller managers, and agents that remove their own
//! startup taint.

use crate::snapshot::model::{DaemonSet, Deployment, Node, PodSpec};
use crate::snapshot::{Amount, Cluster, Object, ObjectRef};

/// Where device plugins register with the kubelet.
const PLUGIN_FOLDER: &str = "/var/lib/kubelet/device-plugins";

/// Parts of domains that do not identify a vendor or driver.
const GENERIC: [&str; 13] =
    ["com", "org", "net", "dev", "www", "gpu", "gpus", "node", "csi", "devices", "kubernetes", "k8s", "cloud"];

/// Whether a resource is offered by a device plugin: it has a domain that is not Kubernetes' own.
/// Source: <https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#extended-resources>
pub fn is_extended(resource: &str) -> bool {
    let domain = resource.split_once('/').map(|(domain, _)| domain);
    domain.is_some_and(|domain| !domain.is_empty() && domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io"))
}

/// How many devices of a resource a node has, and how many of them are healthy, if some are not: the kubelet counts
/// unhealthy devices in the capacity only.
/// Source: <https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/device-plugins/>
pub fn unhealthy_devices(node: &Node, resource: &str) -> Option<(Amount, Amount)> {
    let amount = |list: &crate::snapshot::model::SharedResourceList| list.get(resource).and_then(Amount::of);
    let capacity = amount(&node.status.capacity).filter(|_| is_extended(resource))?;
    let allocatable = amount(&node.status.allocatable)?;
    (capacity > allocatable).then_some((capacity, allocatable))
}

/// The DaemonSets that look like the device plugin of a resource: their names or images contain its vendor, and they
/// are plugins.
pub fn device_plugins(cluster: &Cluster, resource: &str) -> Vec<ObjectRef> {
    let Some((domain, _)) = resource.split_once('/') else { return Vec::new() };
    let words = words_of(domain);
    let found = cluster.all::<DaemonSet>().iter().filter(|set| {
        let spec = &set.spec.template.spec;
        let text = text_of(set.name(), spec);
        let is_plugin = text.contains("plugin") || text.contains("virt-handler") || registers_devices(spec);
        is_plugin && !words.is_empty() && words.iter().all(|word| text.contains(word.as_str()))
    });
    found.map(Object::reference).collect()
}

/// The DaemonSets that look like the agent behind a startup taint: `ebs.csi.aws.com/agent-not-ready`.
pub fn agents(cluster: &Cluster, taint: &str) -> Vec<ObjectRef> {
    let Some((domain, _)) = taint.split_once('/') else { return Vec::new() };
    let words = words_of(domain);
    let is_driver = domain.split('.').any(|part| part == "csi");
    let found = cluster.all::<DaemonSet>().iter().filter(|set| {
        let text = text_of(set.name(), &set.spec.template.spec);
        !words.is_empty()
            && words.iter().all(|word| text.contains(word.as_str()))
            && (!is_driver || text.contains("csi"))
    });
    found.map(Object::reference).collect()
}

/// The DaemonSets and Deployments that look like a cloud controller manager.
pub fn cloud_controllers(cluster: &Cluster) -> Vec<ObjectRef> {
    let sets = cluster.all::<DaemonSet>().iter().filter(|set| is_cloud_controller(set.name(), &set.spec.template.spec));
    let deployments =
        cluster.all::<Deployment>().iter().filter(|d| is_cloud_controller(d.name(), &d.spec.template.spec));
    sets.map(Object::reference).chain(deployments.map(Object::reference)).collect()
}

/// Whether a workload is a cloud controller manager, by its name and images.
pub fn is_cloud_controller(name: &str, spec: &PodSpec) -> bool {
    let images = spec.containers.iter().map(|container| image_name(&container.image));
    images.chain([name]).any(|text| {
        text.contains("cloud-controller-manager")
            || text.contains("cloud-node-manager")
            || text.ends_with("-ccm")
            || text == "ccm"
    })
}

fn registers_devices(spec: &PodSpec) -> bool {
    let paths = spec.volumes.iter().filter_map(|volume| volume.host_path.as_ref());
    paths.into_iter().any(|volume| volume.path.starts_with(PLUGIN_FOLDER))
}

/// The image without registry, tag and digest: `k8s-device-plugin`.
fn image_name(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split(':').next().unwrap_or(last)
}

/// Name and images, in lower case.
fn text_of(name: &str, spec: &PodSpec) -> String {
    let mut text = name.to_lowercase();
    for container in &spec.containers {
        text.push(' ');
        text.push_str(&container.image.to_lowercase());
    }
    text
}

fn words_of(domain: &str) -> Vec<String> {
    let parts = domain.split(|c: char| !c.is_ascii_alphanumeric()).map(str::to_lowercase);
    parts.filter(|part| part.len() >= 3 && !GENERIC.contains(&part.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::{agents, device_plugins, is_cloud_controller, is_extended};
    use crate::snapshot::ObjectRef;
    use crate::snapshot::model::PodSpec;
    use crate::testing::{TestCluster, part};

    fn set(name: &str, image: &str) -> String {
        format!(
            "{{apiVersion: apps/v1, kind: DaemonSet, metadata: {{name: {name}, namespace: system}},
            spec: {{template: {{spec: {{containers: [{{name: main, image: '{image}'}}]}}}}}}}}"
        )
    }

    #[test]
    fn extended_resources_have_a_foreign_domain() {
        assert!(is_extended("nvidia.com/gpu") && is_extended("rdma/hca"));
        for resource in ["cpu", "hugepages-2Mi", "ephemeral-storage", "/gpu", "kubernetes.io/batch-cpu"] {
            assert!(!is_extended(resource), "{resource}");
        }
    }

    #[test]
    fn plugins_and_agents_by_vendor() {
        let sets = [
            set("nvidia-dp", "nvcr.io/nvidia/k8s-device-plugin:v0.17"),
            set("nvidia-dcgm", "nvcr.io/nvidia/dcgm-exporter:1"),
            set("intel", "intel/intel-gpu-plugin:0.34"),
            set("ebs-csi-node", "public.ecr.aws/ebs-csi-driver/aws-ebs-csi-driver:1"),
            set("aws-node", "602401143452.dkr.ecr.aws.example.com/amazon-k8s-cni:1"),
        ];
        let cluster = TestCluster::new(&sets.each_ref().map(String::as_str)).build();
        let names = |found: Vec<ObjectRef>| found.into_iter().map(|object| object.name).collect::<Vec<_>>();
        assert_eq!(names(device_plugins(&cluster, "nvidia.com/gpu")), ["nvidia-dp"]);
        assert_eq!(names(device_plugins(&cluster, "gpu.intel.com/i915")), ["intel"]);
        assert!(device_plugins(&cluster, "amd.com/gpu").is_empty());
        assert_eq!(names(agents(&cluster, "ebs.csi.aws.com/agent-not-ready")), ["ebs-csi-node"]);
    }

    #[test]
    fn cloud_controllers_by_image() {
        let spec = |image: &str| part::<PodSpec>(&format!("containers: [{{name: a, image: '{image}'}}]"));
        assert!(is_cloud_controller("x", &spec("registry.k8s.io/provider-os/openstack-cloud-controller-manager:v1")));
        assert!(is_cloud_controller("hcloud-ccm", &spec("a")));
        assert!(!is_cloud_controller("x", &spec("registry.example.com/cloud-controller-manager/web:1")));
    }
}
