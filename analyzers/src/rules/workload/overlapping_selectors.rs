use crate::engine::{Finding, Report, declare_rule};
use crate::snapshot::{Cluster, Kind, Selector, Workload};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// Whether two Deployments, StatefulSets, ReplicaSets, ReplicationControllers or DaemonSets of one namespace and kind
    /// each select the other's pods as well as their own.
    ///
    /// ## Why it matters
    ///
    /// Kubernetes does not prevent it and warns against it: the two count and may adopt each other's pods, an autoscaler
    /// reckons with the load of both, and `kubectl logs` or `kubectl exec` on the one may end in a pod of the other.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get deployments -o wide` shows the selectors; `kubectl -n NAMESPACE get pods -l SELECTOR` lists
    /// pods of both.
    ///
    /// ## How to fix
    ///
    /// Give each its own label, in the selector and in the pod template. A selector cannot be changed: delete the workload
    /// with `--cascade=orphan` and create it anew, or create one with another name.
    ///
    /// ## Exceptions
    ///
    /// When only one of the two selects the other's pods, as a canary with a label of its own in its selector; when one of
    /// the two is scaled to zero; for the ReplicaSets of one Deployment.
    "workload/overlapping-selectors": Error,
    "two workloads' selectors claim the same pods",
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

/// A workload that wants pods, with the selector by which it counts them.
fn claim<'a, 'c>(workload: &'a Workload<'c>) -> Option<(&'a Workload<'c>, &'a Selector)> {
    let wants = !workload.is_scaled_to_zero() && workload.metadata.deletion_timestamp.is_none();
    let selector = workload.selector.as_ref().filter(|selector| !selector.is_empty())?;
    wants.then_some((workload, selector))
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
        format!("{} by {claims_a}, {} by {claims_b}", first.name, second.name)
    };
    let message = format!("{}s {} and {} each select the other's pods too: {how}", first.kind, first.name, second.name);
    Finding::error(first.clone(), message)
        .evidence(format!("spec.selector is {claims_a}"), first, "spec.selector")
        .evidence(format!("spec.selector is {claims_b}"), second, "spec.selector")
        .key(second.name.clone())
        .fix_command(
            "See whose pods the selector finds",
            kubectl(["-n", first.namespace(), "get", "pods", "-l", &claims_a.to_string(), "--show-labels"]),
        )
        .fix("Give each of the two a label of its own, in the selector and the template, and create it anew")
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
    fn fires_when_each_selects_the_others_pods() {
        let (web, api) =
            (deployment("web", "app: shop", "app: shop"), deployment("api", "app: shop", "app: shop, tier: api"));
        check(&RULE, &[&web, &api])
            .finds(&["error Deployment shop/api: Deployments api and web each select the other's pods too: app=shop"]);
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
        let parked = deployment("old", "app: web", "app: web").replace("replicas: 1", "replicas: 0");
        check(&RULE, &[&deployment("web", "app: web", "app: web"), &parked]).finds_nothing();
        check(&RULE, &[&deployment("a", "", ""), &deployment("b", "", "")]).finds_nothing();
    }
}
