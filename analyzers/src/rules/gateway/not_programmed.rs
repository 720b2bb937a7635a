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
    /// The conditions `Accepted` and `Programmed` of each Gateway: whether its controller took it up and has set up what
    /// carries its traffic, with an address.
    ///
    /// ## Why it matters
    ///
    /// A Gateway that is not programmed takes no connections; all routes that are attached to it are unreachable.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe gateway NAME` shows the conditions with their messages and the addresses.
    ///
    /// ## How to fix
    ///
    /// Follow the condition's message. `AddressNotAssigned` mostly means that the Service of type LoadBalancer behind the
    /// Gateway got no address; `Pending` that the controller of the GatewayClass does not run.
    ///
    /// ## Exceptions
    ///
    /// In the first five minutes while it is `Pending` or waits for an address, in the first two for any other reason, when
    /// the condition is about an older generation, and for manifests.
    "gateway/not-programmed": Error,
    "a Gateway is not accepted or not programmed",
    needs: [Gateway],
    optional: [GatewayClass, Service, Deployment, DaemonSet],
    explained_by: ["gateway/class", "gateway/listener", "service/*", "workload/*", "pod/*"],
}

/// The label that controllers put on what they make for a Gateway (GEP-1762).
const MADE_FOR: &str = "gateway.networking.k8s.io/gateway-name";

fn check(cluster: &Cluster, report: &mut Report) {
    let gateways = cluster.all::<Gateway>().iter().filter(|gateway| gateway.deleted().is_none() && gateway.is_live());
    for gateway in gateways {
        let condition = |type_| current(&gateway.status.conditions, type_, gateway.metadata.generation);
        let is_wanting = |c: &&Condition| !c.is_true() && !c.status.is_empty();
        let Some(trouble) = [condition("Accepted"), condition("Programmed")].into_iter().flatten().find(is_wanting)
        else {
            continue;
        };
        // The API server sets Unknown with a transition time of 1970 until a controller comes.
        let transition = trouble.last_transition_time.filter(|time| time.as_second() > 0);
        let since = transition.or(gateway.created());
        let patience = match trouble.reason.as_str() {
            "Pending" | "AddressNotAssigned" | "NoResources" => time::PROVISION,
            _ if trouble.is_false() => time::START,
            _ => time::PROVISION,
        };
        if since.is_none_or(|since| time::age(cluster.now(), since) >= patience) {
            report.add(finding(cluster, gateway, trouble).since(since));
        }
    }
}

fn finding(cluster: &Cluster, gateway: &Gateway, trouble: &Condition) -> Finding {
    let object = gateway.reference();
    let class = &gateway.spec.gateway_class_name;
    let said = shorten(&trouble.message, 240);
    let why = match (trouble.is_false(), said.is_empty()) {
        (false, _) => format!("no controller of GatewayClass {class} has taken it up"),
        (true, true) => trouble.reason.to_string(),
        (true, false) => said,
    };
    let state = if trouble.type_ == "Accepted" { "not accepted" } else { "not programmed" };
    let mut finding = Finding::error(object.clone(), format!("Gateway {} is {state}: {why}", gateway.name()))
        .evidence(
            format!("condition {} is {} ({})", trouble.type_, trouble.status, trouble.reason),
            &object,
            &format!("status.conditions[{}]", trouble.type_),
        )
        .because(ObjectRef::new(Kind::GatewayClass, "", class));
    if gateway.status.addresses.is_empty() {
        finding = finding.evidence("it has no address", &object, "status.addresses");
    }
    let services = cluster.in_namespace::<Service>(gateway.namespace()).iter();
    for service in services.filter(|service| service.metadata.labels.get(MADE_FOR) == Some(gateway.name())) {
        finding = finding.because(service.reference());
    }
    for workload in cluster.workloads_in(gateway.namespace()) {
        if workload.metadata.labels.get(MADE_FOR) == Some(gateway.name()) {
            finding = finding.because(workload.object);
        }
    }
    finding.fix_command(
        "See all conditions and addresses of the Gateway",
        kubectl(["-n", gateway.namespace(), "describe", "gateways.gateway.networking.k8s.io", gateway.name()]),
    )
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{World, check};

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
    fn fires_when_no_controller_takes_it_up() {
        let pending = GATEWAY.replace(
            "status: 'True', reason: Accepted, observedGeneration: 2",
            "status: Unknown, reason: Pending, lastTransitionTime: '1970-01-01T00:00:00Z'",
        );
        check(&RULE, &[&pending]).finds(&[
            "error Gateway web/edge: Gateway edge is not accepted: no controller of GatewayClass istio has taken it up",
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
        let said = World::new(&[GATEWAY]).forbid(Kind::Gateway).check(&RULE);
        assert_eq!(said.finds_nothing().gaps(), ["Gateway forbidden"]);
    }
}
