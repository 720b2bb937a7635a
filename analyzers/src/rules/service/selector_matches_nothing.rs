use crate::cluster::Cluster;
use crate::finding::{Finding, Severity, kubectl};
use crate::kind::{Kind, Object};
use crate::model::Service;
use crate::rule::{Report, declare_rule};
use crate::selector::Selector;

declare_rule! {
    /// ## What it checks
    ///
    /// That the `selector` of a Service matches at least one pod, or the pod template of a workload that could make one.
    ///
    /// ## Why it matters
    ///
    /// A Service whose selector matches no pod has no endpoints. It still has a name and an address, so whatever
    /// connects to it gets no answer or "connection refused", with no hint that a label is wrong.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pods -l SELECTOR` lists nothing, and `kubectl -n NAMESPACE get endpointslices -l
    /// kubernetes.io/service-name=NAME` has no addresses.
    ///
    /// ## How to fix
    ///
    /// Make the selector and the labels of the pod template the same. Mind that a Deployment's own selector cannot be
    /// changed; the Service's can.
    ///
    /// ## When it stays quiet
    ///
    /// For Services without a selector, for `ExternalName`, where the pods or workloads of the namespace could not be
    /// read, and where a matching workload is between pods. If the matching workload is scaled to zero it is only `info`.
    "service/selector-matches-nothing": Error,
    "the selector of a Service matches no pod and no workload",
    needs: [Service, Pod],
    optional: [Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for service in cluster.all::<Service>() {
        let namespace = &service.metadata.namespace;
        if service.spec.selector.is_empty() || service.is_external_name() || !cluster.covers(Kind::Pod, namespace) {
            continue;
        }
        let selector = Selector::equals(&service.spec.selector);
        if !cluster.pods_matching(namespace, &selector).is_empty() {
            continue;
        }
        let object = service.reference();
        let workloads = cluster.workloads_in(namespace);
        let matching: Vec<_> = workloads.iter().filter(|w| selector.matches(&w.template.metadata.labels)).collect();
        if let Some(parked) = matching.iter().find(|workload| workload.is_scaled_to_zero()) {
            report.add(
                Finding::new(
                    Severity::Info,
                    object.clone(),
                    format!(
                        "Service {} has no pod: {} {} is scaled to zero",
                        service.name(),
                        parked.object.kind,
                        parked.object.name
                    ),
                )
                .evidence(format!("spec.selector is {selector}"), &object, "spec.selector"),
            );
            continue;
        }
        if !matching.is_empty() {
            continue;
        }
        let finding = Finding::error(
            object.clone(),
            format!("Service {} selects no pod: it asks for {selector}", service.name()),
        )
        .evidence(format!("spec.selector is {selector}"), &object, "spec.selector")
        .fix_command("Make the selector match the pods", kubectl(["-n", namespace, "edit", "service", service.name()]))
        .rests_on_absence();
        report.add(finding);
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    const SERVICE: &str = "
        apiVersion: v1
        kind: Service
        metadata: {name: cart, namespace: shop}
        spec: {selector: {app: carts}, ports: [{port: 80}]}";

    #[test]
    fn fires_when_no_pod_and_no_workload_matches() {
        check(
            &RULE,
            &[SERVICE, "{apiVersion: v1, kind: Pod, metadata: {name: cart-0, namespace: shop, labels: {app: cart}}}"],
        )
        .finds(&["error Service shop/cart: Service cart selects no pod: it asks for app=carts"]);
    }

    #[test]
    fn quiet_when_a_pod_matches() {
        check(
            &RULE,
            &[SERVICE, "{apiVersion: v1, kind: Pod, metadata: {name: cart-0, namespace: shop, labels: {app: carts}}}"],
        )
        .finds_nothing();
    }
}
