use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::nearest::nearest_name;
use crate::kubernetes::network::ingress::{self, CLASS_ANNOTATION};
use crate::kubernetes::nodes::platform::PlatformExt;
use crate::snapshot::model::{Ingress, IngressClass};
use crate::snapshot::{Cluster, Kind, Object};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// That the IngressClass which an Ingress names exists, and that an Ingress which names none gets a default one.
    ///
    /// ## Why it matters
    ///
    /// A controller only serves the Ingresses of its class. An Ingress of a class that does not exist, or of none, is
    /// accepted by the API and then ignored by everyone.
    ///
    /// ## How to confirm
    ///
    /// `kubectl get ingressclass` lists the classes, `kubectl -n NAMESPACE get ingress NAME` shows the class and that there
    /// is no address.
    ///
    /// ## How to fix
    ///
    /// Set `spec.ingressClassName` to a class that exists, install the controller that brings the class, or mark one class
    /// as the default with the annotation `ingressclass.kubernetes.io/is-default-class: "true"` (which only works for
    /// Ingresses created afterwards).
    ///
    /// ## Exceptions
    ///
    /// For the annotation `kubernetes.io/ingress.class` if a class or a running controller has that name, or the Ingress has
    /// an address. For Ingresses without a class where a controller takes those too (GKE, OpenShift, Traefik, Contour,
    /// HAProxy, or a flag such as `--watch-ingress-without-class`). Where IngressClasses could not be read.
    "ingress/class": Error,
    "an Ingress is of a class that does not exist, or of none",
    needs: [Ingress, IngressClass],
    optional: [Pod, Node, Service, Namespace],
    explained_by: [],
}

/// Containers whose controllers serve Ingresses that name no class, by default or by a flag.
const TAKES_ALL: [&str; 6] = [
    "traefik",
    "contour",
    "haproxy",
    "watch-ingress-without-class",
    "process-classless-ingress",
    "empty-ingress-class",
];

fn check(cluster: &Cluster, report: &mut Report) {
    for ingress in cluster.all::<Ingress>().iter().filter(|ingress| !cluster.is_going_away(*ingress)) {
        let field = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_deref());
        let found = match (field, ingress.annotation(CLASS_ANNOTATION)) {
            (Some(name), _) => missing(cluster, ingress, name),
            (None, Some(name)) => no_controller(cluster, ingress, name),
            (None, None) => no_class(cluster, ingress),
        };
        found.into_iter().for_each(|finding| report.add(finding));
    }
}

/// `spec.ingressClassName` names no class.
fn missing(cluster: &Cluster, ingress: &Ingress, class: &str) -> Option<Finding> {
    if !cluster.get::<IngressClass>("", class).is_missing() {
        return None;
    }
    let object = ingress.reference();
    // An address says that some controller serves, or served, it nevertheless.
    let severity = if ingress::has_address(ingress) { Severity::Warning } else { Severity::Error };
    let there: Vec<&str> = cluster.all::<IngressClass>().iter().map(Object::name).collect();
    let message = format!(
        "Ingress {} is of IngressClass {class}, which does not exist{}",
        ingress.name(),
        if there.is_empty() {
            " (nor does any other)".to_string()
        } else {
            format!(" (there is {})", words::list(&there, 5))
        },
    );
    let finding = Finding::new(severity, object.clone(), message)
        .evidence(format!("spec.ingressClassName is {class}"), &object, "spec.ingressClassName")
        .rests_on_absence();
    let meant = nearest_name(class, there.iter().copied()).or(there.first().copied().filter(|_| there.len() == 1));
    Some(match meant {
        Some(meant) => {
            let patch = serde_json::json!({"spec": {"ingressClassName": meant}}).to_string();
            finding.fix_command(
                format!("Use the class {meant}, if that is the controller that should serve it"),
                kubectl(["-n", ingress.namespace(), "patch", "ingress", ingress.name(), "--type=merge", "-p", &patch]),
            )
        }
        None => finding.fix_command("Use a class that exists", kubectl(["get", "ingressclass"])),
    })
}

/// The old annotation needs no IngressClass, but a controller that goes by that name.
fn no_controller(cluster: &Cluster, ingress: &Ingress, class: &str) -> Option<Finding> {
    let known = cluster.all::<IngressClass>().iter().any(|c| c.name() == class);
    let outside = class.starts_with("gce") || cluster.is_gke() || cluster.is_openshift();
    let all_seen = cluster.covers_all(Kind::Pod) && !cluster.objects().is_empty();
    if class.is_empty() || known || outside || ingress::has_address(ingress) || !all_seen || cluster.runs(&[class]) {
        return None;
    }
    let object = ingress.reference();
    let message = format!(
        "Ingress {} asks for class {class} by annotation, but no IngressClass and no running controller has that name",
        ingress.name(),
    );
    let finding = Finding::warning(object.clone(), message)
        .evidence(format!("{CLASS_ANNOTATION} is {class}"), &object, "metadata.annotations")
        .rests_on_absence();
    Some(finding.fix_command("Set spec.ingressClassName to a class that exists", kubectl(["get", "ingressclass"])))
}

fn no_class(cluster: &Cluster, ingress: &Ingress) -> Option<Finding> {
    let has_default = cluster.all::<IngressClass>().iter().any(ingress::is_default);
    let unseen = !cluster.covers_all(Kind::IngressClass) || !cluster.covers_all(Kind::Pod);
    let taken = cluster.is_gke() || cluster.is_openshift() || ingress::has_address(ingress);
    if has_default || unseen || taken || cluster.runs(&TAKES_ALL) {
        return None;
    }
    let object = ingress.reference();
    let message =
        format!("Ingress {} names no class and there is no default, so no controller serves it", ingress.name());
    let finding = Finding::warning(object.clone(), message)
        .evidence("spec.ingressClassName is not set", &object, "spec.ingressClassName")
        .rests_on_absence();
    Some(finding.fix_command("Set spec.ingressClassName to one of the classes", kubectl(["get", "ingressclass"])))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{World, check};

    const PUBLIC: &str = "{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: public}, \
                          spec: {controller: example.com/ingress}}";

    fn ingress(class: &str, annotations: &str) -> String {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {{name: web, namespace: shop, annotations: \
             {annotations}}}, spec: {{{class}}}}}"
        )
    }

    fn pod(image: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: c, namespace: x}}, spec: {{containers: [{{image: {image}}}]}}}}"
        )
    }

    #[test]
    fn fires_when_the_class_is_missing() {
        let said = check(&RULE, &[PUBLIC, &ingress("ingressClassName: internal", "{}")]);
        said.finds(&[
            "error Ingress shop/web: Ingress web is of IngressClass internal, which does not exist (there is public)",
        ]);
        check(&RULE, &[&ingress("ingressClassName: internal", "{}")]).finds(&[
            "error Ingress shop/web: Ingress web is of IngressClass internal, which does not exist (nor does any other)",
        ]);
    }

    #[test]
    fn fires_without_class_and_default() {
        check(&RULE, &[PUBLIC, &ingress("", "{}")]).finds(&[
            "warning Ingress shop/web: Ingress web names no class and there is no default, so no controller serves it",
        ]);
    }

    #[test]
    fn fires_for_an_annotation_that_nobody_answers_to() {
        let legacy = ingress("", "{kubernetes.io/ingress.class: nginx}");
        check(&RULE, &[PUBLIC, &legacy])
            .finds(&["warning Ingress shop/web: Ingress web asks for class nginx by annotation, \
             but no IngressClass and no running controller has that name"]);
        check(&RULE, &[PUBLIC, &legacy, &pod("registry.k8s.io/ingress-nginx/controller:v1")]).finds_nothing();
    }

    #[test]
    fn quiet_when_the_class_exists() {
        check(&RULE, &[PUBLIC, &ingress("ingressClassName: public", "{}")]).finds_nothing();
    }

    #[test]
    fn quiet_with_a_default_or_a_controller_for_all() {
        let default = PUBLIC.replace(
            "{name: public}",
            "{name: public, annotations: {ingressclass.kubernetes.io/is-default-class: 'true'}}",
        );
        check(&RULE, &[&default, &ingress("", "{}")]).finds_nothing();
        check(&RULE, &[PUBLIC, &ingress("", "{}"), &pod("docker.io/traefik:v3")]).finds_nothing();
        let gke = "{apiVersion: v1, kind: Node, metadata: {name: g, labels: {cloud.google.com/gke-nodepool: p}}}";
        check(&RULE, &[&ingress("", "{}"), gke]).finds_nothing();
    }

    #[test]
    fn quiet_where_too_little_was_read() {
        let ingress = ingress("ingressClassName: internal", "{}");
        World::new(&[&ingress]).forbid(Kind::IngressClass).check(&RULE).finds_nothing();
        World::new(&[&ingress.replace("ingressClassName: internal", "")])
            .forbid(Kind::Pod)
            .check(&RULE)
            .finds_nothing();
    }
}
