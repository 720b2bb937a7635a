use crate::kubernetes::network::endpoints::EndpointsExt;
use crate::kubernetes::network::outage::OutageExt;
use std::collections::BTreeMap;

use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::network::ingress::{self, Backend};
use crate::kubernetes::network::outage::Outage;
use crate::snapshot::model::{Ingress, Service};
use crate::snapshot::{Cluster, Object};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that the Services behind an Ingress have an endpoint that accepts traffic on the port that the Ingress
    /// uses.
    ///
    /// ## Why it matters
    ///
    /// The ingress controller responds with 502 or 503 for these paths. This is the external symptom of an outage
    /// inside the cluster; the cause is the Service or its pods.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe ingress NAME` shows no address next to the Service, and
    /// `kubectl -n NAMESPACE get endpointslices -l kubernetes.io/service-name=SERVICE` shows none either.
    ///
    /// ## How to fix
    ///
    /// Follow the cause: the Service's selector, its targetPort, or the readiness of its pods.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for `ExternalName` Services, for Services and ports that do not exist (other rules report
    /// them), while the pods are still within their startup time, or where pods or EndpointSlices could not be read.
    /// The finding is `info` if the workload is scaled to zero.
    "ingress/backend-down": Error,
    "the Service behind an Ingress has no endpoint that accepts traffic",
    needs: [Ingress, Service, Pod, EndpointSlice],
    optional: [
        Endpoints, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob, Namespace, Node,
    ],
    explained_by: [
        "service/selector-matches-nothing", "service/no-ready-endpoints", "service/target-port", "service/no-endpoints",
    ],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for ingress in cluster.all::<Ingress>().iter().filter(|ingress| !cluster.is_terminating(*ingress)) {
        let backends = ingress::backends(ingress);
        let mut down: BTreeMap<&str, (Severity, String, Vec<&Backend>)> = BTreeMap::new();
        for backend in &backends {
            let Some(service) = cluster.get::<Service>(ingress.namespace(), backend.service).found() else { continue };
            if let Some((severity, why)) = down_for(cluster, service, backend) {
                down.entry(backend.service).or_insert_with(|| (severity, why, Vec::new())).2.push(backend);
            }
        }
        for (service, (severity, why, backends)) in down {
            report.add(finding(ingress, service, severity, &why, &backends));
        }
    }
}

/// Why a Service does not accept the traffic that an Ingress routes to one of its ports.
fn down_for(cluster: &Cluster, service: &Service, backend: &Backend) -> Option<(Severity, String)> {
    let port = backend.port.find(service)?;
    if let Some(outage) = cluster.outage(service) {
        let severity = match outage {
            Outage::Parked { .. } => Severity::Info,
            Outage::NoLeader { .. } | Outage::NoAddress => Severity::Warning,
            _ => Severity::Error,
        };
        return Some((severity, outage.why()));
    }
    let backends = cluster.each_backend(service)?;
    let mut active = backends.filter(crate::kubernetes::network::endpoints::Backend::takes_traffic).peekable();
    let lacks_port = active.peek().is_some() && !active.any(|backend| backend.has_port(&port.name));
    lacks_port.then(|| (Severity::Error, format!("its endpoints lack port {}", backend.port)))
}

fn finding(ingress: &Ingress, service: &str, severity: Severity, why: &str, backends: &[&Backend]) -> Finding {
    let (namespace, name) = (ingress.namespace(), ingress.name());
    let object = ingress.reference();
    let from = ingress::sources(backends);
    let message = format!("Ingress {name} routes {from} to Service {service}, which has no active endpoints: {why}");
    let cause = crate::snapshot::ObjectRef::new(crate::snapshot::Kind::Service, namespace, service);
    let mut finding = Finding::new(severity, object.clone(), message).key(service);
    for backend in backends.iter().take(3) {
        let text = format!("{} is routed to Service {service} port {}", backend.from(), backend.port);
        finding = finding.evidence(text, &object, &backend.path());
    }
    let label = format!("kubernetes.io/service-name={service}");
    finding.because(cause).fix_command(
        format!("Check the endpoints of Service {service}"),
        kubectl(["-n", namespace, "get", "endpointslices", "-l", &label]),
    )
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::{TestCluster, check};

    const INGRESS: &str = "
        apiVersion: networking.k8s.io/v1
        kind: Ingress
        metadata: {name: cart, namespace: shop}
        spec:
          rules:
          - host: cart.example.com
            http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: cart, port: {number: 80}}}}]}";

    const SERVICE: &str = "{apiVersion: v1, kind: Service, metadata: {name: cart, namespace: shop}, \
                           spec: {selector: {app: carts}, ports: [{name: http, port: 80}]}}";

    fn slice(port: &str) -> String {
        format!(
            "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: cart-x, namespace: shop, labels: \
             {{kubernetes.io/service-name: cart}}}}, endpoints: [{{addresses: [10.0.0.1]}}], ports: [{{name: '{port}'}}]}}"
        )
    }

    #[test]
    fn fires_as_the_consequence_of_the_service() {
        let said = TestCluster::new(&[INGRESS, SERVICE]).check_all();
        let cause = said.by("service/selector-matches-nothing").id.clone();
        let finding = said.by("ingress/backend-down");
        assert_eq!(finding.caused_by, [cause]);
        assert_eq!(
            finding.message,
            "Ingress cart routes cart.example.com/ to Service cart, which has no active endpoints: its selector matches no pods"
        );
    }

    #[test]
    fn fires_when_the_endpoints_lack_the_port() {
        check(&RULE, &[INGRESS, SERVICE, &slice("metrics")]).finds(&[
            "error Ingress shop/cart: Ingress cart routes cart.example.com/ to Service cart, which has no active \
             endpoints: its endpoints lack port 80",
        ]);
    }

    #[test]
    fn fires_as_info_when_scaled_to_zero() {
        let deployment = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: cart, namespace: shop}, \
                          spec: {replicas: 0, template: {metadata: {labels: {app: carts}}}}}";
        check(&RULE, &[INGRESS, SERVICE, deployment]).finds(&[
            "info Ingress shop/cart: Ingress cart routes cart.example.com/ to Service cart, which has no active \
             endpoints: Deployment cart is scaled to zero",
        ]);
    }

    #[test]
    fn quiet_with_an_endpoint() {
        check(&RULE, &[INGRESS, SERVICE, &slice("http")]).finds_nothing();
    }

    #[test]
    fn quiet_for_missing_and_external_services() {
        check(&RULE, &[INGRESS]).finds_nothing();
        let external = "{apiVersion: v1, kind: Service, metadata: {name: cart, namespace: shop}, \
                        spec: {type: ExternalName, externalName: example.com, ports: [{port: 80}]}}";
        check(&RULE, &[INGRESS, external]).finds_nothing();
    }
}
