use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::network::gateway_api::current;
use crate::kubernetes::time;
use crate::snapshot::model::{Condition, Gateway, Service};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::shorten;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks the conditions `Accepted` and `Programmed` of each Gateway: whether its controller has accepted it and
    /// has configured the infrastructure that carries its traffic, with an address.
    ///
    /// ## Why it matters
    ///
    /// A Gateway that is not programmed accepts no connections; all routes attached to it are unreachable.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe gateway NAME` shows the conditions with their messages and the addresses.
    ///
    /// ## How to fix
    ///
    /// Follow the condition's message. `AddressNotAssigned` usually means that the Service of type LoadBalancer behind
    /// the Gateway has no address, and `Pending` that the controller of the GatewayClass is not running.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire:
    ///
    /// - in the first five minutes while the Gateway is `Pending` or waits for an address, and in the first two minutes
    ///   for any other reason
    /// - when the condition refers to an older generation
    /// - for manifests
    "gateway/not-programmed": Error,
    "a Gateway is not accepted or not programmed",
    needs: [Gateway],
    optional: [GatewayClass, Service, Deployment, DaemonSet],
    explained_by: ["gateway/class", "gateway/listener", "service/*", "workload/*", "pod/*"],
}

/// The label that controllers set on the objects that they create for a Gateway (GEP-1762).
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

fn check(cluster: &Cluster, report: &mut Report) {
    let gateways = cluster.all::<Gateway>().iter().filter(|gateway| gateway.deleted().is_none() && gateway.is_live());
    for gateway in gateways {
        let condition = |type_| current(&gateway.status.conditions, type_, gateway.metadata.generation);
        let is_not_true = |c: &&Condition| !c.is_true() && !c.status.is_empty();
        let Some(problem) = [condition("Accepted"), condition("Programmed")].into_iter().flatten().find(is_not_true)
        else {
            continue;
        };
        // Until a controller reports, the API server sets Unknown with a transition time of 1970.
        let transition = problem.last_transition_time.filter(|time| time.as_second() > 0);
        let since = transition.or(gateway.created());
        let wait = match problem.reason.as_str() {
            "Pending" | "AddressNotAssigned" | "NoResources" => time::PROVISION,
            _ if problem.is_false() => time::START,
            _ => time::PROVISION,
        };
        if since.is_none_or(|since| time::age(cluster.now(), since) >= wait) {
            report.add(finding(cluster, gateway, problem).since(since));
        }
    }
}

fn finding(cluster: &Cluster, gateway: &Gateway, problem: &Condition) -> Finding {
    let object = gateway.reference();
    let class = &gateway.spec.gateway_class_name;
    let said = shorten(&problem.message, 240);
    let why = match (problem.is_false(), said.is_empty()) {
        (false, _) => format!("no controller has claimed GatewayClass {class}"),
        (true, true) => problem.reason.to_string(),
        (true, false) => said,
    };
    let state = if problem.type_ == "Accepted" { "not accepted" } else { "not programmed" };
    let mut finding = Finding::error(object.clone(), format!("Gateway {} is {state}: {why}", gateway.name()))
        .evidence(
            format!("condition {} is {} ({})", problem.type_, problem.status, problem.reason),
            &object,
            &format!("status.conditions[{}]", problem.type_),
        )
        .because(ObjectRef::new(Kind::GatewayClass, "", class));
    if gateway.status.addresses.is_empty() {
        finding = finding.evidence("it has no address", &object, "status.addresses");
    }
    let services = cluster.in_namespace::<Service>(gateway.namespace()).iter();
    for service in services.filter(|service| service.metadata.labels.get(GATEWAY_NAME) == Some(gateway.name())) {
        finding = finding.because(service.reference());
    }
    for workload in cluster.workloads_in(gateway.namespace()) {
        if workload.metadata.labels.get(GATEWAY_NAME) == Some(gateway.name()) {
            finding = finding.because(workload.object);
        }
    }
    finding.fix_command(
        "Check all conditions and addresses of the Gateway",
        kubectl(["-n", gateway.namespace(), "describe", "gateways.gateway.networking.k8s.io", gateway.name()]),
    )
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    const GATEWAY: &str = "
        apiVersion: gateway.networking.k8s.io/v1
        kind: Gateway
        metadata: {name: edge, namespace: web, uid: u1, generation: 2, creationTimestamp: '2026-11-21T10:00:00Z'}
        spec: {gatewayClassName: istio, listeners: []}
        status:
          conditions:
          - {type: Accepted, status: 'True', reason: Accepted, observedGeneration: 2}
          - {type: Programmed, status: 'False', reason: AddressNotAssigned, observedGeneration: 2,
             message: 'assigned to service(s) edge-istio, but failed to assign an address',
             lastTransitionTime: '2026-11-21T11:00:00Z'}";

    #[test]
    fn fires_when_no_address_is_assigned() {
        check(&RULE, &[GATEWAY])
            .finds(&["error Gateway web/edge: Gateway edge is not programmed: assigned to service(s) \
                                          edge-istio, but failed to assign an address"]);
    }

    #[test]
    fn fires_as_a_consequence_of_its_service() {
        let service = "
            apiVersion: v1
            kind: Service
            metadata: {name: edge-istio, namespace: web, labels: {gateway.networking.k8s.io/gateway-name: edge}}";
        let said = check(&RULE, &[GATEWAY, service]);
        let because: Vec<String> = said.finding().because.iter().map(ToString::to_string).collect();
        assert_eq!(because, ["GatewayClass istio", "Service web/edge-istio"]);
    }

    #[test]
    fn fires_when_no_controller_claims_the_class() {
        let pending = GATEWAY.replace(
            "status: 'True', reason: Accepted, observedGeneration: 2",
            "status: Unknown, reason: Pending, lastTransitionTime: '1970-01-01T00:00:00Z'",
        );
        check(&RULE, &[&pending]).finds(&[
            "error Gateway web/edge: Gateway edge is not accepted: no controller has claimed GatewayClass istio",
        ]);
    }

    #[test]
    fn quiet_when_programmed() {
        check(&RULE, &[&GATEWAY.replace("'False'", "'True'")]).finds_nothing();
    }

    #[test]
    fn quiet_while_the_address_may_still_come() {
        check(&RULE, &[&GATEWAY.replace("11:00:00", "11:56:00")]).finds_nothing();
    }

    #[test]
    fn quiet_about_an_older_generation_and_without_status() {
        check(&RULE, &[&GATEWAY.replace("generation: 2, creation", "generation: 3, creation")]).finds_nothing();
        check(&RULE, &[GATEWAY.split_once("status:").unwrap().0]).finds_nothing();
        let said = TestCluster::new(&[GATEWAY]).forbid(Kind::Gateway).check(&RULE);
        assert_eq!(said.finds_nothing().gaps(), ["Gateway forbidden"]);
    }
}
