use std::collections::{BTreeMap, BTreeSet};

use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::storage::claim_of;
use crate::kubernetes::time::{START, age};
use crate::snapshot::model::{Event, PersistentVolume, Pod, Service};
use crate::snapshot::{Cluster, Object, ObjectRef, Origin};
use crate::text::kubectl;
use crate::text::words::{plain, shorten};

declare_rule! {
    /// ## What it checks
    ///
    /// NFS volumes (of PersistentVolumes and of pods) whose server is the cluster DNS name of a Service, such as
    /// `nfs.storage.svc.cluster.local`: in manifests, and in a cluster where the mount fails because the name does not
    /// resolve.
    ///
    /// ## Why it matters
    ///
    /// The kubelet mounts NFS volumes in the network of the node and resolves the server with the resolver of the node.
    /// That usually does not use the cluster's DNS, so that the name does not resolve, although it does in pods.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe pod POD` shows `Failed to resolve server` in `FailedMount`. On the node, `getent
    /// hosts SERVER` finds nothing.
    ///
    /// ## How to fix
    ///
    /// Use the ClusterIP of the Service as server. The source of a PersistentVolume is immutable, so recreate it. Or use
    /// csi-driver-nfs (`nfs.csi.k8s.io`), whose node plugin can resolve names of the cluster.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for servers outside the cluster. In a cluster it fires only where a pod has been waiting for
    /// the volume for two minutes and its events report that the name does not resolve, because some clusters configure
    /// their nodes to use the cluster's DNS.
    "pv/nfs-service": Error,
    "an NFS volume names its server by the cluster DNS name of a Service",
    needs: [],
    optional: [PersistentVolume, Pod, Event, Service, Deployment, StatefulSet, DaemonSet, PersistentVolumeClaim],
    explained_by: [],
}

/// An NFS volume by the name of a Service.
struct NfsVolume<'a> {
    object: ObjectRef,
    /// The field of the server.
    path: String,
    server: &'a str,
    service: (&'a str, &'a str),
}

fn check(cluster: &Cluster, report: &mut Report) {
    let is_manifest = cluster.origin() == Origin::Manifests;
    let failures = if is_manifest { BTreeMap::new() } else { failures(cluster) };
    for volume in volumes(cluster) {
        let failure = failures.get(volume.server);
        if is_manifest || failure.is_some() {
            report.add(finding(cluster, &volume, failure));
        }
    }
}

fn volumes(cluster: &Cluster) -> Vec<NfsVolume<'_>> {
    let mut found = Vec::new();
    for volume in cluster.all::<PersistentVolume>().iter().filter(|volume| volume.deleted().is_none()) {
        let server = volume.spec.as_ref().and_then(|spec| Some(spec.nfs.as_ref()?.server.as_str()));
        let owner = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()?.namespace.as_deref());
        if let Some((server, service)) = server.and_then(|server| Some((server, known(cluster, server, owner)?))) {
            found.push(NfsVolume { object: volume.reference(), path: "spec.nfs.server".to_string(), server, service });
        }
    }
    for workload in cluster.workloads() {
        for volume in &workload.template.spec.volumes {
            let Some(nfs) = &volume.nfs else { continue };
            let owner = Some(workload.metadata.namespace.as_str());
            let Some(service) = known(cluster, &nfs.server, owner) else { continue };
            let path = format!("spec.template.spec.volumes[{}].nfs.server", volume.name);
            found.push(NfsVolume { object: workload.object.clone(), path, server: &nfs.server, service });
        }
    }
    found
}

/// The Service that a server names, also by a short name if such a Service exists.
fn known<'a>(cluster: &'a Cluster, server: &'a str, namespace: Option<&str>) -> Option<(&'a str, &'a str)> {
    service_of(server).or_else(|| {
        let (name, namespace) = match server.split_once('.') {
            Some((name, namespace)) => (name, namespace),
            None => (server, namespace?),
        };
        let service = cluster.get::<Service>(namespace, name).found()?;
        Some((service.namespace(), service.name()))
    })
}

/// Namespace and name of the Service with a name like `nfs.storage.svc` or `nfs.storage.svc.cluster.local`.
fn service_of(server: &str) -> Option<(&str, &str)> {
    let mut labels = server.trim_end_matches('.').split('.');
    let (name, namespace) = (labels.next()?, labels.next()?);
    let is_service = labels.next()? == "svc" && !name.is_empty() && !namespace.is_empty();
    is_service.then_some((namespace, name))
}

/// Why pods that wait for their volumes cannot resolve a server: the pods and an event of one, by the server.
struct Failure<'a> {
    pods: BTreeSet<ObjectRef>,
    event: &'a Event,
}

fn failures(cluster: &Cluster) -> BTreeMap<&str, Failure<'_>> {
    let mut failures: BTreeMap<&str, Failure> = BTreeMap::new();
    for pod in cluster.all::<Pod>().iter().filter(|pod| pod.is_active() && pod.is_being_created()) {
        if pod.scheduled_at().is_some_and(|since| age(cluster.now(), since) < START) {
            continue;
        }
        for event in cluster.events(&pod.reference()).into_iter().filter(|event| is_unresolved(event)) {
            for server in servers_of(cluster, pod).into_iter().filter(|server| event.message.contains(server)) {
                let failure = failures.entry(server).or_insert(Failure { pods: BTreeSet::new(), event });
                failure.pods.insert(pod.reference());
            }
        }
    }
    failures
}

fn is_unresolved(event: &Event) -> bool {
    const RESOLVER: &[&str] =
        &["resolve", "name or service not known", "name resolution", "no such host", "unknown host"];
    let message = event.message.to_lowercase();
    event.reason == "FailedMount" && RESOLVER.iter().any(|text| message.contains(text))
}

/// The NFS servers of a pod's volumes.
fn servers_of<'a>(cluster: &'a Cluster, pod: &'a Pod) -> BTreeSet<&'a str> {
    let server = |volume: &'a crate::snapshot::model::Volume| {
        let inline = volume.nfs.as_ref().map(|nfs| nfs.server.as_str());
        inline.or_else(|| {
            claim_of(pod, volume)?;
            let volume = crate::kubernetes::storage::bound_volume(cluster, pod, volume)?;
            Some(volume.spec.as_ref()?.nfs.as_ref()?.server.as_str())
        })
    };
    pod.spec.volumes.iter().filter_map(server).filter(|server| !server.is_empty()).collect()
}

fn finding(cluster: &Cluster, volume: &NfsVolume, failure: Option<&Failure>) -> Finding {
    let NfsVolume { object, path, server, service: (namespace, name) } = volume;
    let severity = if failure.is_some() { Severity::Error } else { Severity::Warning };
    let message = format!(
        "{} names its NFS server by a cluster DNS name: {server} is resolved on the node, whose resolver does not use the \
         cluster DNS",
        object.title()
    );
    let mut finding = Finding::new(severity, object.clone(), message).key(*server).evidence(
        format!("nfs.server is {server}"),
        object,
        path,
    );
    if let Some(Failure { pods, event }) = failure {
        let text = format!("FailedMount: {}", shorten(&plain(event.message.lines().last().unwrap_or_default()), 300));
        let first = pods.first().unwrap_or(object);
        finding = finding.pods(pods.len()).since(event.first_timestamp).evidence(text, first, "");
    }
    let ip = cluster.get::<Service>(namespace, name).found().and_then(|service| {
        let ip = service.spec.cluster_ip.as_str();
        finding.evidence.push(crate::engine::Evidence {
            text: format!("Service {namespace}/{name} exists; only pods resolve its name").into(),
            object: Some(service.reference()),
            path: None,
        });
        (!ip.is_empty() && ip != "None").then(|| ip.to_string())
    });
    fix(finding, volume, ip.as_deref())
}

fn fix(finding: Finding, volume: &NfsVolume, ip: Option<&str>) -> Finding {
    let (namespace, name) = volume.service;
    let what = match ip {
        Some(ip) => format!("{ip} (the ClusterIP of Service {namespace}/{name})"),
        None => format!("the ClusterIP of Service {namespace}/{name}, or another IP address of the server"),
    };
    let text = if volume.object.namespace.is_some() {
        format!("Set {} to {what}", volume.path)
    } else {
        format!("Recreate {} with {} {what}; its source is immutable", volume.object.title(), volume.path)
    };
    finding
        .fix_command(text, kubectl(["-n", namespace, "get", "service", name]))
        .fix("Or use csi-driver-nfs (nfs.csi.k8s.io), whose node plugin can resolve cluster DNS names")
}

#[cfg(test)]
mod tests {
    use super::{RULE, service_of};
    use crate::snapshot::Origin;
    use crate::testing::{TestCluster, check};

    fn volume(server: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: photos}}, spec: {{nfs: {{server: {server}, path: /p}}}}}}"
        )
    }

    fn inline(server: &str) -> String {
        format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web, namespace: shop}}, spec: {{template: {{spec: \
             {{volumes: [{{name: p, nfs: {{server: {server}, path: /p}}}}]}}}}}}}}"
        )
    }

    const NAME: &str = "nfs.storage.svc.cluster.local";
    const POD: &str = "
        apiVersion: v1
        kind: Pod
        metadata: {name: web, namespace: shop, creationTimestamp: '2026-11-21T11:50:00Z'}
        spec: {nodeName: w1, containers: [{name: app}], volumes: [{name: p, persistentVolumeClaim: {claimName: photos}}]}
        status: {phase: Pending}
---
        {apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: photos, namespace: shop}, spec: {volumeName: photos}}
---
        {apiVersion: v1, kind: Service, metadata: {name: nfs, namespace: storage}, spec: {clusterIP: 10.96.0.7}}";

    fn event(message: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Event, metadata: {{name: e, namespace: shop}}, type: Warning, reason: FailedMount, \
             message: '{message}', lastTimestamp: '2026-11-21T11:58:00Z', involvedObject: {{kind: Pod, namespace: shop, \
             name: web}}}}"
        )
    }

    const UNRESOLVED: &str =
        "Output: mount.nfs: Failed to resolve server nfs.storage.svc.cluster.local: Name or service not known";

    #[test]
    fn fires_when_the_node_cannot_resolve_the_name() {
        let said = check(&RULE, &[POD, &volume(NAME), &event(UNRESOLVED)]);
        said.finds(&[
            "error PersistentVolume photos: PersistentVolume photos names its NFS server by a cluster DNS name: \
            nfs.storage.svc.cluster.local is resolved on the node, whose resolver does not use the cluster DNS",
        ]);
        assert!(said.text().contains("10.96.0.7"), "{}", said.text());
    }

    #[test]
    fn fires_for_manifests() {
        let said = TestCluster::new(&[&volume(NAME), &inline(NAME)]).origin(Origin::Manifests).check(&RULE);
        let found: Vec<String> = said.0.findings.iter().map(|f| format!("{} {}", f.severity, f.object)).collect();
        assert_eq!(found, ["warning Deployment shop/web", "warning PersistentVolume photos"]);
    }

    #[test]
    fn quiet_while_the_mount_does_not_fail_to_resolve() {
        check(&RULE, &[POD, &volume(NAME)]).finds_nothing();
        check(&RULE, &[POD, &volume(NAME), &event("mount.nfs: Connection timed out")]).finds_nothing();
        let running = POD.replace("phase: Pending", "phase: Running");
        check(&RULE, &[&running, &volume(NAME), &event(UNRESOLVED)]).finds_nothing();
    }

    #[test]
    fn quiet_for_servers_outside_the_cluster() {
        for server in ["nas.example.com", "192.0.2.7", "nfs"] {
            assert_eq!(service_of(server), None);
            TestCluster::new(&[&volume(server), &inline(server)])
                .origin(Origin::Manifests)
                .check(&RULE)
                .finds_nothing();
        }
        assert_eq!(service_of("nfs.storage.svc"), Some(("storage", "nfs")));
    }

    #[test]
    fn fires_for_short_names_of_services_that_exist() {
        let service = "{apiVersion: v1, kind: Service, metadata: {name: nfs, namespace: shop}}";
        for server in ["nfs", "nfs.shop"] {
            TestCluster::new(&[&inline(server), service]).origin(Origin::Manifests).check(&RULE).finding();
        }
    }
}
