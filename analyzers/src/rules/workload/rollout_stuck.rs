use std::time::Duration;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::disruption::scaled;
use crate::kubernetes::time;
use crate::kubernetes::workloads::revision::sides;
use crate::kubernetes::workloads::standby::is_standby;
use crate::snapshot::model::{
    Condition, DaemonSet, Deployment, Pod, PodSpec, ReplicaSet, StatefulSet, Timestamp, UpdateStrategy, condition,
};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for rollouts that are not progressing: a Deployment that exceeded its `progressDeadlineSeconds`
    /// (`ProgressDeadlineExceeded`), a StatefulSet whose update waits for a pod that does not become ready, and a
    /// DaemonSet with outdated pods whose update waits for a pod.
    ///
    /// ## Why it matters
    ///
    /// The new version has not rolled out, although `kubectl apply` succeeded. The old pods may still serve traffic,
    /// but later changes do not roll out either.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE rollout status deployment NAME` (or StatefulSet, DaemonSet) waits or fails.
    /// `kubectl -n NAMESPACE get replicasets` shows the new and the old ReplicaSet.
    ///
    /// ## How to fix
    ///
    /// Find out why the new pods are not ready; usually another finding reports the cause. To roll back run
    /// `kubectl -n NAMESPACE rollout undo deployment NAME`. For a StatefulSet with `OrderedReady`, also delete the
    /// broken pod after correcting the template (kubernetes.io/docs/concepts/workloads/controllers/statefulset, *Forced
    /// rollback*).
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for:
    ///
    /// - rollouts that are progressing within their deadline;
    /// - pods that are still within their startup time;
    /// - the update strategy `OnDelete`;
    /// - StatefulSets that have reached their partition;
    /// - paused Deployments;
    /// - rollouts that only standby replicas keep from completing: they wait for the lease of a ready replica.
    "workload/rollout-stuck": Error,
    "a rollout is not progressing",
    needs: [],
    optional: [Deployment, StatefulSet, DaemonSet, ReplicaSet, Pod, Job, CronJob, Lease],
    explained_by: ["pod/*", "node/*", "pvc/*", "workload/cannot-create-pods", "workload/unavailable", "statefulset/outdated-pod", "deployment/rollout-deadlock", "workload/node-name", "workload/limit-range"],
}

fn check(cluster: &Cluster, report: &mut Report) {
    report.not_read(cluster, &[Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet]);
    let deployments = cluster.all::<Deployment>().iter().filter_map(|d| of_deployment(cluster, d));
    let stateful_sets = cluster.all::<StatefulSet>().iter().filter_map(|s| of_stateful_set(cluster, s));
    let daemon_sets = cluster.all::<DaemonSet>().iter().filter_map(|d| of_daemon_set(cluster, d));
    for finding in deployments.chain(stateful_sets).chain(daemon_sets) {
        report.add(finding);
    }
}

fn of_deployment(cluster: &Cluster, deployment: &Deployment) -> Option<Finding> {
    let (spec, status) = (&deployment.spec, &deployment.status);
    let progressing = condition(&status.conditions, "Progressing").filter(|c| c.is_false())?;
    let wanted = spec.replicas.unwrap_or(1);
    let done = status.updated_replicas >= wanted && status.available_replicas >= wanted;
    let finished = done && status.replicas <= status.updated_replicas;
    if progressing.reason != "ProgressDeadlineExceeded"
        || finished
        || wanted == 0
        || spec.paused
        || deployment.deleted().is_some()
    {
        return None;
    }
    let object = deployment.reference();
    if waits_only_for_standbys(cluster, &object, wanted, status.updated_replicas, status.available_replicas) {
        return None;
    }
    let sides = sides(cluster, deployment);
    let has_previous = sides.is_none() || revisions(cluster, deployment) > 1;
    let seconds = spec.progress_deadline_seconds.unwrap_or(600);
    let message = match &sides {
        Some((new, old)) if !old.is_empty() => format!(
            "rollout of Deployment {} is not progressing: new {}, old {}",
            deployment.name(),
            of_ready(new),
            words::list(&old.iter().map(|set| old_ready(set)).collect::<Vec<_>>(), 2)
        ),
        _ => format!(
            "rollout of Deployment {} is not progressing: {} of {wanted} updated pods available, \
             progress deadline of {seconds}s exceeded",
            deployment.name(),
            status.available_replicas.min(status.updated_replicas).max(0),
        ),
    };
    let text = format!("{}: {}", progressing.reason, words::shorten(&progressing.message, 200));
    let mut finding = Finding::error(object.clone(), message)
        .evidence(text, &object, "status.conditions[Progressing]")
        .since(progressing.last_transition_time);
    if let Some((new, old)) = sides {
        for set in [new].into_iter().chain(old) {
            finding = finding.evidence(of_ready(set), &set.reference(), "status.readyReplicas");
        }
    }
    Some(if has_previous {
        with_fix(finding, &object)
    } else {
        finding.fix("Find out why the new pods are not ready; there is no previous revision")
    })
}

/// Whether all updated pods are available except standby replicas, which become ready only as the leader.
fn waits_only_for_standbys(cluster: &Cluster, object: &ObjectRef, wanted: i32, updated: i32, available: i32) -> bool {
    let Some(group) = cluster.group_of_owner(object).filter(|_| updated >= wanted && available > 0) else {
        return false;
    };
    let standbys = cluster.pods_of(group).filter(|pod| is_standby(cluster, pod)).count();
    standbys > 0 && available.saturating_add(i32::try_from(standbys).unwrap_or(0)) >= wanted
}

/// How many ReplicaSets a Deployment has.
fn revisions(cluster: &Cluster, deployment: &Deployment) -> usize {
    let object = deployment.reference();
    let sets = cluster.in_namespace::<ReplicaSet>(deployment.namespace()).iter();
    sets.filter(|set| set.controller().as_ref() == Some(&object)).count()
}

/// `ReplicaSet web-2 has 0 of 1 pod ready`.
fn of_ready(set: &ReplicaSet) -> String {
    let wanted = set.spec.replicas.unwrap_or(1);
    let noun = if wanted == 1 { "pod" } else { "pods" };
    format!("ReplicaSet {} has {} of {wanted} {noun} ready", set.name(), set.status.ready_replicas.max(0))
}

fn old_ready(set: &ReplicaSet) -> String {
    let (ready, wanted) = (set.status.ready_replicas.max(0), set.spec.replicas.unwrap_or(1));
    format!("{} has {ready} of {wanted} ready", set.name())
}

fn of_stateful_set(cluster: &Cluster, set: &StatefulSet) -> Option<Finding> {
    let (spec, status) = (&set.spec, &set.status);
    let wanted = spec.replicas.unwrap_or(1);
    let partition = partition(&spec.update_strategy);
    let to_update = wanted.saturating_sub(partition).max(0);
    let differs = !status.update_revision.is_empty() && status.update_revision != status.current_revision;
    if !differs || spec.update_strategy.type_ == "OnDelete" || set.deleted().is_some() {
        return None;
    }
    let object = set.reference();
    let (pod, since) = waits_for(cluster, &object, &spec.template.spec, spec.min_ready_seconds)?;
    let revision = pod.metadata.labels.get("controller-revision-hash");
    let is_updated = revision == Some(status.update_revision.as_str());
    // The last pod counts as updated as soon as it is created. With a partition the revisions always differ.
    let waits_for_the_last = partition == 0 && is_updated;
    if status.updated_replicas >= to_update && !waits_for_the_last {
        return None;
    }
    let ordinal = pod.name().rsplit('-').next().unwrap_or_default();
    let which = if is_updated { "the updated" } else { "the outdated" };
    let message = format!(
        "rollout of StatefulSet {} is not progressing at ordinal {ordinal}: {} of {to_update} pods updated, {which} \
         pod is not ready",
        set.name(),
        status.updated_replicas.max(0).min(to_update)
    );
    let finding = Finding::error(object.clone(), message)
        .since(Some(since))
        .evidence(
            format!("currentRevision {}, updateRevision {}", status.current_revision, status.update_revision),
            &object,
            "status.updateRevision",
        )
        .evidence(not_ready(pod), &pod.reference(), "status.conditions[Ready]");
    // The template that the pod waits for is not the one that fails.
    if !is_updated && spec.pod_management_policy != "Parallel" {
        let delete = kubectl(["-n", set.namespace(), "delete", "pod", pod.name()]);
        let text = format!("Delete pod {}, so that it is recreated from the current template", pod.name());
        return Some(finding.fix_command(text, delete));
    }
    Some(with_fix(finding, &object))
}

fn of_daemon_set(cluster: &Cluster, set: &DaemonSet) -> Option<Finding> {
    let (spec, status) = (&set.spec, &set.status);
    let (desired, updated) = (status.desired_number_scheduled, status.updated_number_scheduled);
    if spec.update_strategy.type_ == "OnDelete" || updated >= desired || desired == 0 || set.deleted().is_some() {
        return None;
    }
    let tolerated = spec.update_strategy.rolling_update.as_ref().and_then(|update| update.max_unavailable.as_ref());
    let tolerated = tolerated.and_then(|value| scaled(value, desired)).unwrap_or(1);
    // With `maxSurge` the old pods are deleted only after the new ones are available: maxUnavailable is 0.
    if desired.saturating_sub(status.number_available) < tolerated {
        return None;
    }
    let object = set.reference();
    let (pod, since) = waits_for(cluster, &object, &spec.template.spec, spec.min_ready_seconds)?;
    let message = format!(
        "rollout of DaemonSet {} is not progressing: {updated} of {desired} pods updated, waiting for unready pods \
         ({} of {desired} available)",
        set.name(),
        status.number_available.max(0)
    );
    let finding = Finding::error(object.clone(), message)
        .since(Some(since))
        .evidence(
            format!("{updated} of {desired} pods have the current template"),
            &object,
            "status.updatedNumberScheduled",
        )
        .evidence(not_ready(pod), &pod.reference(), "status.conditions[Ready]")
        .because(ObjectRef::new(Kind::Node, "", &pod.spec.node_name));
    Some(with_fix(finding, &object))
}

fn partition(strategy: &UpdateStrategy) -> i32 {
    strategy.rolling_update.as_ref().map_or(0, |update| update.partition.max(0))
}

/// The pod that has been unready for the longest time, if that exceeds its startup time.
fn waits_for<'a>(
    cluster: &'a Cluster,
    object: &ObjectRef,
    template: &PodSpec,
    min_ready_seconds: i32,
) -> Option<(&'a Pod, Timestamp)> {
    let group = cluster.group_of_owner(object)?;
    let allowed = time::to_start(template) + Duration::from_secs(u64::try_from(min_ready_seconds).unwrap_or(0));
    let not_ready = cluster.pods_of(group).filter(|pod| pod.is_active() && !pod.is_ready()).filter_map(|pod| {
        let ready = pod.condition("Ready").and_then(|c| c.last_transition_time);
        Some((pod, ready.max(pod.created())?))
    });
    not_ready.filter(|(_, since)| time::age(cluster.now(), *since) >= allowed).min_by_key(|(_, since)| *since)
}

fn not_ready(pod: &Pod) -> String {
    let from_condition =
        |c: &Condition| format!("not ready: {} {}", c.reason, words::shorten(&c.message, 200)).trim_end().to_string();
    pod.condition("Ready").map_or_else(|| format!("not ready, phase {}", pod.status.phase), from_condition)
}

fn with_fix(finding: Finding, object: &ObjectRef) -> Finding {
    let (namespace, kind) = (object.namespace(), object.kind.to_lowercase());
    let undo = kubectl(["-n", namespace, "rollout", "undo", &kind, &object.name]);
    finding
        .fix("Find out why the new pods are not ready and correct the pod template")
        .fix_command("Or roll back to the previous revision", undo)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn deployment(reason: &str, available: i32) -> String {
        format!(
            "
            apiVersion: apps/v1
            kind: Deployment
            metadata: {{name: web, namespace: shop}}
            spec: {{replicas: 2, progressDeadlineSeconds: 30}}
            status:
              replicas: 2
              updatedReplicas: 2
              availableReplicas: {available}
              conditions:
              - {{type: Progressing, status: 'False', reason: {reason}, lastTransitionTime: '2026-11-21T11:00:00Z'}}"
        )
    }

    fn replica_set(name: &str, revision: u32, wanted: i32, ready: i32) -> String {
        format!(
            "
            apiVersion: apps/v1
            kind: ReplicaSet
            metadata:
              name: {name}
              namespace: shop
              annotations: {{deployment.kubernetes.io/revision: '{revision}'}}
              ownerReferences: [{{apiVersion: apps/v1, kind: Deployment, name: web, controller: true}}]
            spec: {{replicas: {wanted}}}
            status: {{replicas: {wanted}, readyReplicas: {ready}}}"
        )
    }

    #[test]
    fn fires_with_the_new_and_the_old_replica_set() {
        check(
            &RULE,
            &[
                &deployment("ProgressDeadlineExceeded", 0),
                &replica_set("web-b", 9, 2, 2),
                &replica_set("web-a", 10, 1, 0),
            ],
        )
        .finds(&[
            "error Deployment shop/web: rollout of Deployment web is not progressing: new ReplicaSet web-a has 0 of 1 \
                 pod ready, old web-b has 2 of 2 ready",
        ]);
    }

    #[test]
    fn fires_for_a_first_rollout() {
        check(&RULE, &[&deployment("ProgressDeadlineExceeded", 1)]).finds(&[
            "error Deployment shop/web: rollout of Deployment web is not progressing: 1 of 2 updated pods available, \
             progress deadline of 30s exceeded",
        ]);
    }

    #[test]
    fn quiet_when_the_rollout_finished() {
        check(&RULE, &[&deployment("ProgressDeadlineExceeded", 2)]).finds_nothing();
        check(&RULE, &[&deployment("ReplicaSetUpdated", 0)]).finds_nothing();
    }

    fn stateful_set(strategy: &str) -> String {
        format!(
            "
            apiVersion: apps/v1
            kind: StatefulSet
            metadata: {{name: db, namespace: shop}}
            spec: {{replicas: 3, updateStrategy: {{{strategy}}}}}
            status: {{replicas: 3, updatedReplicas: 1, currentRevision: db-1, updateRevision: db-2}}"
        )
    }

    fn pod(kind: &str, name: &str, created: &str) -> String {
        let owner = name.split('-').next().unwrap();
        format!(
            "
            apiVersion: v1
            kind: Pod
            metadata:
              name: {name}
              namespace: shop
              creationTimestamp: '{created}'
              labels: {{controller-revision-hash: db-2}}
              ownerReferences: [{{apiVersion: apps/v1, kind: {kind}, name: {owner}, controller: true}}]
            status: {{phase: Running, conditions: [{{type: Ready, status: 'False', reason: ContainersNotReady}}]}}"
        )
    }

    #[test]
    fn fires_at_the_ordinal_of_a_stateful_set() {
        check(&RULE, &[&stateful_set("type: RollingUpdate"), &pod("StatefulSet", "db-2", "2026-11-21T11:00:00Z")])
            .finds(&[
                "error StatefulSet shop/db: rollout of StatefulSet db is not progressing at ordinal 2: 1 of 3 pods \
             updated, the updated pod is not ready",
            ]);
    }

    #[test]
    fn quiet_for_a_young_pod_and_for_on_delete() {
        let young = pod("StatefulSet", "db-2", "2026-11-21T11:59:00Z");
        check(&RULE, &[&stateful_set("type: RollingUpdate"), &young]).finds_nothing();
        let old = pod("StatefulSet", "db-2", "2026-11-21T11:00:00Z");
        check(&RULE, &[&stateful_set("type: OnDelete"), &old]).finds_nothing();
    }

    #[test]
    fn quiet_when_the_partition_is_reached() {
        let ready = pod("StatefulSet", "db-2", "2026-11-21T11:00:00Z").replace("'False'", "'True'");
        check(&RULE, &[&stateful_set("type: RollingUpdate, rollingUpdate: {partition: 2}"), &ready]).finds_nothing();
        let broken = pod("StatefulSet", "db-2", "2026-11-21T11:00:00Z");
        check(&RULE, &[&stateful_set("type: RollingUpdate, rollingUpdate: {partition: 2}"), &broken]).finds_nothing();
    }

    #[test]
    fn fires_for_a_waiting_daemon_set() {
        let set = |updated: i32| {
            format!(
                "
                apiVersion: apps/v1
                kind: DaemonSet
                metadata: {{name: agent, namespace: shop}}
                status: {{desiredNumberScheduled: 3, updatedNumberScheduled: {updated}, numberAvailable: 2}}"
            )
        };
        let pod = pod("DaemonSet", "agent-x", "2026-11-21T11:00:00Z");
        check(&RULE, &[&set(1), &pod]).finds(&[
            "error DaemonSet shop/agent: rollout of DaemonSet agent is not progressing: 1 of 3 pods updated, waiting \
             for unready pods (2 of 3 available)",
        ]);
        check(&RULE, &[&set(3), &pod]).finds_nothing();
        let strategy = "spec: {updateStrategy: {rollingUpdate: {maxUnavailable: 2}}}";
        let tolerant = set(1).replace("metadata:", &format!("{strategy}\n                metadata:"));
        check(&RULE, &[&tolerant, &pod]).finds_nothing();
    }
}
