use crate::kubernetes::network::ingress::IngressExt;
use crate::kubernetes::nodes::platform::PlatformExt;
use std::collections::BTreeMap;

use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::network::ingress;
use crate::kubernetes::time;
use crate::snapshot::model::{Ingress, IngressClass};
use crate::snapshot::{Cluster, Kind, Object};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that an Ingress has an address after 5 minutes, if other Ingresses of its class have one, or if no
    /// ingress controller was found in the cluster (`info`, because it may run outside).
    ///
    /// ## Why it matters
    ///
    /// The address shows that a controller serves the Ingress. An Ingress that the controller rejects (a disallowed
    /// annotation, a host that belongs to another Ingress) stays without one.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get ingress NAME` shows no ADDRESS; `kubectl -n NAMESPACE describe ingress NAME` shows the
    /// events of the controller, whose log usually has more detail.
    ///
    /// ## How to fix
    ///
    /// Check the controller's events and log for the Ingress, or install the controller of its class.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire:
    ///
    /// - if no Ingress of the class has an address but a controller may be running, because many controllers on bare
    ///   metal publish none
    /// - if the class does not exist (`ingress/class` reports it)
    /// - in the first 5 minutes
    /// - for manifests
    "ingress/no-address": Warning,
    "an Ingress has no address",
    needs: [Ingress, IngressClass],
    optional: [Pod, Node, Service, Namespace, Event],
    explained_by: ["ingress/backend-service", "ingress/backend-port", "ingress/tls-secret"],
}

/// Parts of images and commands of ingress controllers.
const CONTROLLERS: [&str; 16] = [
    "ingress",
    "traefik",
    "nginx",
    "haproxy",
    "contour",
    "envoy",
    "kong",
    "gateway",
    "proxy",
    "load-balancer",
    "apisix",
    "skipper",
    "cilium",
    "ambassador",
    "emissary",
    "istio",
];

fn check(cluster: &Cluster, report: &mut Report) {
    let mut reasons: BTreeMap<&str, Option<(Severity, String)>> = BTreeMap::new();
    for ingress in cluster.all::<Ingress>().iter().filter(|ingress| !cluster.is_terminating(*ingress)) {
        let Some(created) = ingress.created().filter(|_| !ingress::has_address(ingress)) else { continue };
        let Some(class) = cluster.ingress_class(ingress) else { continue };
        if time::age(cluster.now(), created) < time::PROVISION {
            continue;
        }
        let reason = reasons.entry(class.name()).or_insert_with(|| should_have_one(cluster, class));
        if let Some((severity, why)) = reason {
            report.add(finding(cluster, ingress, *severity, why).since(Some(created)));
        }
    }
}

/// Why an Ingress of a class should have an address, and how certain that is.
fn should_have_one(cluster: &Cluster, class: &IngressClass) -> Option<(Severity, String)> {
    let mut others = cluster.all::<Ingress>().iter().filter(|other| ingress::has_address(other));
    let of_class = |other: &&Ingress| cluster.ingress_class(other).is_some_and(|c| c.name() == class.name());
    match others.find(of_class) {
        Some(other) => {
            let why = format!("other Ingresses of class {} have one, such as {}", class.name(), other.name());
            Some((Severity::Warning, why))
        }
        // The controller may run outside the cluster, as those of appliances and hosting providers do.
        None => no_controller(cluster, class)
            .then(|| (Severity::Info, format!("no ingress controller found for class {}", class.name()))),
    }
}

fn no_controller(cluster: &Cluster, class: &IngressClass) -> bool {
    let controller = class.spec.as_ref().and_then(|spec| spec.controller.as_deref()).unwrap_or_default();
    // The last part is the most specific: `nginx` of k8s.io/ingress-nginx, `alb` of ingress.k8s.aws/alb.
    let word = controller.rsplit(['/', '-']).next().filter(|word| word.len() > 2).unwrap_or("ingress");
    cluster.covers_all(Kind::Pod)
        && cluster.covers_all(Kind::Node)
        && cluster.cloud().is_none()
        && !cluster.is_gke()
        && !cluster.is_openshift()
        && !cluster.runs(&CONTROLLERS)
        && !cluster.runs(&[word])
}

fn finding(cluster: &Cluster, ingress: &Ingress, severity: Severity, why: &str) -> Finding {
    let (namespace, name, object) = (ingress.namespace(), ingress.name(), ingress.reference());
    let message = format!("Ingress {name} has no address: {why}");
    let mut finding = Finding::new(severity, object.clone(), message).evidence(
        "status.loadBalancer is empty",
        &object,
        "status.loadBalancer",
    );
    if let Some(event) = cluster.events(&object).first() {
        finding = finding.evidence(crate::text::words::shorten(&event.message, 200), &object, "");
    }
    finding.fix_command("Check the controller's events", kubectl(["-n", namespace, "describe", "ingress", name]))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    const CLASS: &str = "{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: public}, \
                         spec: {controller: example.com/router}}";

    fn ingress(name: &str, created: &str, address: &str) -> String {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {{name: {name}, namespace: shop, \
             creationTimestamp: '2026-11-21T{created}Z'}}, spec: {{ingressClassName: public}}, status: {{loadBalancer: \
             {{ingress: [{address}]}}}}}}"
        )
    }

    fn pod(image: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: c, namespace: x}}, spec: {{containers: [{{image: {image}}}]}}}}"
        )
    }

    #[test]
    fn fires_when_others_have_one() {
        let other = ingress("web", "10:00:00", "{ip: 203.0.113.10}");
        check(&RULE, &[CLASS, &ingress("api", "11:00:00", ""), &other, &pod("example.com/router")]).finds(&[
            "warning Ingress shop/api: Ingress api has no address: other Ingresses of class public have one, such as web",
        ]);
    }

    #[test]
    fn fires_without_any_controller() {
        check(&RULE, &[CLASS, &ingress("api", "11:00:00", "")]).finds(&[
            "info Ingress shop/api: Ingress api has no address: no ingress controller found for class public",
        ]);
    }

    #[test]
    fn quiet_where_a_controller_publishes_none() {
        check(&RULE, &[CLASS, &ingress("api", "11:00:00", ""), &pod("example.com/router")]).finds_nothing();
    }

    #[test]
    fn quiet_while_young_and_with_an_address() {
        check(&RULE, &[CLASS, &ingress("api", "11:56:00", "")]).finds_nothing();
        check(&RULE, &[CLASS, &ingress("api", "11:00:00", "{hostname: lb.example.com}")]).finds_nothing();
        check(&RULE, &[&ingress("api", "11:00:00", "")]).finds_nothing();
    }
}
