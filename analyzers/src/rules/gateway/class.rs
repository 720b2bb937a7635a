use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::network::gateway_api::current;
use crate::kubernetes::time;
use crate::snapshot::model::{Gateway, GatewayClass};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef, Workload};
use crate::text::kubectl;
use crate::text::words::{count, list, shorten};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that the GatewayClass of each Gateway exists and that a controller has accepted it.
    ///
    /// ## Why it matters
    ///
    /// Without an accepted GatewayClass no controller configures the Gateway: it gets no address, and its routes
    /// receive no traffic.
    ///
    /// ## How to confirm
    ///
    /// `kubectl get gatewayclasses` lists the classes with their controllers and whether they are accepted.
    ///
    /// ## How to fix
    ///
    /// Set `spec.gatewayClassName` to an existing class, or install the controller that the class names. If the class
    /// is not accepted, the message of its condition gives the reason (often `parametersRef`, or a version of the CRDs
    /// that the controller does not support).
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for classes that no Gateway uses and no controller has rejected, in the first five
    /// minutes of a class, or where GatewayClasses could not be read.
    "gateway/class": Error,
    "a GatewayClass does not exist or is not accepted",
    needs: [GatewayClass],
    optional: [Gateway, Deployment, DaemonSet, Pod],
    explained_by: [
        "pod/crash-loop", "pod/init-stuck", "pod/image-pull", "pod/cannot-start", "pod/not-ready",
        "pod/missing-reference", "pod/oom-killed", "pod/unschedulable", "workload/unavailable",
        "workload/cannot-create-pods",
    ],
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
    let existing = match classes.len() {
        0 => "there are no GatewayClasses".to_string(),
        _ => format!("available: {}", list(&classes, 5)),
    };
    let object = gateway.reference();
    let message = format!("Gateway {} uses GatewayClass {class}, which does not exist ({existing})", gateway.name());
    Finding::error(object.clone(), message)
        .evidence(format!("spec.gatewayClassName is {class}"), &object, "spec.gatewayClassName")
        .fix_command(
            "Set spec.gatewayClassName to an existing class, or install the controller that provides it",
            kubectl(["-n", gateway.namespace(), "edit", "gateways.gateway.networking.k8s.io", gateway.name()]),
        )
        .rests_on_absence()
}

fn not_accepted(cluster: &Cluster, class: &GatewayClass) -> Option<Finding> {
    if !class.is_live() {
        return None;
    }
    let accepted = current(&class.status.conditions, "Accepted", class.metadata.generation);
    if accepted.is_some_and(crate::snapshot::model::Condition::is_true) {
        return None;
    }
    let users = cluster.all::<Gateway>().iter().filter(|g| g.spec.gateway_class_name == class.name()).count();
    let is_rejected = accepted.is_some_and(crate::snapshot::model::Condition::is_false);
    let since = accepted.filter(|_| is_rejected).and_then(|c| c.last_transition_time).or(class.created());
    let is_young = since.is_some_and(|since| time::age(cluster.now(), since) < time::PROVISION);
    if is_young || (users == 0 && !is_rejected) {
        return None;
    }
    let why = match accepted.filter(|_| is_rejected) {
        Some(condition) if !condition.message.is_empty() => shorten(&condition.message, 200),
        Some(condition) => condition.reason.to_string(),
        None => format!("controller {} has not claimed it", class.spec.controller_name),
    };
    let severity = if users == 0 { Severity::Warning } else { Severity::Error };
    let object = class.reference();
    let status = accepted.map_or("absent".to_string(), |c| format!("{} ({})", c.status, c.reason));
    let finding =
        Finding::new(severity, object.clone(), format!("GatewayClass {} is not accepted: {why}", class.name()));
    let controllers = if is_rejected { Vec::new() } else { controllers(cluster, &class.spec.controller_name) };
    Some(
        controllers
            .into_iter()
            .fold(finding, Finding::because)
            .since(since.filter(|_| is_rejected))
            .evidence(format!("condition Accepted is {status}"), &object, "status.conditions[Accepted]")
            .evidence(format!("used by {}", count(users, "Gateway")), &object, "")
            .fix_command(
                format!("Check that the controller {} is running, and check its logs", class.spec.controller_name),
                kubectl(["describe", "gatewayclass", class.name()]),
            ),
    )
}

/// Parts of the names of well-known controllers, with the names of their Deployments.
const CONTROLLERS: [(&str, &str); 9] = [
    ("io.cilium/", "cilium-operator"),
    ("gateway.envoyproxy.io/", "envoy-gateway"),
    ("istio.io/", "istiod"),
    ("gateway.nginx.org/", "nginx-gateway"),
    ("traefik.io/", "traefik"),
    ("konghq.com/", "kong"),
    ("projectcontour.io/", "contour"),
    ("haproxy-ingress.github.io/", "haproxy-ingress"),
    ("kgateway.dev/", "kgateway"),
];

/// The workloads that run a controller: known by name, or with its name in their arguments.
fn controllers(cluster: &Cluster, controller: &str) -> Vec<ObjectRef> {
    let known = CONTROLLERS.iter().find(|(part, _)| controller.contains(part)).map(|(_, name)| *name);
    let runs = |workload: &Workload| {
        let containers = workload.template.spec.containers.iter();
        let mut words = containers.flat_map(|container| container.command.iter().chain(&container.args));
        let is_known = known.is_some_and(|name| workload.object.name.contains(name));
        is_known || (!controller.is_empty() && words.any(|word| word.contains(controller)))
    };
    let kinds = [Kind::Deployment, Kind::DaemonSet];
    let workloads = cluster.workloads().into_iter().filter(|w| kinds.iter().any(|kind| w.object.is(*kind)));
    workloads.filter(runs).map(|workload| workload.object).collect()
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
            "error Gateway web/edge: Gateway edge uses GatewayClass istio, which does not exist (available: envoy)",
        ]);
        let said = TestCluster::new(&[GATEWAY]).origin(Origin::Manifests).check(&RULE);
        assert_eq!(said.finding().severity, crate::Severity::Info);
    }

    #[test]
    fn fires_when_the_class_is_rejected() {
        check(&RULE, &[GATEWAY, &class("'False'", "InvalidParameters", "the ConfigMap is missing")])
            .finds(&["error GatewayClass istio: GatewayClass istio is not accepted: the ConfigMap is missing"]);
    }

    #[test]
    fn fires_when_no_controller_claims_it() {
        check(&RULE, &[GATEWAY, &class("Unknown", "Pending", "Waiting for controller")]).finds(&[
            "error GatewayClass istio: GatewayClass istio is not accepted: controller istio.io/gateway-controller has not \
             claimed it",
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
        let said = TestCluster::new(&[GATEWAY]).forbid(Kind::GatewayClass).check(&RULE);
        assert_eq!(said.finds_nothing().gaps(), ["GatewayClass forbidden"]);
        let manifest = "{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: istio}}";
        check(&RULE, &[GATEWAY, manifest]).finds_nothing();
    }
}
