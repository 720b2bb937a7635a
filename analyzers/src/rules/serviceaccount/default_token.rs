use crate::rules::user_managed::UserManagedExt;
use std::collections::BTreeMap;

use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::rules::user_managed::UserManaged;
use crate::snapshot::model::{ClusterRoleBinding, RoleBinding, ServiceAccount};
use crate::snapshot::{Cluster, Kind, ObjectRef};
use crate::text::kubectl;
use crate::text::words::list;

declare_rule! {
    /// ## What it checks
    ///
    /// That workloads that run as the ServiceAccount `default` do not mount its token.
    ///
    /// ## Why it matters
    ///
    /// Every permission granted to `default` applies to all of these pods, and an attacker in any of them has a token
    /// that the API server accepts.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE exec POD -- ls /var/run/secrets/kubernetes.io/serviceaccount` lists `token`.
    ///
    /// ## How to fix
    ///
    /// Set `automountServiceAccountToken: false` on the ServiceAccount. Give workloads that use the API a
    /// ServiceAccount of their own.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire
    ///
    /// - where the ServiceAccount or the pods have `automountServiceAccountToken: false`,
    /// - for workloads with a ServiceAccount of their own,
    /// - in the namespaces of Kubernetes and its distributions.
    ///
    /// The severity is `warning` if `default` is bound to a role, and `info` otherwise.
    "serviceaccount/default-token": Warning in Strict,
    "workloads that mount the token of the ServiceAccount default",
    needs: [ServiceAccount],
    optional: [
        Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob, Pod, RoleBinding,
        ClusterRoleBinding,
    ],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    let all = cluster.user_managed();
    let mut mounting: BTreeMap<&str, Vec<&UserManaged>> = BTreeMap::new();
    for workload in all.iter().filter(|workload| workload.spec.service_account() == "default") {
        let namespace = workload.object.namespace();
        let account = cluster.get::<ServiceAccount>(namespace, "default");
        let of_account = account.found().and_then(|account| account.automount_service_account_token);
        if workload.spec.automount_service_account_token.or(of_account) != Some(false) {
            mounting.entry(namespace).or_default().push(workload);
        }
    }
    for (namespace, workloads) in mounting {
        // Whether an account that was not read mounts its token is not known.
        if cluster.covers(Kind::ServiceAccount, namespace) {
            report.add(finding(cluster, namespace, &workloads));
        }
    }
}

fn finding(cluster: &Cluster, namespace: &str, workloads: &[&UserManaged]) -> Finding {
    let object = ObjectRef::new(Kind::ServiceAccount, namespace, "default");
    let names: Vec<String> = workloads.iter().map(|workload| workload.object.title()).collect();
    let verb = if names.len() == 1 { "mounts" } else { "mount" };
    let roles = roles(cluster, namespace);
    let (severity, may) = if roles.is_empty() {
        (Severity::Info, String::new())
    } else {
        (Severity::Warning, format!(", which has {}", list(&roles, 2)))
    };
    let message = format!("{} {verb} the token of ServiceAccount default{may}", list(&names, 2));
    let pods = workloads.iter().map(|workload| workload.pods.len()).sum();
    let mut finding = Finding::new(severity, object.clone(), message).pods(pods).evidence(
        "automountServiceAccountToken is not false",
        &object,
        "automountServiceAccountToken",
    );
    for workload in workloads.iter().take(20) {
        let path = workload.path("serviceAccountName");
        finding = finding.evidence("runs as ServiceAccount default", &workload.object, &path);
    }
    let patch = r#"{"automountServiceAccountToken":false}"#;
    finding.fix_command(
        "Disable token mounting; first give workloads that use the API a ServiceAccount of their own",
        kubectl(["-n", namespace, "patch", "serviceaccount", "default", "-p", patch]),
    )
}

/// The roles that the account itself is bound to.
fn roles(cluster: &Cluster, namespace: &str) -> Vec<String> {
    let is_default = |subject: &k8s_openapi::api::rbac::v1::Subject| {
        subject.kind == "ServiceAccount"
            && subject.name == "default"
            && subject.namespace.as_deref().unwrap_or(namespace) == namespace
    };
    let near = cluster.in_namespace::<RoleBinding>(namespace).iter().map(|b| (&b.role_ref, &b.subjects));
    let wide = cluster.all::<ClusterRoleBinding>().iter().map(|b| (&b.role_ref, &b.subjects));
    let bound = near.chain(wide).filter(|(_, subjects)| subjects.iter().flatten().any(is_default));
    let mut roles: Vec<String> = bound.map(|(role, _)| format!("{} {}", role.kind, role.name)).collect();
    roles.sort();
    roles.dedup();
    roles
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    fn cart(spec: &str) -> String {
        format!(
            "
            apiVersion: apps/v1
            kind: Deployment
            metadata: {{name: cart, namespace: shop}}
            spec: {{template: {{spec: {{{spec} containers: [{{name: web}}]}}}}}}"
        )
    }

    const ACCOUNT: &str = "{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: shop}}";
    const BINDING: &str = "
        apiVersion: rbac.authorization.k8s.io/v1
        kind: RoleBinding
        metadata: {name: all, namespace: shop}
        roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}
        subjects: [{kind: ServiceAccount, name: default, namespace: shop}]";

    #[test]
    fn fires_for_the_token_of_default() {
        check(&RULE, &[&cart(""), ACCOUNT])
            .finds(&["info ServiceAccount shop/default: Deployment cart mounts the token of ServiceAccount default"]);
        check(&RULE, &[&cart(""), ACCOUNT, BINDING]).finds(&[
            "warning ServiceAccount shop/default: Deployment cart mounts the token of ServiceAccount default, which has \
             ClusterRole edit",
        ]);
    }

    #[test]
    fn quiet_with_an_account_of_its_own_or_without_the_token() {
        check(&RULE, &[&cart("serviceAccountName: cart,"), ACCOUNT]).finds_nothing();
        check(&RULE, &[&cart("automountServiceAccountToken: false,"), ACCOUNT]).finds_nothing();
        let off = ACCOUNT.replace("metadata", "automountServiceAccountToken: false, metadata");
        check(&RULE, &[&cart(""), &off]).finds_nothing();
    }

    #[test]
    fn quiet_where_accounts_were_not_read() {
        TestCluster::new(&[&cart("")]).forbid(Kind::ServiceAccount).check(&RULE).finds_nothing();
    }
}
