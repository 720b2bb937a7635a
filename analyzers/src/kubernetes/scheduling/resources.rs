//! Resource requests against the allocatable resources of a node.
//!
//! Source: <https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/>

use std::collections::{BTreeMap, HashMap};
use std::iter::Sum;

use super::{NodeState, Refusal, Shortage};
use crate::snapshot::Amount;
use crate::snapshot::model::{Container, Node, Pod, PodSpec, ResourceList};

/// SharedResourceList by resource name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources(BTreeMap<String, Amount>);

impl Resources {
    pub fn get(&self, resource: &str) -> Amount {
        self.0.get(resource).copied().unwrap_or_default()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, Amount)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    fn set(&mut self, resource: &str, amount: Amount) {
        self.0.insert(resource.to_string(), amount);
    }

    pub fn add(&mut self, other: &Resources) {
        for (name, amount) in &other.0 {
            match self.0.get_mut(name) {
                Some(sum) => *sum += *amount,
                None => drop(self.0.insert(name.clone(), *amount)),
            }
        }
    }

    fn raise_to(&mut self, other: &Resources) {
        for (name, amount) in &other.0 {
            let entry = self.0.entry(name.clone()).or_default();
            *entry = (*entry).max(*amount);
        }
    }
}

impl From<&ResourceList> for Resources {
    /// Invalid quantities are ignored.
    fn from(list: &ResourceList) -> Resources {
        Resources(list.iter().filter_map(|(name, quantity)| Some((name.clone(), Amount::of(quantity)?))).collect())
    }
}

impl Sum for Resources {
    fn sum<I: Iterator<Item = Resources>>(all: I) -> Resources {
        let sum = all.reduce(|mut sum, resources| {
            sum.add(&resources);
            sum
        });
        sum.unwrap_or_default()
    }
}

/// The requests of pods. Pods of one template share their spec, so their requests are computed once.
#[derive(Default)]
pub struct Requests(HashMap<*const PodSpec, Resources>);

impl Requests {
    pub fn of(&mut self, pod: &Pod) -> &Resources {
        let spec: &PodSpec = &pod.spec;
        self.0.entry(spec).or_insert_with(|| requests(spec))
    }
}

/// The effective requests of a pod: the sum of its containers and sidecars, or the peak of an init container together
/// with the sidecars before it, if that is more (KEP-753). Pod-level requests take precedence (KEP-2837). The overhead
/// of the RuntimeClass is added.
pub fn requests(spec: &PodSpec) -> Resources {
    let mut total: Resources = spec.containers.iter().map(requests_of).sum();
    let (mut sidecars, mut starting) = (Resources::default(), Resources::default());
    for container in &spec.init_containers {
        let mut needed = requests_of(container);
        if container.is_sidecar() {
            total.add(&needed);
            sidecars.add(&needed);
            starting.raise_to(&sidecars);
        } else {
            needed.add(&sidecars);
            starting.raise_to(&needed);
        }
    }
    total.raise_to(&starting);
    for (name, amount) in Resources::from(&*spec.resources.requests).iter() {
        if matches!(name, "cpu" | "memory") || name.starts_with("hugepages-") {
            total.set(name, amount);
        }
    }
    total.add(&Resources::from(&*spec.overhead));
    total
}

/// A limit without a request is also the request (the API server fills it in).
fn requests_of(container: &Container) -> Resources {
    let mut resources = Resources::from(&*container.resources.limits);
    resources.0.extend(Resources::from(&*container.resources.requests).0);
    resources
}

/// The resources that a node offers to pods.
pub fn allocatable(node: &Node) -> Resources {
    let status = &node.status;
    Resources::from(&**if status.allocatable.is_empty() { &status.capacity } else { &status.allocatable })
}

pub(super) fn check(requests: &Resources, state: &NodeState, why: &mut Vec<Refusal>) {
    let (allocatable, requested) = (&state.allocatable, &state.requested);
    if allocatable.0.is_empty() {
        return; // The node has not reported its resources yet.
    }
    let pods = Amount::whole(i64::try_from(state.pods.len()).unwrap_or(i64::MAX));
    if pods + Amount::whole(1) > allocatable.get("pods") {
        why.push(Refusal::TooManyPods);
    }
    let wanted = requests.iter().filter(|(_, amount)| amount.is_positive());
    let shortages = wanted.filter_map(|(resource, wanted)| {
        let has = allocatable.get(resource);
        // Bound pods may request more than the node has by now.
        let free = (has - requested.get(resource)).max(Amount::ZERO);
        let shortage = Shortage { resource: resource.to_string(), requested: wanted, free, allocatable: has };
        (wanted > free).then_some(shortage)
    });
    let shortages: Vec<Shortage> = shortages.collect();
    if !shortages.is_empty() {
        why.push(Refusal::Lacks(shortages));
    }
}
