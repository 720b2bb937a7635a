use std::collections::BTreeMap;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::admission::call::CallFailure;
use crate::kubernetes::admission::refusal::Refusal;
use crate::kubernetes::admission::webhooks::{Configuration, configurations, configurations_with};
use crate::kubernetes::time::{self, RECENT, SCHEDULE};
use crate::snapshot::model::{
    Condition, CronJob, DaemonSet, Deployment, Event, Job, LimitRange, Pod, ReplicaSet, ReplicationController,
    StatefulSet, Timestamp, condition,
};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for workloads whose pods are rejected by the API server: condition `ReplicaFailure` of ReplicaSets and
    /// ReplicationControllers, and events `FailedCreate` of StatefulSets, DaemonSets, Jobs and CronJobs. The rule
    /// determines the cause from the message: a ResourceQuota with its amounts, a LimitRange, Pod Security with the
    /// violating fields, an admission webhook or policy, or a ServiceAccount, PriorityClass or RuntimeClass that does
    /// not exist. If Pod Security rejects a container that is not in the pod template, the finding names the webhook
    /// that injects it.
    ///
    /// ## Why it matters
    ///
    /// The pods do not exist, so `kubectl get pods` shows no status and there are no logs. The workload has too few
    /// replicas, and its rollout does not progress.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe replicaset NAME` (or the StatefulSet, DaemonSet or Job) shows the events.
    /// `kubectl -n NAMESPACE describe resourcequota` shows current usage.
    ///
    /// ## How to fix
    ///
    /// Make the pod admissible (requests and limits, security context, ServiceAccount), or change what rejects it:
    /// raise the quota, free quota, fix the webhook. The controller retries by itself, but may take several minutes
    /// after repeated failures; `kubectl rollout restart` triggers a retry immediately.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire if all desired pods exist, in the first minute, if pods were created after the last
    /// rejection, or in a namespace that is being deleted.
    "workload/cannot-create-pods": Error,
    "the API server rejects a workload's pods",
    needs: [],
    optional: [
        Deployment, ReplicaSet, ReplicationController, StatefulSet, DaemonSet, Job, CronJob, Pod, Event, LimitRange,
        ValidatingWebhookConfiguration, MutatingWebhookConfiguration, ValidatingAdmissionPolicyBinding, Namespace,
    ],
    explained_by: [
        "quota/exhausted", "webhook/unreachable", "serviceaccount/missing", "priorityclass/missing", "admissionpolicy/*",
        "workload/limit-range",
    ],
}

/// A controller object whose pods were rejected.
struct Refused<'a> {
    /// The object that creates the pods: ReplicaSet, StatefulSet, Job.
    maker: ObjectRef,
    /// The object of the finding.
    owner: ObjectRef,
    /// `pods`, or the other objects that it cannot create.
    what: &'static str,
    wanted: i32,
    exist: i32,
    message: &'a str,
    path: &'static str,
    since: Option<Timestamp>,
}

fn check(cluster: &Cluster, report: &mut Report) {
    report.not_read(cluster, &[Kind::ReplicaSet, Kind::StatefulSet, Kind::DaemonSet, Kind::Job, Kind::Event]);
    let mut by_owner: BTreeMap<ObjectRef, Refused> = BTreeMap::new();
    for refused in refusals(cluster) {
        let young = refused.since.is_some_and(|since| time::age(cluster.now(), since) < SCHEDULE);
        if !young {
            by_owner.entry(refused.owner.clone()).or_insert(refused);
        }
    }
    for refused in by_owner.values() {
        let refusal = Refusal::read(refused.message);
        if refusal != Refusal::NamespaceTerminating {
            report.add(finding(cluster, refused, &refusal));
        }
    }
}

fn refusals(cluster: &Cluster) -> Vec<Refused<'_>> {
    let mut found = Vec::new();
    found.extend(cluster.all::<ReplicaSet>().iter().filter_map(|set| {
        let owner = set.controller().unwrap_or_else(|| set.reference());
        let wanted = set.spec.replicas.unwrap_or(1);
        by_condition(cluster, set, owner, wanted, set.status.replicas, &set.status.conditions)
    }));
    found.extend(cluster.all::<ReplicationController>().iter().filter_map(|rc| {
        let owner = rc.controller().unwrap_or_else(|| rc.reference());
        let wanted = rc.spec.replicas.unwrap_or(1);
        by_condition(cluster, rc, owner, wanted, rc.status.replicas, &rc.status.conditions)
    }));
    // If ReplicaSets could not be read, the Deployment repeats their condition.
    found.extend(cluster.all::<Deployment>().iter().filter_map(|deployment| {
        let (wanted, exist) = (deployment.spec.replicas.unwrap_or(1), deployment.status.replicas);
        let conditions = &deployment.status.conditions;
        by_condition(cluster, deployment, deployment.reference(), wanted, exist, conditions)
            .or_else(|| replica_set_refused(deployment))
    }));
    found.extend(cluster.all::<StatefulSet>().iter().filter_map(|set| {
        by_event(cluster, set, set.reference(), "pods", set.spec.replicas.unwrap_or(1), set.status.replicas)
    }));
    found.extend(cluster.all::<DaemonSet>().iter().filter_map(|set| {
        let (wanted, exist) = (set.status.desired_number_scheduled, set.status.current_number_scheduled);
        by_event(cluster, set, set.reference(), "pods", wanted, exist)
    }));
    found.extend(cluster.all::<Job>().iter().filter_map(|job| {
        let owner = job.controller().filter(|owner| owner.is(Kind::CronJob)).unwrap_or_else(|| job.reference());
        by_event(cluster, job, owner, "pods", active_wanted(job), job.status.active)
    }));
    found.extend(cluster.all::<CronJob>().iter().filter_map(|cron| by_job(cluster, cron)));
    found
}

/// The number of pods that a Job should currently run.
fn active_wanted(job: &Job) -> i32 {
    let finished = ["Complete", "Failed", "FailureTarget", "SuccessCriteriaMet", "Suspended"];
    if job.spec.suspend
        || finished.iter().any(|type_| condition(&job.status.conditions, type_).is_some_and(Condition::is_true))
    {
        return 0;
    }
    let left = job.spec.completions.map_or(i32::MAX, |all| all.saturating_sub(job.status.succeeded));
    // A work queue (no completions) winds down after its first success.
    let parallelism = if job.spec.completions.is_none() && job.status.succeeded > 0 { 0 } else { i32::MAX };
    job.spec.parallelism.unwrap_or(1).min(left).min(parallelism)
}

/// ReplicaSets and ReplicationControllers keep the first rejection in a condition; an event has the newest message.
fn by_condition<'a, T: Object>(
    cluster: &'a Cluster,
    maker: &'a T,
    owner: ObjectRef,
    wanted: i32,
    exist: i32,
    conditions: &'a [Condition],
) -> Option<Refused<'a>> {
    let failure = condition(conditions, "ReplicaFailure").filter(|c| c.is_true() && c.reason == "FailedCreate")?;
    if wanted <= exist || maker.deleted().is_some() {
        return None;
    }
    let event = newest_refusal(cluster, &maker.reference()).filter(|e| e.last_seen() > failure.last_transition_time);
    Some(Refused {
        maker: maker.reference(),
        owner,
        what: "pods",
        wanted,
        exist,
        message: event.map_or(&failure.message, |event| &event.message),
        path: if event.is_some() { "" } else { "status.conditions[ReplicaFailure]" },
        since: failure.last_transition_time,
    })
}

/// A Deployment whose ReplicaSet itself is rejected: by a quota on ReplicaSets, or by a webhook.
fn replica_set_refused(deployment: &Deployment) -> Option<Refused<'_>> {
    let progressing = condition(&deployment.status.conditions, "Progressing")?;
    if progressing.reason != "ReplicaSetCreateError" || deployment.deleted().is_some() {
        return None;
    }
    Some(Refused {
        maker: deployment.reference(),
        owner: deployment.reference(),
        what: "ReplicaSets",
        wanted: deployment.spec.replicas.unwrap_or(1),
        exist: deployment.status.updated_replicas,
        message: &progressing.message,
        path: "status.conditions[Progressing]",
        since: progressing.last_transition_time,
    })
}

/// The other kinds report rejections only in events. A rejection is outdated if pods were created after it.
fn by_event<'a, T: Object>(
    cluster: &'a Cluster,
    maker: &T,
    owner: ObjectRef,
    what: &'static str,
    wanted: i32,
    exist: i32,
) -> Option<Refused<'a>> {
    if wanted <= exist || maker.deleted().is_some() {
        return None;
    }
    let maker = maker.reference();
    let event = newest_refusal(cluster, &maker)?;
    let seen = event.last_seen()?;
    let created = cluster.group_of_owner(&owner).and_then(|group| {
        let own = cluster.pods_of(group).filter(|pod| pod.controller().as_ref() == Some(&maker));
        own.filter_map(Pod::created).max()
    });
    if time::age(cluster.now(), seen) > RECENT || created.is_some_and(|created| created > seen) {
        return None;
    }
    let events = cluster.events(&maker);
    let first = events.iter().filter(|e| e.reason == "FailedCreate");
    let first = first.filter_map(|e| e.first_timestamp.or(e.event_time).or_else(|| e.last_seen())).min();
    Some(Refused { maker, owner, what, wanted, exist, message: &event.message, path: "", since: first })
}

/// A CronJob whose Job is rejected.
fn by_job<'a>(cluster: &'a Cluster, cron: &CronJob) -> Option<Refused<'a>> {
    let refused = by_event(cluster, cron, cron.reference(), "Jobs", 1, 0)?;
    let seen = newest_refusal(cluster, &refused.maker).and_then(Event::last_seen);
    let jobs = cluster.in_namespace::<Job>(cron.namespace()).iter();
    let newest = jobs.filter(|job| job.controller().as_ref() == Some(&refused.maker)).filter_map(Job::created).max();
    (!cron.spec.suspend && newest < seen).then_some(refused)
}

fn newest_refusal<'a>(cluster: &'a Cluster, maker: &ObjectRef) -> Option<&'a Event> {
    cluster.events(maker).into_iter().find(|event| event.reason == "FailedCreate")
}

fn finding(cluster: &Cluster, refused: &Refused, refusal: &Refusal) -> Finding {
    let Refused { maker, owner, wanted, exist, .. } = refused;
    let subject = format!("{} {}", owner.kind, owner.name);
    let newer =
        maker.is(Kind::ReplicaSet) && owner.is(Kind::Deployment) && has_other_pods(cluster, owner, *wanted, *exist);
    let injected = injected(cluster, owner, refusal);
    let text = match &injected {
        Some(injected) => format!("{}; {}", refusal.text(), injected.text()),
        None => refusal.text(),
    };
    let noun = if *wanted == 1 { "pod" } else { "pods" };
    let message = if refused.what != "pods" {
        format!("{subject} cannot create {}: {text}", refused.what)
    } else if newer {
        format!("{subject} cannot roll out: ReplicaSet {} has {exist} of {wanted} {noun}: {text}", maker.name)
    } else {
        format!("{subject} has {exist} of {wanted} {noun}: {text}")
    };
    let mut finding = Finding::error(owner.clone(), message).since(refused.since);
    let facts = format!("{} {}: {}", maker.kind, maker.name, words::shorten(refused.message, 600));
    finding = finding.evidence(facts, maker, refused.path);
    for object in refusers(cluster, owner, refusal) {
        finding = finding.because(object);
    }
    match injected {
        Some(injected) => injected.fix(finding, owner.namespace()),
        None => with_fix(finding, refused, refusal),
    }
}

/// Containers that Pod Security rejects and that are not in the pod template: a mutating webhook added them.
struct Injected {
    containers: Vec<String>,
    /// The webhook configurations that apply to the pods; the most likely one if one is named like the container.
    by: Vec<String>,
}

fn injected(cluster: &Cluster, owner: &ObjectRef, refusal: &Refusal) -> Option<Injected> {
    let Refusal::PodSecurity { violations, .. } = refusal else { return None };
    let template = cluster.template(owner)?;
    let containers = containers_in(violations);
    let is_own = |name: &String| template.spec.container(name).is_some();
    // Violations of the pod itself (hostNetwork, volumes) name no container.
    if containers.is_empty() || containers.iter().any(is_own) {
        return None;
    }
    let all = configurations(cluster).into_iter().filter(|c| c.object.is(Kind::MutatingWebhookConfiguration));
    let labels = &template.metadata.labels;
    let sees = |c: &Configuration| c.webhooks.iter().any(|w| w.sees_pods(cluster, owner.namespace(), labels));
    let all: Vec<String> = all.filter(sees).map(|c| c.object.name).collect();
    let word = |name: &str| containers.iter().any(|c| c.split('-').any(|part| part.len() > 3 && name.contains(part)));
    let alike: Vec<String> = all.iter().filter(|name| word(name)).cloned().collect();
    Some(Injected { containers, by: if alike.is_empty() { all } else { alike } })
}

/// The containers in a message of Pod Security: `container "a"`, `containers "a", "b"`.
fn containers_in(violations: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for part in violations.split("container").skip(1) {
        let part = part.strip_prefix('s').unwrap_or(part);
        let Some(mut rest) = part.strip_prefix(" \"") else { continue };
        while let Some((name, after)) = rest.split_once('"') {
            if !found.iter().any(|known| known == name) {
                found.push(name.to_string());
            }
            let Some(next) = after.strip_prefix(", \"") else { break };
            rest = next;
        }
    }
    found
}

impl Injected {
    fn text(&self) -> String {
        let (noun, verb) = if self.containers.len() == 1 { ("container", "is") } else { ("containers", "are") };
        let names = words::list(&self.containers, 3);
        match self.by.as_slice() {
            [] => format!("{noun} {names} {verb} not in the pod template but injected by a webhook"),
            by => format!(
                "{noun} {names} {verb} not in the pod template but injected by MutatingWebhookConfiguration {}",
                words::list(by, 3)
            ),
        }
    }

    fn fix(&self, finding: Finding, namespace: &str) -> Finding {
        let has = |word: &str| self.containers.iter().any(|name| name.contains(word));
        let by = if self.by.is_empty() { "the webhook".to_string() } else { words::list(&self.by, 2) };
        let text = if has("istio") {
            "Use Istio's CNI plugin, so that the injected containers need no privileges: install istio-cni and set \
             pilot.cni.enabled in the Helm values of istiod"
                .to_string()
        } else if has("linkerd") {
            "Use Linkerd's CNI plugin, so that the injected containers need no privileges: install linkerd2-cni and set \
             cniEnabled in the Helm values of the control plane"
                .to_string()
        } else {
            format!("Configure {by} to inject containers that the Pod Security level of the namespace allows")
        };
        finding.fix(text).fix_command(
            "Or let the namespace enforce privileged, if its workloads are trusted",
            kubectl(["label", "namespace", namespace, "pod-security.kubernetes.io/enforce=privileged", "--overwrite"]),
        )
    }
}

/// Whether a Deployment has pods of another ReplicaSet: then the rejection blocks a rollout.
fn has_other_pods(cluster: &Cluster, owner: &ObjectRef, wanted: i32, exist: i32) -> bool {
    let deployment = cluster.get::<Deployment>(owner.namespace(), &owner.name).found();
    deployment.is_some_and(|d| d.status.replicas > exist || d.spec.replicas.unwrap_or(1) > wanted)
}

/// The objects that reject the pods or are missing, if they are known.
fn refusers(cluster: &Cluster, owner: &ObjectRef, refusal: &Refusal) -> Vec<ObjectRef> {
    let namespace = owner.namespace();
    match refusal {
        // A pod without requests is rejected regardless of the remaining quota.
        Refusal::Quota { name, .. } => vec![ObjectRef::new(Kind::ResourceQuota, namespace, name)],
        Refusal::LimitRange { .. } => {
            cluster.in_namespace::<LimitRange>(namespace).iter().map(Object::reference).collect()
        }
        Refusal::ServiceAccount { name } => vec![ObjectRef::new(Kind::ServiceAccount, namespace, name)],
        Refusal::PriorityClass { name } => vec![ObjectRef::new(Kind::PriorityClass, "", name)],
        Refusal::WebhookDenied { webhook, .. } | Refusal::WebhookFailed { webhook, .. } => {
            configurations_with(cluster, webhook)
        }
        Refusal::Policy { binding, .. } => {
            vec![ObjectRef::new(Kind::ValidatingAdmissionPolicyBinding, "", binding)]
        }
        _ => Vec::new(),
    }
}

fn with_fix(finding: Finding, refused: &Refused, refusal: &Refusal) -> Finding {
    let owner = &refused.owner;
    let namespace = owner.namespace();
    let kind = owner.kind.to_lowercase();
    let edit = kubectl(["-n", namespace, "edit", &kind, &owner.name]);
    match refusal {
        // A quota on object counts has nothing to do with the pods' requests.
        Refusal::Quota { name, .. } if refused.what != "pods" => finding.fix_command(
            "Delete objects that the quota counts and that are not needed, or raise it",
            kubectl(["-n", namespace, "describe", "resourcequota", name]),
        ),
        Refusal::Quota { name, .. } => finding
            .fix_command("Raise the quota", kubectl(["-n", namespace, "edit", "resourcequota", name]))
            .fix_command("Or lower the pods' requests or the number of replicas", edit),
        Refusal::QuotaUnspecified { .. } => finding
            .fix_command("Set the requests and limits that the quota requires in the pod template", edit)
            .fix("Or create a LimitRange with defaults in the namespace, which the API server applies to new pods"),
        Refusal::LimitRange { .. } => finding
            .fix_command("Check the LimitRanges of the namespace", kubectl(["-n", namespace, "describe", "limitrange"]))
            .fix_command("Set requests and limits in the pod template that satisfy the LimitRange", edit),
        Refusal::PodSecurity { .. } => finding
            .fix_command("Set the reported fields in the security contexts of the pod template", edit)
            .fix_command(
                "Or, if the pods require these privileges, check the Pod Security level that the namespace enforces",
                kubectl(["get", "namespace", namespace, "--show-labels"]),
            ),
        Refusal::WebhookDenied { .. } => {
            finding.fix_command("Change the pod template to satisfy the webhook's policy", edit)
        }
        Refusal::WebhookFailed { message, .. } => {
            let text = match CallFailure::of(message) {
                CallFailure::NoBackend => "Restore the webhook's Service",
                CallFailure::UnknownAuthority | CallFailure::Expired | CallFailure::WrongName => {
                    "Correct the certificate or the caBundle of the webhook"
                }
                _ => "Let the API server reach the webhook",
            };
            finding.fix_command(
                format!("{text}; until then only failurePolicy: Ignore bypasses the webhook"),
                kubectl(["get", "validatingwebhookconfigurations,mutatingwebhookconfigurations"]),
            )
        }
        Refusal::Policy { binding, message, .. } if message.contains("failed to configure binding") => finding
            .fix_command(
                "Correct the parameters that the binding of the policy refers to; the pods themselves are not the cause",
                kubectl(["get", "validatingadmissionpolicybinding", binding, "-o", "yaml"]),
            ),
        Refusal::Policy { policy, .. } => finding
            .fix_command("Check the policy", kubectl(["get", "validatingadmissionpolicy", policy, "-o", "yaml"]))
            .fix_command("Change the pod template to satisfy the policy", edit),
        Refusal::ServiceAccount { name } => finding
            .fix_command("Create the ServiceAccount", kubectl(["-n", namespace, "create", "serviceaccount", name]))
            .fix_command("Or set serviceAccountName to an existing ServiceAccount in the pod template", edit),
        Refusal::PriorityClass { .. } => finding
            .fix_command("Set priorityClassName to an existing PriorityClass", kubectl(["get", "priorityclasses"])),
        Refusal::RuntimeClass { .. } => {
            finding.fix_command("Set runtimeClassName to an existing RuntimeClass", kubectl(["get", "runtimeclasses"]))
        }
        Refusal::NamespaceTerminating | Refusal::Other { .. } => {
            finding.fix_command("Check the events and correct the pod template", edit)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    const QUOTA: &str = "pods \\\"capped-1-x\\\" is forbidden: exceeded quota: small, requested: requests.cpu=150m, used: \
                         requests.cpu=150m, limited: requests.cpu=200m";

    fn replica_set(name: &str, wanted: i32, exist: i32, since: &str) -> String {
        format!(
            "
            apiVersion: apps/v1
            kind: ReplicaSet
            metadata:
              name: {name}
              namespace: shop
              ownerReferences: [{{apiVersion: apps/v1, kind: Deployment, name: capped, controller: true}}]
            spec: {{replicas: {wanted}}}
            status:
              replicas: {exist}
              conditions:
              - {{type: ReplicaFailure, status: 'True', reason: FailedCreate, lastTransitionTime: '{since}', message: \"{QUOTA}\"}}"
        )
    }

    fn stateful_set(exist: i32) -> String {
        format!(
            "
            apiVersion: apps/v1
            kind: StatefulSet
            metadata: {{name: db, namespace: shop}}
            spec: {{replicas: 3}}
            status: {{replicas: {exist}}}"
        )
    }

    fn event(kind: &str, name: &str, message: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: Event
            metadata: {{name: {name}.1, namespace: shop}}
            type: Warning
            reason: FailedCreate
            involvedObject: {{apiVersion: apps/v1, kind: {kind}, namespace: shop, name: {name}}}
            firstTimestamp: '2026-11-21T11:50:00Z'
            lastTimestamp: '2026-11-21T11:55:00Z'
            message: '{message}'"
        )
    }

    const REFUSED: &str = "create Pod db-1 in StatefulSet db failed error: pods \"db-1\" is forbidden: error looking up \
                           service account shop/db: serviceaccount \"db\" not found";

    #[test]
    fn fires_with_the_quota_and_its_numbers() {
        let said = check(&RULE, &[&replica_set("capped-1", 3, 1, "2026-11-21T11:50:00Z")]);
        said.finds(&[
            "error Deployment shop/capped: Deployment capped has 1 of 3 pods: ResourceQuota small exceeded: \
                      requests.cpu 150m of 200m used, 150m requested",
        ]);
        assert_eq!(said.finding().because[0].to_string(), "ResourceQuota shop/small");
    }

    #[test]
    fn quiet_when_the_pods_exist() {
        check(&RULE, &[&replica_set("capped-1", 3, 3, "2026-11-21T11:50:00Z")]).finds_nothing();
    }

    #[test]
    fn quiet_in_the_first_minute() {
        check(&RULE, &[&replica_set("capped-1", 3, 1, "2026-11-21T11:59:30Z")]).finds_nothing();
    }

    #[test]
    fn fires_for_the_new_replica_set_of_a_rollout() {
        let deployment = "
            apiVersion: apps/v1
            kind: Deployment
            metadata: {name: capped, namespace: shop}
            spec: {replicas: 3}
            status: {replicas: 3}";
        check(&RULE, &[deployment, &replica_set("capped-2", 1, 0, "2026-11-21T11:50:00Z")]).finds(&[
            "error Deployment shop/capped: Deployment capped cannot roll out: ReplicaSet capped-2 has 0 of 1 pod: \
             ResourceQuota small exceeded: requests.cpu 150m of 200m used, 150m requested",
        ]);
    }

    #[test]
    fn fires_where_replica_sets_cannot_be_read() {
        let deployment = format!(
            "
            apiVersion: apps/v1
            kind: Deployment
            metadata: {{name: capped, namespace: shop}}
            spec: {{replicas: 3}}
            status:
              replicas: 1
              conditions: [{{type: ReplicaFailure, status: 'True', reason: FailedCreate, message: \"{QUOTA}\"}}]"
        );
        let said = TestCluster::new(&[&deployment]).forbid(Kind::ReplicaSet).check(&RULE);
        assert!(said.finding().message.starts_with("Deployment capped has 1 of 3 pods: ResourceQuota small"));
        assert_eq!(said.gaps(), ["ReplicaSet forbidden"]);
    }

    #[test]
    fn fires_for_a_stateful_set_by_its_event() {
        check(&RULE, &[&stateful_set(1), &event("StatefulSet", "db", REFUSED)])
            .finds(&["error StatefulSet shop/db: StatefulSet db has 1 of 3 pods: ServiceAccount db does not exist"]);
    }

    #[test]
    fn quiet_when_a_pod_was_created_after_the_event() {
        let pod = "
            apiVersion: v1
            kind: Pod
            metadata:
              name: db-1
              namespace: shop
              creationTimestamp: '2026-11-21T11:56:00Z'
              ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: db, controller: true}]";
        check(&RULE, &[&stateful_set(2), &event("StatefulSet", "db", REFUSED), pod]).finds_nothing();
    }

    #[test]
    fn quiet_without_the_event_and_without_status() {
        check(&RULE, &[&stateful_set(1)]).finds_nothing();
        check(&RULE, &["{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: a, namespace: shop}}"])
            .finds_nothing();
    }

    #[test]
    fn fires_for_a_daemon_set_that_violates_pod_security() {
        let set = "
            apiVersion: apps/v1
            kind: DaemonSet
            metadata: {name: agent, namespace: shop}
            status: {desiredNumberScheduled: 2, currentNumberScheduled: 0}";
        let refused = "Error creating: pods \"agent-x\" is forbidden: violates PodSecurity \"baseline:latest\": host \
                       namespaces (hostNetwork=true)";
        check(&RULE, &[set, &event("DaemonSet", "agent", refused)]).finds(&[
            "error DaemonSet shop/agent: DaemonSet agent has 0 of 2 pods: Pod Security level baseline violated: host \
             namespaces (hostNetwork=true)",
        ]);
    }

    #[test]
    fn fires_for_the_job_of_a_cron_job_and_not_for_a_finished_one() {
        let job = |condition: &str| {
            format!(
                "
                apiVersion: batch/v1
                kind: Job
                metadata:
                  name: nightly-1
                  namespace: shop
                  ownerReferences: [{{apiVersion: batch/v1, kind: CronJob, name: nightly, controller: true}}]
                status: {{active: 0, conditions: [{condition}]}}"
            )
        };
        let event = event(
            "Job",
            "nightly-1",
            "Error creating: pods \"nightly-1-\" is forbidden: no PriorityClass with name x was found",
        );
        check(&RULE, &[&job(""), &event])
            .finds(&["error CronJob shop/nightly: CronJob nightly has 0 of 1 pod: PriorityClass x does not exist"]);
        check(&RULE, &[&job("{type: Failed, status: 'True'}"), &event]).finds_nothing();
    }

    #[test]
    fn fires_because_of_the_webhook() {
        let webhook = "
            apiVersion: admissionregistration.k8s.io/v1
            kind: ValidatingWebhookConfiguration
            metadata: {name: policies}
            webhooks:
            - {name: p.example.com, clientConfig: {}, sideEffects: None, admissionReviewVersions: [v1]}";
        let refused = "create Pod db-0 in StatefulSet db failed error: Internal error occurred: failed calling webhook \
                       \"p.example.com\": failed to call webhook: Post \"https://p.ops.svc:443/\": no endpoints \
                       available for service \"p\"";
        let said = check(&RULE, &[&stateful_set(0), &event("StatefulSet", "db", refused), webhook]);
        said.finds(&["error StatefulSet shop/db: StatefulSet db has 0 of 3 pods: calling admission webhook \
                      p.example.com failed: no endpoints available for service \"p\""]);
        assert_eq!(said.finding().because[0].to_string(), "ValidatingWebhookConfiguration policies");
    }
}
