//! Requests against what a node can give.
//!
//! Source: <https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/>

use std::collections::{BTreeMap, HashMap};
use std::iter::Sum;

use super::{NodeState, Refusal, Shortage};
use crate::snapshot::Amount;
use crate::snapshot::model::{Container, Node, Pod, PodSpec, ResourceList};

/// Amounts by resource name.
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
    /// What is no quantity counts as nothing.
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

/// What pods request. Those of one template share their spec, so that it is reckoned up once.
#[derive(Default)]
pub struct Requests(HashMap<*const PodSpec, Resources>);

impl Requests {
    pub fn of(&mut self, pod: &Pod) -> &Resources {
        let spec: &PodSpec = &pod.spec;
        self.0.entry(spec).or_insert_with(|| requests(spec))
    }
}

/// What a pod requests: its containers and sidecars together, or what one of the init containers needs beside the
/// sidecars before it, if that is more (KEP-753); replaced by requests of the pod as a whole (KEP-2837); and the overhead
/// of its RuntimeClass.
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

/// A limit without a request is a request, too (the API server fills it in).
fn requests_of(container: &Container) -> Resources {
    let mut resources = Resources::from(&*container.resources.limits);
    resources.0.extend(Resources::from(&*container.resources.requests).0);
    resources
}

/// What a node can give to pods.
pub fn allocatable(node: &Node) -> Resources {
    let status = &node.status;
    Resources::from(&**if status.allocatable.is_empty() { &status.capacity } else { &status.allocatable })
}

pub(super) fn check(requests: &Resources, state: &NodeState, why: &mut Vec<Refusal>) {
    let (allocatable, requested) = (&state.allocatable, &state.requested);
    if allocatable.0.is_empty() {
        return; // The node has not said yet what it has.
    }
    let pods = Amount::whole(i64::try_from(state.pods.len()).unwrap_or(i64::MAX));
    if pods + Amount::whole(1) > allocatable.get("pods") {
        why.push(Refusal::TooManyPods);
    }
    let wanted = requests.iter().filter(|(_, amount)| amount.is_positive());
    let shortages = wanted.filter_map(|(resource, wanted)| {
        let has = allocatable.get(resource);
        // What is bound may be more than the node has by now; less than nothing is not free.
        let free = (has - requested.get(resource)).max(Amount::ZERO);
        let shortage = Shortage { resource: resource.to_string(), requested: wanted, free, allocatable: has };
        (wanted > free).then_some(shortage)
    });
    let shortages: Vec<Shortage> = shortages.collect();
    if !shortages.is_empty() {
        why.push(Refusal::Lacks(shortages));
    }
}
