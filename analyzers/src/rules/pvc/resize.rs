use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::storage::{requested, users};
use crate::kubernetes::time::{PROVISION, RECENT, age};
use crate::snapshot::model::{Event, PersistentVolumeClaim, Pod, Timestamp};
use crate::snapshot::{Amount, Cluster, Object};
use crate::text::kubectl;
use crate::text::words::shorten;

declare_rule! {
    /// ## What it checks
    ///
    /// That a claim that requests more space gets it: no resize error in its conditions, no infeasible resize in
    /// `status.allocatedResourceStatuses`, no `VolumeResizeFailed` or `FileSystemResizeFailed` event in the last hour,
    /// and no pending file system resize while a pod uses the claim.
    ///
    /// ## Why it matters
    ///
    /// The volume keeps its old size and fills up earlier than expected.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe pvc NAME` shows requested size, capacity, conditions and events.
    ///
    /// ## How to fix
    ///
    /// Resolve the driver's error. An infeasible size can be lowered again, down to the current capacity (KEP-1790).
    /// Where the file system is expanded only at mount, restart the pod.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire
    ///
    /// - when the capacity equals the requested size,
    /// - while a resize is in progress without an error,
    /// - for `FileSystemResizePending` without a pod: the file system is expanded when a pod mounts it.
    "pvc/resize": Error,
    "a PersistentVolumeClaim cannot be resized",
    needs: [PersistentVolumeClaim],
    optional: [Pod, Event],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for claim in cluster.all::<PersistentVolumeClaim>() {
        let (Some(asked), Some(has)) = (requested(claim), capacity(claim)) else { continue };
        if claim.deleted().is_some() || asked <= has {
            continue;
        }
        let sizes = format!("from {} to {}", has.text("storage"), asked.text("storage"));
        if let Some((why, path, since)) = failure(cluster, claim) {
            let message = format!("PersistentVolumeClaim {} cannot be resized {sizes}: {why}", claim.name());
            report.add(describe(Finding::error(claim.reference(), message), claim, &why, path, since));
        } else if let Some(since) = waits_for_restart(cluster, claim) {
            let why = "the file system is expanded when its pod restarts";
            let message = format!("PersistentVolumeClaim {} has not been resized {sizes} yet: {why}", claim.name());
            let finding = Finding::warning(claim.reference(), message);
            report.add(describe(finding, claim, "FileSystemResizePending is True", "status.conditions", Some(since)));
        }
    }
}

fn describe(
    finding: Finding,
    claim: &PersistentVolumeClaim,
    why: &str,
    path: &str,
    since: Option<Timestamp>,
) -> Finding {
    let command = kubectl(["-n", claim.namespace(), "describe", "persistentvolumeclaim", claim.name()]);
    finding
        .since(since)
        .evidence(why, &claim.reference(), path)
        .fix_command("Resolve the error, or request a size that the driver supports", command)
}

fn capacity(claim: &PersistentVolumeClaim) -> Option<Amount> {
    claim.status.as_ref()?.capacity.as_ref()?.get("storage").and_then(Amount::of)
}

/// The error, the field that reports it, and since when.
fn failure(cluster: &Cluster, claim: &PersistentVolumeClaim) -> Option<(String, &'static str, Option<Timestamp>)> {
    let status = claim.status.as_ref()?;
    let errors = status.conditions.iter().flatten();
    let mut errors = errors.filter(|c| c.status == "True" && c.type_.ends_with("ResizeError"));
    if let Some(error) = errors.next() {
        let text = error.message.as_deref().or(error.reason.as_deref()).unwrap_or(&error.type_);
        let since = error.last_transition_time.as_ref().map(|time| time.0);
        return Some((shorten(core(text), 200), "status.conditions", since));
    }
    let event = resize_event(cluster, claim);
    let error = event.map(|event| shorten(core(&event.message), 200));
    let infeasible = status.allocated_resource_statuses.iter().flatten().find(|(resource, state)| {
        *resource == "storage" && (state.ends_with("Infeasible") || state.ends_with("Failed"))
    });
    if let Some((_, state)) = infeasible {
        return Some((error.unwrap_or_else(|| state.clone()), "status.allocatedResourceStatuses", None));
    }
    error.map(|error| (error, "", event.and_then(|event| event.first_timestamp)))
}

fn resize_event<'a>(cluster: &'a Cluster, claim: &PersistentVolumeClaim) -> Option<&'a Event> {
    let events = cluster.events(&claim.reference());
    events.into_iter().find(|event| {
        matches!(event.reason.as_str(), "VolumeResizeFailed" | "FileSystemResizeFailed")
            && event.last_seen().is_some_and(|seen| age(cluster.now(), seen) < RECENT)
    })
}

fn core(message: &str) -> &str {
    message.split_once("desc = ").map_or(message, |(_, desc)| desc)
}

/// Since when a file system resize has been pending although a running pod uses the claim.
fn waits_for_restart(cluster: &Cluster, claim: &PersistentVolumeClaim) -> Option<Timestamp> {
    let conditions = claim.status.as_ref()?.conditions.iter().flatten();
    let pending = conditions.into_iter().find(|c| c.type_ == "FileSystemResizePending" && c.status == "True")?;
    let since = pending.last_transition_time.as_ref()?.0;
    let runs = |pod: &&Pod| pod.status.phase == "Running" && !pod.is_terminating();
    let is_used = users(cluster, claim).iter().any(runs);
    (is_used && age(cluster.now(), since) > PROVISION).then_some(since)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn claim(status: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: PersistentVolumeClaim
            metadata: {{name: data, namespace: shop}}
            spec: {{resources: {{requests: {{storage: 10Gi}}}}}}
            status: {{phase: Bound, capacity: {{storage: 5Gi}}, {status}}}"
        )
    }

    const EVENT: &str = "
        apiVersion: v1
        kind: Event
        metadata: {name: e, namespace: shop}
        reason: VolumeResizeFailed
        message: 'resize volume \"pv-7\" failed: rpc error: code = Internal desc = quota of the pool is used up'
        lastTimestamp: '2026-11-21T11:50:00Z'
        involvedObject: {kind: PersistentVolumeClaim, namespace: shop, name: data}";
    const POD: &str = "
        apiVersion: v1
        kind: Pod
        metadata: {name: db, namespace: shop}
        spec: {volumes: [{name: d, persistentVolumeClaim: {claimName: data}}]}
        status: {phase: Running}";
    const PENDING: &str =
        "conditions: [{type: FileSystemResizePending, status: 'True', lastTransitionTime: '2026-11-21T11:00:00Z'}]";
    const EXPECTED: &str = "error PersistentVolumeClaim shop/data: PersistentVolumeClaim data cannot be resized from 5Gi \
        to 10Gi: quota of the pool is used up";

    #[test]
    fn fires_when_the_driver_fails() {
        check(&RULE, &[&claim(""), EVENT]).finds(&[EXPECTED]);
        check(&RULE, &[&claim("allocatedResourceStatuses: {storage: ControllerResizeInfeasible}"), EVENT])
            .finds(&[EXPECTED]);
        check(
            &RULE,
            &[&claim(
                "conditions: [{type: ControllerResizeError, status: 'True', message: quota of the pool is used up}]",
            )],
        )
        .finds(&[EXPECTED]);
    }

    #[test]
    fn quiet_when_resized_or_in_progress() {
        check(&RULE, &[&claim("").replace("5Gi", "10Gi"), EVENT]).finds_nothing();
        check(&RULE, &[&claim("conditions: [{type: Resizing, status: 'True'}]")]).finds_nothing();
    }

    #[test]
    fn quiet_while_no_pod_mounts_it() {
        check(&RULE, &[&claim(PENDING)]).finds_nothing();
    }

    #[test]
    fn fires_as_a_warning_when_a_restart_is_needed() {
        check(&RULE, &[&claim(PENDING), POD])
            .finds(&["warning PersistentVolumeClaim shop/data: PersistentVolumeClaim data \
            has not been resized from 5Gi to 10Gi yet: the file system is expanded when its pod restarts"]);
    }
}
