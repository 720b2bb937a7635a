use crate::engine::{Report, Severity, declare_rule};
use crate::rules::authored::AuthoredExt;
use crate::snapshot::Cluster;
use crate::text::words::list;

declare_rule! {
    /// ## What it checks
    ///
    /// That pods use neither folders of their node (`hostPath`) nor its network, processes or inter-process communication
    /// (`hostNetwork`, `hostPID`, `hostIPC`).
    ///
    /// ## Why it matters
    ///
    /// Such a pod sees what other pods and the node itself do; with the node's network no NetworkPolicy applies to it, and
    /// with a folder of the node its data is gone as soon as it is put onto another one.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get WORKLOAD NAME -o yaml` shows the fields of the pod's template.
    ///
    /// ## How to fix
    ///
    /// Take a PersistentVolumeClaim or `emptyDir` instead of the folder, a Service instead of the node's network.
    ///
    /// ## Exceptions
    ///
    /// In the namespaces of Kubernetes and its distributions, and for what operators made. For a DaemonSet it is `info`:
    /// agents of nodes (logs, metrics, storage, networks) need what belongs to the node.
    "workload/host-access": Warning in Strict,
    "pods that use folders, network or processes of their node",
    needs: [],
    optional: [Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob, Pod],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for workload in cluster.authored() {
        let spec = workload.spec;
        // What is used, and where it is said.
        let mut used: Vec<(String, String)> = Vec::new();
        let spaces = [("hostNetwork", spec.host_network), ("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc)];
        used.extend(spaces.iter().filter(|(_, on)| *on).map(|(name, _)| (name.to_string(), name.to_string())));
        for volume in &spec.volumes {
            if let Some(host) = &volume.host_path {
                used.push((format!("the folder {}", host.path), format!("volumes[{}].hostPath", volume.name)));
            }
        }
        if used.is_empty() {
            continue;
        }
        let severity = if workload.is_on_every_node() { Severity::Info } else { Severity::Warning };
        let names: Vec<&str> = used.iter().map(|(name, _)| name.as_str()).collect();
        let message = format!("{} uses what belongs to its node: {}", workload.object.title(), list(&names, 4));
        let mut finding = workload.finding(severity, message);
        for (name, field) in &used {
            finding = finding.evidence(format!("it uses {name}"), &workload.object, &workload.path(field));
        }
        report.add(finding.fix_command("Take a claim, an emptyDir or a Service instead", workload.edit()));
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

    const FOLDER: &str = "volumes: [{name: data, hostPath: {path: /data}}]";

    #[test]
    fn fires_for_folders_and_namespaces_of_the_node() {
        check(&RULE, &[&workload("Deployment", &format!("hostPID: true, {FOLDER}"))]).finds(&[
            "warning Deployment shop/cart: Deployment cart uses what belongs to its node: hostPID and the folder /data",
        ]);
        assert_eq!(check(&RULE, &[&workload("DaemonSet", FOLDER)]).finding().severity.to_string(), "info");
    }

    #[test]
    fn quiet_for_volumes_of_its_own() {
        check(&RULE, &[&workload("Deployment", "hostNetwork: false, volumes: [{name: data, emptyDir: {}}]")])
            .finds_nothing();
        check(&RULE, &[&workload("DaemonSet", FOLDER).replace("shop", "kube-system")]).finds_nothing();
    }
}
