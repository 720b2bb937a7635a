use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::network::gateway_api::{From, backends, is_granted};
use crate::kubernetes::time;
use crate::snapshot::model::{BackendRef, Gateway, ReferenceGrant, Timestamp};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that each route with a backend in another namespace, and each Gateway with a certificate in another
    /// namespace, is permitted by a ReferenceGrant in that namespace.
    ///
    /// ## Why it matters
    ///
    /// Without the grant the reference is ignored: the route responds with 500, the listener has no certificate. The
    /// condition `ResolvedRefs` is False with reason `RefNotPermitted`.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n TARGET-NAMESPACE get referencegrants -o yaml` shows the existing grants.
    ///
    /// ## How to fix
    ///
    /// Create a ReferenceGrant in the namespace of the backend or Secret. Set `from` to the group, kind and namespace
    /// of the route or Gateway, and `to` to the group and kind of the referenced object (`group: ""`, `kind: Service`).
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for references within a namespace, in the first two minutes, or where the ReferenceGrants
    /// of the other namespace could not be read.
    "httproute/reference-grant": Error,
    "no ReferenceGrant permits a reference to another namespace",
    needs: [ReferenceGrant],
    optional: [HTTPRoute, GRPCRoute, TLSRoute, TCPRoute, UDPRoute, Gateway],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for (kind, route) in cluster.routes() {
        let object = ObjectRef::new(kind, &route.metadata.namespace, &route.metadata.name);
        if is_settled(cluster, route.metadata.creation_timestamp) {
            for (path, backend) in backends(route) {
                check_reference(cluster, report, (kind, &object), backend, "Service", &path);
            }
        }
    }
    for gateway in cluster.all::<Gateway>().iter().filter(|gateway| is_settled(cluster, gateway.created())) {
        for listener in &gateway.spec.listeners {
            let path = format!("spec.listeners[{}].tls.certificateRefs", listener.name);
            for reference in listener.tls.iter().flat_map(|tls| &tls.certificate_refs) {
                check_reference(cluster, report, (Kind::Gateway, &gateway.reference()), reference, "Secret", &path);
            }
        }
    }
}

fn is_settled(cluster: &Cluster, created: Option<Timestamp>) -> bool {
    created.is_none_or(|created| time::age(cluster.now(), created) >= time::START)
}

fn check_reference(
    cluster: &Cluster,
    report: &mut Report,
    (kind, object): (Kind, &ObjectRef),
    reference: &BackendRef,
    default_kind: &str,
    path: &str,
) {
    let from = From { kind, namespace: object.namespace() };
    if is_granted(cluster, from, reference, default_kind) != Some(false) {
        return;
    }
    let there = reference.namespace_or(object.namespace());
    let to = format!("{} {there}/{}", reference.kind.as_deref().unwrap_or(default_kind), reference.name);
    let verb = if kind == Kind::Gateway { "uses the certificate in" } else { "routes to" };
    let message = format!("{kind} {} {verb} {to}, which no ReferenceGrant in namespace {there} permits", object.name);
    let mut finding = Finding::error(object.clone(), message)
        .key(&to)
        .evidence(format!("it refers to {to}"), object, path)
        .fix(format!(
            "Create a ReferenceGrant in namespace {there} with from: [{{group: {}, kind: {kind}, namespace: {}}}] and \
             to: [{{group: \"{}\", kind: {}}}]",
            kind.api().group,
            object.namespace(),
            reference.group.as_deref().unwrap_or_default(),
            reference.kind.as_deref().unwrap_or(default_kind),
        ));
    let is_near = |grant: &ReferenceGrant| {
        let mut from = grant.spec.from.iter();
        from.any(|allowed| allowed.namespace == object.namespace() && allowed.kind != kind.api().kind)
    };
    // A grant for the same namespace, but for another kind, is obviously meant for this reference.
    if !cluster.in_namespace::<ReferenceGrant>(there).iter().any(is_near) {
        finding = finding.rests_on_absence();
    }
    for grant in cluster.in_namespace::<ReferenceGrant>(there) {
        for allowed in &grant.spec.from {
            let text =
                format!("ReferenceGrant {} permits {} in namespace {}", grant.name(), allowed.kind, allowed.namespace);
            finding = finding.evidence(text, &grant.reference(), "spec.from");
        }
    }
    report.add(finding);
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    const ROUTE: &str = "
        apiVersion: gateway.networking.k8s.io/v1
        kind: HTTPRoute
        metadata: {name: cart, namespace: shop, uid: u1, creationTimestamp: '2026-11-21T10:00:00Z'}
        spec: {rules: [{backendRefs: [{name: api, namespace: backend, port: 80}]}]}";
    const GATEWAY: &str = "
        apiVersion: gateway.networking.k8s.io/v1
        kind: Gateway
        metadata: {name: edge, namespace: shop}
        spec: {listeners: [{name: https, tls: {certificateRefs: [{name: tls, namespace: certs}]}}]}";
    const GRANT: &str = "
        apiVersion: gateway.networking.k8s.io/v1beta1
        kind: ReferenceGrant
        metadata: {name: from-shop, namespace: backend}
        spec:
          from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}]
          to: [{group: '', kind: Service}]";

    #[test]
    fn fires_without_a_grant() {
        check(&RULE, &[ROUTE])
            .finds(&["error HTTPRoute shop/cart: HTTPRoute cart routes to Service backend/api, which no \
                                        ReferenceGrant in namespace backend permits"]);
        check(&RULE, &[GATEWAY]).finds(&["error Gateway shop/edge: Gateway edge uses the certificate in Secret \
                                          certs/tls, which no ReferenceGrant in namespace certs permits"]);
    }

    #[test]
    fn fires_when_the_grant_is_for_something_else() {
        for other in [
            ("namespace: shop}", "namespace: web}"),
            ("HTTPRoute", "GRPCRoute"),
            ("kind: Service}", "kind: Service, name: other}"),
            ("namespace: backend}", "namespace: shop}"),
        ] {
            let said = check(&RULE, &[ROUTE, &GRANT.replace(other.0, other.1)]);
            said.finding();
        }
    }

    #[test]
    fn quiet_with_a_grant() {
        check(&RULE, &[ROUTE, GRANT]).finds_nothing();
        check(&RULE, &[ROUTE, &GRANT.replace("kind: Service}", "kind: Service, name: api}")]).finds_nothing();
    }

    #[test]
    fn quiet_within_a_namespace_and_when_young() {
        check(&RULE, &[&ROUTE.replace("namespace: backend", "namespace: shop")]).finds_nothing();
        check(&RULE, &[&ROUTE.replace("10:00:00", "11:59:00")]).finds_nothing();
    }

    #[test]
    fn quiet_where_grants_were_not_read() {
        let said = TestCluster::new(&[ROUTE]).forbid(Kind::ReferenceGrant).check(&RULE);
        assert_eq!(said.finds_nothing().gaps(), ["ReferenceGrant forbidden"]);
    }
}
