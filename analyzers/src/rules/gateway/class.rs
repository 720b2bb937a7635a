use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::network::gateway_api::current;
use crate::kubernetes::time;
use crate::snapshot::model::{Gateway, GatewayClass};
use crate::snapshot::{Cluster, Object};
use crate::text::kubectl;
use crate::text::words::{count, list, shorten};

declare_rule! {
    /// ## What it checks
    ///
    /// That the GatewayClass of each Gateway exists, and that a controller has accepted it.
    ///
    /// ## Why it matters
    ///
    /// Without an accepted GatewayClass no controller sets up the Gateway: it gets no address, and its routes lead nowhere.
    ///
    /// ## How to confirm
    ///
    /// `kubectl get gatewayclasses` shows the classes with their controllers and whether they are accepted.
    ///
    /// ## How to fix
    ///
    /// Name an existing class in `spec.gatewayClassName`, or install the controller that the class names. If the class is
    /// not accepted, the message of its condition says why (often `parametersRef`, or a version of the CRDs that the
    /// controller does not support).
    ///
    /// ## Exceptions
    ///
    /// For classes that no Gateway uses and that no controller has refused, in the first five minutes of a class, and
    /// where GatewayClasses could not be read.
    "gateway/class": Error,
    "a GatewayClass does not exist or is not accepted",
    needs: [GatewayClass],
    optional: [Gateway],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for gateway in cluster.all::<Gateway>().iter().filter(|gateway| gateway.deleted().is_none()) {
        let class = gateway.spec.gateway_class_name.as_str();
        if !class.is_empty() && cluster.get::<GatewayClass>("", class).is_missing() {
            report.add(missing(cluster, gateway, class));
        }
    }
    for class in cluster.all::<GatewayClass>() {
        if let Some(finding) = not_accepted(cluster, class) {
            report.add(finding);
        }
    }
}

fn missing(cluster: &Cluster, gateway: &Gateway, class: &str) -> Finding {
    let classes: Vec<&str> = cluster.all::<GatewayClass>().iter().map(Object::name).collect();
    let there = match classes.len() {
        0 => "there is none".to_string(),
        1 => format!("there is only {}", classes[0]),
        _ => format!("there are {}", list(&classes, 5)),
    };
    let object = gateway.reference();
    let message = format!("Gateway {} names GatewayClass {class}, which does not exist: {there}", gateway.name());
    Finding::error(object.clone(), message)
        .evidence(format!("spec.gatewayClassName is {class}"), &object, "spec.gatewayClassName")
        .fix_command(
            "Name a GatewayClass that exists, or install the controller that brings it",
            kubectl(["-n", gateway.namespace(), "edit", "gateways.gateway.networking.k8s.io", gateway.name()]),
        )
        .rests_on_absence()
}

fn not_accepted(cluster: &Cluster, class: &GatewayClass) -> Option<Finding> {
    if !class.is_live() {
        return None;
    }
    let accepted = current(&class.status.conditions, "Accepted", class.metadata.generation);
    if accepted.is_some_and(|condition| condition.is_true()) {
        return None;
    }
    let users = cluster.all::<Gateway>().iter().filter(|g| g.spec.gateway_class_name == class.name()).count();
    let is_refused = accepted.is_some_and(|condition| condition.is_false());
    let since = accepted.filter(|_| is_refused).and_then(|c| c.last_transition_time).or(class.created());
    let is_young = since.is_some_and(|since| time::age(cluster.now(), since) < time::PROVISION);
    if is_young || (users == 0 && !is_refused) {
        return None;
    }
    let why = match accepted.filter(|_| is_refused) {
        Some(condition) if !condition.message.is_empty() => shorten(&condition.message, 200),
        Some(condition) => condition.reason.to_string(),
        None => format!("no controller {} has taken it up", class.spec.controller_name),
    };
    let severity = if users == 0 { Severity::Warning } else { Severity::Error };
    let object = class.reference();
    let status = accepted.map_or("absent".to_string(), |c| format!("{} ({})", c.status, c.reason));
    Some(
        Finding::new(severity, object.clone(), format!("GatewayClass {} is not accepted: {why}", class.name()))
            .since(since.filter(|_| is_refused))
            .evidence(format!("condition Accepted is {status}"), &object, "status.conditions[Accepted]")
            .evidence(format!("{} uses it", count(users, "Gateway")), &object, "")
            .fix_command(
                format!("Look whether the controller {} runs and what it says", class.spec.controller_name),
                kubectl(["describe", "gatewayclass", class.name()]),
            ),
    )
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::Origin;
    use crate::snapshot::Kind;
    use crate::testing::{World, check};

    const GATEWAY: &str = "
        apiVersion: gateway.networking.k8s.io/v1
        kind: Gateway
        metadata: {name: edge, namespace: web}
        spec: {gatewayClassName: istio, listeners: []}";
    const CLASS: &str = "
        apiVersion: gateway.networking.k8s.io/v1
        kind: GatewayClass
        metadata: {name: istio, uid: u1, generation: 1, creationTimestamp: '2026-11-21T10:00:00Z'}
        spec: {controllerName: istio.io/gateway-controller}
        status:
          conditions:
          - {type: Accepted, status: STATUS, reason: REASON, message: MESSAGE, observedGeneration: 1,
             lastTransitionTime: '2026-11-21T10:00:00Z'}";

    fn class(status: &str, reason: &str, message: &str) -> String {
        CLASS.replace("STATUS", status).replace("REASON", reason).replace("MESSAGE", message)
    }

    #[test]
    fn fires_when_the_class_is_missing() {
        check(&RULE, &[GATEWAY, &class("'True'", "Accepted", "''").replace("name: istio,", "name: envoy,")]).finds(&[
            "error Gateway web/edge: Gateway edge names GatewayClass istio, which does not exist: there is only envoy",
        ]);
        let said = World::new(&[GATEWAY]).origin(Origin::Manifests).check(&RULE);
        assert_eq!(said.finding().severity, crate::Severity::Info);
    }

    #[test]
    fn fires_when_the_class_is_refused() {
        check(&RULE, &[GATEWAY, &class("'False'", "InvalidParameters", "the ConfigMap is missing")])
            .finds(&["error GatewayClass istio: GatewayClass istio is not accepted: the ConfigMap is missing"]);
    }

    #[test]
    fn fires_when_no_controller_takes_it_up() {
        check(&RULE, &[GATEWAY, &class("Unknown", "Pending", "Waiting for controller")]).finds(&[
            "error GatewayClass istio: GatewayClass istio is not accepted: no controller istio.io/gateway-controller has \
             taken it up",
        ]);
    }

    #[test]
    fn quiet_when_accepted() {
        check(&RULE, &[GATEWAY, &class("'True'", "Accepted", "''")]).finds_nothing();
    }

    #[test]
    fn quiet_when_young_or_unused() {
        let pending = class("Unknown", "Pending", "Waiting for controller");
        check(&RULE, &[GATEWAY, &pending.replace("10:00:00", "11:58:00")]).finds_nothing();
        check(&RULE, &[&pending]).finds_nothing();
    }

    #[test]
    fn quiet_where_classes_were_not_read_or_have_no_status() {
        let said = World::new(&[GATEWAY]).forbid(Kind::GatewayClass).check(&RULE);
        assert_eq!(said.finds_nothing().gaps(), ["GatewayClass forbidden"]);
        let manifest = "{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: istio}}";
        check(&RULE, &[GATEWAY, manifest]).finds_nothing();
    }
}
