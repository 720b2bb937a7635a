use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::disruption::{must_stay, pods, selector, terms, workloads};
use crate::snapshot::model::{Pod, PodDisruptionBudget};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Whether a PodDisruptionBudget never allows an eviction, although all of its pods are healthy: `maxUnavailable: 0`,
    /// `minAvailable` as large as the number of pods (or 100 %, or a percentage that is rounded up to all of them). Also
    /// budgets that the controller cannot reckon (`SyncFailed`), which allow none either.
    ///
    /// ## Why it matters
    ///
    /// `kubectl drain`, node upgrades and cluster autoscalers evict pods. They wait for this budget for ever, or until
    /// they lose patience and kill the pods.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pdb NAME` shows ALLOWED DISRUPTIONS 0 while all pods are ready.
    ///
    /// ## How to fix
    ///
    /// Run one replica more than must stay available, or allow one to be missing: `maxUnavailable: 1`. For something that
    /// stands a short outage, a single replica needs no budget.
    ///
    /// ## Exceptions
    ///
    /// While some of the pods are not healthy (then the budget does what it is for), when it covers no pod, when all of
    /// its pods belong to DaemonSets, which drains leave alone. A budget that an operator made for its own resource, or
    /// for pods that it runs itself or labels as the leader, is only `info`: operators move such pods themselves.
    "pdb/blocks-drain": Warning,
    "a PodDisruptionBudget never allows an eviction",
    needs: [PodDisruptionBudget],
    optional: [Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob],
    explained_by: ["pdb/overlap"],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for budget in cluster.all::<PodDisruptionBudget>().iter().filter(|budget| budget.deleted().is_none()) {
        let found = if budget.is_live() { by_status(budget) } else { by_manifest(cluster, budget) };
        let Some((pods, why)) = found else { continue };
        let owners = owners(cluster, budget);
        if !owners.is_empty() && owners.iter().all(|owner| owner.is(Kind::DaemonSet)) {
            continue;
        }
        report.add(finding(cluster, budget, pods, why, &owners));
    }
}

/// How many pods it holds, and the controller's complaint, if it has one.
fn by_status(budget: &PodDisruptionBudget) -> Option<(i32, Option<&str>)> {
    let status = budget.status.as_ref()?;
    let is_current = status.observed_generation.unwrap_or(0) >= budget.metadata.generation.unwrap_or(0);
    if !is_current || status.disruptions_allowed.unwrap_or(0) > 0 {
        return None;
    }
    let allowed = status.conditions.iter().flatten().find(|c| c.type_ == "DisruptionAllowed");
    if let Some(failed) = allowed.filter(|c| c.reason == "SyncFailed") {
        return Some((status.expected_pods.unwrap_or(0), Some(&failed.message)));
    }
    let (expected, healthy) = (status.expected_pods?, status.current_healthy?);
    (expected > 0 && healthy >= expected && status.desired_healthy? >= expected).then_some((expected, None))
}

/// The same reckoned from what is not applied yet.
fn by_manifest<'a>(cluster: &Cluster, budget: &'a PodDisruptionBudget) -> Option<(i32, Option<&'a str>)> {
    let replicas = workloads(cluster, budget).iter().map(|w| w.replicas).collect::<Option<Vec<i32>>>()?;
    let pods = replicas.into_iter().fold(0, i32::saturating_add);
    (pods > 0 && must_stay(budget, pods)? >= pods).then_some((pods, None))
}

/// Whose pods it covers.
fn owners(cluster: &Cluster, budget: &PodDisruptionBudget) -> BTreeSet<ObjectRef> {
    let owners: BTreeSet<Cow<ObjectRef>> = pods(cluster, budget).into_iter().map(|pod| cluster.owner_of(pod)).collect();
    if owners.is_empty() {
        workloads(cluster, budget).into_iter().map(|w| w.object).collect()
    } else {
        owners.into_iter().map(Cow::into_owned).collect()
    }
}

fn finding(
    cluster: &Cluster,
    budget: &PodDisruptionBudget,
    pods: i32,
    complaint: Option<&str>,
    owners: &BTreeSet<ObjectRef>,
) -> Finding {
    let object = budget.reference();
    let names: Vec<String> = owners.iter().map(|owner| format!("{} {}", owner.kind, owner.name)).collect();
    let of = if names.is_empty() { String::new() } else { format!(" of {}", words::list(&names, 3)) };
    let terms = terms(budget);
    let message = match complaint {
        Some(complaint) => format!(
            "PodDisruptionBudget {} allows no eviction{}: {}",
            budget.name(),
            if names.is_empty() { String::new() } else { format!(" of the pods{of}") },
            words::shorten(complaint, 200)
        ),
        None => format!(
            "PodDisruptionBudget {} never allows an eviction: {terms} with {}{of}, so a drain hangs",
            budget.name(),
            words::count(usize::try_from(pods).unwrap_or(0), "pod"),
        ),
    };
    let moved = made_by_operator(budget) || guards_operated_pods(cluster, budget);
    let severity = if moved { Severity::Info } else { Severity::Warning };
    let mut finding = Finding::new(severity, object.clone(), message).evidence(
        terms.clone(),
        &object,
        if terms.starts_with("min") { "spec.minAvailable" } else { "spec.maxUnavailable" },
    );
    if let Some(status) = &budget.status {
        let text = format!(
            "{} of {} pods healthy, {} must stay, {} may be evicted",
            status.current_healthy.unwrap_or(0),
            status.expected_pods.unwrap_or(0),
            status.desired_healthy.unwrap_or(0),
            status.disruptions_allowed.unwrap_or(0)
        );
        finding = finding.evidence(text, &object, "status.disruptionsAllowed");
    }
    let namespace = budget.namespace();
    if complaint.is_some() {
        return finding.fix_command(
            "See what the controller complains about",
            kubectl(["-n", namespace, "describe", "pdb", budget.name()]),
        );
    }
    if let Some(owner) = owners.iter().find(|owner| owner.is(Kind::Deployment) || owner.is(Kind::StatefulSet)) {
        let (kind, replicas) = (owner.kind.to_lowercase(), format!("--replicas={}", pods.saturating_add(1)));
        if terms.starts_with("min") && !terms.ends_with('%') {
            finding = finding.fix_command(
                "Run one replica more than must stay",
                kubectl(["-n", namespace, "scale", &kind, &owner.name, &replicas]),
            );
        }
    }
    finding.fix_command(
        "Let one pod be missing",
        kubectl([
            "-n",
            namespace,
            "patch",
            "pdb",
            budget.name(),
            "--type=merge",
            "-p",
            r#"{"spec":{"minAvailable":null,"maxUnavailable":1}}"#,
        ]),
    )
}

/// Made for a custom resource, as by CloudNativePG or KubeVirt, whose operators move pods before a drain.
fn made_by_operator(budget: &PodDisruptionBudget) -> bool {
    budget.controller().is_some_and(|owner| is_custom(&owner))
}

/// Covers nothing but pods that an operator runs without a workload of Kubernetes (Longhorn), or tells from their like
/// by a label that no template has (`spilo-role: master`). Such a budget holds a drain until the operator moved them.
fn guards_operated_pods(cluster: &Cluster, budget: &PodDisruptionBudget) -> bool {
    let pods = pods(cluster, budget);
    let is_led = |pod: &Pod| {
        let workloads = cluster.workloads_in(budget.namespace());
        let owner = cluster.owner_of(pod);
        let labels = workloads.iter().find(|w| w.object == *owner).map(|w| &w.template.metadata.labels);
        labels.is_some_and(|labels| selector(budget).is_some_and(|selector| !selector.matches(labels)))
    };
    let is_operated = |pod: &Pod| pod.controller().is_some_and(|owner| is_custom(&owner)) || is_led(pod);
    !pods.is_empty() && pods.into_iter().all(is_operated)
}

/// Kubernetes' own controllers are in groups without a domain (`apps`, `batch`).
fn is_custom(owner: &ObjectRef) -> bool {
    owner.api_version.contains('.')
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Origin;
    use crate::testing::{World, check};

    fn budget(terms: &str, healthy: i32, desired: i32, expected: i32) -> String {
        format!(
            "
            apiVersion: policy/v1
            kind: PodDisruptionBudget
            metadata: {{name: queue, namespace: shop, uid: u}}
            spec: {{{terms}, selector: {{matchLabels: {{app: queue}}}}}}
            status:
              currentHealthy: {healthy}
              desiredHealthy: {desired}
              expectedPods: {expected}
              disruptionsAllowed: {}",
            (healthy - desired).max(0)
        )
    }

    fn pod(kind: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: Pod
            metadata:
              name: queue-0
              namespace: shop
              labels: {{app: queue}}
              ownerReferences: [{{apiVersion: apps/v1, kind: {kind}, name: queue, controller: true}}]"
        )
    }

    #[test]
    fn fires_when_no_pod_may_be_missing() {
        check(&RULE, &[&budget("maxUnavailable: 0", 1, 1, 1), &pod("StatefulSet")]).finds(&[
            "warning PodDisruptionBudget shop/queue: PodDisruptionBudget queue never allows an eviction: maxUnavailable 0 \
             with 1 pod of StatefulSet queue, so a drain hangs",
        ]);
    }

    #[test]
    fn fires_when_all_must_stay() {
        let said = check(&RULE, &[&budget("minAvailable: 1", 1, 1, 1), &pod("StatefulSet")]);
        assert!(said.text().contains("kubectl -n shop scale statefulset queue --replicas=2"));
        let percent = budget("minAvailable: 90%", 3, 3, 3);
        check(&RULE, &[&percent]).finds(&[
            "warning PodDisruptionBudget shop/queue: PodDisruptionBudget queue never allows an eviction: minAvailable 90% \
             with 3 pods, so a drain hangs",
        ]);
    }

    #[test]
    fn quiet_when_one_may_go_or_one_is_unhealthy() {
        check(&RULE, &[&budget("minAvailable: 1", 2, 1, 2)]).finds_nothing();
        check(&RULE, &[&budget("minAvailable: 2", 2, 2, 3)]).finds_nothing();
        check(&RULE, &[&budget("maxUnavailable: 0", 0, 1, 1)]).finds_nothing();
        check(&RULE, &[&budget("maxUnavailable: 0", 0, 0, 0)]).finds_nothing();
    }

    #[test]
    fn quiet_for_daemon_sets_and_milder_for_operators() {
        check(&RULE, &[&budget("maxUnavailable: 0", 1, 1, 1), &pod("DaemonSet")]).finds_nothing();
        let managed = budget("minAvailable: 1", 1, 1, 1).replace(
            "uid: u",
            "uid: u, ownerReferences: [{apiVersion: postgresql.cnpg.io/v1, kind: Cluster, name: db, uid: v, controller: true}]",
        );
        assert!(check(&RULE, &[&managed]).0.findings.iter().all(|f| f.severity.to_string() == "info"));
    }

    #[test]
    fn fires_mildly_for_pods_that_an_operator_moves() {
        let budget = budget("minAvailable: 1", 1, 1, 1);
        let operated = pod("InstanceManager").replace("apps/v1", "longhorn.io/v1beta2");
        assert_eq!(check(&RULE, &[&budget, &operated]).finding().severity.to_string(), "info");
        // A leader's label is not in the template that all pods are made from.
        let workload = |labels: &str| {
            format!(
                "
                apiVersion: apps/v1
                kind: StatefulSet
                metadata: {{name: queue, namespace: shop, uid: s}}
                spec: {{replicas: 2, template: {{metadata: {{labels: {labels}}}}}}}"
            )
        };
        let said = |labels: &str| {
            let leader = pod("StatefulSet").replace("{app: queue}", "{app: queue, role: master}");
            let budget = budget.replace("{app: queue}", "{app: queue, role: master}");
            check(&RULE, &[&budget, &leader, &workload(labels)]).finding().severity.to_string()
        };
        assert_eq!(said("{app: queue}"), "info");
        assert_eq!(said("{app: queue, role: master}"), "warning");
    }

    #[test]
    fn fires_when_the_controller_cannot_reckon() {
        let budget = budget("maxUnavailable: 1", 0, 0, 0)
            + "
              conditions:
              - {type: DisruptionAllowed, status: 'False', reason: SyncFailed, message: found no controllers for pod x, \
                 lastTransitionTime: '2026-11-21T11:00:00Z'}";
        check(&RULE, &[&budget, &pod("StatefulSet")]).finds(&[
            "warning PodDisruptionBudget shop/queue: PodDisruptionBudget queue allows no eviction of the pods of \
             StatefulSet queue: found no controllers for pod x",
        ]);
    }

    #[test]
    fn fires_and_quiet_for_manifests() {
        let manifest = |max: i32| {
            format!(
                "
                apiVersion: policy/v1
                kind: PodDisruptionBudget
                metadata: {{name: queue, namespace: shop}}
                spec: {{maxUnavailable: {max}, selector: {{matchLabels: {{app: queue}}}}}}"
            )
        };
        let workload = "
            apiVersion: apps/v1
            kind: Deployment
            metadata: {name: queue, namespace: shop}
            spec: {replicas: 2, template: {metadata: {labels: {app: queue}}}}";
        World::new(&[&manifest(0), workload]).origin(Origin::Manifests).check(&RULE).finds(&[
            "warning PodDisruptionBudget shop/queue: PodDisruptionBudget queue never allows an eviction: maxUnavailable 0 \
             with 2 pods of Deployment queue, so a drain hangs",
        ]);
        World::new(&[&manifest(1), workload]).origin(Origin::Manifests).check(&RULE).finds_nothing();
    }
}
