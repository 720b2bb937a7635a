use crate::kubernetes::nodes::lease::LeaseExt;
use std::time::Duration;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::nodes::lease;
use crate::kubernetes::scheduling::waiting::{Waiting, Why};
use crate::kubernetes::time::{age, human};
use crate::snapshot::model::{Lease, Pod, Timestamp};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// That kube-scheduler and kube-controller-manager renew their leader election leases.
    ///
    /// ## Why it matters
    ///
    /// Without a leading scheduler no new pods are scheduled. Without a leading controller manager no pods are created
    /// for Deployments or Jobs, endpoints are not updated, and lost nodes go unnoticed. Running pods keep running, so
    /// the outage is often detected late.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n kube-system get lease kube-scheduler kube-controller-manager -o
    /// custom-columns=NAME:.metadata.name,HOLDER:.spec.holderIdentity,RENEWED:.spec.renewTime`
    ///
    /// ## How to fix
    ///
    /// Find out why the component's pods in kube-system fail: `kubectl -n kube-system logs POD`, or `crictl ps -a` and
    /// the manifests in /etc/kubernetes/manifests on a control plane node. Expired certificates are a frequent cause
    /// (`kubeadm certs check-expiration`).
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire where these leases do not exist (managed control planes, single-server distributions),
    /// where no other lease is being renewed at the time of the snapshot, or where recent work of the component shows
    /// that it is active without the lease.
    "controlplane/leader": Error,
    "the scheduler or the controller manager does not renew its lease",
    needs: [Lease],
    optional: [Pod],
    explained_by: ["controlplane/pod", "pod/*"],
}

/// kube-scheduler and kube-controller-manager renew their leases every two seconds by default.
const LOST: Duration = Duration::from_secs(60);

fn check(cluster: &Cluster, report: &mut Report) {
    if !cluster.has_a_fresh_lease() {
        return;
    }
    for component in ["kube-scheduler", "kube-controller-manager"] {
        let Some(lease) = cluster.get::<Lease>("kube-system", component).found() else { continue };
        let Some(renewed) = lease::renewed(lease) else { continue };
        let duration = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or_default();
        let duration = Duration::from_secs(u64::try_from(duration).unwrap_or_default());
        let allowed = LOST.max(duration.saturating_mul(4));
        if age(cluster.now(), renewed) <= allowed || works(cluster, component, renewed, allowed) {
            continue;
        }
        report.add(finding(cluster, component, renewed, lease));
    }
}

fn finding(cluster: &Cluster, component: &str, renewed: Timestamp, lease: &Lease) -> Finding {
    let object = ObjectRef::new(Kind::Lease, "kube-system", component);
    let is_scheduler = component == "kube-scheduler";
    let ignored = cluster.all::<Pod>().iter().filter_map(Waiting::new);
    let ignored = ignored.filter(|waiting| matches!(waiting.why, Why::Ignored) && is_default(waiting.pod)).count();
    let consequence = match (is_scheduler, ignored) {
        (false, _) => "controllers are not acting on changes".to_string(),
        (true, 0) => "no new pods are scheduled".to_string(),
        (true, 1) => "1 pod is waiting to be scheduled".to_string(),
        (true, n) => format!("{n} pods are waiting to be scheduled"),
    };
    let lasting = human(age(cluster.now(), renewed));
    let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
    let holder = if holder.is_empty() { "empty".to_string() } else { words::shorten(holder, 80) };
    let mut finding =
        Finding::error(object.clone(), format!("{component} has not renewed its lease for {lasting}: {consequence}"))
            .evidence(format!("the lease was last renewed at {renewed}"), &object, "spec.renewTime")
            .evidence(format!("holderIdentity is {holder}"), &object, "spec.holderIdentity")
            .since(Some(renewed))
            .pods(if is_scheduler { ignored } else { 0 })
            .fix_command(
                "Check the status and logs of its pods",
                kubectl(["-n", "kube-system", "get", "pods", "-l", &format!("component={component}"), "-o", "wide"]),
            );
    for pod in cluster.in_namespace::<Pod>("kube-system") {
        if pod.metadata.labels.get("component") == Some(component) {
            finding = finding.because(cluster.owner_of(pod).into_owned());
        }
    }
    finding
}

fn is_default(pod: &Pod) -> bool {
    matches!(pod.spec.scheduler_name.as_str(), "" | "default-scheduler")
}

/// Whether something happened after the last renewal that only this component does. The lease is a leftover then.
fn works(cluster: &Cluster, component: &str, renewed: Timestamp, allowed: Duration) -> bool {
    let is_later = |time: Timestamp| time > renewed && age(time, renewed) > allowed;
    let mut pods = cluster.all::<Pod>().iter().filter(|pod| !pod.is_static());
    if component == "kube-scheduler" {
        let scheduled = |pod: &Pod| pod.condition("PodScheduled").and_then(|condition| condition.last_transition_time);
        return pods.any(|pod| is_default(pod) && scheduled(pod).is_some_and(is_later));
    }
    let is_created_by_it = |pod: &Pod| {
        let owner = pod.controller();
        owner.is_some_and(|owner| {
            [Kind::ReplicaSet, Kind::Job, Kind::DaemonSet, Kind::StatefulSet].iter().any(|k| owner.is(*k))
        })
    };
    pods.any(|pod| is_created_by_it(pod) && pod.created().is_some_and(is_later))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    fn lease(name: &str, renewed: &str) -> String {
        format!(
            "{{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {{name: {name}, namespace: kube-system}},
            spec: {{holderIdentity: cp-1, leaseDurationSeconds: 15, renewTime: '{renewed}'}}}}"
        )
    }

    fn alive() -> String {
        lease("apiserver-x", "2026-11-21T11:59:58.000000Z")
    }

    const PENDING: &str =
        "{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, creationTimestamp: '2026-11-21T11:50:00Z'},
        status: {phase: Pending}}";

    #[test]
    fn fires_when_a_lease_is_not_renewed() {
        let stale = "2026-11-21T11:40:00.000000Z";
        check(&RULE, &[&lease("kube-scheduler", stale), &alive(), PENDING])
            .finds(&["error Lease kube-system/kube-scheduler: kube-scheduler has not renewed its lease for 20m: 1 \
             pod is waiting to be scheduled"]);
        TestCluster::new(&[&lease("kube-controller-manager", stale), &alive()]).forbid(Kind::Pod).check(&RULE).finds(&[
            "error Lease kube-system/kube-controller-manager: kube-controller-manager has not renewed its lease for 20m: \
             controllers are not acting on changes",
        ]);
    }

    #[test]
    fn quiet_when_renewed_when_no_lease_is_fresh_or_without_a_lease() {
        check(&RULE, &[&lease("kube-scheduler", "2026-11-21T11:59:10.000000Z"), &alive()]).finds_nothing();
        check(&RULE, &[&lease("kube-scheduler", "2026-11-21T11:40:00.000000Z")]).finds_nothing();
        check(&RULE, &[&alive(), PENDING]).finds_nothing();
        let bare = "{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: kube-scheduler, namespace: kube-system}}";
        check(&RULE, &[bare, &alive()]).finds_nothing();
    }

    #[test]
    fn quiet_when_pods_were_scheduled_since() {
        let scheduled = "{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop}, spec: {nodeName: a}, status: {conditions: [
            {type: PodScheduled, status: 'True', lastTransitionTime: '2026-11-21T11:50:00Z'}]}}";
        check(&RULE, &[&lease("kube-scheduler", "2026-11-21T11:40:00.000000Z"), &alive(), scheduled]).finds_nothing();
    }
}
