use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::network::gateway_api::{current, refusal};
use crate::kubernetes::time;
use crate::snapshot::model::{Condition, Gateway, ParentRef, Route, Service};
use crate::snapshot::{Cluster, Kind, Lookup, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::{list, shorten};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that the parents of each route (HTTPRoute, GRPCRoute, TLSRoute, TCPRoute, UDPRoute) exist and accept it:
    /// the listener that it refers to, its hostnames, its namespace (`allowedRoutes`) and its kind.
    ///
    /// ## Why it matters
    ///
    /// A route that no listener accepts receives no traffic: clients get 404, or no connection at all.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe httproute NAME` shows the condition `Accepted` with its reason for each parent
    /// (`NoMatchingListenerHostname`, `NotAllowedByListeners`, `NoMatchingParent`).
    ///
    /// ## How to fix
    ///
    /// Correct `spec.parentRefs` or `spec.hostnames` of the route, or change the `hostname` or `allowedRoutes` of the
    /// Gateway's listener so that it accepts the route.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire if a controller has accepted the route, in the first two minutes, for parents of kinds
    /// other than Gateway and Service that report no status, or where the parent could not be read.
    "httproute/parent": Error,
    "a route's parent does not exist or does not accept it",
    needs: [],
    optional: [HTTPRoute, GRPCRoute, TLSRoute, TCPRoute, UDPRoute, Gateway, Service, Namespace],
    explained_by: ["gateway/*", "httproute/reference-grant"],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for (kind, route) in cluster.routes().filter(|(_, route)| route.metadata.deletion_timestamp.is_none()) {
        for parent in &route.spec.parent_refs {
            if let Some(finding) = finding(cluster, kind, route, parent) {
                report.add(finding);
            }
        }
    }
}

fn finding(cluster: &Cluster, kind: Kind, route: &Route, parent: &ParentRef) -> Option<Finding> {
    let namespace = &route.metadata.namespace;
    let object = ObjectRef::new(kind, namespace, &route.metadata.name);
    let who = format!("{kind} {}", route.metadata.name);
    let parent_kind = if parent.is_service() { Kind::Service } else { Kind::Gateway };
    let above = ObjectRef::new(parent_kind, parent.namespace_or(namespace), &parent.name);
    let edit = |finding: Finding| {
        finding.key(key(&above, parent)).fix_command(
            "Correct the route's parentRefs or hostnames, or change the listener's hostname or allowedRoutes to accept it",
            kubectl([
                "-n",
                namespace,
                "edit",
                &format!("{}.{}", kind.api().plural, kind.api().group),
                &route.metadata.name,
            ]),
        )
    };
    if is_young(cluster, route.metadata.creation_timestamp) {
        return None;
    }
    if is_missing(cluster, parent, namespace) {
        let finding = Finding::error(
            object.clone(),
            format!("{who} refers to {}, which does not exist", shown(&above, namespace)),
        )
        .evidence(
            format!("parentRefs refers to {above}{}", existing(cluster, parent, &above)),
            &object,
            "spec.parentRefs",
        )
        .rests_on_absence();
        return Some(edit(finding));
    }
    let gateway =
        if parent.is_gateway() { cluster.get::<Gateway>(above.namespace(), &parent.name).found() } else { None };
    let computed = gateway.and_then(|gateway| refusal(cluster, gateway, kind, route, parent));
    let (why, evidence, since) = if let Some(verdicts) = verdicts(route, parent) {
        let rejected = verdicts?;
        if is_young(cluster, rejected.last_transition_time) || rejected.reason == "Pending" {
            return None;
        }
        let reported = if rejected.message.is_empty() { rejected.reason.as_str() } else { rejected.message.as_str() };
        let why = computed.unwrap_or_else(|| shorten(reported, 240));
        (
            why,
            format!("condition Accepted is False ({}): {}", rejected.reason, shorten(reported, 240)),
            rejected.last_transition_time,
        )
    } else {
        let why = computed?;
        (why, format!("parentRefs refers to {above}"), None)
    };
    let finding =
        Finding::error(object.clone(), format!("{who} is not accepted by {}: {why}", shown(&above, namespace)))
            .evidence(evidence, &object, "status.parents")
            .because(above.clone())
            .since(since);
    Some(edit(finding))
}

/// The status that controllers report for this parent: `None` without any, `Some(None)` if one accepted the route.
fn verdicts<'a>(route: &'a Route, parent: &ParentRef) -> Option<Option<&'a Condition>> {
    let statuses =
        route.status.parents.iter().filter(|status| parent.is_same(&status.parent_ref, &route.metadata.namespace));
    let verdicts: Vec<&Condition> =
        statuses.filter_map(|status| current(&status.conditions, "Accepted", route.metadata.generation)).collect();
    if verdicts.is_empty() {
        return None;
    }
    let is_rejected = verdicts.iter().all(|condition| condition.is_false());
    Some(verdicts.first().copied().filter(|_| is_rejected))
}

fn is_missing(cluster: &Cluster, parent: &ParentRef, namespace: &str) -> bool {
    let namespace = parent.namespace_or(namespace);
    if parent.is_service() {
        matches!(cluster.get::<Service>(namespace, &parent.name), Lookup::Missing)
    } else {
        parent.is_gateway() && cluster.get::<Gateway>(namespace, &parent.name).is_missing()
    }
}

/// The existing Gateways that may be the intended one: those of the same name, else those of the namespace.
fn existing(cluster: &Cluster, parent: &ParentRef, above: &ObjectRef) -> String {
    if !parent.is_gateway() {
        return String::new();
    }
    let same_name = cluster.all::<Gateway>().iter().filter(|gateway| gateway.name() == above.name);
    let same_name: Vec<String> =
        same_name.map(|gateway| format!("{}/{}", gateway.namespace(), gateway.name())).collect();
    let others = cluster.in_namespace::<Gateway>(above.namespace()).iter();
    let others: Vec<String> = others.map(|gateway| format!("{}/{}", gateway.namespace(), gateway.name())).collect();
    match (same_name.is_empty(), others.is_empty()) {
        (false, _) => format!(" (existing Gateways: {})", list(&same_name, 3)),
        (true, false) => format!(" (existing Gateways: {})", list(&others, 3)),
        (true, true) => String::new(),
    }
}

fn is_young(cluster: &Cluster, since: Option<crate::snapshot::model::Timestamp>) -> bool {
    since.is_some_and(|since| time::age(cluster.now(), since) < time::START)
}

/// The name of an object, with its namespace where that differs.
fn shown(object: &ObjectRef, namespace: &str) -> String {
    if object.namespace() == namespace { format!("{} {}", object.kind, object.name) } else { object.to_string() }
}

fn key(above: &ObjectRef, parent: &ParentRef) -> String {
    let port = parent.port.map(|port| port.to_string()).unwrap_or_default();
    format!("{above} {} {port}", parent.section_name.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::Origin;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    const GATEWAY: &str = "
        apiVersion: gateway.networking.k8s.io/v1
        kind: Gateway
        metadata: {name: edge, namespace: infra}
        spec:
          gatewayClassName: istio
          listeners:
          - {name: web, hostname: '*.example.com', port: 443, protocol: HTTPS, allowedRoutes: {namespaces: {from: FROM, selector: {matchLabels: {edge: 'yes'}}}}}";
    const ROUTE: &str = "
        apiVersion: gateway.networking.k8s.io/v1
        kind: HTTPRoute
        metadata: {name: cart, namespace: shop, uid: u1, generation: 3, creationTimestamp: '2026-11-21T10:00:00Z'}
        spec:
          hostnames: [cart.example.com]
          parentRefs: [{name: edge, namespace: infra}]";
    const STATUS: &str = "
        status:
          parents:
          - controllerName: istio.io/gateway-controller
            parentRef: {group: gateway.networking.k8s.io, kind: Gateway, name: edge, namespace: infra}
            conditions:
            - {type: Accepted, status: STATUS, reason: NotAllowedByListeners, message: 'no, thank you', observedGeneration: 3,
               lastTransitionTime: '2026-11-21T10:00:00Z'}";

    fn gateway(from: &str) -> String {
        GATEWAY.replace("FROM", from)
    }

    fn status(status: &str) -> String {
        format!("{ROUTE}{}", STATUS.replace("STATUS", status))
    }

    #[test]
    fn fires_when_the_gateway_is_missing() {
        let said = check(&RULE, &[ROUTE, &gateway("All").replace("infra", "shop")]);
        said.finds(&["error HTTPRoute shop/cart: HTTPRoute cart refers to Gateway infra/edge, which does not exist"]);
        assert!(said.text().contains("existing Gateways: shop/edge"));
        let said = TestCluster::new(&[ROUTE]).origin(Origin::Manifests).check(&RULE);
        assert_eq!(said.finding().severity, crate::Severity::Info);
    }

    #[test]
    fn fires_when_the_namespace_is_not_allowed() {
        let same = "error HTTPRoute shop/cart: HTTPRoute cart is not accepted by Gateway infra/edge: Gateway edge accepts no \
                    routes from namespace shop (allowedRoutes)";
        check(&RULE, &[ROUTE, &gateway("Same")]).finds(&[same]);
        let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {edge: 'no'}}}";
        check(&RULE, &[ROUTE, &gateway("Selector"), namespace]).finds(&[same]);
    }

    #[test]
    fn fires_when_no_listener_accepts_the_hostname() {
        check(&RULE, &[&ROUTE.replace("cart.example.com", "cart.example.org"), &gateway("All")]).finds(&[
            "error HTTPRoute shop/cart: HTTPRoute cart is not accepted by Gateway infra/edge: no listener of Gateway edge \
             accepts cart.example.org, only *.example.com",
        ]);
    }

    #[test]
    fn fires_when_there_is_no_such_listener_or_kind() {
        let section = ROUTE.replace("namespace: infra}", "namespace: infra, sectionName: http}");
        let said = check(&RULE, &[&section, &gateway("All")]);
        assert!(said.finding().message.ends_with("Gateway edge has no listener named http, only web (port 443)"));
        let said = check(&RULE, &[&ROUTE.replace("HTTPRoute", "TLSRoute"), &gateway("All")]);
        assert!(said.finding().message.ends_with("no listener of Gateway edge accepts routes of kind TLSRoute"));
    }

    #[test]
    fn fires_with_the_controllers_own_message() {
        check(&RULE, &[&status("'False'"), &gateway("All")])
            .finds(&["error HTTPRoute shop/cart: HTTPRoute cart is not accepted by Gateway infra/edge: no, thank you"]);
    }

    #[test]
    fn quiet_when_accepted_whatever_is_computed() {
        check(&RULE, &[&status("'True'"), &gateway("Same")]).finds_nothing();
    }

    #[test]
    fn quiet_when_the_listener_accepts_it() {
        check(&RULE, &[ROUTE, &gateway("All")]).finds_nothing();
        let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {edge: 'yes'}}}";
        check(&RULE, &[ROUTE, &gateway("Selector"), namespace]).finds_nothing();
    }

    #[test]
    fn quiet_when_young() {
        check(&RULE, &[&ROUTE.replace("10:00:00", "11:59:00")]).finds_nothing();
    }

    #[test]
    fn quiet_for_a_mesh_route_and_foreign_kinds() {
        let mesh = ROUTE.replace("{name: edge, namespace: infra}", "{group: '', kind: Service, name: cart}");
        check(&RULE, &[&mesh, "{apiVersion: v1, kind: Service, metadata: {name: cart, namespace: shop}}"])
            .finds_nothing();
        let set = ROUTE.replace(
            "{name: edge, namespace: infra}",
            "{group: gateway.networking.k8s.io, kind: ListenerSet, name: x}",
        );
        check(&RULE, &[&set]).finds_nothing();
    }

    #[test]
    fn quiet_where_gateways_were_not_read() {
        TestCluster::new(&[ROUTE]).forbid(Kind::Gateway).check(&RULE).finds_nothing();
    }
}
