use crate::kubernetes::network::endpoints::EndpointsExt;
use std::collections::BTreeSet;

use crate::engine::{Finding, Report, declare_rule};
use crate::snapshot::model::{Node, Pod, Service};
use crate::snapshot::{Cluster, Kind, Object, Selector};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that Services whose `externalTrafficPolicy` or `internalTrafficPolicy` is `Local` have an endpoint where
    /// traffic arrives: for external traffic on at least one node that is not excluded from load balancers, for
    /// internal traffic on each node that runs other pods of the same namespace.
    ///
    /// ## Why it matters
    ///
    /// With `Local`, a node forwards traffic only to endpoints on that node. A node without one drops the packets,
    /// although the Service has ready endpoints elsewhere.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get endpointslices -l kubernetes.io/service-name=NAME -o wide` shows the nodes of the
    /// endpoints; compare them with `kubectl -n NAMESPACE get pods -o wide`.
    ///
    /// ## How to fix
    ///
    /// Run an endpoint on each of these nodes (with a DaemonSet or topology spread constraints), or set the policy to
    /// `Cluster`.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for Services without a ready endpoint (other rules report them), for nodes without client
    /// pods in the Service's namespace, or where pods, nodes or EndpointSlices could not be read.
    "service/local-traffic": Warning,
    "a Service with traffic policy Local has no endpoint where traffic arrives",
    needs: [Service, EndpointSlice, Pod, Node],
    optional: [Endpoints, ReplicaSet, Job, Namespace],
    explained_by: ["node/not-ready"],
}

fn check(cluster: &Cluster, report: &mut Report) {
    let is_local = |service: &&Service| {
        [&service.spec.external_traffic_policy, &service.spec.internal_traffic_policy].iter().any(|p| **p == "Local")
    };
    for service in cluster.all::<Service>().iter().filter(is_local).filter(|s| !cluster.is_terminating(*s)) {
        let Some(backends) =
            cluster.backends(service).filter(crate::kubernetes::network::endpoints::Backends::takes_traffic)
        else {
            continue;
        };
        let nodes = backends.backends.iter().filter(|b| b.takes_traffic()).map(|b| b.node);
        let nodes: BTreeSet<&str> = nodes.collect();
        if nodes.contains("") {
            continue; // An endpoint that is not a pod has no node.
        }
        if let Some(finding) = external(cluster, service, &nodes).or_else(|| internal(cluster, service, &nodes)) {
            report.add(finding);
        }
    }
}

/// Load balancers exclude nodes with a certain label, and nodes that are not ready.
fn external(cluster: &Cluster, service: &Service, nodes: &BTreeSet<&str>) -> Option<Finding> {
    let is_external = matches!(service.spec.type_.as_str(), "LoadBalancer");
    if !is_external || service.spec.external_traffic_policy != "Local" || !cluster.covers_all(Kind::Node) {
        return None;
    }
    let known: Vec<&Node> = nodes.iter().filter_map(|name| cluster.get::<Node>("", name).found()).collect();
    let excluded =
        |node: &&Node| node.metadata.labels.get("node.kubernetes.io/exclude-from-external-load-balancers").is_some();
    if known.len() < nodes.len() || !known.iter().all(excluded) || cluster.all::<Node>().iter().all(|n| excluded(&n)) {
        return None;
    }
    let names: Vec<&str> = nodes.iter().copied().collect();
    let message = format!(
        "Service {} has endpoints only on {} (excluded from load balancers), and externalTrafficPolicy is Local",
        service.name(),
        words::list(&names, 3),
    );
    let object = service.reference();
    let finding = Finding::warning(object.clone(), message).evidence(
        "externalTrafficPolicy is Local",
        &object,
        "spec.externalTrafficPolicy",
    );
    let patch = r#"{"spec":{"externalTrafficPolicy":"Cluster"}}"#;
    Some(known.iter().take(1).fold(finding, |finding, node| {
        let text = format!("Node {} is excluded from external load balancers", node.name());
        finding.evidence(text, &node.reference(), "metadata.labels")
    }))
    .map(|finding| finding.fix_command("Set externalTrafficPolicy to Cluster", patch_command(service, patch)))
}

fn internal(cluster: &Cluster, service: &Service, nodes: &BTreeSet<&str>) -> Option<Finding> {
    if service.spec.internal_traffic_policy != "Local" || service.is_headless() {
        return None;
    }
    let selector = Selector::equals(&service.spec.selector);
    let is_client = |pod: &&Pod| {
        let owner = cluster.owner_of(pod);
        pod.is_ready()
            && pod.is_active()
            && !pod.spec.node_name.is_empty()
            && !selector.matches(&pod.metadata.labels)
            && !owner.is(Kind::DaemonSet)
            && !pod.is_static()
    };
    let clients = cluster.in_namespace::<Pod>(service.namespace()).iter().filter(is_client);
    let without: BTreeSet<&str> =
        clients.map(|pod| pod.spec.node_name.as_str()).filter(|node| !nodes.contains(node)).collect();
    if without.is_empty() || selector.is_empty() {
        return None;
    }
    let names: Vec<&str> = without.into_iter().collect();
    let message = format!(
        "Service {} drops traffic from pods on {}: internalTrafficPolicy is Local and there is no local endpoint",
        service.name(),
        words::list(&names, 3),
    );
    let object = service.reference();
    let patch = r#"{"spec":{"internalTrafficPolicy":"Cluster"}}"#;
    let on: Vec<&str> = nodes.iter().copied().collect();
    let finding = Finding::warning(object.clone(), message)
        .evidence("internalTrafficPolicy is Local", &object, "spec.internalTrafficPolicy")
        .evidence(format!("endpoints are on {}", words::list(&on, 5)), &object, "")
        .fix_command("Set internalTrafficPolicy to Cluster", patch_command(service, patch));
    Some(
        names
            .iter()
            .fold(finding, |finding, node| finding.because(crate::snapshot::ObjectRef::new(Kind::Node, "", node))),
    )
}

fn patch_command(service: &Service, patch: &str) -> String {
    kubectl(["-n", service.namespace(), "patch", "service", service.name(), "-p", patch])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn service(policy: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: agent, namespace: shop}}, spec: {{type: LoadBalancer, \
             {policy}: Local, selector: {{app: agent}}}}}}"
        )
    }

    const SLICE: &str = "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: agent-x, namespace: shop, \
                         labels: {kubernetes.io/service-name: agent}}, endpoints: [{addresses: [10.0.0.1], nodeName: node-1}]}";

    fn client(node: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: web, namespace: shop, labels: {{app: web}}}}, spec: \
             {{nodeName: {node}}}, status: {{phase: Running, conditions: [{{type: Ready, status: 'True'}}]}}}}"
        )
    }

    fn node(name: &str, labels: &str) -> String {
        format!("{{apiVersion: v1, kind: Node, metadata: {{name: {name}, labels: {labels}}}}}")
    }

    const EXCLUDED: &str = "{node.kubernetes.io/exclude-from-external-load-balancers: ''}";

    #[test]
    fn fires_for_clients_on_other_nodes() {
        check(&RULE, &[&service("internalTrafficPolicy"), SLICE, &client("node-2")]).finds(&[
            "warning Service shop/agent: Service agent drops traffic from pods on node-2: internalTrafficPolicy is \
             Local and there is no local endpoint",
        ]);
    }

    #[test]
    fn fires_when_load_balancers_exclude_the_nodes() {
        let world = [service("externalTrafficPolicy"), node("node-1", EXCLUDED), node("node-2", "{}")];
        check(&RULE, &[&world[0], SLICE, &world[1], &world[2]]).finds(&[
            "warning Service shop/agent: Service agent has endpoints only on node-1 (excluded from load balancers), and \
             externalTrafficPolicy is Local",
        ]);
    }

    #[test]
    fn quiet_when_clients_have_an_endpoint() {
        check(&RULE, &[&service("internalTrafficPolicy"), SLICE, &client("node-1")]).finds_nothing();
        check(&RULE, &[&service("externalTrafficPolicy"), SLICE, &node("node-1", "{}"), &node("node-2", "{}")])
            .finds_nothing();
    }

    #[test]
    fn quiet_without_any_endpoint() {
        check(&RULE, &[&service("internalTrafficPolicy"), &client("node-2")]).finds_nothing();
    }
}
