use k8s_openapi::api::rbac::v1::PolicyRule;

use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::rules::user_managed::is_platform;
use crate::snapshot::model::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::list;

declare_rule! {
    /// ## What it checks
    ///
    /// That Roles and ClusterRoles do not use `*` for the resources or the verbs of the core group or of all groups.
    ///
    /// ## Why it matters
    ///
    /// `*` grants more than intended: reading every Secret, executing commands in every pod, and access to every kind
    /// of resource that is installed later.
    ///
    /// ## How to confirm
    ///
    /// `kubectl describe clusterrole NAME` (or `kubectl -n NAMESPACE describe role NAME`) shows `*`.
    ///
    /// ## How to fix
    ///
    /// List the resources and verbs that the subjects use; the API server's audit log shows them.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire
    ///
    /// - for the built-in roles (`system:…`, `cluster-admin`) and those of Kubernetes distributions,
    /// - for roles that no subject is bound to,
    /// - for `*` within one API group other than the core group, as operators have it for their own kinds.
    ///
    /// The severity is `warning` if both resources and verbs are `*`, and `info` otherwise.
    "rbac/wildcard": Warning in Strict,
    "a role grants wildcard (*) permissions",
    needs: [],
    optional: [Role, ClusterRole, RoleBinding, ClusterRoleBinding],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for role in cluster.all::<ClusterRole>() {
        let labels = role.metadata.labels.as_ref();
        let is_built_in = labels.is_some_and(|labels| labels.contains_key("kubernetes.io/bootstrapping"))
            || role.name().starts_with("system:")
            || matches!(role.name(), "cluster-admin" | "admin" | "edit" | "view");
        if !is_built_in && role.aggregation_rule.is_none() {
            judge(cluster, &role.reference(), role.rules.as_deref().unwrap_or_default(), report);
        }
    }
    for role in cluster.all::<Role>() {
        if !is_platform(role.namespace()) && role.controller().is_none() {
            judge(cluster, &role.reference(), role.rules.as_deref().unwrap_or_default(), report);
        }
    }
}

fn judge(cluster: &Cluster, role: &ObjectRef, rules: &[PolicyRule], report: &mut Report) {
    let wide: Vec<(usize, Severity)> =
        rules.iter().enumerate().filter_map(|(n, rule)| Some((n, wildcard_severity(rule)?))).collect();
    let Some(severity) = wide.iter().map(|(_, severity)| *severity).max() else { return };
    let subjects = match subjects(cluster, role) {
        Some(subjects) if subjects.is_empty() => return,
        subjects => subjects.unwrap_or_default(),
    };
    let to = if subjects.is_empty() { String::new() } else { format!(" to {}", list(&subjects, 3)) };
    let what = if severity == Severity::Warning { "all verbs on all resources" } else { "wildcard (*) permissions" };
    let mut finding = Finding::new(severity, role.clone(), format!("{} grants {what}{to}", role.title()));
    for (n, _) in wide {
        let rule = &rules[n];
        let words = |list: &Option<Vec<String>>| list.as_deref().unwrap_or_default().join(", ");
        let text = format!("verbs {} on resources {}", words(&Some(rule.verbs.clone())), words(&rule.resources));
        finding = finding.evidence(text, role, &format!("rules[{n}]"));
    }
    let command = match role.namespace() {
        "" => kubectl(["edit", &role.kind.to_lowercase(), &role.name]),
        namespace => kubectl(["-n", namespace, "edit", &role.kind.to_lowercase(), &role.name]),
    };
    report.add(finding.fix_command("Replace * with the resources and verbs in use", command));
}

/// The severity of the wildcards in a rule, if they matter.
fn wildcard_severity(rule: &PolicyRule) -> Option<Severity> {
    let has = |list: &Option<Vec<String>>, words: &[&str]| list.iter().flatten().any(|w| words.contains(&w.as_str()));
    let (verbs, resources) = (rule.verbs.iter().any(|verb| verb == "*"), has(&rule.resources, &["*"]));
    let everywhere = has(&rule.api_groups, &["*", ""]) && rule.resource_names.as_ref().is_none_or(Vec::is_empty);
    match (everywhere, verbs, resources) {
        (true, true, true) => Some(Severity::Warning),
        (true, true, false) | (true, false, true) => Some(Severity::Info),
        _ => None,
    }
}

/// The subjects that are bound to a role, except built-in ones; `None` where bindings were not read.
fn subjects(cluster: &Cluster, role: &ObjectRef) -> Option<Vec<String>> {
    let is_cluster_role = role.is(Kind::ClusterRole);
    let near = cluster.all::<RoleBinding>().iter().map(|b| (b.namespace(), &b.role_ref, &b.subjects));
    let wide = cluster.all::<ClusterRoleBinding>().iter().map(|b| ("", &b.role_ref, &b.subjects));
    let refers = |namespace: &str, kind: &str, name: &str| {
        kind == role.kind && name == role.name && (is_cluster_role || namespace == role.namespace())
    };
    let bound = near.chain(wide).filter(|(namespace, to, _)| refers(namespace, &to.kind, &to.name));
    let mut names: Vec<String> = bound
        .flat_map(|(_, _, subjects)| subjects.iter().flatten())
        .filter(|subject| {
            !subject.name.starts_with("system:") && !subject.namespace.as_deref().is_some_and(is_platform)
        })
        .map(|subject| format!("{} {}", subject.kind, subject.name))
        .collect();
    names.sort();
    names.dedup();
    let known = if is_cluster_role {
        cluster.covers_all(Kind::RoleBinding) && cluster.covers_all(Kind::ClusterRoleBinding)
    } else {
        cluster.covers(Kind::RoleBinding, role.namespace())
    };
    (known || !names.is_empty()).then_some(names)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn role(groups: &str, resources: &str, verbs: &str) -> String {
        format!(
            "
            apiVersion: rbac.authorization.k8s.io/v1
            kind: ClusterRole
            metadata: {{name: ci}}
            rules: [{{apiGroups: ['{groups}'], resources: ['{resources}'], verbs: ['{verbs}']}}]"
        )
    }

    const BINDING: &str = "
        apiVersion: rbac.authorization.k8s.io/v1
        kind: ClusterRoleBinding
        metadata: {name: ci}
        roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: ci}
        subjects: [{kind: ServiceAccount, name: runner, namespace: ci}]";

    #[test]
    fn fires_for_wildcards() {
        check(&RULE, &[&role("*", "*", "*"), BINDING]).finds(&[
            "warning ClusterRole ci: ClusterRole ci grants all verbs on all resources to ServiceAccount runner",
        ]);
        check(&RULE, &[&role("", "*", "get"), BINDING])
            .finds(&["info ClusterRole ci: ClusterRole ci grants wildcard (*) permissions to ServiceAccount runner"]);
    }

    #[test]
    fn quiet_when_resources_are_named_or_the_group_is_its_own() {
        check(&RULE, &[&role("", "pods", "get"), BINDING]).finds_nothing();
        check(&RULE, &[&role("example.com", "*", "*"), BINDING]).finds_nothing();
    }

    #[test]
    fn quiet_when_unbound_or_built_in() {
        check(&RULE, &[&role("*", "*", "*")]).finds_nothing();
        let own = |text: &str| text.replace("name: ci}", "name: cluster-admin}");
        check(&RULE, &[&own(&role("*", "*", "*")), &own(BINDING)]).finds_nothing();
    }
}
