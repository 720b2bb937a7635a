use k8s_openapi::api::rbac::v1::{RoleRef, Subject};

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::time;
use crate::snapshot::model::{ClusterRole, ClusterRoleBinding, Role, RoleBinding, Timestamp};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef, Origin};
use crate::text::kubectl;
use crate::text::words::list;

declare_rule! {
    /// ## What it checks
    ///
    /// That the Role or ClusterRole that a RoleBinding or ClusterRoleBinding refers to exists.
    ///
    /// ## Why it matters
    ///
    /// The API server accepts such a binding, but it grants nothing: requests of its subjects fail with "forbidden".
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe rolebinding NAME` shows the role; `kubectl -n NAMESPACE get role ROLE` returns
    /// NotFound.
    ///
    /// ## How to fix
    ///
    /// Create the role. `roleRef` is immutable, so if the name is wrong, delete and recreate the binding.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for bindings without subjects, for built-in bindings (`system:…`), in the first two
    /// minutes, or where roles could not be read. It does not check whether the subjects exist.
    "rbac/missing-role": Warning,
    "a binding to a Role or ClusterRole that does not exist",
    needs: [],
    optional: [RoleBinding, ClusterRoleBinding, Role, ClusterRole],
    explained_by: [],
}

struct Binding<'a> {
    object: ObjectRef,
    created: Option<Timestamp>,
    role: &'a RoleRef,
    subjects: &'a [Subject],
}

fn check(cluster: &Cluster, report: &mut Report) {
    let in_namespaces = cluster.all::<RoleBinding>().iter().map(|binding| Binding {
        object: binding.reference(),
        created: binding.created(),
        role: &binding.role_ref,
        subjects: binding.subjects.as_deref().unwrap_or_default(),
    });
    let everywhere = cluster.all::<ClusterRoleBinding>().iter().map(|binding| Binding {
        object: binding.reference(),
        created: binding.created(),
        role: &binding.role_ref,
        subjects: binding.subjects.as_deref().unwrap_or_default(),
    });
    for binding in in_namespaces.chain(everywhere) {
        let is_young = binding.created.is_some_and(|created| time::age(cluster.now(), created) < time::START);
        if !is_young && !binding.subjects.is_empty() && is_missing(cluster, &binding) {
            report.add(finding(&binding));
        }
    }
}

fn is_missing(cluster: &Cluster, binding: &Binding) -> bool {
    let name = binding.role.name.as_str();
    // Every cluster has these roles; files rarely contain them.
    let is_built_in =
        matches!(name, "cluster-admin" | "admin" | "edit" | "view") && cluster.origin() != Origin::Cluster;
    if name.is_empty() || name.starts_with("system:") || binding.object.name.starts_with("system:") || is_built_in {
        return false;
    }
    match binding.role.kind.as_str() {
        "ClusterRole" => cluster.get::<ClusterRole>("", name).is_missing(),
        // The API server creates this role in every cluster.
        "Role" if name == "extension-apiserver-authentication-reader" => false,
        "Role" if binding.object.is(Kind::RoleBinding) => {
            cluster.get::<Role>(binding.object.namespace(), name).is_missing()
        }
        _ => false,
    }
}

fn finding(binding: &Binding) -> Finding {
    let (object, role) = (&binding.object, binding.role);
    let subjects: Vec<String> =
        binding.subjects.iter().map(|subject| format!("{} {}", subject.kind, subject.name)).collect();
    let message = format!(
        "{} {} grants nothing to {}: {} {} does not exist",
        object.kind,
        object.name,
        list(&subjects, 2),
        role.kind,
        role.name
    );
    let kind = object.kind.to_lowercase();
    let command = match &object.namespace {
        Some(namespace) => kubectl(["-n", namespace, "describe", &kind, &object.name]),
        None => kubectl(["describe", &kind, &object.name]),
    };
    Finding::warning(object.clone(), message)
        .evidence(format!("roleRef is {} {}", role.kind, role.name), object, "roleRef")
        .fix_command("Create the role, or delete the binding and recreate it with the right role", command)
        .rests_on_absence()
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::Origin;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    const BINDING: &str = "
        apiVersion: rbac.authorization.k8s.io/v1
        kind: RoleBinding
        metadata: {name: cart, namespace: shop, creationTimestamp: '2026-11-21T10:00:00Z'}
        roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: cart-reader}
        subjects: [{kind: ServiceAccount, name: cart, namespace: shop}]";
    const ROLE: &str =
        "{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: cart-reader, namespace: shop}}";

    #[test]
    fn fires_when_the_role_is_missing() {
        check(&RULE, &[BINDING, &ROLE.replace("shop", "web")]).finds(&[
            "warning RoleBinding shop/cart: RoleBinding cart grants nothing to ServiceAccount cart: Role cart-reader does \
             not exist",
        ]);
        let cluster_wide = BINDING
            .replace("RoleBinding", "ClusterRoleBinding")
            .replace(", namespace: shop, c", ", c")
            .replace("kind: Role,", "kind: ClusterRole,");
        check(&RULE, &[&cluster_wide]).finds(&[
            "warning ClusterRoleBinding cart: ClusterRoleBinding cart grants nothing to ServiceAccount cart: ClusterRole \
             cart-reader does not exist",
        ]);
    }

    #[test]
    fn quiet_when_the_role_exists() {
        check(&RULE, &[BINDING, ROLE]).finds_nothing();
    }

    #[test]
    fn quiet_for_built_in_roles() {
        check(&RULE, &[&BINDING.replace("cart-reader", "extension-apiserver-authentication-reader")]).finds_nothing();
        let view = BINDING.replace("kind: Role, name: cart-reader", "kind: ClusterRole, name: view");
        TestCluster::new(&[&view]).origin(Origin::Manifests).check(&RULE).finds_nothing();
    }

    #[test]
    fn quiet_without_subjects_or_when_young() {
        check(&RULE, &[BINDING.split_once("subjects:").unwrap().0]).finds_nothing();
        check(&RULE, &[&BINDING.replace("10:00:00", "11:59:00")]).finds_nothing();
    }

    #[test]
    fn quiet_where_roles_were_not_read() {
        TestCluster::new(&[BINDING]).forbid(Kind::Role).check(&RULE).finds_nothing();
    }
}
