use crate::rules::authored::AuthoredExt;
use std::collections::BTreeMap;

use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::rules::authored::Authored;
use crate::snapshot::model::{ClusterRoleBinding, RoleBinding, ServiceAccount};
use crate::snapshot::{Cluster, Kind, ObjectRef};
use crate::text::kubectl;
use crate::text::words::list;

declare_rule! {
    /// ## What it checks
    ///
    /// That workloads which run as their namespace's ServiceAccount `default` are not given its token.
    ///
    /// ## Why it matters
    ///
    /// Every right that is ever given to `default` is given to all of these pods, and whoever breaks into one of them has a
    /// token that the API server accepts.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE exec POD -- ls /var/run/secrets/kubernetes.io/serviceaccount` lists `token`.
    ///
    /// ## How to fix
    ///
    /// Set `automountServiceAccountToken: false` on the ServiceAccount; give workloads that talk to the API a ServiceAccount of
    /// their own.
    ///
    /// ## Exceptions
    ///
    /// Where the ServiceAccount or the pods have `automountServiceAccountToken: false`, for workloads with a ServiceAccount of
    /// their own, and in the namespaces of Kubernetes and its distributions. It is `warning` if a binding gives `default` a
    /// role, else `info`.
    "serviceaccount/default-token": Warning in Strict,
    "workloads that are given the token of the ServiceAccount default",
    needs: [ServiceAccount],
    optional: [
        Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob, Pod, RoleBinding,
        ClusterRoleBinding,
    ],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    let all = cluster.authored();
    let mut given: BTreeMap<&str, Vec<&Authored>> = BTreeMap::new();
    for workload in all.iter().filter(|workload| workload.spec.service_account() == "default") {
        let namespace = workload.object.namespace();
        let account = cluster.get::<ServiceAccount>(namespace, "default");
        let of_account = account.found().and_then(|account| account.automount_service_account_token);
        if workload.spec.automount_service_account_token.or(of_account) != Some(false) {
            given.entry(namespace).or_default().push(workload);
        }
    }
    for (namespace, workloads) in given {
        // Of an account that was not read nobody knows whether it gives its token.
        if cluster.covers(Kind::ServiceAccount, namespace) {
            report.add(finding(cluster, namespace, &workloads));
        }
    }
}

fn finding(cluster: &Cluster, namespace: &str, workloads: &[&Authored]) -> Finding {
    let object = ObjectRef::new(Kind::ServiceAccount, namespace, "default");
    let names: Vec<String> = workloads.iter().map(|workload| workload.object.title()).collect();
    let is = if names.len() == 1 { "is" } else { "are" };
    let roles = roles(cluster, namespace);
    let (severity, may) = match roles.is_empty() {
        true => (Severity::Info, String::new()),
        false => (Severity::Warning, format!(", which has {}", list(&roles, 2))),
    };
    let message = format!("{} {is} given the token of ServiceAccount default{may}", list(&names, 2));
    let pods = workloads.iter().map(|workload| workload.pods.len()).sum();
    let mut finding = Finding::new(severity, object.clone(), message).pods(pods).evidence(
        "automountServiceAccountToken is not false",
        &object,
        "automountServiceAccountToken",
    );
    for workload in workloads.iter().take(20) {
        let path = workload.path("serviceAccountName");
        finding = finding.evidence("it runs as ServiceAccount default", &workload.object, &path);
    }
    let patch = r#"{"automountServiceAccountToken":false}"#;
    finding.fix_command(
        "Keep the token from them; give those that need one an account of their own first",
        kubectl(["-n", namespace, "patch", "serviceaccount", "default", "-p", patch]),
    )
}

/// The roles that bindings give to the account itself.
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
    use crate::testing::{World, check};

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
            .finds(&["info ServiceAccount shop/default: Deployment cart is given the token of ServiceAccount default"]);
        check(&RULE, &[&cart(""), ACCOUNT, BINDING]).finds(&[
            "warning ServiceAccount shop/default: Deployment cart is given the token of ServiceAccount default, which has \
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
        World::new(&[&cart("")]).forbid(Kind::ServiceAccount).check(&RULE).finds_nothing();
    }
}
