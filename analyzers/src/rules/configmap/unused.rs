use std::collections::BTreeSet;
use std::time::Duration;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::time;
use crate::kubernetes::workloads::references::references;
use crate::rules::user_managed::is_platform;
use crate::snapshot::model::{ClusterRole, ConfigMap, Pod, PodSpec, ReplicaSet, Role};
use crate::snapshot::{Cluster, Kind, Object};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// That every ConfigMap is used by a pod or a pod template: as an environment variable, as a volume, or by name in
    /// a command, an argument or a variable.
    ///
    /// ## Why it matters
    ///
    /// An unused ConfigMap looks like live configuration: changes to it have no effect. Tools that name ConfigMaps
    /// after a hash of their content leave one behind with every change.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pods,replicasets -o yaml | grep NAME` finds nothing.
    ///
    /// ## How to fix
    ///
    /// Make sure that no program reads it through the API, then delete it.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for ConfigMaps that
    ///
    /// - an old ReplicaSet uses (a rollback needs them),
    /// - have an owner,
    /// - have a label or an annotation by which programs find them (`grafana_dashboard`, leader election),
    /// - are named in a Role,
    /// - exist in every namespace (`kube-root-ca.crt`),
    /// - are less than a day old,
    /// - are in the namespaces of Kubernetes and its distributions.
    ///
    /// It does not fire either where pods or workloads could not be read.
    "configmap/unused": Info in Strict,
    "a ConfigMap that no pod or workload uses",
    needs: [ConfigMap, Pod],
    optional: [Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob, Role, ClusterRole],
    explained_by: [],
}

/// A new ConfigMap may not be in use yet.
const FRESH: Duration = Duration::from_secs(24 * 3600);
/// ConfigMaps that controllers create in every namespace.
const IN_EVERY_NAMESPACE: [&str; 4] =
    ["kube-root-ca.crt", "openshift-service-ca.crt", "istio-ca-root-cert", "linkerd-identity-trust-roots"];
/// The kinds whose pod templates must have been read before a ConfigMap can be called unused.
const USERS: [Kind; 6] =
    [Kind::Pod, Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet, Kind::ReplicaSet, Kind::CronJob];

fn check(cluster: &Cluster, report: &mut Report) {
    let mut namespaces: Vec<&str> = cluster.all::<ConfigMap>().iter().map(Object::namespace).collect();
    namespaces.dedup();
    for namespace in namespaces {
        if is_platform(namespace) || !USERS.iter().all(|kind| cluster.covers(*kind, namespace)) {
            continue;
        }
        let used = Used::of(cluster, namespace);
        for map in cluster.in_namespace::<ConfigMap>(namespace).iter().filter(|map| is_for_pods(cluster, map)) {
            if !used.uses(map.name()) {
                report.add(finding(map));
            }
        }
    }
}

/// Whether a ConfigMap shows no sign of being read through the API by some program.
fn is_for_pods(cluster: &Cluster, map: &ConfigMap) -> bool {
    let metadata = &map.metadata;
    let is_fresh = metadata.creation_timestamp.is_some_and(|created| time::age(cluster.now(), created) < FRESH);
    // Labels that common tools set do not identify a reader.
    let is_plain = |key: &str| {
        key.starts_with("app.kubernetes.io/")
            || key.starts_with("helm.sh/")
            || matches!(key, "app" | "chart" | "heritage" | "release" | "k8s-app" | "name" | "component")
    };
    let is_found_by_label = metadata.labels.iter().any(|(key, _)| !is_plain(key));
    let is_a_lock = metadata.annotations.get("control-plane.alpha.kubernetes.io/leader").is_some();
    !is_fresh
        && !is_found_by_label
        && !is_a_lock
        && metadata.owner_references.is_empty()
        && metadata.deletion_timestamp.is_none()
        && !IN_EVERY_NAMESPACE.contains(&map.name())
}

/// What the pods and workloads of a namespace refer to.
struct Used<'a> {
    names: BTreeSet<&'a str>,
    /// Commands, arguments and variables, which may contain a name.
    texts: Vec<&'a str>,
}

impl<'a> Used<'a> {
    fn of(cluster: &'a Cluster, namespace: &str) -> Used<'a> {
        let pods = cluster.in_namespace::<Pod>(namespace).iter().map(|pod| &*pod.spec);
        let workloads = cluster.workloads_in(namespace).into_iter().map(|workload| &*workload.template.spec);
        let old = cluster.in_namespace::<ReplicaSet>(namespace).iter().map(|set| &*set.spec.template.spec);
        let mut used = Used { names: BTreeSet::new(), texts: Vec::new() };
        pods.chain(workloads).chain(old).for_each(|spec| used.add(spec));
        let roles = cluster.in_namespace::<Role>(namespace).iter().flat_map(|role| role.rules.iter().flatten());
        let cluster_roles = cluster.all::<ClusterRole>().iter().flat_map(|role| role.rules.iter().flatten());
        for rule in roles.chain(cluster_roles) {
            used.names.extend(rule.resource_names.iter().flatten().map(String::as_str));
        }
        used.texts.sort_unstable();
        used.texts.dedup();
        used
    }

    fn add(&mut self, spec: &'a PodSpec) {
        let maps = references(spec).into_iter().filter(|reference| reference.kind == Kind::ConfigMap);
        self.names.extend(maps.map(|reference| reference.name));
        for container in spec.all_containers() {
            self.texts.extend(container.command.iter().chain(&container.args).map(String::as_str));
            self.texts.extend(container.env.iter().map(|variable| variable.value.as_str()));
        }
    }

    fn uses(&self, name: &str) -> bool {
        self.names.contains(name) || self.texts.iter().any(|text| text.contains(name))
    }
}

fn finding(map: &ConfigMap) -> Finding {
    let (object, namespace, name) = (map.reference(), map.namespace(), map.name());
    Finding::info(object.clone(), format!("ConfigMap {name} is not used by any pod or workload"))
        .evidence("no volume, variable, command or argument in the namespace refers to it", &object, "metadata.name")
        .fix_command(
            "Delete it if no program reads it through the API",
            kubectl(["-n", namespace, "delete", "configmap", name]),
        )
        .rests_on_absence()
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    const MAP: &str = "{apiVersion: v1, kind: ConfigMap, metadata: {name: cart-7f, namespace: shop,
                        creationTimestamp: '2026-11-01T00:00:00Z', labels: {app: cart}}}";

    fn set(kind: &str, container: &str) -> String {
        format!(
            "
            apiVersion: apps/v1
            kind: {kind}
            metadata: {{name: cart-1, namespace: shop, ownerReferences: [{{apiVersion: apps/v1, kind: Deployment, name: cart,
                        controller: true}}]}}
            spec: {{replicas: 0, template: {{spec: {{containers: [{{name: web, {container}}}]}}}}}}"
        )
    }

    #[test]
    fn fires_for_an_unused_one() {
        check(&RULE, &[MAP, &set("ReplicaSet", "envFrom: [{configMapRef: {name: cart-8a}}]")])
            .finds(&["info ConfigMap shop/cart-7f: ConfigMap cart-7f is not used by any pod or workload"]);
    }

    #[test]
    fn quiet_when_used_now_or_by_a_rollback() {
        check(&RULE, &[MAP, &set("ReplicaSet", "envFrom: [{configMapRef: {name: cart-7f}}]")]).finds_nothing();
        check(&RULE, &[MAP, &set("StatefulSet", "args: ['--config=cart-7f']")]).finds_nothing();
        let role = "{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: r, namespace: shop},
                     rules: [{apiGroups: [''], resources: [configmaps], resourceNames: [cart-7f], verbs: [get]}]}";
        check(&RULE, &[MAP, role]).finds_nothing();
    }

    #[test]
    fn quiet_when_read_through_the_api_new_or_in_every_namespace() {
        check(&RULE, &[&MAP.replace("app: cart", "grafana_dashboard: '1'")]).finds_nothing();
        check(&RULE, &[&MAP.replace("2026-11-01", "2026-11-21")]).finds_nothing();
        check(&RULE, &[&MAP.replace("name: cart-7f", "name: kube-root-ca.crt")]).finds_nothing();
        check(&RULE, &[&MAP.replace("shop", "kube-system")]).finds_nothing();
    }

    #[test]
    fn quiet_where_users_were_not_read() {
        TestCluster::new(&[MAP]).forbid(Kind::ReplicaSet).check(&RULE).finds_nothing();
    }
}
