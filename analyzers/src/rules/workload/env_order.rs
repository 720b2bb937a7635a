use crate::engine::{Finding, Report, declare_rule};
use crate::rules::user_managed::{Specified, specified};
use crate::snapshot::Cluster;
use crate::snapshot::model::{ConfigMap, Container, Secret};
use crate::text::words::list;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for environment variables whose value uses `$(NAME)`, where `NAME` is defined later in the same `env` list.
    ///
    /// ## Why it matters
    ///
    /// Kubernetes expands `$(NAME)` only for variables that are defined before. Otherwise the program gets the text
    /// `$(NAME)` itself, for example as a user name or as a part of a URL, and fails with an error that does not point to
    /// the cause. Tools that sort lists by name introduce the mistake.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE exec POD -c CONTAINER -- env` prints the unexpanded text.
    ///
    /// ## How to fix
    ///
    /// Move the definition of `NAME` above the variable that uses it.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for:
    ///
    /// - names that are also defined earlier, by `envFrom`, or as a variable of a Service (`NAME_SERVICE_HOST`);
    /// - `$$(NAME)`, which is meant literally, and names that no variable of the container has.
    "workload/env-order": Warning,
    "an environment variable uses another one that is defined after it",
    needs: [],
    optional: [
        Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob, Pod, ConfigMap, Secret,
    ],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for specified in specified(cluster) {
        for (container, path) in specified.containers() {
            if let Some(finding) = judge(cluster, &specified, container, &path) {
                report.add(finding);
            }
        }
    }
}

fn judge(cluster: &Cluster, specified: &Specified, container: &Container, path: &str) -> Option<Finding> {
    let mut uses: Vec<(&str, Vec<&str>)> = Vec::new();
    for (at, variable) in container.env.iter().enumerate().filter(|(_, variable)| variable.value.contains("$(")) {
        let has = |name: &str, variables: &[crate::snapshot::model::EnvVar]| variables.iter().any(|v| v.name == name);
        let (before, after) = (&container.env[..at], &container.env[at + 1..]);
        let mut names: Vec<&str> = expanded(&variable.value)
            .into_iter()
            .filter(|name| has(name, after) && !has(name, before) && *name != variable.name)
            .filter(|name| !is_set_elsewhere(cluster, specified.object.namespace(), container, name))
            .collect();
        names.sort_unstable();
        names.dedup();
        if !names.is_empty() {
            uses.push((&variable.name, names));
        }
    }
    let (variable, names) = uses.first()?;
    let quoted: Vec<String> = names.iter().map(|name| format!("$({name})")).collect();
    let quoted = list(&quoted, 4);

    let message = format!(
        "env {variable} of container {} of {} uses {quoted}, defined after it, which Kubernetes does not expand",
        container.name,
        specified.object.title()
    );
    let mut finding = Finding::warning(specified.object.clone(), message).container(container.name.as_str());
    for (variable, names) in &uses {
        let text = format!("env {variable} is listed before {}", list(names, 4));
        finding = finding.evidence(text, &specified.object, &format!("{path}.env[{variable}]"));
    }
    for (variable, names) in &uses {
        finding = finding.fix(format!("Move {} above {variable} in {path}.env", list(names, 4)));
    }
    Some(finding)
}

/// The names in `$(NAME)`, without `$$(NAME)`.
fn expanded(value: &str) -> Vec<&str> {
    let (mut names, mut rest) = (Vec::new(), value);
    while let Some(at) = rest.find('$') {
        rest = &rest[at + 1..];
        if let Some(escaped) = rest.strip_prefix('$') {
            rest = escaped;
        } else if let Some((name, _)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            names.push(name);
        }
    }
    names
}

/// Whether the variable may also come from `envFrom` (with any prefix) or from a Service.
fn is_set_elsewhere(cluster: &Cluster, namespace: &str, container: &Container, name: &str) -> bool {
    let mut may_have = container.env_from.iter().map(|source| {
        let map = source.config_map_ref.as_ref().map(|map| cluster.get::<ConfigMap>(namespace, &map.name).found());
        let secret = source.secret_ref.as_ref().map(|secret| cluster.get::<Secret>(namespace, &secret.name).found());
        let keys = match (map, secret) {
            (Some(map), _) => map.and_then(|map| map.data.keys.as_ref()),
            (None, Some(secret)) => secret.and_then(|secret| secret.data.keys.as_ref()),
            (None, None) => return false,
        };
        keys.is_none_or(|keys| keys.0.iter().any(|key| name.ends_with(key.as_str())))
    });
    name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || may_have.any(|may| may)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::{Findings, check};

    fn said(container: &str) -> Findings {
        let deployment = format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web, namespace: shop}}, spec: {{template: {{spec: \
             {{containers: [{{name: app, {container}}}]}}}}}}}}"
        );
        check(&RULE, &[&deployment])
    }

    #[test]
    fn fires_for_a_variable_that_is_defined_later() {
        let said = said(
            "env: [{name: URL, value: 'db://$(USER):$(PASS)@db'}, {name: PASS, value: x}, {name: USER, value: u}]",
        );
        said.finds(&[
            "warning Deployment shop/web: env URL of container app of Deployment web uses $(PASS) and $(USER), defined after \
             it, which Kubernetes does not expand",
        ]);
        assert_eq!(
            said.finding().fix[0].text,
            "Move PASS and USER above URL in spec.template.spec.containers[app].env"
        );
    }

    #[test]
    fn quiet_for_expanded_literal_and_unknown_names() {
        said("env: [{name: USER, value: u}, {name: URL, value: 'db://$(USER)@db'}]").finds_nothing();
        said("env: [{name: URL, value: 'db://$$(USER)@db'}, {name: USER, value: u}]").finds_nothing();
        said("env: [{name: URL, value: 'db://$(HOST)@db $( $'}, {name: USER, value: u}]").finds_nothing();
        said("env: [{name: USER, value: u}, {name: URL, value: '$(USER)'}, {name: USER, value: v}]").finds_nothing();
        said("envFrom: [{secretRef: {name: s}}], env: [{name: URL, value: '$(USER)'}, {name: USER, value: v}]")
            .finds_nothing();
    }
}
