use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::nearest::NearestExt;
use crate::kubernetes::network::netpol::{Direction, Peer, Policy, PolicySet, withheld};
use crate::kubernetes::time;
use crate::snapshot::model::Pod;
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::similar::nearest_name;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that the `podSelector` of a NetworkPolicy matches at least one pod of its namespace, or the pod template
    /// of a workload in it.
    ///
    /// ## Why it matters
    ///
    /// A policy that selects no pods has no effect. Traffic that it should allow stays blocked, and pods that it should
    /// protect stay open to everyone. Kubernetes reports neither.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pods -l SELECTOR` finds no resources; `kubectl -n NAMESPACE get pods --show-labels`
    /// shows the existing labels. `kubectl -n NAMESPACE describe networkpolicy NAME` prints the selector.
    ///
    /// ## How to fix
    ///
    /// Make the selector match the labels of the pod template, or delete the policy if its workload no longer exists.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire:
    ///
    /// - for an empty `podSelector`, which selects every pod
    /// - where a matching workload is scaled to zero, suspended, or a CronJob between two runs
    /// - for pods that are created on demand (ACME solvers, pods of Jobs and pipelines)
    /// - in a namespace without any pods or workloads, where the policy may have been created in advance
    /// - in the first two minutes of a policy
    /// - where pods or workloads could not be read
    ///
    /// The finding is `info` for a policy that a controller manages, and where other policies of the namespace admit
    /// the same pods or allow others to connect to them: such pods are created on demand (the user servers of
    /// JupyterHub).
    "network-policy/selects-nothing": Warning,
    "the podSelector of a NetworkPolicy matches no pods and no workloads",
    needs: [NetworkPolicy],
    optional: [Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob],
    reads_custom: true,
    explained_by: [],
}

const POD_SOURCES: &[Kind] = &[
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
        if set.selects_any(namespace, policy.selector) || is_empty_namespace(cluster, &set, namespace) {
            continue;
        }
        let unread = POD_SOURCES.iter().find_map(|kind| Some((kind, withheld(cluster, *kind)?)));
        match unread.filter(|(kind, _)| !cluster.covers(**kind, namespace)) {
            Some((_, gap)) => report.not_evaluated(&object, gap.reason, gap.message.clone()),
            None => report.add(finding(cluster, &set, policy, object)),
        }
    }
}

/// Without pods and workloads, the policy was created in advance or is left over.
fn is_empty_namespace(cluster: &Cluster, set: &PolicySet, namespace: &str) -> bool {
    set.workloads_in(namespace).is_empty() && !cluster.in_namespace::<Pod>(namespace).iter().any(Pod::is_active)
}

fn is_young(cluster: &Cluster, policy: &Policy) -> bool {
    policy.object.created().is_some_and(|created| time::age(cluster.now(), created) < time::START)
}

/// Whether the selector has labels of pods that are created on demand.
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

/// Whether other policies also refer to pods with the missing labels, and no pod has similar ones.
fn is_referenced_by_others(set: &PolicySet, policy: &Policy) -> bool {
    let subjects = set.subjects_in(policy.namespace());
    let unmet: Vec<(&str, &str)> = policy
        .selector
        .equalities()
        .filter(|(key, value)| !subjects.iter().any(|s| s.end.labels.get(key) == Some(value)))
        .collect();
    let is_misspelled = unmet.iter().any(|(key, value)| {
        nearest_name(value, subjects.iter().filter_map(|subject| subject.end.labels.get(key))).is_some()
    });
    let refers_to_them = |peer: &Peer| match peer {
        Peer::Selected { namespaces: None, pods } => unmet.iter().all(|pair| pods.equalities().any(|p| p == *pair)),
        _ => false,
    };
    let others = set.in_namespace(policy.namespace()).iter().filter(|other| other.name() != policy.name());
    let mut peers = others.flat_map(|other| {
        let rules = [Direction::Ingress, Direction::Egress].into_iter();
        rules.flat_map(|d| other.rules(d).unwrap_or_default()).flat_map(|rule| &rule.peers)
    });
    !unmet.is_empty() && !is_misspelled && peers.any(refers_to_them)
}

fn finding(cluster: &Cluster, set: &PolicySet, policy: &Policy, object: ObjectRef) -> Finding {
    let (namespace, name) = (policy.namespace(), policy.name());
    let selector = policy.selector.to_string();
    let difference = match cluster.nearest_workload(namespace, policy.selector) {
        Some(nearest) => nearest.difference(),
        None => format!("no pod or workload in namespace {namespace} has {selector}"),
    };
    let message = format!("NetworkPolicy {name} selects no pods: {difference}");
    let is_managed = policy.object.controller().is_some();
    let finding = if is_managed || is_referenced_by_others(set, policy) { Finding::info } else { Finding::warning };
    finding(object.clone(), message)
        .evidence(format!("spec.podSelector is {selector}"), &object, "spec.podSelector")
        .fix_command(
            "List the pods' labels, then correct spec.podSelector",
            kubectl(["-n", namespace, "get", "pods", "--show-labels"]),
        )
        .fix_command(
            "Or delete the policy, if its workload no longer exists",
            kubectl(["-n", namespace, "delete", "networkpolicy", name]),
        )
        .rests_on_absence()
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

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
            "warning NetworkPolicy shop/cache-in: NetworkPolicy cache-in selects no pods: no pod or workload in namespace shop has app=cache",
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
            "warning NetworkPolicy shop/cache-in: NetworkPolicy cache-in selects no pods: selector app=cache, Deployment cache has app=caches",
        ]);
    }

    #[test]
    fn fires_as_info_for_pods_that_other_policies_refer_to() {
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
    fn quiet_for_all_pods_and_for_pods_on_demand() {
        check(&RULE, &[&POLICY.replace("matchLabels: {app: cache}", ""), &pod("web")]).finds_nothing();
        check(&RULE, &[&POLICY.replace("app: cache", "acme.cert-manager.io/http01-solver: \"true\""), &pod("web")])
            .finds_nothing();
    }

    #[test]
    fn quiet_with_a_note_where_workloads_are_forbidden() {
        let said = TestCluster::new(&[POLICY, &pod("web")]).forbid(Kind::Deployment).check(&RULE);
        said.finds_nothing();
        assert_eq!(said.gaps(), ["NetworkPolicy forbidden"]);
    }

    #[test]
    fn fires_as_info_for_a_policy_that_an_operator_manages() {
        let owned = POLICY.replace(
            "namespace: shop}",
            "namespace: shop, ownerReferences: [{apiVersion: x/v1, kind: Kafka, name: k, uid: u, controller: true}]}",
        );
        assert!(check(&RULE, &[&owned, &pod("web")]).text().contains("\"severity\":\"info\""));
    }
}
