use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::nearest::{NearestExt, nearest_name};
use crate::kubernetes::network::netpol::{Direction, Peer, Policy, PolicySet, withheld};
use crate::kubernetes::time;
use crate::snapshot::model::Pod;
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// That the `podSelector` of a NetworkPolicy matches at least one pod of its namespace, or the pod template of a
    /// workload there that could make one.
    ///
    /// ## Why it matters
    ///
    /// A policy that selects nothing does nothing. If it was to allow something, that stays closed; if it was to
    /// protect something, that stays open to everyone, and nothing tells.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pods -l SELECTOR` lists nothing; `kubectl -n NAMESPACE get pods --show-labels` shows
    /// what there is. `kubectl -n NAMESPACE describe networkpolicy NAME` writes the selector out.
    ///
    /// ## How to fix
    ///
    /// Make the selector match the labels of the pod template, or delete the policy if what it was for is gone.
    ///
    /// ## Exceptions
    ///
    /// For an empty `podSelector`, which selects every pod; where a workload that matches is scaled to zero, suspended,
    /// or a CronJob between two runs; for pods that come and go on demand (ACME solvers, pods of Jobs and pipelines);
    /// in a namespace without any pod or workload, where the policy may be waiting for them; for policies that are two
    /// minutes old; where pods or workloads could not be read. For a policy that a controller manages it is only
    /// `info`, and where other policies of the namespace admit the same pods or let others connect to them: such pods
    /// are made when somebody needs them (the servers of JupyterHub's users).
    "network-policy/selects-nothing": Warning,
    "the podSelector of a NetworkPolicy matches no pod and no workload",
    needs: [NetworkPolicy],
    optional: [Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob],
    reads_custom: true,
    explained_by: [],
}

const MAKERS: &[Kind] = &[
    Kind::Pod,
    Kind::Deployment,
    Kind::StatefulSet,
    Kind::DaemonSet,
    Kind::ReplicaSet,
    Kind::ReplicationController,
    Kind::Job,
    Kind::CronJob,
];

fn check(cluster: &Cluster, report: &mut Report) {
    let set = PolicySet::new(cluster);
    for policy in set.policies() {
        let object = policy.object.reference();
        if policy.selector.is_empty() || is_on_demand(policy) || is_young(cluster, policy) {
            continue;
        }
        let namespace = policy.namespace();
        if set.selects_any(namespace, policy.selector) || is_deserted(cluster, &set, namespace) {
            continue;
        }
        let unread = MAKERS.iter().find_map(|kind| Some((kind, withheld(cluster, *kind)?)));
        match unread.filter(|(kind, _)| !cluster.covers(**kind, namespace)) {
            Some((_, gap)) => report.not_evaluated(&object, gap.reason, gap.message.clone()),
            None => report.add(finding(cluster, &set, policy, object)),
        }
    }
}

/// Without pods and workloads the policy was made ahead of them, or is left over from them.
fn is_deserted(cluster: &Cluster, set: &PolicySet, namespace: &str) -> bool {
    set.workloads_in(namespace).is_empty() && !cluster.in_namespace::<Pod>(namespace).iter().any(Pod::is_active)
}

fn is_young(cluster: &Cluster, policy: &Policy) -> bool {
    policy.object.created().is_some_and(|created| time::age(cluster.now(), created) < time::START)
}

/// Labels of pods that something makes when it needs them.
fn is_on_demand(policy: &Policy) -> bool {
    policy.selector.keys().any(|key| {
        matches!(
            key,
            "job-name"
                | "controller-uid"
                | "acme.cert-manager.io/http01-solver"
                | "acme.cert-manager.io/http-domain"
                | "spark-role"
                | "spark-app-selector"
        ) || ["batch.kubernetes.io/", "tekton.dev/", "workflows.argoproj.io/", "actions.github.com/"]
            .iter()
            .any(|prefix| key.starts_with(prefix))
    })
}

/// Whether other policies, too, speak of pods with the labels that nothing has, and no pod's are spelled alike.
fn is_spoken_of(set: &PolicySet, policy: &Policy) -> bool {
    let subjects = set.subjects_in(policy.namespace());
    let unmet: Vec<(&str, &str)> = policy
        .selector
        .equalities()
        .filter(|(key, value)| !subjects.iter().any(|s| s.end.labels.get(key) == Some(value)))
        .collect();
    let is_misspelled = unmet.iter().any(|(key, value)| {
        nearest_name(value, subjects.iter().filter_map(|subject| subject.end.labels.get(key))).is_some()
    });
    let names_them = |peer: &Peer| match peer {
        Peer::Selected { namespaces: None, pods } => unmet.iter().all(|pair| pods.equalities().any(|p| p == *pair)),
        _ => false,
    };
    let others = set.in_namespace(policy.namespace()).iter().filter(|other| other.name() != policy.name());
    let mut peers = others.flat_map(|other| {
        let rules = [Direction::Ingress, Direction::Egress].into_iter();
        rules.flat_map(|d| other.rules(d).unwrap_or_default()).flat_map(|rule| &rule.peers)
    });
    !unmet.is_empty() && !is_misspelled && peers.any(names_them)
}

fn finding(cluster: &Cluster, set: &PolicySet, policy: &Policy, object: ObjectRef) -> Finding {
    let (namespace, name) = (policy.namespace(), policy.name());
    let asks = policy.selector.to_string();
    let difference = match cluster.nearest_workload(namespace, policy.selector) {
        Some(nearest) => nearest.difference(),
        None => format!("it asks for {asks}, which nothing in namespace {namespace} has"),
    };
    let message = format!("NetworkPolicy {name} selects no pod: {difference}");
    let is_managed = policy.object.controller().is_some();
    let finding = if is_managed || is_spoken_of(set, policy) { Finding::info } else { Finding::warning };
    finding(object.clone(), message)
        .evidence(format!("spec.podSelector is {asks}"), &object, "spec.podSelector")
        .fix_command(
            "See which labels the pods have, and make the selector match those that are meant",
            kubectl(["-n", namespace, "get", "pods", "--show-labels"]),
        )
        .fix_command(
            "Or delete the policy, if what it was for is gone",
            kubectl(["-n", namespace, "delete", "networkpolicy", name]),
        )
        .rests_on_absence()
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{World, check};

    const POLICY: &str = "
        apiVersion: networking.k8s.io/v1
        kind: NetworkPolicy
        metadata: {name: cache-in, namespace: shop}
        spec: {podSelector: {matchLabels: {app: cache}}, ingress: [{ports: [{port: 6379}]}]}";

    fn pod(app: &str) -> String {
        format!("{{apiVersion: v1, kind: Pod, metadata: {{name: p, namespace: shop, labels: {{app: {app}}}}}}}")
    }

    #[test]
    fn fires_when_nothing_has_the_labels() {
        check(&RULE, &[POLICY, &pod("web")]).finds(&[
            "warning NetworkPolicy shop/cache-in: NetworkPolicy cache-in selects no pod: it asks for app=cache, which nothing in namespace shop has",
        ]);
    }

    #[test]
    fn fires_with_the_nearest_workload() {
        let deployment = "
            apiVersion: apps/v1
            kind: Deployment
            metadata: {name: cache, namespace: shop}
            spec: {template: {metadata: {labels: {app: caches}}}}";
        check(&RULE, &[POLICY, deployment]).finds(&[
            "warning NetworkPolicy shop/cache-in: NetworkPolicy cache-in selects no pod: it asks for app=cache, Deployment cache has app=caches",
        ]);
    }

    #[test]
    fn fires_mildly_for_pods_that_other_policies_speak_of() {
        let other = POLICY
            .replace("cache-in", "web-out")
            .replace("app: cache", "app: web")
            .replace("ingress: [", "egress: [{to: [{podSelector: {matchLabels: {app: cache}}}]}], ingress: [");
        let severity = |app: &str| check(&RULE, &[POLICY, &other, &pod(app)]).finding().severity.to_string();
        assert_eq!(severity("web"), "info");
        let typo = other.replace("app: web", "app: caches");
        assert_eq!(check(&RULE, &[POLICY, &typo, &pod("caches")]).finding().severity.to_string(), "warning");
    }

    #[test]
    fn quiet_when_a_pod_matches() {
        check(&RULE, &[POLICY, &pod("cache")]).finds_nothing();
    }

    #[test]
    fn quiet_when_what_matches_is_scaled_to_zero_or_between_runs() {
        let deployment = "
            apiVersion: apps/v1
            kind: Deployment
            metadata: {name: cache, namespace: shop}
            spec: {replicas: 0, template: {metadata: {labels: {app: cache}}}}";
        check(&RULE, &[POLICY, deployment, &pod("web")]).finds_nothing();
        let cron_job = "
            apiVersion: batch/v1
            kind: CronJob
            metadata: {name: warm, namespace: shop}
            spec: {jobTemplate: {spec: {template: {metadata: {labels: {app: cache}}}}}}";
        check(&RULE, &[POLICY, cron_job, &pod("web")]).finds_nothing();
        let rollout = "
            apiVersion: argoproj.io/v1alpha1
            kind: Rollout
            metadata: {name: cache, namespace: shop}
            spec: {replicas: 0, template: {metadata: {labels: {app: cache}}}}";
        check(&RULE, &[POLICY, rollout, &pod("web")]).finds_nothing();
    }

    #[test]
    fn quiet_in_a_namespace_without_pods() {
        check(&RULE, &[POLICY]).finds_nothing();
    }

    #[test]
    fn quiet_for_everything_and_for_what_comes_on_demand() {
        check(&RULE, &[&POLICY.replace("matchLabels: {app: cache}", ""), &pod("web")]).finds_nothing();
        check(&RULE, &[&POLICY.replace("app: cache", "acme.cert-manager.io/http01-solver: \"true\""), &pod("web")])
            .finds_nothing();
    }

    #[test]
    fn quiet_and_honest_where_workloads_are_forbidden() {
        let said = World::new(&[POLICY, &pod("web")]).forbid(Kind::Deployment).check(&RULE);
        said.finds_nothing();
        assert_eq!(said.gaps(), ["NetworkPolicy forbidden"]);
    }

    #[test]
    fn fires_as_info_for_what_an_operator_manages() {
        let owned = POLICY.replace(
            "namespace: shop}",
            "namespace: shop, ownerReferences: [{apiVersion: x/v1, kind: Kafka, name: k, uid: u, controller: true}]}",
        );
        assert!(check(&RULE, &[&owned, &pod("web")]).text().contains("\"severity\":\"info\""));
    }
}
