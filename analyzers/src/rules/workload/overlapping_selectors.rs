use crate::engine::{Finding, Report, declare_rule};
use crate::snapshot::{Cluster, Kind, Selector, Workload};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for pairs of Deployments, StatefulSets, ReplicaSets, ReplicationControllers or DaemonSets of the same
    /// kind and namespace whose selectors each match the other's pods in addition to their own.
    ///
    /// ## Why it matters
    ///
    /// Kubernetes does not prevent overlapping selectors but warns against them: the workloads count and may adopt each
    /// other's pods, an autoscaler measures the load of both, and `kubectl logs` or `kubectl exec` on one may select a
    /// pod of the other.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get deployments -o wide` shows the selectors. `kubectl -n NAMESPACE get pods -l SELECTOR`
    /// lists the pods of both.
    ///
    /// ## How to fix
    ///
    /// Add a distinct label to the selector and the pod template of each workload. Selectors are immutable: delete the
    /// workload with `--cascade=orphan` and recreate it, or create one with another name.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire if:
    ///
    /// - only one of the two selects the other's pods, such as a canary with a label of its own in its selector;
    /// - one of the two is scaled to zero;
    /// - both are ReplicaSets of the same Deployment.
    "workload/overlapping-selectors": Error,
    "the selectors of two workloads match each other's pods",
    needs: [],
    optional: [Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    report.not_read(cluster, &[Kind::Deployment, Kind::StatefulSet]);
    for namespace in cluster.workload_namespaces() {
        let workloads = cluster.workloads_in(namespace);
        for (first, selector) in workloads.iter().filter_map(claim) {
            let others = cluster.workloads_matching(namespace, selector);
            for (second, other) in others.iter().filter_map(claim) {
                let later = first.object.kind == second.object.kind && first.object.name < second.object.name;
                if later && claim_each_other((first, selector), (second, other)) {
                    report.add(finding((first, selector), (second, other)));
                }
            }
        }
    }
}

/// A workload that should have pods, with its selector.
fn claim<'a, 'c>(workload: &'a Workload<'c>) -> Option<(&'a Workload<'c>, &'a Selector)> {
    let is_active = !workload.is_scaled_to_zero() && workload.metadata.deletion_timestamp.is_none();
    let selector = workload.selector.as_ref().filter(|selector| !selector.is_empty())?;
    is_active.then_some((workload, selector))
}

fn claim_each_other((a, claims_a): (&Workload, &Selector), (b, claims_b): (&Workload, &Selector)) -> bool {
    let (labels_a, labels_b) = (&a.template.metadata.labels, &b.template.metadata.labels);
    claims_a.matches(labels_b) && claims_b.matches(labels_a) && claims_a.matches(labels_a) && claims_b.matches(labels_b)
}

fn finding((a, claims_a): (&Workload, &Selector), (b, claims_b): (&Workload, &Selector)) -> Finding {
    let (first, second) = (&a.object, &b.object);
    let how = if claims_a == claims_b {
        format!("{claims_a}")
    } else {
        format!("{} selects {claims_a}, {} selects {claims_b}", first.name, second.name)
    };
    let message = format!("{}s {} and {} select each other's pods: {how}", first.kind, first.name, second.name);
    Finding::error(first.clone(), message)
        .evidence(format!("spec.selector is {claims_a}"), first, "spec.selector")
        .evidence(format!("spec.selector is {claims_b}"), second, "spec.selector")
        .key(second.name.clone())
        .fix_command(
            "List the pods that the selector matches",
            kubectl(["-n", first.namespace(), "get", "pods", "-l", &claims_a.to_string(), "--show-labels"]),
        )
        .fix("Add a distinct label to the selector and the pod template of each, then recreate them")
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn deployment(name: &str, selector: &str, labels: &str) -> String {
        format!(
            "
            apiVersion: apps/v1
            kind: Deployment
            metadata: {{name: {name}, namespace: shop}}
            spec:
              replicas: 1
              selector: {{matchLabels: {{{selector}}}}}
              template: {{metadata: {{labels: {{{labels}}}}}}}"
        )
    }

    #[test]
    fn fires_when_they_select_each_others_pods() {
        let (web, api) =
            (deployment("web", "app: shop", "app: shop"), deployment("api", "app: shop", "app: shop, tier: api"));
        check(&RULE, &[&web, &api])
            .finds(&["error Deployment shop/api: Deployments api and web select each other's pods: app=shop"]);
    }

    #[test]
    fn quiet_for_a_canary_with_its_own_label() {
        let stable = deployment("web", "app: web, track: stable", "app: web, track: stable");
        let canary = deployment("canary", "app: web, track: canary", "app: web, track: canary");
        check(&RULE, &[&stable, &canary]).finds_nothing();
        let loose = deployment("web", "app: web", "app: web");
        check(&RULE, &[&loose, &canary]).finds_nothing();
    }

    #[test]
    fn quiet_when_one_is_scaled_to_zero_and_for_manifests_without_labels() {
        let scaled_down = deployment("old", "app: web", "app: web").replace("replicas: 1", "replicas: 0");
        check(&RULE, &[&deployment("web", "app: web", "app: web"), &scaled_down]).finds_nothing();
        check(&RULE, &[&deployment("a", "", ""), &deployment("b", "", "")]).finds_nothing();
    }
}
