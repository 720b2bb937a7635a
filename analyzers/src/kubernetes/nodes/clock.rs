//! Nodes whose clock differs from that of the control plane.
//!
//! The kubelet writes the start of a pod, its events and its lease by the clock of its node. The API server writes
//! `creationTimestamp`, and the scheduler the condition `PodScheduled`, by theirs. A pod cannot start before it was
//! created and scheduled.

use std::time::Duration;

use crate::kubernetes::nodes::kubelet::KubeletExt;
use crate::kubernetes::nodes::lease;
use crate::kubernetes::time::age;
use crate::snapshot::model::{Lease, Node, Pod, Timestamp};
use crate::snapshot::{Cluster, Object};

/// Differences below this do no harm, and times in the API are rounded to seconds.
const TOLERATED: Duration = Duration::from_secs(60);
/// How much the lease may deviate from the lag of the pods: renewals, and the time to start a pod.
const SLACK: Duration = Duration::from_secs(120);
/// How close the leases of the other nodes must be for one to stand out.
const TOGETHER: Duration = Duration::from_secs(60);

/// How a node's clock differs, and what shows it.
#[derive(Clone, Copy, Debug)]
pub enum Skew<'a> {
    /// The clock is slow: a pod started before it was created or scheduled.
    Behind { by: Duration, pod: &'a Pod, pods: usize },
    /// The clock is fast: the lease was renewed later than all others.
    Ahead { by: Duration, renewed: Timestamp, others: Timestamp },
}

/// The difference of a node's clock, if it is larger than a minute and still exists.
pub fn skew<'a>(cluster: &'a Cluster, node: &Node) -> Option<Skew<'a>> {
    behind(cluster, node).or_else(|| ahead(cluster, node))
}

fn behind<'a>(cluster: &'a Cluster, node: &Node) -> Option<Skew<'a>> {
    // A clock that has been corrected leaves old pods with wrong times behind.
    let silent = age(cluster.now(), cluster.last_sign_of_life(node)?);
    if silent <= TOLERATED {
        return None;
    }
    let pods = cluster.pods_on_node(node.name());
    let lags = pods.into_iter().filter_map(|pod| Some((lag(pod)?, pod)));
    let is_current = |lag: Duration| silent + SLACK >= lag && silent <= lag + lag / 4 + SLACK;
    let current: Vec<(Duration, &Pod)> = lags.filter(|(lag, _)| *lag > TOLERATED && is_current(*lag)).collect();
    let (by, pod) = current.iter().max_by_key(|(lag, pod)| (pod.created(), *lag)).copied()?;
    Some(Skew::Behind { by, pod, pods: current.len() })
}

/// How long before its creation or scheduling a pod started, by the clock of its node. Mirror pods are created after
/// the static pod has started.
fn lag(pod: &Pod) -> Option<Duration> {
    if pod.is_static() {
        return None;
    }
    let started = pod.status.start_time?;
    let scheduled = pod.condition("PodScheduled").and_then(|condition| condition.last_transition_time);
    let known = pod.created()?.max(scheduled?);
    Some(age(known, started)).filter(|lag| !lag.is_zero())
}

fn ahead<'a>(cluster: &'a Cluster, node: &Node) -> Option<Skew<'a>> {
    let own = cluster.node_lease(node)?;
    let renewed = lease::renewed(own)?;
    let Newest(newest) = cluster.derived(|| Newest::of(cluster));
    let mut others = newest.iter().filter(|(_, place)| place != &(own.namespace().to_string(), own.name().to_string()));
    let (latest, _) = others.next()?;
    let confirmed = others.next().is_some_and(|(time, _)| age(*latest, *time) <= TOGETHER);
    let by = age(renewed, *latest);
    (by > TOLERATED && confirmed).then_some(Skew::Ahead { by, renewed, others: *latest })
}

/// Whether the clock of the node with the newest lease is ahead: times that are taken from the data are then too late.
pub fn is_any_ahead(cluster: &Cluster) -> bool {
    let Newest(newest) = cluster.derived(|| Newest::of(cluster));
    match newest.as_slice() {
        [(first, (namespace, _)), (second, _), (third, _)] => {
            namespace == "kube-node-lease" && age(*first, *second) > TOLERATED && age(*second, *third) <= TOGETHER
        }
        _ => false,
    }
}

/// The leases that were renewed last, the newest first: enough to compare any one with two others.
struct Newest(Vec<(Timestamp, (String, String))>);

impl Newest {
    fn of(cluster: &Cluster) -> Newest {
        let leases = cluster.all::<Lease>().iter();
        let renewed = leases.filter_map(|lease| Some((lease::renewed(lease)?, lease)));
        let mut newest: Vec<(Timestamp, &Lease)> = renewed.collect();
        newest.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
        newest.truncate(3);
        let place = |lease: &Lease| (lease.namespace().to_string(), lease.name().to_string());
        Newest(newest.into_iter().map(|(time, lease)| (time, place(lease))).collect())
    }
}
