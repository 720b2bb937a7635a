use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::workloads::mounts::mounts;
use crate::rules::user_managed::{Specified, specified};
use crate::snapshot::model::Container;
use crate::snapshot::{Amount, Cluster, Origin};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks manifests for containers with a memory-backed `emptyDir` (`medium: Memory`) whose `sizeLimit` is not below
    /// the container's memory limit. In a cluster `pod/oom-killed` reports such volumes of containers that are killed.
    ///
    /// ## Why it matters
    ///
    /// Files in the volume are charged to the memory of the container that writes them. The container is OOMKilled before
    /// the volume reaches its size limit, and the files remain when the container is restarted.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE exec POD -c CONTAINER -- df -h PATH` shows a `tmpfs` and its usage.
    ///
    /// ## How to fix
    ///
    /// Remove `medium: Memory`, set `sizeLimit` well below the memory limit, or raise the limit by the size of the volume.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for volumes without `sizeLimit`, containers without a memory limit, read-write mounts that
    /// the memory limit covers, and objects in a cluster.
    "workload/memory-volume": Warning,
    "a memory-backed volume may grow beyond the container's memory limit",
    needs: [],
    optional: [Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob, Pod],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    if cluster.origin() != Origin::Manifests {
        return;
    }
    for specified in specified(cluster) {
        for (container, path) in specified.containers() {
            if let Some(finding) = judge(&specified, container, &path) {
                report.add(finding);
            }
        }
    }
}

fn judge(specified: &Specified, container: &Container, path: &str) -> Option<Finding> {
    let limit = container.resources.limits.get("memory")?;
    let (mounted, size) = mounts(specified.spec, container).find_map(|mounted| {
        let size = mounted.volume.empty_dir.as_ref().filter(|dir| dir.medium == "Memory")?.size_limit.as_ref()?;
        (Amount::of(size)? >= Amount::of(limit)?).then_some((mounted, size))
    })?;
    let (object, volume) = (&specified.object, &mounted.volume.name);
    let message = format!(
        "files in emptyDir {volume} (medium: Memory, sizeLimit {}) count towards the memory limit {} of container {} of {}, \
         which is OOMKilled before the volume is full",
        size.0,
        limit.0,
        container.name,
        object.title()
    );
    Some(
        Finding::warning(object.clone(), message)
            .container(container.name.as_str())
            .evidence(
                format!("sizeLimit is {}", size.0),
                object,
                &format!("{}.volumes[{volume}].emptyDir", specified.path),
            )
            .evidence(format!("memory limit is {}", limit.0), object, &format!("{path}.resources.limits.memory"))
            .fix(format!("Set sizeLimit of volume {volume} well below {}, or remove medium: Memory", limit.0)),
    )
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Origin;
    use crate::testing::{Findings, TestCluster};

    fn said(empty_dir: &str, limits: &str, origin: Origin) -> Findings {
        let pod = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: web, namespace: shop}}, spec: {{containers: [{{name: app, resources: \
             {{limits: {limits}}}, volumeMounts: [{{name: c, mountPath: /c}}]}}], volumes: [{{name: c, emptyDir: {empty_dir}}}]}}}}"
        );
        TestCluster::new(&[&pod]).origin(origin).check(&RULE)
    }

    #[test]
    fn fires_for_a_volume_larger_than_the_limit() {
        said("{medium: Memory, sizeLimit: 1Gi}", "{memory: 512Mi}", Origin::Manifests).finds(&[
            "warning Pod shop/web: files in emptyDir c (medium: Memory, sizeLimit 1Gi) count towards the memory limit 512Mi \
             of container app of Pod web, which is OOMKilled before the volume is full",
        ]);
    }

    #[test]
    fn quiet_for_volumes_that_fit() {
        said("{medium: Memory, sizeLimit: 64Mi}", "{memory: 512Mi}", Origin::Manifests).finds_nothing();
        said("{sizeLimit: 1Gi}", "{memory: 512Mi}", Origin::Manifests).finds_nothing();
        said("{medium: Memory}", "{memory: 512Mi}", Origin::Manifests).finds_nothing();
        said("{medium: Memory, sizeLimit: 1Gi}", "{cpu: '1'}", Origin::Manifests).finds_nothing();
        said("{medium: Memory, sizeLimit: 1Gi}", "{memory: 512Mi}", Origin::Cluster).finds_nothing();
    }
}
