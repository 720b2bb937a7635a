use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::nearest::NearestExt;
use crate::kubernetes::network::cluster_dns::DnsExt;
use crate::kubernetes::network::outage::{Outage, OutageExt};
use crate::snapshot::model::Service;
use crate::snapshot::{Cluster, Kind, Object, Selector};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that the `selector` of a Service matches at least one pod, or the pod template of a workload.
    ///
    /// ## Why it matters
    ///
    /// A Service whose selector matches no pods has no endpoints. It still has a name and an address, so clients get a
    /// timeout or "connection refused", with no hint that a label is wrong.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pods -l SELECTOR` finds no resources, and
    /// `kubectl -n NAMESPACE get endpointslices -l kubernetes.io/service-name=NAME` shows no addresses.
    ///
    /// ## How to fix
    ///
    /// Make the selector match the labels of the pod template. The selector of a Deployment is immutable; that of a
    /// Service is not.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire:
    ///
    /// - for Services without a selector, and for `ExternalName`
    /// - for Services or namespaces that are being deleted
    /// - where the pods or workloads of the namespace could not be read
    /// - where a matching workload currently has no pods (`service/no-ready-endpoints` covers it)
    /// - for headless Services in kube-system through which monitoring discovers control plane pods, because managed
    ///   clusters hide those
    /// - for the Service of the cluster's DNS (`dns/down` covers it)
    ///
    /// The finding is `info` if the matching workload is scaled to zero.
    ///
    /// Some Services select a label that an operator sets on single pods at run time (`role=master`,
    /// `vault-active=true`). If only that label is missing, the finding is a `warning` for the leader. The rule does
    /// not fire for followers, which need not exist.
    ///
    /// Manifests need not contain every workload. For manifests the rule fires only where a workload next to the
    /// Service differs from the selector in a single label, by one or two letters, and no other Service selects that
    /// workload.
    "service/selector-matches-nothing": Error,
    "the selector of a Service matches no pods and no workloads",
    needs: [Service, Pod],
    optional: [
        Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob, EndpointSlice, Endpoints,
        Namespace,
    ],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    let dns = cluster.dns();
    for service in cluster.all::<Service>().iter().filter(|service| !dns.has(service)) {
        match cluster.outage(service) {
            Some(Outage::SelectsNothing) => report.add(selects_nothing(cluster, service)),
            Some(Outage::NoLeader { label }) => report.add(no_leader(service, &label)),
            Some(Outage::Parked { workload, why }) => {
                let message =
                    format!("Service {} has no pods: {} {} {why}", service.name(), workload.kind, workload.name);
                report.add(finding(Severity::Info, service, message));
            }
            Some(_) => {}
            None => note_unread_workloads(cluster, service, report),
        }
    }
}

fn finding(severity: Severity, service: &Service, message: String) -> Finding {
    let object = service.reference();
    let selector = Selector::equals(&service.spec.selector);
    Finding::new(severity, object.clone(), message)
        .evidence(format!("spec.selector is {selector}"), &object, "spec.selector")
        .rests_on_absence()
}

fn selects_nothing(cluster: &Cluster, service: &Service) -> Finding {
    let (namespace, name) = (service.namespace(), service.name());
    let selector = Selector::equals(&service.spec.selector);
    let Some(nearest) = cluster.nearest_workload(namespace, &selector) else {
        let message = format!("Service {name} selects no pods: no pod or workload has {selector}");
        return finding(Severity::Error, service, message).fix_command(
            "Compare spec.selector with the pods' labels and correct it, or delete the Service if it is unused",
            kubectl(["-n", namespace, "get", "pods", "--show-labels"]),
        );
    };
    let message = format!("Service {name} selects no pods: {}", nearest.difference());
    let has = format!("{} has {}", nearest.object, nearest.has);
    let path = if nearest.object.is(Kind::Pod) { "metadata.labels" } else { "spec.template.metadata.labels" };
    let mut finding = finding(Severity::Error, service, message).evidence(has, &nearest.object, path);
    finding.rests_on_absence = !cluster.is_misspelled(service);
    // `set selector` replaces the whole selector, so all of its pairs are given.
    let corrected: Option<Vec<String>> = corrected(&selector, &nearest.has);
    match corrected {
        Some(pairs) => finding.fix_command(
            "Set spec.selector to the labels of the pods",
            kubectl(["-n", namespace, "set", "selector", "service", name, &pairs.join(",")]),
        ),
        None => finding.fix_command(
            "Make spec.selector match the labels of the pods",
            kubectl(["-n", namespace, "edit", "service", name]),
        ),
    }
}

/// The selector, with the value that differs replaced by that of the pods.
fn corrected(selector: &Selector, has: &str) -> Option<Vec<String>> {
    let (key, value) = has.split_once('=').filter(|(_, value)| !value.contains([' ', ',']))?;
    let pairs = || selector.equalities();
    pairs()
        .any(|(k, _)| k == key)
        .then(|| pairs().map(|(k, v)| if k == key { format!("{k}={value}") } else { format!("{k}={v}") }).collect())
}

fn no_leader(service: &Service, label: &str) -> Finding {
    let (namespace, name) = (service.namespace(), service.name());
    let key = label.split_once('=').map_or(label, |(key, _)| key);
    let message = format!("Service {name} selects no pods: no pod has label {label}, which is set at run time");
    finding(Severity::Warning, service, message).fix_command(
        "Check which pod should be the leader, and why leader election has labeled none",
        kubectl(["-n", namespace, "get", "pods", "-L", key]),
    )
}

/// A Service without pods may belong to a workload that could not be read.
fn note_unread_workloads(cluster: &Cluster, service: &Service, report: &mut Report) {
    let namespace = service.namespace();
    let selector = Selector::equals(&service.spec.selector);
    let is_decided = selector.is_empty() || service.is_external_name() || !cluster.covers(Kind::Pod, namespace);
    if is_decided || cluster.any_pod_matches(namespace, &selector) {
        return;
    }
    if let Some((kind, Some(gap))) = cluster.unread_workloads(namespace) {
        let message = format!("it has no pods, and {kind}s that may create them could not be read");
        report.not_evaluated(&service.reference(), gap.reason, message);
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::{Extent, Gap, Kind, Origin, Reason};
    use crate::testing::{TestCluster, check};

    const SERVICE: &str = "
        apiVersion: v1
        kind: Service
        metadata: {name: cart, namespace: shop}
        spec: {selector: {app: carts}, ports: [{port: 80}]}";

    const VERSIONED: &str = "
        apiVersion: v1
        kind: Service
        metadata: {name: orders, namespace: shop}
        spec: {selector: {app: orders, version: v1}}";

    fn deployment(name: &str, labels: &str, replicas: u32) -> String {
        format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}, namespace: shop}}, \
             spec: {{replicas: {replicas}, template: {{metadata: {{labels: {labels}}}}}}}}}"
        )
    }

    #[test]
    fn fires_when_no_pod_and_no_workload_matches() {
        let said = check(&RULE, &[SERVICE, &deployment("cart", "{app: cart}", 1)]);
        said.finds(&[
            "error Service shop/cart: Service cart selects no pods: selector app=carts, Deployment cart has app=cart",
        ]);
        let fix = said.finding().fix[0].command.as_deref();
        assert_eq!(fix, Some("kubectl -n shop set selector service cart app=cart"));
    }

    #[test]
    fn fires_for_a_stale_version() {
        let said = check(&RULE, &[VERSIONED, &deployment("orders", "{app: orders, version: v2}", 1)]);
        said.finds(&["error Service shop/orders: Service orders selects no pods: selector version=v1, \
                      Deployment orders has version=v2"]);
        let fix = said.finding().fix[0].command.as_deref();
        assert_eq!(fix, Some("kubectl -n shop set selector service orders app=orders,version=v2"));
    }

    #[test]
    fn fires_where_nothing_is_similar() {
        let pod = "{apiVersion: v1, kind: Pod, metadata: {name: mail, namespace: shop, labels: {app: mail}}}";
        check(&RULE, &[SERVICE, pod])
            .finds(&["error Service shop/cart: Service cart selects no pods: no pod or workload has app=carts"]);
        // Manifests may leave out the workload.
        TestCluster::new(&[SERVICE])
            .origin(Origin::Manifests)
            .check(&RULE)
            .finds(&["info Service shop/cart: Service cart selects no pods: no pod or workload has app=carts"]);
    }

    #[test]
    fn fires_in_manifests_for_a_typo() {
        let elsewhere = || Extent::Failed(Gap { reason: Reason::NotInInput, message: String::new() });
        let said = |objects: &[&str]| {
            let world = TestCluster::new(objects).origin(Origin::Manifests);
            world.cover(Kind::StatefulSet, elsewhere()).check(&RULE)
        };
        let cart = deployment("cart", "{app: cart, tier: web}", 1);
        said(&[SERVICE, &cart]).finds(&[
            "error Service shop/cart: Service cart selects no pods: selector app=carts, Deployment cart has app=cart",
        ]);
        // The selector may belong to a workload in other files.
        for labels in ["{app: checkout}", "{app: carts-worker}", "{name: carts}", "{tier: web}"] {
            said(&[SERVICE, &deployment("cart", labels, 1)]).finds_nothing();
        }
        let second = SERVICE.replace("app: carts", "app: cart2");
        said(&[&second, &deployment("cart", "{app: cart1}", 1)]).finds_nothing();
        let right = SERVICE.replace("name: cart", "name: right").replace("app: carts", "app: cart");
        said(&[SERVICE, &right, &cart]).finds_nothing();
    }

    #[test]
    fn fires_as_warning_without_a_leader() {
        let service = "{apiVersion: v1, kind: Service, metadata: {name: vault-active, namespace: shop}, \
                       spec: {selector: {app: vault, vault-active: 'true'}}}";
        check(&RULE, &[service, &deployment("vault", "{app: vault}", 1)])
            .finds(&["warning Service shop/vault-active: Service vault-active selects no pods: \
             no pod has label vault-active=true, which is set at run time"]);
    }

    #[test]
    fn fires_as_info_when_scaled_to_zero() {
        check(&RULE, &[SERVICE, &deployment("cart", "{app: carts}", 0)])
            .finds(&["info Service shop/cart: Service cart has no pods: Deployment cart is scaled to zero"]);
    }

    #[test]
    fn quiet_when_a_pod_matches() {
        check(
            &RULE,
            &[SERVICE, "{apiVersion: v1, kind: Pod, metadata: {name: cart-0, namespace: shop, labels: {app: carts}}}"],
        )
        .finds_nothing();
    }

    #[test]
    fn quiet_when_a_workload_is_between_pods() {
        check(&RULE, &[SERVICE, &deployment("cart", "{app: carts}", 1)]).finds_nothing();
    }

    #[test]
    fn quiet_for_followers_and_other_clusters_components() {
        let standby = "{apiVersion: v1, kind: Service, metadata: {name: vault-standby, namespace: shop}, \
                       spec: {selector: {app: vault, vault-active: 'false'}}}";
        check(&RULE, &[standby, &deployment("vault", "{app: vault}", 1)]).finds_nothing();
        let scheduler = "{apiVersion: v1, kind: Service, metadata: {name: prom-kube-scheduler, namespace: kube-system}, \
                         spec: {clusterIP: None, selector: {component: kube-scheduler}}}";
        check(&RULE, &[scheduler]).finds_nothing();
    }

    #[test]
    fn quiet_while_the_namespace_is_deleted() {
        let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: shop, deletionTimestamp: \
                         '2026-11-21T11:59:00Z'}}";
        check(&RULE, &[SERVICE, namespace]).finds_nothing();
    }

    #[test]
    fn quiet_where_workloads_could_not_be_read() {
        let said = TestCluster::new(&[SERVICE]).forbid(Kind::Deployment).check(&RULE);
        said.finds_nothing();
        assert_eq!(said.gaps(), ["Service forbidden"]);
        TestCluster::new(&[SERVICE])
            .forbid(Kind::EndpointSlice)
            .check(&RULE)
            .finds(&["error Service shop/cart: Service cart selects no pods: no pod or workload has app=carts"]);
    }
}
