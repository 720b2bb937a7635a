use std::collections::{BTreeMap, BTreeSet};

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::scheduling::resources;
use crate::kubernetes::time::{RECENT, age};
use crate::kubernetes::workloads::job::JobExt;
use crate::snapshot::model::{
    CronJob, Deployment, Event, IntOrString, Job, Pod, ReplicaSet, ResourceQuota, StatefulSet, Timestamp,
};
use crate::snapshot::{Amount, Cluster, Kind, Lookup, Object, ObjectRef};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// - ResourceQuotas for which the API server rejected a request in the last hour (`exceeded quota: NAME`), where
    ///   the request still exceeds the remaining quota and the workload is still missing pods.
    /// - ResourceQuotas without room for one more pod of a Deployment that, because of its `maxUnavailable`, must
    ///   create a new pod before it may remove an old one: its next rollout will not progress.
    ///
    /// ## Why it matters
    ///
    /// An exhausted quota blocks new pods: a Deployment cannot scale or roll out, a Job does not start. Nothing
    /// crashes; pods are just missing.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe resourcequota NAME` shows usage and limits; `kubectl -n NAMESPACE get events
    /// --field-selector reason=FailedCreate` shows what was rejected.
    ///
    /// ## How to fix
    ///
    /// Raise the quota, lower requests or replicas, or remove what is no longer needed. Quotas on object counts
    /// (`count/jobs.batch`, `count/pods`) include finished objects: delete these, and set `ttlSecondsAfterFinished` so
    /// that they are removed in future.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire
    ///
    /// - when nothing was rejected and rollouts can proceed, however full the quota is,
    /// - when the quota has room again,
    /// - when the workload has all its pods by now or no longer exists,
    /// - for rollouts where the quota has scopes.
    "quota/exhausted": Warning,
    "a ResourceQuota is exhausted and blocks pods",
    needs: [ResourceQuota, Event],
    optional: [ReplicaSet, StatefulSet, Job, CronJob, Deployment, Pod],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for quota in cluster.all::<ResourceQuota>() {
        let refusals: Vec<Refusal> = cluster
            .in_namespace::<Event>(quota.namespace())
            .iter()
            .filter(|event| event.last_seen().is_none_or(|last| age(cluster.now(), last) <= RECENT))
            .filter_map(|event| Refusal::new(cluster, event, quota.name()))
            .collect();
        if let Some(finding) = finding(cluster, quota, &refusals).or_else(|| next_rollout(cluster, quota)) {
            report.add(finding);
        }
    }
}

/// Deployments that must create a new pod before they may remove an old one, where the quota has no room for one more.
fn next_rollout(cluster: &Cluster, quota: &ResourceQuota) -> Option<Finding> {
    let spec = quota.spec.as_ref()?;
    if spec.scope_selector.is_some() || spec.scopes.as_ref().is_some_and(|scopes| !scopes.is_empty()) {
        return None; // A scoped quota counts only some pods.
    }
    let deployments = cluster.in_namespace::<Deployment>(quota.namespace()).iter();
    let mut blocked: Vec<(String, String)> = Vec::new();
    for deployment in deployments.filter(|deployment| is_settled(deployment) && must_surge(deployment)) {
        let owner = deployment.reference();
        let pods = cluster.group_of_owner(&owner).into_iter().flat_map(|group| cluster.pods_of(group));
        // An existing pod shows the requests after admission.
        let Some(pod) = pods.into_iter().find(|pod| pod.is_active()) else { continue };
        if let Some(shortage) = shortage_of_one_more(quota, pod) {
            blocked.push((format!("Deployment {}", deployment.name()), shortage));
        }
    }
    let (_, shortage) = blocked.first()?;
    let names: Vec<&str> = blocked.iter().map(|(name, _)| name.as_str()).collect();
    let object = quota.reference();
    let message = format!(
        "ResourceQuota {} blocks the next rollout of {}, which needs one extra pod: {shortage}",
        quota.name(),
        words::list(&names, 3)
    );
    let finding = Finding::warning(object.clone(), message)
        .evidence(shortage.clone(), &object, "status.used")
        .key("rollout")
        .fix_command(
            "Raise the quota for one more pod, or set maxUnavailable: 1 so that the Deployment removes a pod first",
            kubectl(["-n", quota.namespace(), "edit", "resourcequota", quota.name()]),
        );
    Some(finding)
}

/// Whether no rollout is in progress and no pods are missing.
fn is_settled(deployment: &Deployment) -> bool {
    let (status, wanted) = (&deployment.status, deployment.spec.replicas.unwrap_or(1));
    wanted > 0 && !deployment.spec.paused && [status.replicas, status.updated_replicas].iter().all(|has| *has == wanted)
}

/// Whether a rolling update may not remove any pod first: `maxUnavailable`, rounded down, is none.
/// Source: <https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#rolling-update-deployment>
fn must_surge(deployment: &Deployment) -> bool {
    let strategy = &deployment.spec.strategy;
    if !matches!(strategy.type_.as_str(), "" | "RollingUpdate") {
        return false;
    }
    let replicas = i64::from(deployment.spec.replicas.unwrap_or(1));
    match strategy.rolling_update.as_ref().and_then(|update| update.max_unavailable.as_ref()) {
        None => replicas * 25 / 100 == 0,
        Some(IntOrString::Int(number)) => *number == 0,
        Some(IntOrString::String(percent)) => {
            let percent = percent.strip_suffix('%').and_then(|percent| percent.parse::<u32>().ok());
            percent.is_some_and(|percent| replicas.saturating_mul(i64::from(percent)) / 100 == 0)
        }
    }
}

fn shortage_of_one_more(quota: &ResourceQuota, pod: &Pod) -> Option<String> {
    let status = quota.status.as_ref()?;
    let requests = resources::requests(&pod.spec);
    status.hard.as_ref()?.iter().find_map(|(resource, hard)| {
        let needed = match resource.as_str() {
            "pods" | "count/pods" => Amount::whole(1),
            "cpu" | "requests.cpu" => requests.get("cpu"),
            "memory" | "requests.memory" => requests.get("memory"),
            _ => return None,
        };
        let (hard, used) = (Amount::of(hard)?, Amount::of(status.used.as_ref()?.get(resource)?)?);
        let text = |amount: Amount| amount.text(resource);
        let is_short = needed.is_positive() && used + needed > hard;
        is_short.then(|| format!("{} of {} {resource} used, {} more needed", text(used), text(hard), text(needed)))
    })
}

/// A request that the API server rejected.
struct Refusal {
    requested: BTreeMap<String, Amount>,
    /// The topmost owner of the rejected pod.
    by: ObjectRef,
    event: ObjectRef,
    first_seen: Option<Timestamp>,
}

impl Refusal {
    /// Reads `exceeded quota: NAME, requested: requests.cpu=150m, used: …, limited: …`.
    fn new(cluster: &Cluster, event: &Event, quota: &str) -> Option<Refusal> {
        let (_, rest) = event.message.split_once("exceeded quota: ")?;
        let rest = rest.strip_prefix(quota)?.strip_prefix(", requested: ")?;
        let (requested, _) = rest.split_once(", used: ")?;
        let pairs = requested.split(',').filter_map(|pair| pair.trim().split_once('='));
        let requested = pairs.filter_map(|(resource, amount)| Some((resource.to_string(), Amount::parse(amount)?)));
        let by = still_wanting(cluster, event)?;
        let first_seen = event.first_timestamp.or(event.event_time).or(event.last_seen());
        Some(Refusal { requested: requested.collect(), by, event: event.reference(), first_seen })
    }

    /// The resources that still do not suffice.
    fn lacking<'a>(&'a self, quota: &'a ResourceQuota) -> impl Iterator<Item = Shortage<'a>> {
        let status = quota.status.as_ref();
        self.requested.iter().filter_map(move |(resource, requested)| {
            let of = |list: Option<&BTreeMap<String, _>>| list?.get(resource).and_then(Amount::of);
            let hard = of(status?.hard.as_ref())?;
            let used = of(status?.used.as_ref())?;
            (used + *requested > hard).then_some(Shortage { resource, requested: *requested, used, hard })
        })
    }
}

struct Shortage<'a> {
    resource: &'a str,
    requested: Amount,
    used: Amount,
    hard: Amount,
}

/// The workload that an event is about, unless it has all its pods by now or no longer exists.
fn still_wanting(cluster: &Cluster, event: &Event) -> Option<ObjectRef> {
    let about = &event.involved_object;
    let (namespace, name) = (about.namespace.as_str(), about.name.as_str());
    let top = |owner: Option<ObjectRef>, own: ObjectRef| owner.unwrap_or(own);
    match about.kind.as_str() {
        "ReplicaSet" => match cluster.get::<ReplicaSet>(namespace, name) {
            Lookup::Found(set) => {
                let wants = set.status.replicas < set.spec.replicas.unwrap_or(1);
                wants.then(|| top(set.controller(), set.reference()))
            }
            Lookup::Missing => None,
            Lookup::Unknown => Some(ObjectRef::new(Kind::ReplicaSet, namespace, name)),
        },
        "StatefulSet" => match cluster.get::<StatefulSet>(namespace, name) {
            Lookup::Found(set) => (set.status.replicas < set.spec.replicas.unwrap_or(1)).then(|| set.reference()),
            Lookup::Missing => None,
            Lookup::Unknown => Some(ObjectRef::new(Kind::StatefulSet, namespace, name)),
        },
        "Job" => match cluster.get::<Job>(namespace, name) {
            Lookup::Found(job) => {
                let wants = job.status.active == 0 && job.status.completion_time.is_none();
                wants.then(|| top(job.controller(), job.reference()))
            }
            Lookup::Missing => None,
            Lookup::Unknown => Some(ObjectRef::new(Kind::Job, namespace, name)),
        },
        // Whether the DaemonSet is still missing this pod is unknown.
        "DaemonSet" => Some(ObjectRef::new(Kind::DaemonSet, namespace, name)),
        "CronJob" => match cluster.get::<CronJob>(namespace, name) {
            Lookup::Found(cron) => {
                let newest = cluster.runs_of(cron).first().and_then(|job| job.created());
                (!cron.spec.suspend && newest < event.last_seen()).then(|| cron.reference())
            }
            Lookup::Missing => None,
            Lookup::Unknown => Some(ObjectRef::new(Kind::CronJob, namespace, name)),
        },
        _ => None,
    }
}

/// The finished objects that an object-count quota counts.
struct Finished<'a> {
    kind: Kind,
    all: usize,
    /// Those that nothing removes: without `ttlSecondsAfterFinished`, and not part of the history of a CronJob.
    left: Vec<&'a str>,
}

impl<'a> Finished<'a> {
    /// `None` for quotas that do not count finished objects: `pods` does not, `count/pods` does.
    fn of(cluster: &'a Cluster, namespace: &str, resource: &str) -> Option<Finished<'a>> {
        let (kind, all, left) = match resource {
            "count/jobs.batch" => {
                let done: Vec<&Job> =
                    cluster.in_namespace::<Job>(namespace).iter().filter(|job| job.is_over()).collect();
                let is_left = |job: &&&Job| job.controller().is_none() && job.spec.ttl_seconds_after_finished.is_none();
                (Kind::Job, done.len(), done.iter().filter(is_left).map(|job| job.name()).collect())
            }
            "count/pods" => {
                let done: Vec<&Pod> =
                    cluster.in_namespace::<Pod>(namespace).iter().filter(|pod| pod.is_finished()).collect();
                (Kind::Pod, done.len(), done.iter().map(|pod| pod.name()).collect::<Vec<&str>>())
            }
            _ => return None,
        };
        (all > 0).then_some(Finished { kind, all, left })
    }

    fn text(&self, used: Amount) -> String {
        let noun = format!("{}s", self.kind);
        let are_all = used.as_integer() == i64::try_from(self.all).ok();
        let part = if are_all { format!("all {}", self.all) } else { format!("{} of these", self.all) };
        let all = format!("{part} {noun} have finished");
        match self.left.len() {
            0 => all,
            n if self.kind == Kind::Job => {
                format!("{all}, {n} of them without ttlSecondsAfterFinished ({})", words::list(&self.left, 2))
            }
            _ => all,
        }
    }

    fn fix(&self, finding: Finding, namespace: &str) -> Finding {
        let kind = self.kind.to_string().to_lowercase();
        let names = self.left.iter().copied().take(20);
        let delete = kubectl(["-n", namespace, "delete", &kind].into_iter().chain(names));
        let finding = match self.left.len() {
            0 => finding,
            _ => finding.fix_command(format!("Delete the finished {}s that are not needed", self.kind), delete),
        };
        match self.kind {
            Kind::Job if self.left.is_empty() => finding
                .fix("Lower successfulJobsHistoryLimit and failedJobsHistoryLimit of the CronJobs, or raise the quota"),
            Kind::Job => finding.fix(
                "Set ttlSecondsAfterFinished in the manifests of these Jobs; a higher quota only delays the problem",
            ),
            _ => finding.fix("Delete finished pods through their owner: set ttlSecondsAfterFinished on their Jobs"),
        }
    }
}

fn finding(cluster: &Cluster, quota: &ResourceQuota, refusals: &[Refusal]) -> Option<Finding> {
    let refused: Vec<(&Refusal, Shortage)> =
        refusals.iter().filter_map(|refusal| Some((refusal, refusal.lacking(quota).next()?))).collect();
    let (first, shortage) = refused.first()?;
    let wanting: BTreeSet<String> =
        refused.iter().map(|(refusal, _)| format!("{} {}", refusal.by.kind, refusal.by.name)).collect();
    let wanting: Vec<String> = wanting.into_iter().collect();
    let object = quota.reference();
    let Shortage { resource, requested, used, hard } = shortage;
    let text = |amount: &Amount| amount.text(resource);
    let finished = Finished::of(cluster, quota.namespace(), resource);
    let noun = if first.by.is(Kind::CronJob) && *resource == "count/jobs.batch" { "Jobs" } else { "pods" };
    let also = finished.as_ref().map(|finished| format!("; {}", finished.text(*used))).unwrap_or_default();
    let message = format!(
        "ResourceQuota {} blocks new {noun} of {}: {} of {} {resource} used, {} more requested{also}",
        quota.name(),
        words::list(&wanting, 3),
        text(used),
        text(hard),
        text(requested),
    );
    let finding = Finding::warning(object.clone(), message)
        .evidence(format!("{} of {} {resource} used", text(used), text(hard)), &object, "status.used")
        .evidence(
            match noun {
                "pods" => {
                    format!("rejected a pod of {} that requests {} {resource}", first.by.title(), text(requested))
                }
                _ => format!("rejected a Job of {}", first.by.title()),
            },
            &first.event,
            "message",
        )
        .key(resource.to_string())
        .since(refused.iter().filter_map(|(refusal, _)| refusal.first_seen).min());
    if let Some(finished) = finished {
        return Some(finished.fix(finding, quota.namespace()));
    }
    let text = if resource.starts_with("count/") {
        "Raise the quota, or delete objects that are not needed"
    } else {
        "Raise the quota, or lower requests or replicas"
    };
    Some(finding.fix_command(text, kubectl(["-n", quota.namespace(), "edit", "resourcequota", quota.name()])))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    fn quota(used: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: ResourceQuota, metadata: {{name: small, namespace: shop}},
            status: {{hard: {{requests.cpu: 200m, pods: '10'}}, used: {{requests.cpu: {used}, pods: '1'}}}}}}"
        )
    }

    fn set(replicas: i32) -> String {
        format!(
            "{{apiVersion: apps/v1, kind: ReplicaSet, metadata: {{name: web-1, namespace: shop, ownerReferences: [
            {{apiVersion: apps/v1, kind: Deployment, name: web, controller: true}}]}}, spec: {{replicas: 2}}, status: {{replicas: {replicas}}}}}"
        )
    }

    const EVENT: &str =
        "{apiVersion: v1, kind: Event, metadata: {name: e, namespace: shop}, type: Warning, reason: FailedCreate,
        involvedObject: {kind: ReplicaSet, namespace: shop, name: web-1}, lastTimestamp: '2026-11-21T11:58:00Z',
        message: 'Error creating: pods \"web-1-x\" is forbidden: exceeded quota: small, requested: requests.cpu=150m,
        used: requests.cpu=150m, limited: requests.cpu=200m'}";

    #[test]
    fn fires_when_a_pod_was_rejected_and_the_quota_is_still_exhausted() {
        let expected = "warning ResourceQuota shop/small: ResourceQuota small blocks new pods of Deployment \
                        web: 150m of 200m requests.cpu used, 150m more requested";
        check(&RULE, &[&quota("150m"), &set(1), EVENT]).finds(&[expected]);
        TestCluster::new(&[&quota("150m"), EVENT])
            .forbid(Kind::ReplicaSet)
            .check(&RULE)
            .finds(&[&expected.replace("Deployment web:", "ReplicaSet web-1:")]);
    }

    #[test]
    fn quiet_with_room_or_all_pods_or_an_old_event() {
        check(&RULE, &[&quota("50m"), &set(1), EVENT]).finds_nothing();
        check(&RULE, &[&quota("150m"), &set(2), EVENT]).finds_nothing();
        check(&RULE, &[&quota("150m"), EVENT]).finds_nothing();
        check(&RULE, &[&quota("200m"), &set(2)]).finds_nothing();
        check(&RULE, &[&quota("150m"), &set(1), &EVENT.replace("11:58", "10:58")]).finds_nothing();
        check(&RULE, &[&quota("150m").replace("status", "spec"), &set(1), EVENT]).finds_nothing();
    }

    const DEPLOYMENT: &str =
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop}, spec: {replicas: 3},
        status: {replicas: 3, updatedReplicas: 3}}";
    const RUNNING: &str = "{apiVersion: v1, kind: Pod, metadata: {name: web-1-x, namespace: shop, ownerReferences: [
        {apiVersion: apps/v1, kind: ReplicaSet, name: web-1, controller: true}]}, spec: {containers: [
        {name: app, resources: {requests: {cpu: 60m}}}]}, status: {phase: Running}}";

    #[test]
    fn fires_when_the_next_rollout_has_no_room() {
        let quota = quota("180m").replace("status:", "spec: {}, status:");
        check(&RULE, &[&quota, DEPLOYMENT, &set(2), RUNNING]).finds(&[
            "warning ResourceQuota shop/small: ResourceQuota small blocks the next rollout of Deployment web, \
             which needs one extra pod: 180m of 200m requests.cpu used, 60m more needed",
        ]);
    }

    #[test]
    fn quiet_when_the_next_rollout_can_go_on() {
        let full = quota("180m").replace("status:", "spec: {}, status:");
        let roomy = quota("140m").replace("status:", "spec: {}, status:");
        check(&RULE, &[&roomy, DEPLOYMENT, &set(2), RUNNING]).finds_nothing();
        check(&RULE, &[&full.replace("spec: {}", "spec: {scopes: [BestEffort]}"), DEPLOYMENT, &set(2), RUNNING])
            .finds_nothing();
        let four = DEPLOYMENT.replace('3', "4");
        check(&RULE, &[&full, &four, &set(2), RUNNING]).finds_nothing();
        let recreate = DEPLOYMENT.replace("replicas: 3}", "replicas: 3, strategy: {type: Recreate}}");
        check(&RULE, &[&full, &recreate, &set(2), RUNNING]).finds_nothing();
        let rolling = DEPLOYMENT.replace("updatedReplicas: 3", "updatedReplicas: 1");
        check(&RULE, &[&full, &rolling, &set(2), RUNNING]).finds_nothing();
    }

    #[test]
    fn quiet_for_another_quota_and_for_hostile_messages() {
        check(&RULE, &[&quota("150m"), &set(1), &EVENT.replace("quota: small", "quota: smaller")]).finds_nothing();
        check(&RULE, &[&quota("150m"), &set(1), &EVENT.replace("requested: requests.cpu=150m", "requested: =,=,x")])
            .finds_nothing();
    }

    const CRON: &str =
        "{apiVersion: batch/v1, kind: CronJob, metadata: {name: export, namespace: shop}, spec: {schedule: '@hourly'}}";

    fn job(name: &str, more: &str, condition: &str) -> String {
        format!(
            "{{apiVersion: batch/v1, kind: Job, metadata: {{name: {name}, namespace: shop, creationTimestamp: '2026-11-21T09:00:00Z'}},
            spec: {{{more}}}, status: {{conditions: [{{type: {condition}, status: 'True'}}]}}}}"
        )
    }

    fn full_of_jobs() -> [String; 2] {
        let quota = quota("150m")
            .replace("requests.cpu: 200m", "count/jobs.batch: '2'")
            .replace("requests.cpu: 150m", "count/jobs.batch: '2'");
        let event =
            EVENT.replace("kind: ReplicaSet", "kind: CronJob").replace("name: web-1}", "name: export}").replace(
                "requested: requests.cpu=150m,\n        used: requests.cpu=150m, limited: requests.cpu=200m",
                "requested: count/jobs.batch=1, used: count/jobs.batch=2, limited: count/jobs.batch=2",
            );
        [quota, event]
    }

    #[test]
    fn fires_for_finished_jobs_that_nothing_removes() {
        let [quota, event] = full_of_jobs();
        let (kept, expiring) =
            (job("check-a", "", "Complete"), job("check-b", "ttlSecondsAfterFinished: 600", "Failed"));
        let said = check(&RULE, &[&quota, &event, CRON, &kept, &expiring]);
        said.finds(&[
            "warning ResourceQuota shop/small: ResourceQuota small blocks new Jobs of CronJob export: 2 of 2 count/jobs.batch \
             used, 1 more requested; all 2 Jobs have finished, 1 of them without ttlSecondsAfterFinished (check-a)",
        ]);
        let command = said.finding().fix[0].command.clone();
        assert_eq!(command.as_deref(), Some("kubectl -n shop delete job check-a"));
    }

    #[test]
    fn quiet_when_the_cron_job_has_started_a_job_since() {
        let [quota, event] = full_of_jobs();
        let newer = job("export-1", "", "Complete").replace(
            "creationTimestamp: '2026-11-21T09:00:00Z'",
            "creationTimestamp: '2026-11-21T11:59:00Z', ownerReferences: [{apiVersion: batch/v1, kind: CronJob, name: export, controller: true}]",
        );
        check(&RULE, &[&quota, &event, CRON, &newer]).finds_nothing();
    }
}
