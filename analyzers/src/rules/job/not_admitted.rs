use serde_json::Value;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::time::{PROVISION, age};
use crate::rules::clusterqueue::inactive::{GROUP, cluster_queue, inactive};
use crate::snapshot::model::{CustomResource, Job, condition};
use crate::snapshot::{Cluster, Object};
use crate::text::kubectl;
use crate::text::words::shorten;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for suspended Jobs of Kueue (label `kueue.x-k8s.io/queue-name`) that cannot be admitted: their Workload is
    /// `Inadmissible`, or their LocalQueue is inactive.
    ///
    /// ## Why it matters
    ///
    /// The Job has no pods and no warning events; it waits until an administrator corrects the queue.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get workloads` and `kubectl -n NAMESPACE describe workload NAME` show why it is not
    /// admitted.
    ///
    /// ## How to fix
    ///
    /// Correct the queue. Do not change `spec.suspend`: Kueue manages it and suspends the Job again.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for Jobs that wait for free quota, for queues that are stopped, or in the first five
    /// minutes.
    "job/not-admitted": Error,
    "a Job stays suspended because Kueue cannot admit it",
    needs: [Job],
    optional: [],
    reads_custom: true,
    explained_by: ["clusterqueue/inactive"],
}

const QUEUE_LABEL: &str = "kueue.x-k8s.io/queue-name";

fn check(cluster: &Cluster, report: &mut Report) {
    for job in cluster.all::<Job>().iter().filter(|job| job.spec.suspend && job.deleted().is_none() && !job.is_over()) {
        let Some(queue) = job.metadata.labels.get(QUEUE_LABEL) else { continue };
        if let Some(finding) = finding(cluster, job, queue) {
            report.add(finding);
        }
    }
}

fn finding(cluster: &Cluster, job: &Job, name: &str) -> Option<Finding> {
    let since = job.created();
    if since.is_some_and(|since| age(cluster.now(), since) < PROVISION) {
        return None;
    }
    let of_kueue = |kind: &'static str| {
        let all = cluster.custom().iter().filter(move |c| c.kind == kind && c.group() == GROUP);
        all.filter(|c| c.metadata.namespace == job.metadata.namespace)
    };
    let queue = of_kueue("LocalQueue").find(|queue| queue.metadata.name == name);
    let above = queue.and_then(|queue| cluster_queue(cluster, queue));
    let is_own = |c: &&CustomResource| c.metadata.controller().is_some_and(|o| o.kind == "Job" && o.name == job.name());
    let workload = of_kueue("Workload").find(is_own);
    let refused = workload.and_then(|workload| {
        let conditions = workload.conditions();
        condition(&conditions, "QuotaReserved").filter(|c| c.is_false() && c.reason == "Inadmissible").cloned()
    });
    let broken = |queue: &&CustomResource| inactive(cluster, queue).is_some();
    let is_stopped = [queue, above].into_iter().flatten().any(is_stopped);
    if is_stopped || (refused.is_none() && queue.filter(broken).is_none() && above.filter(broken).is_none()) {
        return None;
    }
    let object = job.reference();
    let why = match (&refused, above.filter(broken)) {
        (_, Some(above)) => format!("ClusterQueue {} of its queue {name} is inactive", above.metadata.name),
        (Some(refused), None) => shorten(&refused.message, 200),
        (None, None) => format!("LocalQueue {name} is inactive"),
    };
    let message = format!("Job {} stays suspended, Kueue does not admit it: {why}", job.name());
    let mut finding = Finding::error(object.clone(), message)
        .since(since)
        .evidence(format!("label {QUEUE_LABEL} is {name}"), &object, "metadata.labels")
        .evidence("spec.suspend is true", &object, "spec.suspend");
    if let (Some(workload), Some(refused)) = (workload, &refused) {
        let text = format!("QuotaReserved is False ({}): {}", refused.reason, shorten(&refused.message, 300));
        finding = finding.evidence(text, &workload.reference(), "status.conditions[QuotaReserved]");
    }
    for cause in [queue, above].into_iter().flatten() {
        finding = finding.because(cause.reference());
    }
    let fix = "Correct the queue: Kueue starts the Job as soon as it is admitted";
    Some(finding.fix_command(fix, kubectl(["-n", job.namespace(), "get", "localqueues,workloads"])))
}

fn is_stopped(queue: &CustomResource) -> bool {
    let by_spec = queue.spec.get("stopPolicy").and_then(Value::as_str).is_some_and(|policy| policy != "None");
    by_spec || condition(&queue.conditions(), "Active").is_some_and(|c| c.is_false() && c.reason == "Stopped")
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    const JOB: &str = "
        apiVersion: batch/v1
        kind: Job
        metadata: {name: train, namespace: ml, uid: u, creationTimestamp: '2026-11-21T10:00:00Z', labels: {kueue.x-k8s.io/queue-name: jobs}}
        spec: {suspend: true}";
    const WORKLOAD: &str = "
        apiVersion: kueue.x-k8s.io/v1beta1
        kind: Workload
        metadata: {name: job-train, namespace: ml, uid: u, ownerReferences: [{apiVersion: batch/v1, kind: Job, name: train, controller: true}]}
        status: {conditions: [{type: QuotaReserved, status: 'False', reason: Inadmissible, message: ClusterQueue team is inactive}]}";

    #[test]
    fn fires_when_the_workload_is_inadmissible() {
        check(&RULE, &[JOB, WORKLOAD]).finds(&[
            "error Job ml/train: Job train stays suspended, Kueue does not admit it: ClusterQueue team is inactive",
        ]);
    }

    #[test]
    fn quiet_while_it_waits_for_quota_or_is_not_managed_by_kueue() {
        check(&RULE, &[JOB, &WORKLOAD.replace("Inadmissible", "Pending")]).finds_nothing();
        check(&RULE, &[&JOB.replace("kueue.x-k8s.io/queue-name", "queue"), WORKLOAD]).finds_nothing();
        check(&RULE, &[&JOB.replace("suspend: true", "suspend: false"), WORKLOAD]).finds_nothing();
        let stopped = "{apiVersion: kueue.x-k8s.io/v1beta1, kind: LocalQueue, metadata: {name: jobs, namespace: ml, uid: u}, spec: {stopPolicy: Hold}}";
        check(&RULE, &[JOB, WORKLOAD, stopped]).finds_nothing();
    }
}
