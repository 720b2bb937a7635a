//! Why a pod cannot be scheduled, node by node: the filters of the default scheduler, computed from the objects.
//!
//! Source: <https://kubernetes.io/docs/reference/scheduling/config/#scheduling-plugins>. Every filter runs on every
//! node, to find out what would help. The scheduler itself stops at the first filter that rejects a node, in the order
//! used here.

mod claims;
pub mod clauses;
mod inter_pod;
pub(crate) mod node_affinity;
mod ports;
pub mod resources;
pub mod spread;
pub(crate) mod taints;
#[cfg(test)]
mod tests;
pub mod waiting;

use std::collections::HashMap;

use crate::kubernetes::time::{DELETE, age};
use crate::snapshot::model::{Node, Pod, Taint, Timestamp};
use crate::snapshot::{Amount, Cluster, Kind, Object, ObjectRef};

use inter_pod::Term;
use resources::Resources;

/// Why a pod cannot be scheduled on a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    Cordoned,
    Taint {
        key: String,
        value: String,
        effect: String,
    },
    /// The unmet requirements of `nodeSelector` and node affinity.
    NodeAffinity(String),
    /// A host port that another pod on the node uses, and the owner of that pod.
    HostPort {
        port: String,
        holder: ObjectRef,
    },
    /// The node has reached its maximum number of pods.
    TooManyPods,
    /// Resources that the node lacks, by name.
    Lacks(Vec<Shortage>),
    /// Why the node cannot serve a volume of the pod: `cannot access volume data (requires zone=a)`.
    Volume(String),
    /// The node lacks the topology label of a spread constraint.
    NoSpreadLabel(String),
    /// One more pod here would exceed `maxSkew`.
    Spread {
        topology_key: String,
        max_skew: i32,
        minimum: spread::Minimum,
    },
    /// No pod here matches the pod's affinity.
    PodAffinity(String),
    /// A pod here matches the pod's anti-affinity.
    AntiAffinity(String),
    /// The anti-affinity of a pod here matches this pod. Names the owner of that pod.
    ExcludedBy(String),
}

/// A resource of which a node has too little.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shortage {
    pub resource: String,
    pub requested: Amount,
    pub free: Amount,
    pub allocatable: Amount,
}

/// Why a pod cannot be scheduled on any node, whatever the nodes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    ClaimMissing(String),
    /// A claim that is not bound and does not wait for its first consumer either.
    ClaimUnbound(String),
    ClaimTerminating(String),
    /// A claim whose volume no longer exists.
    ClaimLost(String),
    /// A ReadWriteOncePod claim in use, and the pod that uses it.
    ClaimInUse {
        claim: String,
        pod: String,
    },
}

impl Obstacle {
    pub fn claim(&self) -> &str {
        match self {
            Obstacle::ClaimMissing(claim)
            | Obstacle::ClaimUnbound(claim)
            | Obstacle::ClaimTerminating(claim)
            | Obstacle::ClaimLost(claim)
            | Obstacle::ClaimInUse { claim, .. } => claim,
        }
    }
}

/// The result of scheduling a pod.
#[derive(Debug)]
pub struct Placement<'a> {
    pub obstacles: Vec<Obstacle>,
    /// All candidate nodes (the one that the pod is pinned to, or all) with their refusals, sorted by name.
    pub nodes: Vec<(&'a Node, Vec<Refusal>)>,
    /// The pod selects its node by `matchFields`, as DaemonSet pods do.
    pub is_pinned: bool,
    /// All filters ran, not only those that do not depend on other pods.
    pub is_complete: bool,
}

impl Placement<'_> {
    /// Whether the snapshot explains why the pod is not scheduled.
    pub fn is_explained(&self) -> bool {
        !self.obstacles.is_empty() || (!self.nodes.is_empty() && self.nodes.iter().all(|(_, why)| !why.is_empty()))
    }
}

struct NodeState<'a> {
    node: &'a Node,
    /// The pods that use its resources. Terminating pods do until they are deleted, finished pods do not.
    pods: Vec<&'a Pod>,
    requested: Resources,
    allocatable: Resources,
}

/// All nodes with the pods that are bound to them.
pub struct Scheduler<'a> {
    cluster: &'a Cluster,
    nodes: Vec<NodeState<'a>>,
    /// Pods with required anti-affinity, their terms, and the index of their node in `nodes`.
    repelling: Vec<(&'a Pod, Vec<Term>, usize)>,
    is_complete: bool,
}

impl<'a> Scheduler<'a> {
    /// `None` if not all nodes are known. If not all pods are known, only the filters that do not depend on other pods
    /// are evaluated.
    pub fn new(cluster: &'a Cluster) -> Option<Scheduler<'a>> {
        Scheduler::with(cluster, |_| true)
    }

    /// The state after all pods that terminate in time are deleted.
    pub fn after_terminations(cluster: &'a Cluster) -> Option<Scheduler<'a>> {
        Scheduler::with(cluster, |pod| !is_namespace_terminating(pod, cluster.now()))
    }

    fn with(cluster: &'a Cluster, counts: impl Fn(&Pod) -> bool) -> Option<Scheduler<'a>> {
        if !cluster.covers_all(Kind::Node) {
            return None;
        }
        let is_complete = cluster.covers_all(Kind::Pod) && cluster.covers_all(Kind::Namespace);
        let mut requests = resources::Requests::default();
        let empty = |node| NodeState {
            node,
            pods: Vec::new(),
            requested: Resources::default(),
            allocatable: resources::allocatable(node),
        };
        let mut nodes: Vec<NodeState> = cluster.all::<Node>().iter().map(empty).collect();
        let places: HashMap<&str, usize> = (0..).zip(&nodes).map(|(n, state)| (state.node.name(), n)).collect();
        let mut repelling = Vec::new();
        for pod in cluster.all::<Pod>().iter().filter(|pod| !pod.is_finished() && counts(pod)) {
            let Some(&n) = places.get(pod.spec.node_name.as_str()) else { continue };
            let state = &mut nodes[n];
            state.pods.push(pod);
            // With unknown pods, only the allocatable resources are certain.
            if is_complete {
                state.requested.add(requests.of(pod));
            }
            let terms = inter_pod::anti_affinity(cluster, pod);
            if !terms.is_empty() {
                repelling.push((pod, terms, n));
            }
        }
        repelling.sort_by_key(|(_, _, n)| *n);
        Some(Scheduler { cluster, nodes, repelling, is_complete })
    }

    /// Whether all pods are known, so that all filters can be evaluated.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Evaluates all filters on all nodes.
    pub fn place(&self, pod: &Pod) -> Placement<'a> {
        let pinned_to = node_affinity::pinned_to(&pod.spec);
        let spread = spread::Spread::new(self, pod);
        let neighbours = inter_pod::Neighbours::new(self, pod);
        let claims = claims::Claims::new(self.cluster, pod);
        let requests = resources::requests(&pod.spec);
        let nodes = self.nodes.iter();
        let nodes = nodes.filter(|state| pinned_to.is_none_or(|name| state.node.name() == name)).map(|state| {
            let mut why = Vec::new();
            taints::check(pod, state.node, &mut why);
            node_affinity::check(pod, state.node, &mut why);
            ports::check(self.cluster, pod, &state.pods, &mut why);
            resources::check(&requests, state, &mut why);
            claims.check(state.node, &mut why);
            if self.is_complete {
                spread.check(state.node, &mut why);
                neighbours.check(state.node, &mut why);
            }
            (state.node, why)
        });
        Placement {
            obstacles: claims.obstacles.clone(),
            nodes: nodes.collect(),
            is_pinned: pinned_to.is_some(),
            is_complete: self.is_complete,
        }
    }

    /// The requested and the allocatable resources of each node.
    pub fn usage(&self) -> impl Iterator<Item = (&'a Node, &Resources, &Resources)> {
        self.nodes.iter().map(|state| (state.node, &state.requested, &state.allocatable))
    }
}

/// Whether a pod terminates in time and will free its resources soon.
fn is_namespace_terminating(pod: &Pod, now: Timestamp) -> bool {
    pod.deleted().is_some_and(|deleted| age(now, deleted) <= DELETE)
}

impl Refusal {
    fn taint(taint: &Taint) -> Refusal {
        Refusal::Taint { key: taint.key.clone(), value: taint.value.clone(), effect: taint.effect.clone() }
    }

    /// The taints that the node controller adds to a node that is not ready or unreachable.
    /// Source: <https://kubernetes.io/docs/reference/labels-annotations-taints/#node-kubernetes-io-not-ready>
    pub fn is_not_ready(&self) -> bool {
        let keys = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
        matches!(self, Refusal::Taint { key, .. } if keys.contains(&key.as_str()))
    }

    /// The taints that mirror a condition of the node.
    pub fn is_node_trouble(&self) -> bool {
        let keys = ["memory-pressure", "disk-pressure", "pid-pressure", "network-unavailable"];
        let is_pressure = |key: &str| key.strip_prefix("node.kubernetes.io/").is_some_and(|key| keys.contains(&key));
        self.is_not_ready() || matches!(self, Refusal::Taint { key, .. } if is_pressure(key))
    }
}

/// The names of the claims that a pod uses, including those of its generic ephemeral volumes.
/// Source: <https://kubernetes.io/docs/concepts/storage/ephemeral-volumes/#persistentvolumeclaim-naming>
pub fn claim_names(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.volumes.iter();
    let names = volumes.filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", pod.metadata.name, volume.name)),
        (None, None) => None,
    });
    names.collect()
}

/// A reference to a claim in the pod's namespace.
pub fn claim_reference(pod: &Pod, claim: &str) -> ObjectRef {
    ObjectRef::new(Kind::PersistentVolumeClaim, &pod.metadata.namespace, claim)
}
