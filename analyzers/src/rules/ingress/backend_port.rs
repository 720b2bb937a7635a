use crate::kubernetes::network::ingress::IngressExt;
use std::collections::BTreeMap;

use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::network::ingress::{self, Backend, BackendPort};
use crate::snapshot::model::{Ingress, IntOrString, Service, port_text};
use crate::snapshot::{Cluster, Object};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that the Service behind an Ingress has the port that the Ingress refers to, by number or by name. The
    /// number is the `port` of the Service, not the `targetPort` that its pods listen on.
    ///
    /// ## Why it matters
    ///
    /// The ingress controller cannot route such requests and responds with 503 or 404.
    ///
    /// ## How to confirm
    ///
    /// Compare `kubectl -n NAMESPACE describe ingress NAME` with `kubectl -n NAMESPACE get service SERVICE`.
    ///
    /// ## How to fix
    ///
    /// Set the port to one that the Service has, or add the port to the Service.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for Services that do not exist (`ingress/backend-service` reports them), for
    /// `ExternalName`, for resource backends, or for the actions of the AWS Load Balancer Controller
    /// (`use-annotation`). For ingress-nginx the finding is `info` if the number or name is that of the `targetPort`,
    /// which this controller accepts contrary to the API.
    "ingress/backend-port": Error,
    "an Ingress refers to a port that its Service does not have",
    needs: [Ingress, Service],
    optional: [IngressClass, Namespace],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for ingress in cluster.all::<Ingress>().iter().filter(|ingress| !cluster.is_terminating(*ingress)) {
        let backends = ingress::backends(ingress);
        let mut wrong: BTreeMap<(&str, BackendPort), Vec<&Backend>> = BTreeMap::new();
        for backend in &backends {
            let service = cluster.get::<Service>(ingress.namespace(), backend.service).found();
            if service.is_some_and(|s| !s.is_external_name() && backend.port.find(s).is_none()) {
                wrong.entry((backend.service, backend.port)).or_default().push(backend);
            }
        }
        for ((service, port), backends) in wrong {
            if let Some(service) = cluster.get::<Service>(ingress.namespace(), service).found() {
                report.add(finding(cluster, ingress, service, port, &backends));
            }
        }
    }
}

fn finding(
    cluster: &Cluster,
    ingress: &Ingress,
    service: &Service,
    port: BackendPort,
    backends: &[&Backend],
) -> Finding {
    let (namespace, name) = (ingress.namespace(), ingress.name());
    let object = ingress.reference();
    let has = ports(service);
    let from = ingress::sources(backends);
    let target = service.spec.ports.iter().find(|p| is_target(port, &p.target()));
    let hint = match target {
        Some(p) => format!(" ({port} is the targetPort of port {})", p.port),
        None => String::new(),
    };
    let message =
        format!("Ingress {name} routes {from} to port {port} of Service {}, which has {has}{hint}", service.name());
    let controller = cluster.ingress_class(ingress).and_then(|class| class.spec.as_ref()?.controller.as_deref());
    let tolerated = target.is_some() && controller == Some("k8s.io/ingress-nginx");
    let severity = if tolerated { Severity::Info } else { Severity::Error };
    let mut finding = Finding::new(severity, object.clone(), message).key(format!("{}:{port}", service.name()));
    for backend in backends.iter().take(3) {
        let text = format!("{} is routed to port {port}", backend.from());
        finding = finding.evidence(text, &object, &format!("{}.service.port", backend.path()));
    }
    finding
        .evidence(format!("Service {} has {has}", service.name()), &service.reference(), "spec.ports")
        .fix_command("Set the port to one that the Service has", kubectl(["-n", namespace, "edit", "ingress", name]))
}

fn is_target(port: BackendPort, target: &IntOrString) -> bool {
    match port {
        BackendPort::Number(number) => *target == IntOrString::Int(number),
        BackendPort::Name(name) => port_text(target) == name,
    }
}

/// `only http 80 and https 443`.
fn ports(service: &Service) -> String {
    let ports = service.spec.ports.iter();
    let ports: Vec<String> = ports.map(|p| format!("{} {}", p.name, p.port).trim_start().to_string()).collect();
    if ports.is_empty() { "no ports".to_string() } else { format!("only {}", words::list(&ports, 5)) }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    const SERVICE: &str = "{apiVersion: v1, kind: Service, metadata: {name: store, namespace: shop}, \
                           spec: {ports: [{name: http, port: 80, targetPort: 8080}]}}";

    fn ingress(port: &str) -> String {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {{name: store, namespace: shop}}, spec: \
             {{ingressClassName: public, rules: [{{host: store.example.com, http: {{paths: [{{path: /, pathType: Prefix, \
             backend: {{service: {{name: store, port: {port}}}}}}}]}}}}]}}}}"
        )
    }

    #[test]
    fn fires_for_the_target_port() {
        check(&RULE, &[SERVICE, &ingress("{number: 8080}")]).finds(&[
            "error Ingress shop/store: Ingress store routes store.example.com/ to port 8080 of Service store, \
             which has only http 80 (8080 is the targetPort of port 80)",
        ]);
    }

    #[test]
    fn fires_for_an_unknown_name() {
        check(&RULE, &[SERVICE, &ingress("{name: web}")]).finds(&[
            "error Ingress shop/store: Ingress store routes store.example.com/ to port web of Service store, \
             which has only http 80",
        ]);
    }

    #[test]
    fn fires_as_info_where_the_controller_accepts_it() {
        let class = "{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: public}, \
                     spec: {controller: k8s.io/ingress-nginx}}";
        let said = check(&RULE, &[SERVICE, class, &ingress("{number: 8080}")]);
        assert_eq!(said.finding().severity, crate::engine::Severity::Info);
    }

    #[test]
    fn quiet_for_ports_that_exist() {
        check(&RULE, &[SERVICE, &ingress("{number: 80}")]).finds_nothing();
        check(&RULE, &[SERVICE, &ingress("{name: http}")]).finds_nothing();
    }

    #[test]
    fn quiet_for_external_names_and_missing_services() {
        let external = "{apiVersion: v1, kind: Service, metadata: {name: store, namespace: shop}, \
                        spec: {type: ExternalName, externalName: example.com}}";
        check(&RULE, &[external, &ingress("{number: 8080}")]).finds_nothing();
        check(&RULE, &[&ingress("{number: 8080}")]).finds_nothing();
        check(&RULE, &[SERVICE, &ingress("{}")]).finds_nothing();
    }
}
