use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::network::metallb::{Unannounced, is_announced, names, pool_of, unannounced};
use crate::snapshot::model::{CustomResource, Service};
use crate::snapshot::{Cluster, Object, Origin};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that an L2Advertisement or BGPAdvertisement of MetalLB covers each IPAddressPool, by `ipAddressPools` or
    /// `ipAddressPoolSelectors`, on at least one node.
    ///
    /// ## Why it matters
    ///
    /// MetalLB's controller assigns addresses of the pool, and the Services look healthy. But no speaker announces these
    /// addresses, so clients outside the cluster cannot reach them.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n metallb-system get ipaddresspools,l2advertisements,bgpadvertisements -o yaml` shows which pools the
    /// advertisements select. `kubectl describe service NAME` shows no event `nodeAssigned`.
    ///
    /// ## How to fix
    ///
    /// Add the pool to `spec.ipAddressPools` of an advertisement in the same namespace, or create an advertisement for
    /// it. An advertisement with an empty spec covers all pools.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire:
    ///
    /// - where the advertisements could not be read
    /// - where there are no advertisements and no speaker: another program, such as Calico, may announce the addresses
    /// - in manifests that contain no advertisement
    ///
    /// The finding is `info` for a pool of a cluster of which no Service has an address.
    "ipaddresspool/not-announced": Error,
    "no advertisement announces the addresses of a MetalLB pool",
    needs: [],
    optional: [Service, Node, Pod],
    reads_custom: true,
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for found in unannounced(cluster) {
        report.add(finding(cluster, &found));
    }
}

fn finding(cluster: &Cluster, found: &Unannounced) -> Finding {
    let (pool, object) = (found.pool, found.pool.reference());
    let (name, namespace) = (&pool.metadata.name, pool.metadata.namespace.as_str());
    let of_pool = |service: &&Service| pool_of(service) == Some(name) && !is_announced(cluster, service);
    let services: Vec<String> =
        cluster.all::<Service>().iter().filter(of_pool).map(|s| format!("{}/{}", s.namespace(), s.name())).collect();
    let severity = match (cluster.origin(), services.is_empty()) {
        (Origin::Manifests, _) => Severity::Warning,
        (_, true) => Severity::Info,
        (_, false) => Severity::Error,
    };
    let users = if services.is_empty() {
        String::new()
    } else {
        format!(", so Service {} cannot be reached from outside the cluster", words::list(&services, 3))
    };
    let message = format!("no advertisement announces the addresses of IPAddressPool {name}{users}");
    let mut finding = Finding::new(severity, object.clone(), message);
    for advertisement in found.advertisements.iter().take(3) {
        let pools = names(advertisement, "ipAddressPools");
        let covers = if pools.is_empty() {
            "does not select this pool on any node".to_string()
        } else {
            format!("covers only {}", words::list(&pools, 5))
        };
        let text = format!("{} {} {covers}", advertisement.kind, advertisement.metadata.name);
        finding = finding.evidence(text, &advertisement.reference(), "spec.ipAddressPools");
    }
    if found.advertisements.is_empty() {
        let text = format!("there is no L2Advertisement or BGPAdvertisement in namespace {namespace}");
        finding = finding.evidence(text, &object, "").rests_on_absence();
    }
    let named = |ad: &&CustomResource| !names(ad, "ipAddressPools").is_empty();
    match found.advertisements.iter().copied().find(named) {
        Some(advertisement) => {
            let (kind, other) = (&advertisement.kind, &advertisement.metadata.name);
            let patch = serde_json::json!([{"op": "add", "path": "/spec/ipAddressPools/-", "value": name}]);
            let resource = format!("{}s.metallb.io", kind.to_lowercase());
            finding.fix_command(
                format!("Add {name} to spec.ipAddressPools of {kind} {other}, or create an advertisement for the pool"),
                kubectl(["-n", namespace, "patch", &resource, other, "--type=json", "-p", &patch.to_string()]),
            )
        }
        None => finding.fix(format!(
            "Create an L2Advertisement or BGPAdvertisement in namespace {namespace} with spec.ipAddressPools: [{name}], \
             and without nodeSelectors that match no node"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::Origin;
    use crate::testing::{TestCluster, check};

    const POOL: &str = "
        apiVersion: metallb.io/v1beta1
        kind: IPAddressPool
        metadata: {name: public, namespace: metallb-system, labels: {zone: dmz}}
        spec: {addresses: [203.0.113.64/28]}";

    const SERVICE: &str = "
        apiVersion: v1
        kind: Service
        metadata: {name: edge, namespace: shop, annotations: {metallb.io/ip-allocated-from-pool: public}}
        spec: {type: LoadBalancer, selector: {app: edge}, ports: [{port: 443}]}
        status: {loadBalancer: {ingress: [{ip: 203.0.113.64}]}}";

    fn advertisement(spec: &str) -> String {
        format!(
            "{{apiVersion: metallb.io/v1beta1, kind: L2Advertisement, metadata: {{name: lan, namespace: metallb-system}}, \
             spec: {spec}}}"
        )
    }

    #[test]
    fn fires_for_a_pool_that_no_advertisement_names() {
        let said = check(&RULE, &[POOL, SERVICE, &advertisement("{ipAddressPools: [internal]}")]);
        said.finds(&["error IPAddressPool metallb-system/public: no advertisement announces the addresses of \
                      IPAddressPool public, so Service shop/edge cannot be reached from outside the cluster"]);
        assert!(said.text().contains("/spec/ipAddressPools/-"));
        let labels = advertisement("{ipAddressPoolSelectors: [{matchLabels: {zone: lan}}]}");
        check(&RULE, &[POOL, SERVICE, &labels]).finding();
    }

    #[test]
    fn fires_in_manifests_and_for_an_advertisement_without_nodes() {
        let manifests =
            TestCluster::new(&[POOL, &advertisement("{ipAddressPools: [internal]}")]).origin(Origin::Manifests);
        assert!(manifests.check(&RULE).finding().message.ends_with("IPAddressPool public"));
        let node = "{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {role: edge}}}";
        let selects = |role: &str| advertisement(&format!("{{nodeSelectors: [{{matchLabels: {{role: {role}}}}}]}}"));
        check(&RULE, &[POOL, SERVICE, node, &selects("gone")]).finding();
        check(&RULE, &[POOL, SERVICE, node, &selects("edge")]).finds_nothing();
    }

    #[test]
    fn quiet_for_pools_that_are_announced_or_not_by_metallb() {
        check(&RULE, &[POOL, SERVICE, &advertisement("{}")]).finds_nothing();
        check(&RULE, &[POOL, SERVICE, &advertisement("{ipAddressPools: [internal, public]}")]).finds_nothing();
        check(&RULE, &[POOL, SERVICE, &advertisement("{ipAddressPoolSelectors: [{matchLabels: {zone: dmz}}]}")])
            .finds_nothing();
        check(&RULE, &[POOL, SERVICE]).finds_nothing();
        TestCluster::new(&[POOL]).origin(Origin::Manifests).check(&RULE).finds_nothing();
    }
}
