use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::storage::{bound_volume, driver_of};
use crate::kubernetes::workloads::restarts::{PodContainer, affected, unsteady_groups};
use crate::snapshot::model::{CSIDriver, PersistentVolume, VolumeMount};
use crate::snapshot::{Cluster, Kind, Lookup, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::{list, plain, shorten};

declare_rule! {
    /// ## What it checks
    ///
    /// Containers that crash because they may not write to a volume (a line of the log or the termination
    /// message with `Permission denied` and a path on the volume) although the pod sets `fsGroup`: whether the kubelet applies `fsGroup` to that volume. For a CSI
    /// volume, `fsGroupPolicy` of the CSIDriver decides: `None` never, `File` always, and `ReadWriteOnceWithFSType` (the
    /// default) only for volumes with the access mode `ReadWriteOnce` and an `fsType`. It is never applied to NFS and
    /// hostPath volumes.
    ///
    /// ## Why it matters
    ///
    /// The files on the volume keep their owner, usually root, and a container with another user cannot write. More
    /// settings of the pod do not help.
    ///
    /// ## How to confirm
    ///
    /// `kubectl get csidriver DRIVER -o jsonpath='{.spec.fsGroupPolicy}'`, and `ls -ln` of the mount path in a pod.
    ///
    /// ## How to fix
    ///
    /// Change the owner of the directory once, with an init container that runs `chown` as root, or on the storage server.
    /// Or, if the driver supports it, set `fsGroupPolicy: File` in its chart (the field can be changed only by recreating
    /// the CSIDriver in Kubernetes versions before 1.29), or let the driver mount with a uid and gid.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire without such a log line, without `fsGroup`, for containers that run as root, and for volumes
    /// to which the kubelet applies `fsGroup`.
    "pod/fs-group": Error,
    "fsGroup is not applied to a volume that a container cannot write to",
    needs: [Pod],
    optional: [PersistentVolumeClaim, PersistentVolume, CSIDriver, ReplicaSet, Job, Event],
    explained_by: [],
}

/// Why the kubelet does not apply `fsGroup` to a volume.
struct Ignored {
    why: String,
    /// The CSIDriver whose policy it is.
    driver: Option<ObjectRef>,
}

fn check(cluster: &Cluster, report: &mut Report) {
    for group in unsteady_groups(cluster) {
        let loops = |container: &PodContainer| container.loops(cluster);
        for affected in affected(cluster, cluster.pods_of(group), loops) {
            if let Some(finding) = finding(cluster, &group.owner, &affected.sample(), affected.pods()) {
                report.add(finding);
            }
        }
    }
}

fn finding(cluster: &Cluster, owner: &ObjectRef, container: &PodContainer, pods: usize) -> Option<Finding> {
    let pod = container.pod;
    let group = pod.spec.security_context.fs_group?;
    let user = container.spec.security_context.run_as_user.or(pod.spec.security_context.run_as_user);
    if user == Some(0) {
        return None;
    }
    let (line, mount) = refused(cluster, container)?;
    let ignored = ignored(cluster, container, mount)?;
    let path = &mount.mount_path;
    let message = format!(
        "fsGroup {group} of {} is not applied to volume {} at {path}, so {} cannot write to it: {}",
        owner.title(),
        mount.name,
        container.described(),
        ignored.why
    );
    let sample = pod.reference();
    let mut finding = Finding::error(owner.clone(), message)
        .container(container.name())
        .pods(pods)
        .since(container.loops_since(cluster))
        .evidence(format!("output of {}: {line}", container.name()), &sample, "")
        .evidence(format!("fsGroup is {group}"), &sample, "spec.securityContext.fsGroup");
    let user = user.map_or("its user".to_string(), |user| format!("uid {user}"));
    let chown = format!(
        "Change the owner of {path} once: an init container that runs chown as root, or chown {user} on the storage server"
    );
    finding = match &ignored.driver {
        None => finding.fix(chown),
        Some(driver) => finding.evidence(ignored.why, driver, "spec.fsGroupPolicy").fix(chown).fix_command(
            format!(
                "Or set fsGroupPolicy: File for CSIDriver {} in its chart, if the driver supports it (recreate the \
                 CSIDriver where the field is immutable), then recreate the pods",
                driver.name
            ),
            kubectl(["get", "csidriver", &driver.name, "-o", "yaml"]),
        ),
    };
    Some(finding)
}

/// The last log line about a path on a volume that the container may not access, and the mount.
fn refused<'a>(cluster: &Cluster, container: &PodContainer<'a>) -> Option<(String, &'a VolumeMount)> {
    let meta = &container.pod.metadata;
    let log = cluster.log(&meta.namespace, &meta.name, container.name());
    let logged = log.into_iter().flat_map(|log| log.lines.iter().rev()).map(String::as_str);
    let ended = container.last_end().into_iter().flat_map(|end| end.message.lines().rev());
    logged.chain(ended).find_map(|line| {
        let lower = line.to_lowercase();
        let is_refused = ["permission denied", "eacces", "operation not permitted", "permissionerror"]
            .iter()
            .any(|text| lower.contains(text));
        let line = Some(plain(line)).filter(|_| is_refused)?;
        let mounts = container.spec.volume_mounts.iter().filter(|mount| is_about(&line, &mount.mount_path));
        let mount = mounts.max_by_key(|mount| mount.mount_path.len())?;
        Some((shorten(&line, 300), mount))
    })
}

/// Whether a line contains a path at or below a mount path.
fn is_about(line: &str, mount_path: &str) -> bool {
    let path = mount_path.trim_end_matches('/');
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '-' | '_');
    !path.is_empty()
        && line.match_indices(path).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            let after = line[at + path.len()..].chars().next();
            !before.is_some_and(is_part) && after.is_none_or(|c| c == '/' || !is_part(c))
        })
}

fn ignored(cluster: &Cluster, container: &PodContainer, mount: &VolumeMount) -> Option<Ignored> {
    let volume = container.pod.spec.volumes.iter().find(|volume| volume.name == mount.name)?;
    let never =
        |kind: &str| Some(Ignored { why: format!("the kubelet never applies it to {kind} volumes"), driver: None });
    if volume.nfs.is_some() {
        return never("NFS");
    }
    if volume.host_path.is_some() {
        return never("hostPath");
    }
    let persistent = bound_volume(cluster, container.pod, volume)?;
    let spec = persistent.spec.as_ref()?;
    if spec.nfs.is_some() {
        return never("NFS");
    }
    if spec.host_path.is_some() {
        return never("hostPath");
    }
    by_policy(cluster, persistent)
}

/// Follows `fsGroupPolicy`: <https://kubernetes-csi.github.io/docs/support-fsgroup.html>
fn by_policy(cluster: &Cluster, volume: &PersistentVolume) -> Option<Ignored> {
    let name = driver_of(volume)?;
    let driver = ObjectRef::new(Kind::CSIDriver, "", name);
    let policy = match cluster.get::<CSIDriver>("", name) {
        Lookup::Found(driver) => driver.spec.fs_group_policy.as_deref().unwrap_or("ReadWriteOnceWithFSType"),
        Lookup::Missing => "ReadWriteOnceWithFSType",
        Lookup::Unknown => return None,
    };
    let why = match policy {
        "None" => format!("CSIDriver {name} has fsGroupPolicy None"),
        "ReadWriteOnceWithFSType" => {
            let spec = volume.spec.as_ref()?;
            let modes = spec.access_modes.as_deref().unwrap_or_default();
            let has_type = spec.csi.as_ref()?.fs_type.as_ref().is_some_and(|fs_type| !fs_type.is_empty());
            let is_once = modes.iter().any(|mode| mode.starts_with("ReadWriteOnce"));
            let lacks = match (is_once, has_type) {
                (true, true) => return None,
                (true, false) => "has no fsType".to_string(),
                (false, true) => format!("is {}", list(modes, 3)),
                (false, false) => format!("is {} and has no fsType", list(modes, 3)),
            };
            let volume = volume.name();
            format!("CSIDriver {name} has fsGroupPolicy ReadWriteOnceWithFSType, and PersistentVolume {volume} {lacks}")
        }
        _ => return None,
    };
    Some(Ignored { why, driver: Some(driver) })
}

#[cfg(test)]
mod tests {
    use super::{RULE, is_about};
    use crate::testing::{Findings, TestCluster};

    fn pod(security: &str, volume: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: Pod
            metadata: {{name: web, namespace: shop, creationTimestamp: '2026-11-21T11:00:00Z'}}
            spec:
              restartPolicy: Always
              securityContext: {{{security}}}
              containers: [{{name: app, volumeMounts: [{{name: data, mountPath: /data}}]}}]
              volumes: [{{name: data, {volume}}}]
            status: {{phase: Running, containerStatuses: [{{name: app, restartCount: 5, state: {{waiting: {{reason: \
              CrashLoopBackOff}}}}, lastState: {{terminated: {{exitCode: 1, startedAt: '2026-11-21T11:59:00Z', finishedAt: \
              '2026-11-21T11:59:05Z'}}}}}}]}}"
        )
    }

    fn storage(policy: &str, mode: &str, csi: &str) -> String {
        format!(
            "
            {{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: data, namespace: shop}}, spec: {{volumeName: pv-7}}}}
---
            {{apiVersion: v1, kind: PersistentVolume, metadata: {{name: pv-7}}, spec: {{accessModes: [{mode}], csi: {{driver: \
              x.io, volumeHandle: a{csi}}}}}}}
---
            {{apiVersion: storage.k8s.io/v1, kind: CSIDriver, metadata: {{name: x.io}}, spec: {{fsGroupPolicy: {policy}}}}}"
        )
    }

    const CLAIM: &str = "persistentVolumeClaim: {claimName: data}";
    const GROUP: &str = "fsGroup: 1001, runAsUser: 1001";

    fn said(pod: &str, storage: &str, line: &str) -> Findings {
        TestCluster::new(&[pod, storage]).log("shop", "web", "app", &["starting", line, "bye"]).check(&RULE)
    }

    const DENIED: &str = "mkdir: cannot create directory '/data/spool': Permission denied";
    const FOUND: &str = "error Pod shop/web: fsGroup 1001 of Pod web is not applied to volume data at /data, so container app \
        cannot write to it:";

    #[test]
    fn fires_with_the_policy_of_the_driver() {
        let policy = "CSIDriver x.io has fsGroupPolicy ReadWriteOnceWithFSType, and PersistentVolume pv-7";
        let shared = storage("ReadWriteOnceWithFSType", "ReadWriteMany", "");
        said(&pod(GROUP, CLAIM), &shared, DENIED)
            .finds(&[&format!("{FOUND} {policy} is ReadWriteMany and has no fsType")]);
        let untyped = storage("ReadWriteOnceWithFSType", "ReadWriteOnce", "");
        said(&pod(GROUP, CLAIM), &untyped, DENIED).finds(&[&format!("{FOUND} {policy} has no fsType")]);
        said(&pod(GROUP, CLAIM), &storage("None", "ReadWriteOnce", ", fsType: ext4"), DENIED)
            .finds(&[&format!("{FOUND} CSIDriver x.io has fsGroupPolicy None")]);
        said(&pod(GROUP, "nfs: {server: s, path: /p}"), &shared, DENIED)
            .finds(&[&format!("{FOUND} the kubelet never applies it to NFS volumes")]);
    }

    #[test]
    fn quiet_where_fs_group_is_applied_or_not_set() {
        said(&pod(GROUP, CLAIM), &storage("File", "ReadWriteMany", ""), DENIED).finds_nothing();
        let typed = storage("ReadWriteOnceWithFSType", "ReadWriteOnce", ", fsType: ext4");
        said(&pod(GROUP, CLAIM), &typed, DENIED).finds_nothing();
        let shared = storage("ReadWriteOnceWithFSType", "ReadWriteMany", "");
        said(&pod("runAsUser: 1001", CLAIM), &shared, DENIED).finds_nothing();
        said(&pod("fsGroup: 1001, runAsUser: 0", CLAIM), &shared, DENIED).finds_nothing();
    }

    #[test]
    fn quiet_for_other_errors_and_paths() {
        let shared = storage("ReadWriteOnceWithFSType", "ReadWriteMany", "");
        said(&pod(GROUP, CLAIM), &shared, "open /database/x: permission denied").finds_nothing();
        said(&pod(GROUP, CLAIM), &shared, "open /data/spool: no such file or directory").finds_nothing();
        assert!(is_about("denied: '/data'", "/data/") && !is_about("/var/data/x", "/data") && !is_about("x", "/"));
    }
}
