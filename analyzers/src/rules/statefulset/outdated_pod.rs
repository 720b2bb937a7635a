use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::nodes::kubelet::KubeletExt;
use crate::kubernetes::workloads::readiness;
use crate::kubernetes::workloads::revision::{comparison, label};
use crate::snapshot::model::{Pod, StatefulSet};
use crate::snapshot::{Cluster, Object};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for pods of a StatefulSet that are not ready and have an older template than the StatefulSet, so that a
    /// correction or a rollback does not reach them: with `podManagementPolicy: OrderedReady` (the default) the
    /// controller waits for a broken pod to become ready before it replaces any pod, and with `updateStrategy: OnDelete`
    /// it replaces only deleted pods.
    ///
    /// ## Why it matters
    ///
    /// The template is already correct, but the pod keeps failing with the old one. Further changes of the template have
    /// no effect.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pods -L controller-revision-hash` shows the revision of each pod;
    /// `kubectl -n NAMESPACE get statefulset NAME -o jsonpath='{.status.updateRevision}'` shows the current one.
    ///
    /// ## How to fix
    ///
    /// Delete the pod: it is recreated from the current template. Its claims are kept. See
    /// <https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#forced-rollback>.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for:
    ///
    /// - pods that are ready, or that still have time to become ready;
    /// - pods below `updateStrategy.rollingUpdate.partition`, which keep the current revision intentionally;
    /// - pods on a node that is down, which cannot be replaced by deleting them;
    /// - `podManagementPolicy: Parallel`, with which the controller replaces the pod itself.
    "statefulset/outdated-pod": Error,
    "a failing pod of a StatefulSet is not replaced, although the template has changed",
    needs: [StatefulSet, Pod],
    optional: [Node, Event],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for set in cluster.all::<StatefulSet>().iter().filter(|set| set.deleted().is_none()) {
        let is_observed = set.status.observed_generation >= set.metadata.generation;
        if !set.status.update_revision.is_empty() && is_observed && why(set).is_some() {
            outdated(cluster, set).into_iter().for_each(|pod| report.add(finding(cluster, set, pod)));
        }
    }
}

/// Why the controller does not replace an outdated pod.
fn why(set: &StatefulSet) -> Option<&'static str> {
    if set.spec.update_strategy.type_ == "OnDelete" {
        return Some("updateStrategy OnDelete replaces only deleted pods");
    }
    let waits = matches!(set.spec.pod_management_policy.as_str(), "" | "OrderedReady");
    waits.then_some("with podManagementPolicy OrderedReady the controller waits for it to become ready first")
}

fn outdated<'a>(cluster: &'a Cluster, set: &StatefulSet) -> Vec<&'a Pod> {
    let Some(group) = cluster.group_of_owner(&set.reference()) else { return Vec::new() };
    let is_outdated = |pod: &&Pod| {
        let Some(revision) = label(pod) else { return false };
        revision != set.status.update_revision && !(is_kept(set, pod) && revision == set.status.current_revision)
    };
    let is_broken = |pod: &&Pod| {
        pod.is_active() && !pod.is_ready() && !cluster.is_on_down_node(pod) && readiness::is_overdue(cluster, pod)
    };
    cluster.pods_of(group).filter(is_outdated).filter(is_broken).collect()
}

/// Whether the partition keeps a pod at the current revision.
fn is_kept(set: &StatefulSet, pod: &Pod) -> bool {
    let partition = set.spec.update_strategy.rolling_update.as_ref().map_or(0, |update| update.partition);
    let ordinal = pod.name().rsplit('-').next().and_then(|ordinal| ordinal.parse::<i32>().ok());
    ordinal.is_some_and(|ordinal| ordinal < partition)
}

fn finding(cluster: &Cluster, set: &StatefulSet, pod: &Pod) -> Finding {
    let (object, name) = (set.reference(), pod.name());
    let (old, new) = (label(pod).unwrap_or_default(), set.status.update_revision.as_str());
    let message = format!(
        "StatefulSet {} does not replace pod {name}: the pod is not ready and has the old revision {old}, while the \
         template is at {new}; {}",
        set.name(),
        why(set).unwrap_or_default()
    );
    let mut finding = Finding::error(object.clone(), message)
        .key(name)
        .pods(1)
        .since(readiness::since(pod))
        .evidence(format!("controller-revision-hash is {old}"), &pod.reference(), "metadata.labels")
        .evidence(format!("updateRevision is {new}"), &object, "status.updateRevision");
    if let Some(comparison) = comparison(cluster, pod).filter(|c| !c.changes.is_empty()) {
        finding = finding.evidence(comparison.text(), &comparison.object, "");
    }
    finding.fix_command(
        format!("Delete pod {name}, so that it is recreated from the current template"),
        kubectl(["-n", set.namespace(), "delete", "pod", name]),
    )
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn set(spec: &str) -> String {
        format!(
            "
            apiVersion: apps/v1
            kind: StatefulSet
            metadata: {{name: db, namespace: shop}}
            spec: {{replicas: 3{spec}}}
            status: {{currentRevision: db-1, updateRevision: db-1}}"
        )
    }

    fn pod(revision: &str, ready: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: Pod
            metadata: {{name: db-2, namespace: shop, creationTimestamp: '2026-11-21T10:00:00Z',
              labels: {{controller-revision-hash: {revision}}}, ownerReferences: [
              {{apiVersion: apps/v1, kind: StatefulSet, name: db, controller: true}}]}}
            spec: {{nodeName: n1, containers: [{{name: db}}]}}
            status: {{phase: Running, conditions: [{{type: Ready, status: '{ready}'}}]}}"
        )
    }

    #[test]
    fn fires_for_a_pod_that_a_rollback_does_not_reach() {
        let said = check(&RULE, &[&set(""), &pod("db-2", "False")]);
        said.finds(&[
            "error StatefulSet shop/db: StatefulSet db does not replace pod db-2: the pod is not ready and has the old \
             revision db-2, while the template is at db-1; with podManagementPolicy OrderedReady the controller waits for \
             it to become ready first",
        ]);
        assert_eq!(said.finding().fix[0].command.as_deref(), Some("kubectl -n shop delete pod db-2"));
        check(
            &RULE,
            &[&set(", podManagementPolicy: Parallel, updateStrategy: {type: OnDelete}"), &pod("db-2", "False")],
        )
        .finding();
    }

    #[test]
    fn quiet_for_current_ready_and_kept_pods() {
        check(&RULE, &[&set(""), &pod("db-1", "False")]).finds_nothing();
        check(&RULE, &[&set(""), &pod("db-2", "True")]).finds_nothing();
        check(&RULE, &[&set(", podManagementPolicy: Parallel"), &pod("db-2", "False")]).finds_nothing();
        let young = pod("db-2", "False").replace("T10:00", "T11:59");
        check(&RULE, &[&set(""), &young]).finds_nothing();
        let canary = set(", updateStrategy: {rollingUpdate: {partition: 3}}")
            .replace("currentRevision: db-1", "currentRevision: db-2");
        check(&RULE, &[&canary, &pod("db-2", "False")]).finds_nothing();
    }
}
