use std::collections::BTreeMap;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::network::ingress::{self, Backend};
use crate::snapshot::model::{Ingress, Service};
use crate::snapshot::{Cluster, Object};
use crate::text::kubectl;
use crate::text::similar::nearest_name;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that every Service that an Ingress refers to, in its rules and as the default backend, exists in the
    /// namespace of the Ingress.
    ///
    /// ## Why it matters
    ///
    /// The ingress controller responds to requests for such a path with 503 or 404. Some controllers reject the whole
    /// Ingress.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe ingress NAME` shows `<error: services "…" not found>` next to the path.
    ///
    /// ## How to fix
    ///
    /// Create the Service, or correct the name in the Ingress. An Ingress can only refer to Services in its own
    /// namespace.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for resource backends, for the actions of the AWS Load Balancer Controller
    /// (`use-annotation`), for Ingresses that are being deleted, or where Services could not be read.
    "ingress/backend-service": Error,
    "an Ingress routes traffic to a Service that does not exist",
    needs: [Ingress, Service],
    optional: [Namespace],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for ingress in cluster.all::<Ingress>().iter().filter(|ingress| !cluster.is_terminating(*ingress)) {
        let backends = ingress::backends(ingress);
        let mut missing: BTreeMap<&str, Vec<&Backend>> = BTreeMap::new();
        for backend in &backends {
            if cluster.get::<Service>(ingress.namespace(), backend.service).is_missing() {
                missing.entry(backend.service).or_default().push(backend);
            }
        }
        for (service, backends) in missing {
            report.add(finding(cluster, ingress, service, &backends));
        }
    }
}

fn finding(cluster: &Cluster, ingress: &Ingress, service: &str, backends: &[&Backend]) -> Finding {
    let (namespace, name) = (ingress.namespace(), ingress.name());
    let object = ingress.reference();
    let from = ingress::sources(backends);
    let there = cluster.in_namespace::<Service>(namespace).iter().map(Object::name);
    let similar = nearest_name(service, there);
    let hint = similar.map(|name| format!(" (did you mean {name}?)")).unwrap_or_default();
    let message = format!("Ingress {name} routes {from} to Service {service}, which does not exist{hint}");
    let elsewhere = cluster.all::<Service>().iter().find(|s| s.name() == service);
    let mut finding = Finding::error(object.clone(), message).key(service).rests_on_absence();
    for backend in backends.iter().take(3) {
        let text = format!("{} is routed to Service {service} port {}", backend.from(), backend.port);
        finding = finding.evidence(text, &object, &backend.path());
    }
    if let Some(other) = elsewhere {
        let text = format!(
            "namespace {} has a Service of that name, but an Ingress in {namespace} cannot refer to it",
            other.namespace()
        );
        finding = finding.evidence(text, &other.reference(), "");
    }
    finding.fix_command(
        format!("Create Service {service} in namespace {namespace}, or correct the name in the Ingress"),
        kubectl(["-n", namespace, "edit", "ingress", name]),
    )
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::{Kind, Origin};
    use crate::testing::{TestCluster, check};

    const INGRESS: &str = "
        apiVersion: networking.k8s.io/v1
        kind: Ingress
        metadata: {name: store, namespace: shop}
        spec:
          rules:
          - host: store.example.com
            http:
              paths:
              - {path: /, pathType: Prefix, backend: {service: {name: store, port: {number: 80}}}}
              - {path: /reviews, pathType: Prefix, backend: {service: {name: reviews, port: {number: 80}}}}";

    const STORE: &str = "{apiVersion: v1, kind: Service, metadata: {name: store, namespace: shop}, spec: {}}";
    const REVIEWS: &str = "{apiVersion: v1, kind: Service, metadata: {name: reviews, namespace: shop}, spec: {}}";

    #[test]
    fn fires_when_a_service_is_missing() {
        let said = check(&RULE, &[INGRESS, STORE]);
        said.finds(&["error Ingress shop/store: Ingress store routes store.example.com/reviews to Service reviews, \
                      which does not exist"]);
        assert_eq!(said.finding().evidence[0].path.as_deref(), Some("spec.rules[0].http.paths[1].backend"));
    }

    #[test]
    fn fires_once_for_each_missing_service() {
        assert_eq!(check(&RULE, &[INGRESS]).0.findings.len(), 2);
    }

    #[test]
    fn fires_for_the_default_backend_and_suggests_a_similar_name() {
        let ingress = "
            apiVersion: networking.k8s.io/v1
            kind: Ingress
            metadata: {name: all, namespace: shop}
            spec: {defaultBackend: {service: {name: review, port: {name: http}}}}";
        check(&RULE, &[ingress, REVIEWS])
            .finds(&["error Ingress shop/all: Ingress all routes all other traffic to Service review, \
             which does not exist (did you mean reviews?)"]);
    }

    #[test]
    fn quiet_when_all_exist() {
        check(&RULE, &[INGRESS, STORE, REVIEWS]).finds_nothing();
    }

    #[test]
    fn quiet_for_resources_and_actions() {
        let ingress = "
            apiVersion: networking.k8s.io/v1
            kind: Ingress
            metadata: {name: all, namespace: shop}
            spec:
              defaultBackend: {resource: {apiGroup: k8s.example.com, kind: StorageBucket, name: static}}
              rules:
              - http:
                  paths:
                  - {pathType: Prefix, backend: {service: {name: redirect, port: {name: use-annotation}}}}
              - host: nothing.example.com";
        check(&RULE, &[ingress]).finds_nothing();
        check(&RULE, &["{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: a, namespace: b}}"])
            .finds_nothing();
    }

    #[test]
    fn quiet_where_services_were_refused() {
        let said = TestCluster::new(&[INGRESS]).forbid(Kind::Service).check(&RULE);
        said.finds_nothing();
        assert_eq!(said.gaps(), ["Service forbidden"]);
    }

    #[test]
    fn fires_as_info_for_manifests() {
        let said = TestCluster::new(&[INGRESS, STORE]).origin(Origin::Manifests).check(&RULE);
        assert_eq!(said.finding().severity, crate::engine::Severity::Info);
    }
}
