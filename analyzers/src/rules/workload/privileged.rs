use crate::engine::{Report, Severity, declare_rule};
use crate::rules::authored::AuthoredExt;
use crate::snapshot::Cluster;
use crate::text::words::list;

declare_rule! {
    /// ## What it checks
    ///
    /// That no container is privileged.
    ///
    /// ## Why it matters
    ///
    /// A privileged container can do on the node whatever root can: who breaks into it has the node, and with it the Secrets
    /// of all pods there.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pods -o jsonpath='{..securityContext}'` shows `"privileged":true`.
    ///
    /// ## How to fix
    ///
    /// Leave `securityContext.privileged` out and add the one capability that the program needs; enforce it with the label
    /// `pod-security.kubernetes.io/enforce: baseline` on the namespace.
    ///
    /// ## Exceptions
    ///
    /// In the namespaces of Kubernetes and its distributions, and for what operators made. For a DaemonSet it is `info`:
    /// agents of nodes (networks, storage, monitoring) may need it.
    "workload/privileged": Warning in Strict,
    "privileged containers",
    needs: [],
    optional: [Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob, Pod],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for workload in cluster.authored() {
        let containers = workload.spec.all_containers().filter(|c| c.security_context.privileged == Some(true));
        let names: Vec<&str> = containers.map(|container| container.name.as_str()).collect();
        if names.is_empty() {
            continue;
        }
        let severity = if workload.is_on_every_node() { Severity::Info } else { Severity::Warning };
        let noun = if names.len() == 1 { "a privileged container" } else { "privileged containers" };
        let message = format!("{} has {noun}, {}", workload.object.title(), list(&names, 3));
        let mut finding = workload.finding(severity, message);
        for name in names {
            let path = workload.path(&format!("containers[{name}].securityContext.privileged"));
            finding = finding.evidence(format!("container {name} is privileged"), &workload.object, &path);
        }
        report.add(finding.fix_command("Give it only the capabilities that it needs", workload.edit()));
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn workload(kind: &str, privileged: bool) -> String {
        format!(
            "
            apiVersion: apps/v1
            kind: {kind}
            metadata: {{name: cart, namespace: shop}}
            spec: {{template: {{spec: {{containers: [{{name: web, securityContext: {{privileged: {privileged}}}}}]}}}}}}"
        )
    }

    #[test]
    fn fires_for_a_privileged_container() {
        check(&RULE, &[&workload("Deployment", true)])
            .finds(&["warning Deployment shop/cart: Deployment cart has a privileged container, web"]);
        check(&RULE, &[&workload("DaemonSet", true)])
            .finds(&["info DaemonSet shop/cart: DaemonSet cart has a privileged container, web"]);
    }

    #[test]
    fn quiet_without_the_privilege_and_in_system_namespaces() {
        check(&RULE, &[&workload("Deployment", false)]).finds_nothing();
        check(&RULE, &[&workload("DaemonSet", true).replace("shop", "kube-system")]).finds_nothing();
    }
}
