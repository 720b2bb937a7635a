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
    /// Whether a PodDisruptionBudget allows no evictions although all of its pods are healthy: `maxUnavailable: 0`, or
    /// a `minAvailable` that equals the number of pods (100%, or a percentage that rounds up to all of them). It also
    /// checks for budgets that the controller cannot evaluate (`SyncFailed`), which allow no evictions either:
    /// `maxUnavailable` and percentages require that the owner of the pods has a scale subresource.
    ///
    /// ## Why it matters
    ///
    /// `kubectl drain`, node upgrades and cluster autoscalers evict pods. They wait for this budget forever, or time
    /// out and kill the pods.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pdb NAME` shows ALLOWED DISRUPTIONS 0 while all pods are ready.
    ///
    /// ## How to fix
    ///
    /// Run one more replica than must stay available, or allow one pod to be unavailable: `maxUnavailable: 1`. A single
    /// replica that tolerates a short outage needs no budget. For pods whose owner has no scale subresource, set
    /// `minAvailable` to a number, which works for any pods.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire
    ///
    /// - while some of the pods are unhealthy, because the budget then does its job,
    /// - for a budget that covers no pods,
    /// - for a budget that covers only pods of DaemonSets, which drains ignore.
    ///
    /// The severity is `info` for a budget that an operator created for its own resource, and for a budget that covers
    /// pods which an operator runs directly or labels as the leader, unless the controller cannot evaluate it: operators
    /// move such pods themselves.
    "pdb/blocks-drain": Warning,
    "a PodDisruptionBudget allows no evictions",
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

/// How many pods a blocking budget covers, and the controller's error, if any.
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

/// The same, computed from manifests.
fn by_manifest<'a>(cluster: &Cluster, budget: &'a PodDisruptionBudget) -> Option<(i32, Option<&'a str>)> {
    let replicas = workloads(cluster, budget).iter().map(|w| w.replicas).collect::<Option<Vec<i32>>>()?;
    let pods = replicas.into_iter().fold(0, i32::saturating_add);
    (pods > 0 && must_stay(budget, pods)? >= pods).then_some((pods, None))
}

/// The owners of the pods that it covers.
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
    error: Option<&str>,
    owners: &BTreeSet<ObjectRef>,
) -> Finding {
    let object = budget.reference();
    let names: Vec<String> = owners.iter().map(|owner| format!("{} {}", owner.kind, owner.name)).collect();
    let of = if names.is_empty() { String::new() } else { format!(" of {}", words::list(&names, 3)) };
    let terms = terms(budget);
    let scale = error.and_then(|error| Unscaled::new(cluster, budget, error));
    let message = match (error, &scale) {
        (_, Some(scale)) => scale.message(budget, &terms, owners),
        (Some(error), None) => format!(
            "PodDisruptionBudget {} allows no evictions{}: {}",
            budget.name(),
            if names.is_empty() { String::new() } else { format!(" of pods{of}") },
            words::shorten(error, 200)
        ),
        (None, None) => format!(
            "PodDisruptionBudget {} allows no evictions ({terms}, {}{of}), so node drains are blocked",
            budget.name(),
            words::count(usize::try_from(pods).unwrap_or(0), "pod"),
        ),
    };
    let moved = is_created_by_operator(budget) || (error.is_none() && guards_operated_pods(cluster, budget));
    let severity = if moved { Severity::Info } else { Severity::Warning };
    let mut finding = Finding::new(severity, object.clone(), message).evidence(
        terms.clone(),
        &object,
        if terms.starts_with("min") { "spec.minAvailable" } else { "spec.maxUnavailable" },
    );
    if let Some(status) = &budget.status {
        let text = format!(
            "healthy pods: {} of {}, required: {}, disruptions allowed: {}",
            status.current_healthy.unwrap_or(0),
            status.expected_pods.unwrap_or(0),
            status.desired_healthy.unwrap_or(0),
            status.disruptions_allowed.unwrap_or(0)
        );
        finding = finding.evidence(text, &object, "status.disruptionsAllowed");
    }
    let namespace = budget.namespace();
    if let (Some(scale), Some(error)) = (&scale, error) {
        let finding = finding.evidence(words::shorten(error, 200), &object, "status.conditions[DisruptionAllowed]");
        return scale.fix(finding, budget);
    }
    if error.is_some() {
        return finding.fix_command(
            "Check the events and conditions of the budget",
            kubectl(["-n", namespace, "describe", "pdb", budget.name()]),
        );
    }
    if let Some(owner) = owners.iter().find(|owner| owner.is(Kind::Deployment) || owner.is(Kind::StatefulSet)) {
        let (kind, replicas) = (owner.kind.to_lowercase(), format!("--replicas={}", pods.saturating_add(1)));
        if terms.starts_with("min") && !terms.ends_with('%') {
            finding = finding.fix_command(
                "Run one more replica than minAvailable requires",
                kubectl(["-n", namespace, "scale", &kind, &owner.name, &replicas]),
            );
        }
    }
    finding.fix_command(
        "Allow one pod to be unavailable",
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

/// A budget whose terms require the number of replicas that the pods' owner wants, which the controller cannot read. Only
/// `minAvailable` as a number works for such pods:
/// <https://kubernetes.io/docs/tasks/run-application/configure-pdb/#arbitrary-controllers-and-selectors>
struct Unscaled {
    /// The resource without the scale subresource: `rayclusters.ray.io`.
    resource: String,
    pods: usize,
    ready: usize,
    /// How many of the pods must stay available by its terms.
    must_stay: i32,
}

impl Unscaled {
    fn new(cluster: &Cluster, budget: &PodDisruptionBudget, error: &str) -> Option<Unscaled> {
        let resource = error.split_once(" does not implement the scale subresource").map(|(before, _)| before);
        let resource = resource.and_then(|before| before.split_whitespace().next_back())?.to_string();
        let pods = pods(cluster, budget);
        let count = i32::try_from(pods.len()).ok()?;
        let ready = pods.iter().filter(|pod| pod.is_ready()).count();
        Some(Unscaled { resource, pods: pods.len(), ready, must_stay: must_stay(budget, count)? })
    }

    fn message(&self, budget: &PodDisruptionBudget, terms: &str, owners: &BTreeSet<ObjectRef>) -> String {
        let names: Vec<String> = owners.iter().map(ObjectRef::title).collect();
        let of = if names.is_empty() { String::new() } else { format!(" of {}", words::list(&names, 3)) };
        let why = format!("requires the scale subresource, which {} does not have", self.resource);
        let name = budget.name();
        match self.pods {
            0 => format!("PodDisruptionBudget {name} allows no evictions: {terms} {why}"),
            n => format!(
                "PodDisruptionBudget {name} allows no evictions of its {}{of} ({} ready): {terms} {why}",
                words::count(n, "pod"),
                self.ready
            ),
        }
    }

    fn fix(&self, finding: Finding, budget: &PodDisruptionBudget) -> Finding {
        let text = "Set minAvailable to a number, which works for pods of any owner";
        if self.pods == 0 {
            return finding.fix(text);
        }
        let patch = format!(r#"{{"spec":{{"maxUnavailable":null,"minAvailable":{}}}}}"#, self.must_stay);
        let command = kubectl(["-n", budget.namespace(), "patch", "pdb", budget.name(), "--type=merge", "-p", &patch]);
        finding.fix_command(format!("{text}: {} of the {} pods", self.must_stay, self.pods), command)
    }
}

/// Whether an operator created the budget for a custom resource, as CloudNativePG and KubeVirt do. These operators move
/// their pods before a drain.
fn is_created_by_operator(budget: &PodDisruptionBudget) -> bool {
    budget.controller().is_some_and(|owner| is_custom(&owner))
}

/// Whether the budget covers only pods that an operator runs without a built-in workload (Longhorn), or that it marks
/// with a label no template has (`spilo-role: master`). Such a budget delays a drain until the operator has moved them.
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

/// Built-in controllers are in groups without a domain (`apps`, `batch`).
fn is_custom(owner: &ObjectRef) -> bool {
    owner.api_version.contains('.')
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Origin;
    use crate::testing::{TestCluster, check};

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
    fn fires_when_no_pod_may_be_unavailable() {
        check(&RULE, &[&budget("maxUnavailable: 0", 1, 1, 1), &pod("StatefulSet")]).finds(&[
            "warning PodDisruptionBudget shop/queue: PodDisruptionBudget queue allows no evictions (maxUnavailable: 0, \
             1 pod of StatefulSet queue), so node drains are blocked",
        ]);
    }

    #[test]
    fn fires_when_all_must_stay() {
        let said = check(&RULE, &[&budget("minAvailable: 1", 1, 1, 1), &pod("StatefulSet")]);
        assert!(said.text().contains("kubectl -n shop scale statefulset queue --replicas=2"));
        let percent = budget("minAvailable: 90%", 3, 3, 3);
        check(&RULE, &[&percent]).finds(&[
            "warning PodDisruptionBudget shop/queue: PodDisruptionBudget queue allows no evictions (minAvailable: 90%, \
             3 pods), so node drains are blocked",
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
    fn quiet_for_daemon_sets_and_info_for_operators() {
        check(&RULE, &[&budget("maxUnavailable: 0", 1, 1, 1), &pod("DaemonSet")]).finds_nothing();
        let managed = budget("minAvailable: 1", 1, 1, 1).replace(
            "uid: u",
            "uid: u, ownerReferences: [{apiVersion: postgresql.cnpg.io/v1, kind: Cluster, name: db, uid: v, controller: true}]",
        );
        assert!(check(&RULE, &[&managed]).0.findings.iter().all(|f| f.severity.to_string() == "info"));
    }

    #[test]
    fn fires_as_info_for_pods_that_an_operator_moves() {
        let budget = budget("minAvailable: 1", 1, 1, 1);
        let operated = pod("InstanceManager").replace("apps/v1", "longhorn.io/v1beta2");
        assert_eq!(check(&RULE, &[&budget, &operated]).finding().severity.to_string(), "info");
        // A leader's label is not in the pod template.
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
    fn fires_when_the_controller_fails_to_sync() {
        let budget = budget("maxUnavailable: 1", 0, 0, 0)
            + "
              conditions:
              - {type: DisruptionAllowed, status: 'False', reason: SyncFailed, message: found no controllers for pod x, \
                 lastTransitionTime: '2026-11-21T11:00:00Z'}";
        check(&RULE, &[&budget, &pod("StatefulSet")]).finds(&[
            "warning PodDisruptionBudget shop/queue: PodDisruptionBudget queue allows no evictions of pods of \
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
        TestCluster::new(&[&manifest(0), workload]).origin(Origin::Manifests).check(&RULE).finds(&[
            "warning PodDisruptionBudget shop/queue: PodDisruptionBudget queue allows no evictions (maxUnavailable: 0, \
             2 pods of Deployment queue), so node drains are blocked",
        ]);
        TestCluster::new(&[&manifest(1), workload]).origin(Origin::Manifests).check(&RULE).finds_nothing();
    }

    const UNSCALED: &str = "
        apiVersion: policy/v1
        kind: PodDisruptionBudget
        metadata: {name: workers, namespace: ml, uid: u}
        spec: {maxUnavailable: 1, selector: {matchLabels: {role: worker}}}
        status: {disruptionsAllowed: 0, expectedPods: 0, currentHealthy: 0, desiredHealthy: 0, conditions: [{
          type: DisruptionAllowed, status: 'False', reason: SyncFailed, observedGeneration: 1,
          lastTransitionTime: '2026-11-18T09:00:00Z', message: 'trainers.ml.example does not implement the scale subresource'}]}";

    fn worker(name: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: ml, uid: u, labels: {{role: worker}}, ownerReferences: [
            {{apiVersion: ml.example/v1, kind: Trainer, name: t, controller: true}}]}}, spec: {{containers: [{{name: c}}]}}, status: {{phase: Running,
            conditions: [{{type: Ready, status: 'True'}}]}}}}"
        )
    }

    #[test]
    fn fires_when_the_owner_has_no_scale_subresource() {
        let said = check(&RULE, &[UNSCALED, &worker("a"), &worker("b"), &worker("c")]);
        said.finds(&[
            "warning PodDisruptionBudget ml/workers: PodDisruptionBudget workers allows no evictions of its 3 pods of Trainer t (3 \
             ready): maxUnavailable: 1 requires the scale subresource, which trainers.ml.example does not have",
        ]);
        let command = said.finding().fix[0].command.clone().unwrap_or_default();
        assert!(command.contains("\"minAvailable\":2"), "{command}");
    }

    #[test]
    fn quiet_when_the_budget_of_such_pods_allows_an_eviction() {
        let number = UNSCALED
            .replace("maxUnavailable: 1", "minAvailable: 2")
            .replace("disruptionsAllowed: 0", "disruptionsAllowed: 1");
        check(&RULE, &[&number, &worker("a"), &worker("b"), &worker("c")]).finds_nothing();
    }
}
