use crate::engine::{Report, Severity, declare_rule};
use crate::rules::user_managed::UserManagedExt;
use crate::snapshot::Cluster;
use crate::text::words::list;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for privileged containers.
    ///
    /// ## Why it matters
    ///
    /// A privileged container has the same permissions on the node as root: an attacker who compromises it controls the
    /// node, including the Secrets of all pods on it.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pods -o jsonpath='{..securityContext}'` shows `"privileged":true`.
    ///
    /// ## How to fix
    ///
    /// Remove `securityContext.privileged` and add the specific capability that the container needs. Enforce it with
    /// the label `pod-security.kubernetes.io/enforce: baseline` on the namespace.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire in the namespaces of Kubernetes and its distributions, or for workloads that an operator
    /// created. The severity is `info` for DaemonSets: node agents (networks, storage, monitoring) may require it.
    "workload/privileged": Warning in Strict,
    "containers are privileged",
    needs: [],
    optional: [Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob, Pod],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for workload in cluster.user_managed() {
        let containers = workload.spec.all_containers().filter(|c| c.security_context.privileged == Some(true));
        let names: Vec<&str> = containers.map(|container| container.name.as_str()).collect();
        if names.is_empty() {
            continue;
        }
        let severity = if workload.is_on_every_node() { Severity::Info } else { Severity::Warning };
        let (noun, verb) = if names.len() == 1 { ("container", "is") } else { ("containers", "are") };
        let message = format!("{noun} {} of {} {verb} privileged", list(&names, 3), workload.object.title());
        let mut finding = workload.finding(severity, message);
        for name in names {
            let path = workload.path(&format!("containers[{name}].securityContext.privileged"));
            finding = finding.evidence(format!("container {name} is privileged"), &workload.object, &path);
        }
        report.add(finding.fix_command(
            "Remove privileged: true and add only the capabilities that the container needs",
            workload.edit(),
        ));
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
            .finds(&["warning Deployment shop/cart: container web of Deployment cart is privileged"]);
        check(&RULE, &[&workload("DaemonSet", true)])
            .finds(&["info DaemonSet shop/cart: container web of DaemonSet cart is privileged"]);
    }

    #[test]
    fn quiet_without_the_privilege_and_in_system_namespaces() {
        check(&RULE, &[&workload("Deployment", false)]).finds_nothing();
        check(&RULE, &[&workload("DaemonSet", true).replace("shop", "kube-system")]).finds_nothing();
    }
}
