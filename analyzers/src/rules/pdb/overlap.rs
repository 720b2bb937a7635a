use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::disruption::{pods, workloads};
use crate::snapshot::model::PodDisruptionBudget;
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Whether two PodDisruptionBudgets cover the same pod.
    ///
    /// ## Why it matters
    ///
    /// The eviction API rejects every eviction of such a pod: "This pod has more than one PodDisruptionBudget, which
    /// the eviction subresource does not support". A drain of its node never completes, whatever the budgets allow.
    ///
    /// ## How to confirm
    ///
    /// Compare the selectors in `kubectl -n NAMESPACE get pdb -o wide`. `kubectl drain NODE --dry-run=server` shows the
    /// error.
    ///
    /// ## How to fix
    ///
    /// Delete one of the two budgets, or make their selectors disjoint.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for budgets that share no pod, or that share only pods of DaemonSets, which drains
    /// ignore.
    "pdb/overlap": Error,
    "two PodDisruptionBudgets cover the same pod, which blocks its eviction",
    needs: [PodDisruptionBudget],
    optional: [Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for budgets in cluster.all::<PodDisruptionBudget>().chunk_by(|a, b| a.namespace() == b.namespace()) {
        let budgets: Vec<(&PodDisruptionBudget, Covered)> = budgets
            .iter()
            .filter(|budget| budget.deleted().is_none())
            .map(|budget| (budget, covered(cluster, budget)))
            .collect();
        for ((one, other), shared) in shared(&budgets) {
            report.add(finding(budgets[one].0, budgets[other].0, &shared));
        }
    }
}

/// The sorted names of pods, by their owners.
type Covered<'a> = BTreeMap<Cow<'a, ObjectRef>, Vec<&'a str>>;

/// The pairs of budgets that cover the same pods, with the number of shared pods per owner. Each pair occurs once, in
/// the order of names.
fn shared<'a>(
    budgets: &'a [(&PodDisruptionBudget, Covered)],
) -> BTreeMap<(usize, usize), BTreeMap<&'a ObjectRef, usize>> {
    let mut by_owner: BTreeMap<&ObjectRef, Vec<(usize, &Vec<&str>)>> = BTreeMap::new();
    for (n, (_, covered)) in budgets.iter().enumerate() {
        for (owner, pods) in covered.iter().filter(|(owner, _)| !owner.is(Kind::DaemonSet)) {
            by_owner.entry(owner).or_default().push((n, pods));
        }
    }
    let mut pairs: BTreeMap<(usize, usize), BTreeMap<&ObjectRef, usize>> = BTreeMap::new();
    for (owner, covering) in by_owner {
        for (at, (one, ours)) in covering.iter().enumerate() {
            for (other, theirs) in &covering[at + 1..] {
                let pods = ours.iter().filter(|pod| theirs.binary_search(pod).is_ok()).count();
                if pods > 0 {
                    pairs.entry((*one, *other)).or_default().insert(owner, pods);
                }
            }
        }
    }
    pairs
}

/// The pods that a budget covers, by their owners. For manifests, which have no pods, the workloads themselves.
fn covered<'a>(cluster: &'a Cluster, budget: &PodDisruptionBudget) -> Covered<'a> {
    let mut covered = Covered::new();
    if !budget.is_live() {
        for workload in workloads(cluster, budget) {
            covered.entry(Cow::Owned(workload.object)).or_default().push("");
        }
    }
    for pod in pods(cluster, budget) {
        covered.entry(cluster.owner_of(pod)).or_default().push(pod.name());
    }
    covered
}

fn finding(budget: &PodDisruptionBudget, other: &PodDisruptionBudget, shared: &BTreeMap<&ObjectRef, usize>) -> Finding {
    let (object, second, namespace) = (budget.reference(), other.reference(), budget.namespace());
    let owners: Vec<String> = shared.keys().map(|owner| format!("{} {}", owner.kind, owner.name)).collect();
    let message = format!(
        "PodDisruptionBudgets {} and {} both cover pods of {}, which therefore cannot be evicted",
        budget.name(),
        other.name(),
        words::list(&owners, 3)
    );
    let text = |budget: &PodDisruptionBudget| {
        let selector = crate::kubernetes::disruption::selector(budget).unwrap_or_default();
        if selector.is_empty() {
            "spec.selector matches all pods".to_string()
        } else {
            format!("spec.selector is {selector}")
        }
    };
    Finding::error(object.clone(), message)
        .evidence(text(budget), &object, "spec.selector")
        .evidence(text(other), &second, "spec.selector")
        .key(other.name())
        .pods(if budget.is_live() { shared.values().sum() } else { 0 })
        .fix_command(
            "Delete one of the two, or make their selectors disjoint",
            kubectl(["-n", namespace, "get", "pdb", budget.name(), other.name(), "-o", "yaml"]),
        )
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn budget(name: &str, selector: &str) -> String {
        format!(
            "
            apiVersion: policy/v1
            kind: PodDisruptionBudget
            metadata: {{name: {name}, namespace: shop, uid: u}}
            spec: {{minAvailable: 1, selector: {{matchLabels: {{{selector}}}}}}}"
        )
    }

    fn pod(kind: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: Pod
            metadata:
              name: cart-0
              namespace: shop
              labels: {{app: cart, tier: web}}
              ownerReferences: [{{apiVersion: apps/v1, kind: {kind}, name: cart, controller: true}}]"
        )
    }

    #[test]
    fn fires_when_two_cover_a_pod() {
        let said = check(&RULE, &[&budget("all", ""), &budget("cart", "app: cart"), &pod("StatefulSet")]);
        said.finds(&[
            "error PodDisruptionBudget shop/all: PodDisruptionBudgets all and cart both cover pods of StatefulSet cart, \
             which therefore cannot be evicted",
        ]);
        assert_eq!(said.finding().pods, 1);
    }

    #[test]
    fn quiet_when_they_share_no_pod() {
        check(&RULE, &[&budget("web", "tier: db"), &budget("cart", "app: cart"), &pod("StatefulSet")]).finds_nothing();
        check(&RULE, &[&budget("all", ""), &budget("cart", "app: cart")]).finds_nothing();
    }

    #[test]
    fn quiet_for_daemon_sets() {
        check(&RULE, &[&budget("all", ""), &budget("cart", "app: cart"), &pod("DaemonSet")]).finds_nothing();
    }
}
