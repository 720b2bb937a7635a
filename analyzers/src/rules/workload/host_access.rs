use crate::engine::{Report, Severity, declare_rule};
use crate::rules::user_managed::UserManagedExt;
use crate::snapshot::Cluster;
use crate::text::words::list;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for pods that use directories of their node (`hostPath`) or its network, process or IPC namespace
    /// (`hostNetwork`, `hostPID`, `hostIPC`).
    ///
    /// ## Why it matters
    ///
    /// The pod can observe other pods and the node itself. NetworkPolicies do not apply to pods on the host network,
    /// and `hostPath` data is lost when the pod moves to another node.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get WORKLOAD NAME -o yaml` shows the fields of the pod template.
    ///
    /// ## How to fix
    ///
    /// Use a PersistentVolumeClaim or `emptyDir` instead of `hostPath`, and a Service instead of the host network.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire in the namespaces of Kubernetes and its distributions, or for workloads that an operator
    /// created. The severity is `info` for DaemonSets: node agents (logs, metrics, storage, networks) require host
    /// access.
    "workload/host-access": Warning in Strict,
    "pods use host paths or host namespaces",
    needs: [],
    optional: [Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob, Pod],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for workload in cluster.user_managed() {
        let spec = workload.spec;
        // What the pods use, with the path of the field.
        let mut used: Vec<(String, String)> = Vec::new();
        let namespaces = [("hostNetwork", spec.host_network), ("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc)];
        used.extend(namespaces.iter().filter(|(_, on)| *on).map(|(name, _)| (name.to_string(), name.to_string())));
        for volume in &spec.volumes {
            if let Some(host) = &volume.host_path {
                used.push((format!("hostPath {}", host.path), format!("volumes[{}].hostPath", volume.name)));
            }
        }
        if used.is_empty() {
            continue;
        }
        let severity = if workload.is_on_every_node() { Severity::Info } else { Severity::Warning };
        let names: Vec<&str> = used.iter().map(|(name, _)| name.as_str()).collect();
        let shown = if names.len() > 4 { list(&names, 4) } else { names.join(", ") };
        let message = format!("{} uses host namespaces or paths: {shown}", workload.object.title());
        let mut finding = workload.finding(severity, message);
        for (name, field) in &used {
            finding = finding.evidence(format!("pods use {name}"), &workload.object, &workload.path(field));
        }
        report
            .add(finding.fix_command("Use a PersistentVolumeClaim, an emptyDir or a Service instead", workload.edit()));
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn workload(kind: &str, spec: &str) -> String {
        format!(
            "
            apiVersion: apps/v1
            kind: {kind}
            metadata: {{name: cart, namespace: shop}}
            spec: {{template: {{spec: {{{spec}, containers: [{{name: web}}]}}}}}}"
        )
    }

    const HOST_PATH: &str = "volumes: [{name: data, hostPath: {path: /data}}]";

    #[test]
    fn fires_for_host_paths_and_host_namespaces() {
        check(&RULE, &[&workload("Deployment", &format!("hostPID: true, {HOST_PATH}"))]).finds(&[
            "warning Deployment shop/cart: Deployment cart uses host namespaces or paths: hostPID, hostPath /data",
        ]);
        assert_eq!(check(&RULE, &[&workload("DaemonSet", HOST_PATH)]).finding().severity.to_string(), "info");
    }

    #[test]
    fn quiet_for_volumes_of_its_own() {
        check(&RULE, &[&workload("Deployment", "hostNetwork: false, volumes: [{name: data, emptyDir: {}}]")])
            .finds_nothing();
        check(&RULE, &[&workload("DaemonSet", HOST_PATH).replace("shop", "kube-system")]).finds_nothing();
    }
}
