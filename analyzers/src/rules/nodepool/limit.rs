use std::collections::BTreeMap;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::nodes::karpenter::{self, Limit, limits, pools};
use crate::kubernetes::scheduling::resources::{self, Resources};
use crate::kubernetes::scheduling::waiting::Waiting;
use crate::kubernetes::time::{SCHEDULE, age};
use crate::snapshot::model::{CustomResource, Event, Pod};
use crate::snapshot::{Cluster, Object, ObjectRef};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for Karpenter NodePools whose `spec.limits` prevent a new node for pods that cannot be scheduled: Karpenter
    /// reports in an event of the pod that all instance types exceed the limits of the NodePool.
    ///
    /// ## Why it matters
    ///
    /// Karpenter creates no node beyond the limits, so the pods stay `Pending`. The limit need not be reached exactly: it is
    /// enough that the smallest suitable instance type would exceed it.
    ///
    /// ## How to confirm
    ///
    /// `kubectl describe nodepool NAME` shows `spec.limits`, and the amounts in use under `status.resources`.
    ///
    /// ## How to fix
    ///
    /// Raise the limit, or scale down what runs on the nodes of the NodePool. The limit protects against unexpected costs,
    /// so check first why usage has grown.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for a NodePool that has reached its limit while no pod waits for a node, or if the last event
    /// of Karpenter is older than one hour.
    "nodepool/limit": Error,
    "a Karpenter NodePool creates no nodes because of its limits",
    needs: [Pod, Event],
    optional: [ReplicaSet, Job],
    reads_custom: true,
    explained_by: [],
}

/// Pods that a pool's limits keep pending.
#[derive(Default)]
struct Kept<'a> {
    owners: Vec<ObjectRef>,
    pods: usize,
    requests: Resources,
    sample: Option<(&'a Pod, &'a Event)>,
}

fn check(cluster: &Cluster, report: &mut Report) {
    let pools = pools(cluster);
    if pools.is_empty() {
        return;
    }
    let mut kept: BTreeMap<String, Kept> = BTreeMap::new();
    for group in cluster.pod_groups() {
        let waiting = cluster.pods_of(group).filter_map(Waiting::new);
        for pod in waiting.filter(|waiting| is_overdue(cluster, waiting)).map(|waiting| waiting.pod) {
            let Some(event) = karpenter::failure(cluster, pod) else { continue };
            for pool in karpenter::limited(&pools, event) {
                let kept = kept.entry(pool.metadata.name.clone()).or_default();
                kept.add(&group.owner, pod, event);
            }
        }
    }
    for pool in pools {
        if let Some(kept) = kept.get(&pool.metadata.name) {
            report.add(finding(pool, kept));
        }
    }
}

fn is_overdue(cluster: &Cluster, waiting: &Waiting) -> bool {
    waiting.since.is_none_or(|since| age(cluster.now(), since) >= SCHEDULE)
}

impl<'a> Kept<'a> {
    fn add(&mut self, owner: &ObjectRef, pod: &'a Pod, event: &'a Event) {
        if self.owners.last() != Some(owner) {
            self.owners.push(owner.clone());
        }
        self.pods += 1;
        self.requests.add(&resources::requests(&pod.spec));
        self.sample.get_or_insert((pod, event));
    }
}

fn finding(pool: &CustomResource, kept: &Kept) -> Finding {
    let (object, name) = (pool.reference(), &pool.metadata.name);
    let limits = limits(pool);
    let amounts = |limit: &Limit| {
        let (used, most) = (limit.used.text(&limit.resource), limit.limit.text(&limit.resource));
        format!("{} {used} of {most}", limit.resource)
    };
    let reached: Vec<String> = limits.iter().filter(|limit| limit.is_reached()).map(amounts).collect();
    let all: Vec<String> = limits.iter().map(amounts).collect();
    let state = match (reached.is_empty(), all.is_empty()) {
        (false, _) => format!("has reached its limits ({})", words::list(&reached, 3)),
        (true, false) => format!("has too little left within its limits ({})", words::list(&all, 3)),
        (true, true) => "has reached its limits".to_string(),
    };
    let owners: Vec<String> = kept.owners.iter().map(ObjectRef::title).collect();
    let message = format!(
        "{} {name} {state}, so Karpenter creates no node for {} of {}",
        pool.kind,
        words::count(kept.pods, "pending pod"),
        words::list(&owners, 3)
    );
    let mut finding = Finding::error(object.clone(), message).pods(kept.pods);
    for limit in &limits {
        let (used, most) = (limit.used.text(&limit.resource), limit.limit.text(&limit.resource));
        finding = finding.evidence(format!("limit of {} is {most}", limit.resource), &object, "spec.limits").evidence(
            format!("{} in use is {used}", limit.resource),
            &object,
            "status.resources",
        );
    }
    if let Some((pod, event)) = kept.sample {
        let text = format!("karpenter reports: {}", words::shorten(&event.message, 300));
        finding = finding.evidence(text, &pod.reference(), "");
    }
    let needed = needed(&limits, kept);
    finding.fix_command(
        format!("Raise spec.limits of {} {name}{needed}, or scale down what runs on its nodes", pool.kind),
        kubectl(["describe", &pool.kind.to_lowercase(), name]),
    )
}

/// What the limits must be at least: ` (to at least cpu 23)`.
fn needed(limits: &[Limit], kept: &Kept) -> String {
    let enough = limits.iter().filter_map(|limit| {
        let wanted = limit.used + kept.requests.get(&limit.resource);
        (wanted > limit.limit).then(|| format!("{} {}", limit.resource, wanted.text(&limit.resource)))
    });
    let enough: Vec<String> = enough.collect();
    if enough.is_empty() { String::new() } else { format!(" (to at least {})", words::list(&enough, 3)) }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn pool(used: u32) -> String {
        format!(
            "{{apiVersion: karpenter.sh/v1, kind: NodePool, metadata: {{name: apps, uid: u1}}, spec: {{limits: {{cpu: '32'}}}},
            status: {{resources: {{cpu: '{used}'}}}}}}"
        )
    }

    const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, uid: u},
        spec: {containers: [{name: app, resources: {requests: {cpu: '4'}}}]}, status: {phase: Pending,
        conditions: [{type: PodScheduled, status: 'False', reason: Unschedulable, lastTransitionTime: '2026-11-21T11:00:00Z'}]}}";

    fn event(message: &str, seen: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Event, metadata: {{name: e, namespace: shop}}, type: Warning, reason: FailedScheduling,
            message: '{message}', lastTimestamp: '{seen}', source: {{component: karpenter}},
            involvedObject: {{kind: Pod, namespace: shop, name: web}}}}"
        )
    }

    const EXCEEDED: &str = "all available instance types exceed limits for nodepool: \"apps\"";
    const SEEN: &str = "2026-11-21T11:55:00Z";

    #[test]
    fn fires_when_karpenter_reports_the_limit() {
        let said = check(&RULE, &[&pool(32), POD, &event(EXCEEDED, SEEN)]);
        said.finds(&[
            "error NodePool apps: NodePool apps has reached its limits (cpu 32 of 32), so Karpenter creates no node for 1 \
             pending pod of Pod web",
        ]);
        assert!(said.text().contains("to at least cpu 36"), "{}", said.text());
        check(&RULE, &[&pool(29), POD, &event(EXCEEDED, SEEN)]).finds(&[
            "error NodePool apps: NodePool apps has too little left within its limits (cpu 29 of 32), so Karpenter creates no \
             node for 1 pending pod of Pod web",
        ]);
    }

    #[test]
    fn quiet_without_a_waiting_pod_or_for_other_reasons() {
        check(&RULE, &[&pool(32), &event(EXCEEDED, SEEN)]).finds_nothing();
        check(&RULE, &[&pool(32), POD]).finds_nothing();
        check(&RULE, &[&pool(32), POD, &event("no instance type satisfied resources", SEEN)]).finds_nothing();
        check(&RULE, &[&pool(32), POD, &event(EXCEEDED, "2026-11-21T10:00:00Z")]).finds_nothing();
    }
}
