use crate::kubernetes::network::ingress::IngressExt;
use crate::kubernetes::nodes::platform::PlatformExt;
use std::collections::BTreeMap;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::network::ingress;
use crate::snapshot::model::Ingress;
use crate::snapshot::{Cluster, Object};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks whether two Ingresses of one class route the same host and path, with the same `pathType`, to different
    /// Services.
    ///
    /// ## Why it matters
    ///
    /// Only one of them receives the traffic; which one depends on the controller (usually the older one). The other
    /// has no effect, and no error is reported.
    ///
    /// ## How to confirm
    ///
    /// `kubectl get ingress -A` shows the hosts; `kubectl describe ingress` shows the paths and Services of both.
    ///
    /// ## How to fix
    ///
    /// Remove the path from one of them, or make it a canary with the annotations of the controller.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire:
    ///
    /// - for canaries, and where annotations may distinguish or merge the two (priority, weight, methods, headers,
    ///   entry points, groups)
    /// - for controllers that create a load balancer for each Ingress (GKE, AWS without a group)
    /// - if both route the path to the same Service and port
    "ingress/conflict": Warning,
    "two Ingresses of one class route the same host and path",
    needs: [Ingress],
    optional: [IngressClass, Node, Service, Namespace],
    explained_by: [],
}

/// Parts of annotations by which controllers distinguish or merge Ingresses with the same path.
const DISTINGUISHING: [&str; 12] = [
    "canary",
    "priority",
    "weight",
    "method",
    "header",
    "entrypoint",
    "match",
    "group",
    "mergeable",
    "split",
    "order",
    "regex",
];

/// Class, host, path and `pathType`.
type Place<'a> = (&'a str, String, &'a str, &'a str);

fn check(cluster: &Cluster, report: &mut Report) {
    if cluster.is_gke() {
        return;
    }
    let mut claims: BTreeMap<Place, Vec<(&Ingress, String)>> = BTreeMap::new();
    for ingress in cluster.all::<Ingress>().iter().filter(|ingress| shares(cluster, ingress)) {
        let class =
            cluster.ingress_class(ingress).map(Object::name).or(ingress::class_name(ingress)).unwrap_or_default();
        for (host, path, path_type, backend) in paths(ingress) {
            claims.entry((class, host.to_ascii_lowercase(), path, path_type)).or_default().push((ingress, backend));
        }
    }
    for ((class, host, path, _), mut claimants) in claims {
        // Controllers prefer the older one.
        claimants.sort_by_key(|(i, _)| (i.created(), i.namespace().to_string(), i.name().to_string()));
        let Some(((first, backend), others)) = claimants.split_first() else { continue };
        let place = format!("{}{path}", if host.is_empty() { "*" } else { &host });
        for (other, theirs) in others {
            let same_object = first.reference() == other.reference();
            let same_backend = first.namespace() == other.namespace() && backend == theirs;
            if !same_object && !same_backend {
                report.add(finding(first, backend, other, theirs, class, &place));
            }
        }
    }
}

/// Whether an Ingress shares its hosts and paths with others of its class, without an annotation that distinguishes it.
fn shares(cluster: &Cluster, ingress: &Ingress) -> bool {
    let class = cluster.ingress_class(ingress).and_then(|class| class.spec.as_ref()?.controller.as_deref());
    let own_balancer = class.is_some_and(|c| c == "ingress.k8s.aws/alb") || ingress::class_name(ingress) == Some("alb");
    let annotations = ingress.metadata.annotations.iter().flatten();
    let is_distinguished = annotations.into_iter().any(|(key, _)| {
        let name = key.rsplit('/').next().unwrap_or(key).to_ascii_lowercase();
        !key.contains("kubectl") && DISTINGUISHING.iter().any(|part| name.contains(part))
    });
    !own_balancer && !is_distinguished && !cluster.is_terminating(ingress)
}

/// Host, path, `pathType` and backend (`Service cart port 80`) of all paths.
fn paths(ingress: &Ingress) -> Vec<(&str, &str, &str, String)> {
    let rules = ingress.spec.iter().flat_map(|spec| spec.rules.iter().flatten());
    let paths = rules.flat_map(|rule| {
        let host = rule.host.as_deref().unwrap_or_default();
        rule.http.iter().flat_map(|http| &http.paths).map(move |path| (host, path))
    });
    paths
        .map(|(host, path)| {
            let backend = match &path.backend.service {
                Some(service) => {
                    let port = service.port.as_ref();
                    let name = port.and_then(|p| p.name.clone());
                    let port = name.or(port.and_then(|p| p.number).map(|n| n.to_string())).unwrap_or_default();
                    format!("Service {} port {port}", service.name)
                }
                None => "a resource".to_string(),
            };
            (host, path.path.as_deref().unwrap_or("/"), path.path_type.as_str(), backend)
        })
        .collect()
}

fn finding(first: &Ingress, backend: &str, other: &Ingress, theirs: &str, class: &str, place: &str) -> Finding {
    let (one, two) = (first.reference(), other.reference());
    let where_ = if first.namespace() == other.namespace() {
        String::new()
    } else {
        format!(" in namespace {}", first.namespace())
    };
    let of_class = if class.is_empty() { String::new() } else { format!(" of class {class}") };
    let message = format!(
        "Ingress {} routes {place} to {theirs}, but Ingress {}{where_}{of_class} already routes it to {backend}",
        other.name(),
        first.name(),
    );
    Finding::warning(two.clone(), message)
        .key(format!("{place} {one}"))
        .evidence(format!("{place} is routed to {theirs}"), &two, "spec.rules")
        .evidence(format!("{place} is routed to {backend}"), &one, "spec.rules")
        .since(other.created())
        .fix_command(
            "Remove the path from one of the Ingresses",
            kubectl(["-n", other.namespace(), "edit", "ingress", other.name()]),
        )
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn ingress(name: &str, class: &str, service: &str, annotations: &str) -> String {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {{name: {name}, namespace: shop, annotations: \
             {annotations}}}, spec: {{ingressClassName: {class}, rules: [{{host: shop.example.com, http: {{paths: [{{path: \
             /, pathType: Prefix, backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}]}}}}]}}}}"
        )
    }

    #[test]
    fn fires_for_two_claims() {
        check(&RULE, &[&ingress("new", "public", "cart", "{}"), &ingress("old", "public", "web", "{}")]).finds(&[
            "warning Ingress shop/old: Ingress old routes shop.example.com/ to Service web port 80, but Ingress new of \
             class public already routes it to Service cart port 80",
        ]);
    }

    #[test]
    fn quiet_for_canaries_other_classes_and_the_same_service() {
        let one = ingress("one", "public", "web", "{}");
        let canary = "{nginx.ingress.kubernetes.io/canary: 'true'}";
        check(&RULE, &[&one, &ingress("two", "public", "next", canary)]).finds_nothing();
        check(&RULE, &[&one, &ingress("two", "internal", "next", "{}")]).finds_nothing();
        check(&RULE, &[&one, &ingress("two", "public", "web", "{}")]).finds_nothing();
    }

    #[test]
    fn quiet_for_load_balancers_of_their_own() {
        check(&RULE, &[&ingress("one", "alb", "web", "{}"), &ingress("two", "alb", "next", "{}")]).finds_nothing();
        check(&RULE, &["{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: a, namespace: b}}"])
            .finds_nothing();
    }
}
