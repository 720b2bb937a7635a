//! Kinds that the API server does not serve, and kinds of configuration files that a program does not know.

use super::Diagnosis;
use crate::kubernetes::workloads::restarts::PodContainer;
use crate::snapshot::model::{ConfigMap, CustomResourceDefinition};
use crate::snapshot::{Cluster, Kind, Object};
use crate::text::kubectl;
use crate::text::words::list;

/// The versions of configuration files that current components accept.
const CURRENT: [(&str, &str); 6] = [
    ("kubescheduler.config.k8s.io", "v1"),
    ("kubelet.config.k8s.io", "v1beta1"),
    ("kubeproxy.config.k8s.io", "v1alpha1"),
    ("apiserver.config.k8s.io", "v1"),
    ("audit.k8s.io", "v1"),
    ("client.authentication.k8s.io", "v1"),
];

/// `no matches for kind "TLSRoute" in version "gateway.networking.k8s.io/v1alpha2"`.
pub(super) fn not_served(cluster: &Cluster, kind: &str, version: &str, to: &mut Diagnosis) {
    let Some((group, wanted)) = version.split_once('/') else { return };
    let is_it = |crd: &&CustomResourceDefinition| crd.spec.group == group && crd.spec.names.kind == kind;
    match cluster.all::<CustomResourceDefinition>().iter().find(is_it) {
        Some(crd) => {
            let served: Vec<&str> = crd.spec.versions.iter().filter(|v| v.served).map(|v| v.name.as_str()).collect();
            if served.contains(&wanted) {
                return;
            }
            let serves = list(&served, 4);
            to.clause(format!("CustomResourceDefinition {} serves {serves}, not {wanted}", crd.name()));
            to.evidence(format!("served versions: {serves}"), crd.reference(), "spec.versions");
            to.fix(format!(
                "Install the CustomResourceDefinition of {kind} in a release that serves {version}, or a version of the \
                 program that uses {group}/{}",
                served.last().copied().unwrap_or("a served version")
            ));
        }
        None if cluster.covers_all(Kind::CustomResourceDefinition) && group.contains('.') => {
            to.clause(format!("no CustomResourceDefinition defines {kind} in group {group}"));
            to.fix_command(
                format!("Install the CustomResourceDefinition of {kind} ({version}) before the program"),
                kubectl(["api-resources", &format!("--api-group={group}")]),
            );
        }
        None => {}
    }
}

/// `no kind "KubeSchedulerConfiguration" is registered for version "kubescheduler.config.k8s.io/v1beta3"`.
pub(super) fn not_registered(
    cluster: &Cluster,
    container: &PodContainer,
    kind: &str,
    version: &str,
    to: &mut Diagnosis,
) {
    let source = config_map(container);
    let place = source.map(|(name, _)| format!(" in ConfigMap {name}")).unwrap_or_default();
    to.clause(format!("image {} does not support {kind} {version}", container.spec.image));
    if let Some((name, path)) = source {
        let pod = container.pod;
        let object = cluster.get::<ConfigMap>(pod.namespace(), name).found().map(Object::reference);
        to.evidence(
            format!("ConfigMap {name} is mounted at {path}"),
            object.unwrap_or_else(|| pod.reference()),
            "data",
        );
    }
    let current = version.split_once('/').and_then(|(group, _)| CURRENT.iter().find(|(known, _)| *known == group));
    match current.map(|(group, current)| format!("{group}/{current}")).filter(|current| current != version) {
        Some(current) => to.fix(format!("Change apiVersion of {kind} from {version} to {current}{place}")),
        None => {
            to.fix(format!("Change apiVersion of {kind}{place} from {version} to a version that the image supports"));
        }
    }
}

/// The ConfigMap with the file of the container's argument `--config`, or the only ConfigMap that it mounts.
fn config_map<'a>(container: &PodContainer<'a>) -> Option<(&'a str, &'a str)> {
    let spec = &container.pod.spec;
    let mounts: Vec<(&str, &str)> = container
        .spec
        .volume_mounts
        .iter()
        .filter_map(|mount| {
            let volume = spec.volumes.iter().find(|volume| volume.name == mount.name)?;
            Some((volume.config_map.as_ref()?.name.as_str(), mount.mount_path.as_str()))
        })
        .collect();
    let words = || container.spec.command.iter().chain(&container.spec.args);
    let by_argument = mounts.iter().find(|(_, path)| words().any(|word| word.contains(&format!("{path}/"))));
    by_argument.or(mounts.first().filter(|_| mounts.len() == 1)).copied()
}
