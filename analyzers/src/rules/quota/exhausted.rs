use std::collections::{BTreeMap, BTreeSet};

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::scheduling::resources;
use crate::kubernetes::time::{RECENT, age};
use crate::snapshot::model::{
    Deployment, Event, IntOrString, Job, Pod, ReplicaSet, ResourceQuota, StatefulSet, Timestamp,
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
    /// Raise the quota, lower requests or replicas, or remove what is no longer needed.
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
    optional: [ReplicaSet, StatefulSet, Job, Deployment, Pod],
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
        if let Some(finding) = finding(quota, &refusals).or_else(|| next_rollout(cluster, quota)) {
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
        _ => None,
    }
}

fn finding(quota: &ResourceQuota, refusals: &[Refusal]) -> Option<Finding> {
    let refused: Vec<(&Refusal, Shortage)> =
        refusals.iter().filter_map(|refusal| Some((refusal, refusal.lacking(quota).next()?))).collect();
    let (first, shortage) = refused.first()?;
    let wanting: BTreeSet<String> =
        refused.iter().map(|(refusal, _)| format!("{} {}", refusal.by.kind, refusal.by.name)).collect();
    let wanting: Vec<String> = wanting.into_iter().collect();
    let object = quota.reference();
    let Shortage { resource, requested, used, hard } = shortage;
    let text = |amount: &Amount| amount.text(resource);
    let message = format!(
        "ResourceQuota {} blocks new pods of {}: {} of {} {resource} used, {} more requested",
        quota.name(),
        words::list(&wanting, 3),
        text(used),
        text(hard),
        text(requested),
    );
    let finding = Finding::warning(object.clone(), message)
        .evidence(format!("{} of {} {resource} used", text(used), text(hard)), &object, "status.used")
        .evidence(
            format!("rejected a pod of {} that requests {} {resource}", first.by.title(), text(requested)),
            &first.event,
            "message",
        )
        .key(resource.to_string())
        .since(refused.iter().filter_map(|(refusal, _)| refusal.first_seen).min())
        .fix_command(
            "Raise the quota, or lower requests or replicas",
            kubectl(["-n", quota.namespace(), "edit", "resourcequota", quota.name()]),
        );
    Some(finding)
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
}
