use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::network::gateway_api::{From, backends, current, is_granted};
use crate::kubernetes::time;
use crate::rules::answers::{Answers, NoAnswer, NoAnswerKind};
use crate::snapshot::model::{BackendRef, Route};
use crate::snapshot::{Cluster, ObjectRef};
use crate::text::kubectl;
use crate::text::words::shorten;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that the backend Services of each route (HTTPRoute, GRPCRoute, TLSRoute, TCPRoute, UDPRoute) exist, have
    /// the port and have a ready endpoint, and that the route's controller has resolved all its references
    /// (`ResolvedRefs`).
    ///
    /// ## Why it matters
    ///
    /// Requests that match the rule fail with 500 or 503. In a rule with several backends, a share of the requests
    /// fails that corresponds to the weight of the backend.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe httproute NAME` shows `ResolvedRefs` with its reason;
    /// `kubectl -n NAMESPACE get service NAME` shows the ports.
    ///
    /// ## How to fix
    ///
    /// Correct the name or port of the `backendRef`, or create the Service. If no endpoint is ready, check the pods
    /// behind it.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire in the first two minutes, for backends of kinds other than Service that the controller
    /// has resolved, for pods that are still starting, or where the Service could not be read. The finding is `info`
    /// for backends with weight 0 and for Services whose workload is scaled to zero.
    "httproute/backend": Error,
    "a backend Service of a route does not exist, lacks the port or has no ready endpoint",
    needs: [Service],
    optional: [
        HTTPRoute, GRPCRoute, TLSRoute, TCPRoute, UDPRoute, ReferenceGrant, EndpointSlice, Endpoints, Pod, Deployment,
        StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob, Node
    ],
    explained_by: ["service/*", "workload/*", "pod/*", "deployment/*", "daemonset/*", "node/*"],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for (kind, route) in cluster.routes().filter(|(_, route)| route.metadata.deletion_timestamp.is_none()) {
        let created = route.metadata.creation_timestamp;
        if created.is_some_and(|created| time::age(cluster.now(), created) < time::START) {
            continue;
        }
        let object = ObjectRef::new(kind, &route.metadata.namespace, &route.metadata.name);
        let mut is_explained = false;
        let mut seen = Vec::new();
        for (path, backend) in backends(route) {
            let from = From { kind, namespace: object.namespace() };
            is_explained |= is_granted(cluster, from, backend, "Service") == Some(false);
            let Some((port, outage)) = outage(cluster, report, &object, backend) else { continue };
            is_explained |= outage.kind != NoAnswerKind::NoEndpoint;
            let key = format!("{}/{}:{port}", backend.namespace_or(object.namespace()), backend.name);
            if !seen.contains(&key) {
                report.add(finding(&object, backend, &path, &outage).key(&key));
                seen.push(key);
            }
        }
        if !is_explained {
            by_status(cluster, report, &object, route);
        }
    }
}

fn outage(
    cluster: &Cluster,
    report: &mut Report,
    object: &ObjectRef,
    backend: &BackendRef,
) -> Option<(String, NoAnswer)> {
    if !backend.is_core("Service", "Service") || backend.name.is_empty() {
        return None;
    }
    let port = backend.port.map(|port| port.to_string()).unwrap_or_default();
    match cluster.answers(backend.namespace_or(object.namespace()), &backend.name, backend.port) {
        Answers::Not(outage) => Some((port, outage)),
        Answers::Unread(gap) => {
            report.not_evaluated(object, gap.reason, gap.message);
            None
        }
        Answers::Likely => None,
    }
}

fn finding(object: &ObjectRef, backend: &BackendRef, path: &str, outage: &NoAnswer) -> Finding {
    let is_idle = backend.weight == Some(0) || outage.parked.is_some();
    let severity = if is_idle { Severity::Info } else { Severity::Error };
    let weight = if backend.weight == Some(0) { " with weight 0" } else { "" };
    let namespace = backend.namespace_or(object.namespace());
    let port = backend.port.map(|port| format!(", port {port}")).unwrap_or_default();
    let message = format!("{} {} has an unavailable backend{weight}: {}", object.kind, object.name, outage.why);
    let mut finding = Finding::new(severity, object.clone(), message).evidence(
        format!("it routes to Service {namespace}/{}{port}", backend.name),
        object,
        path,
    );
    finding = outage.because.iter().cloned().fold(finding, Finding::because);
    match outage.kind {
        NoAnswerKind::NoService => {
            finding.fix("Correct the name of the backendRef, or create the Service").rests_on_absence()
        }
        NoAnswerKind::NoPort => finding.fix_command(
            "Set the port of the backendRef to one that the Service has",
            kubectl(["-n", namespace, "get", "service", &backend.name]),
        ),
        NoAnswerKind::NoEndpoint => outage.fix(finding, namespace, &backend.name),
    }
}

/// Reports references that the controller could not resolve, where the objects do not explain it.
fn by_status(cluster: &Cluster, report: &mut Report, object: &ObjectRef, route: &Route) {
    for status in &route.status.parents {
        let Some(condition) = current(&status.conditions, "ResolvedRefs", route.metadata.generation) else { continue };
        let is_young =
            condition.last_transition_time.is_some_and(|since| time::age(cluster.now(), since) < time::START);
        if !condition.is_false() || is_young {
            continue;
        }
        let why = if condition.message.is_empty() { condition.reason.as_str() } else { condition.message.as_str() };
        let message = format!("{} {} has an unresolved reference: {}", object.kind, object.name, shorten(why, 240));
        report.add(
            Finding::error(object.clone(), message)
                .key("ResolvedRefs")
                .since(condition.last_transition_time)
                .evidence(
                    format!(
                        "condition ResolvedRefs is False ({}), reported by {}",
                        condition.reason, status.controller_name
                    ),
                    object,
                    "status.parents[].conditions[ResolvedRefs]",
                )
                .fix("Correct the backendRefs or filters named in the message"),
        );
        return;
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::Origin;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    const ROUTE: &str = "
        apiVersion: gateway.networking.k8s.io/v1
        kind: HTTPRoute
        metadata: {name: cart, namespace: shop, uid: u1, creationTimestamp: '2026-11-21T10:00:00Z'}
        spec: {rules: [{backendRefs: [{name: api, port: 80}]}]}";
    const SERVICE: &str = "
        apiVersion: v1
        kind: Service
        metadata: {name: api, namespace: shop, uid: u2, creationTimestamp: '2026-11-21T10:00:00Z'}
        spec: {selector: {app: api}, ports: [{name: http, port: 80}]}";
    const SLICE: &str = "
        apiVersion: discovery.k8s.io/v1
        kind: EndpointSlice
        metadata: {name: api-1, namespace: shop, labels: {kubernetes.io/service-name: api}}
        endpoints: [{addresses: [10.0.0.1], conditions: {ready: true}}]
        ports: [{name: http, port: 8080}]";
    const UNRESOLVED: &str = "
        status:
          parents:
          - controllerName: istio.io/gateway-controller
            conditions: [{type: ResolvedRefs, status: 'False', reason: InvalidKind, message: Frob is not supported,
                          lastTransitionTime: '2026-11-21T10:00:00Z'}]";

    #[test]
    fn fires_when_the_service_is_missing() {
        check(&RULE, &[&format!("{ROUTE}{UNRESOLVED}")]).finds(&[
            "error HTTPRoute shop/cart: HTTPRoute cart has an unavailable backend: Service shop/api does not exist",
        ]);
        check(&RULE, &[&ROUTE.replace("HTTPRoute", "GRPCRoute")]).finds(&[
            "error GRPCRoute shop/cart: GRPCRoute cart has an unavailable backend: Service shop/api does not exist",
        ]);
        let said = TestCluster::new(&[ROUTE]).origin(Origin::Manifests).check(&RULE);
        assert_eq!(said.finding().severity, crate::Severity::Info);
    }

    #[test]
    fn fires_when_the_port_is_missing() {
        check(&RULE, &[&ROUTE.replace("port: 80", "port: 8080"), SERVICE, SLICE]).finds(&[
            "error HTTPRoute shop/cart: HTTPRoute cart has an unavailable backend: Service shop/api has no port 8080, only 80 (http)",
        ]);
    }

    #[test]
    fn fires_when_nothing_is_ready() {
        let said = check(&RULE, &[ROUTE, SERVICE]);
        assert!(
            said.finding().message.ends_with("Service shop/api has no ready endpoints: its selector matches no pods")
        );
        assert_eq!(said.finding().because[0].to_string(), "Service shop/api");
    }

    #[test]
    fn fires_with_the_controllers_own_message() {
        check(&RULE, &[&format!("{ROUTE}{UNRESOLVED}"), SERVICE, SLICE])
            .finds(&["error HTTPRoute shop/cart: HTTPRoute cart has an unresolved reference: Frob is not supported"]);
    }

    #[test]
    fn fires_as_info_for_weight_0_and_scaled_to_zero() {
        let said = check(&RULE, &[&ROUTE.replace("port: 80", "port: 80, weight: 0")]);
        assert_eq!(said.finding().severity, crate::Severity::Info);
        let parked = "
            apiVersion: apps/v1
            kind: Deployment
            metadata: {name: api, namespace: shop}
            spec: {replicas: 0, selector: {matchLabels: {app: api}}, template: {metadata: {labels: {app: api}}}}";
        let said = check(&RULE, &[ROUTE, SERVICE, parked]);
        assert_eq!(said.finding().severity, crate::Severity::Info);
    }

    #[test]
    fn quiet_when_it_answers() {
        check(&RULE, &[ROUTE, SERVICE, SLICE]).finds_nothing();
    }

    #[test]
    fn quiet_when_young_or_for_other_kinds() {
        check(&RULE, &[&ROUTE.replace("10:00:00", "11:59:00")]).finds_nothing();
        check(&RULE, &[&ROUTE.replace("name: api", "group: multicluster.x-k8s.io, kind: ServiceImport, name: api")])
            .finds_nothing();
        check(&RULE, &["{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: a}}"])
            .finds_nothing();
    }

    #[test]
    fn quiet_where_only_the_grant_is_missing() {
        let foreign = format!("{ROUTE}{UNRESOLVED}").replace("name: api,", "name: api, namespace: back,");
        let there = [SERVICE, SLICE].map(|document| document.replace("namespace: shop", "namespace: back"));
        check(&RULE, &[&foreign, &there[0], &there[1]]).finds_nothing();
    }

    #[test]
    fn quiet_where_services_were_not_read() {
        let said = TestCluster::new(&[ROUTE]).forbid(Kind::Service).check(&RULE);
        assert_eq!(said.finds_nothing().gaps(), ["Service forbidden"]);
    }
}
