use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::network::ingress::{self, CLASS_ANNOTATION};
use crate::kubernetes::nodes::platform::PlatformExt;
use crate::snapshot::model::{CustomResource, Ingress, IngressClass};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::similar::nearest_name;
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that the IngressClass of an Ingress exists, and that an Ingress without a class gets a default one.
    ///
    /// ## Why it matters
    ///
    /// A controller serves only the Ingresses of its class. The API server accepts an Ingress whose class does not
    /// exist, or that has none, and every controller ignores it.
    ///
    /// ## How to confirm
    ///
    /// `kubectl get ingressclass` lists the classes; `kubectl -n NAMESPACE get ingress NAME` shows the class and no
    /// address.
    ///
    /// ## How to fix
    ///
    /// Set `spec.ingressClassName` to an existing class, install the controller that provides the class, or mark one
    /// class as the default with the annotation `ingressclass.kubernetes.io/is-default-class: "true"` (which applies
    /// only to Ingresses created afterwards). Correct an Ingress that cert-manager created for a challenge at its issuer.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire:
    ///
    /// - for the annotation `kubernetes.io/ingress.class` if a class or a running controller has that name, or if the
    ///   Ingress has an address
    /// - for Ingresses without a class where a controller serves those too (GKE, OpenShift, Traefik, Contour, HAProxy,
    ///   or a flag such as `--watch-ingress-without-class`)
    /// - where IngressClasses could not be read
    "ingress/class": Error,
    "an Ingress has no class, or one that does not exist",
    needs: [Ingress, IngressClass],
    optional: [Pod, Node, Service, Namespace],
    reads_custom: true,
    explained_by: ["certificate/solver-class"],
}

/// Parts of the images and commands of controllers that serve Ingresses without a class, by default or by a flag.
const SERVES_CLASSLESS: [&str; 6] = [
    "traefik",
    "contour",
    "haproxy",
    "watch-ingress-without-class",
    "process-classless-ingress",
    "empty-ingress-class",
];

fn check(cluster: &Cluster, report: &mut Report) {
    for ingress in cluster.all::<Ingress>().iter().filter(|ingress| !cluster.is_terminating(*ingress)) {
        let field = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_deref());
        let found = match (field, ingress.annotation(CLASS_ANNOTATION)) {
            (Some(name), _) => missing(cluster, ingress, name),
            (None, Some(name)) => no_controller(cluster, ingress, name),
            (None, None) => no_class(cluster, ingress),
        };
        found.into_iter().for_each(|finding| report.add(finding));
    }
}

/// `spec.ingressClassName` refers to a class that does not exist.
fn missing(cluster: &Cluster, ingress: &Ingress, class: &str) -> Option<Finding> {
    if !cluster.get::<IngressClass>("", class).is_missing() {
        return None;
    }
    let object = ingress.reference();
    // An address shows that a controller serves it anyway, or did.
    let severity = if ingress::has_address(ingress) { Severity::Warning } else { Severity::Error };
    let there: Vec<&str> = cluster.all::<IngressClass>().iter().map(Object::name).collect();
    let message = format!(
        "Ingress {} uses IngressClass {class}, which does not exist{}",
        ingress.name(),
        if there.is_empty() {
            " (there are no IngressClasses)".to_string()
        } else {
            format!(" (available: {})", words::list(&there, 5))
        },
    );
    let finding = Finding::new(severity, object.clone(), message)
        .evidence(format!("spec.ingressClassName is {class}"), &object, "spec.ingressClassName")
        .rests_on_absence();
    if let Some(issuer) = issuer_of_solver(cluster, ingress) {
        let title = issuer.as_ref().map_or("its issuer".to_string(), ObjectRef::title);
        let finding = issuer.into_iter().fold(finding, Finding::because);
        return Some(finding.fix_command(
            format!("Set the class in the HTTP-01 solver of {title}: cert-manager creates this Ingress from it"),
            kubectl(["get", "clusterissuers.cert-manager.io,issuers.cert-manager.io", "-A"]),
        ));
    }
    let meant = nearest_name(class, there.iter().copied()).or(there.first().copied().filter(|_| there.len() == 1));
    Some(match meant {
        Some(meant) => {
            let patch = serde_json::json!({"spec": {"ingressClassName": meant}}).to_string();
            finding.fix_command(
                format!("Set spec.ingressClassName to {meant}, if its controller should serve the Ingress"),
                kubectl(["-n", ingress.namespace(), "patch", "ingress", ingress.name(), "--type=merge", "-p", &patch]),
            )
        }
        None => finding.fix_command("Set spec.ingressClassName to an existing class", kubectl(["get", "ingressclass"])),
    })
}

/// The issuer whose solver created an Ingress, if cert-manager did; `Some(None)` if the issuer is not known.
fn issuer_of_solver(cluster: &Cluster, ingress: &Ingress) -> Option<Option<ObjectRef>> {
    let owner =
        ingress.controller().filter(|owner| owner.kind == "Challenge" && owner.group() == "acme.cert-manager.io");
    let is_solver = ingress.labels().value("acme.cert-manager.io/http01-solver") == Some("true");
    if owner.is_none() && !is_solver {
        return None;
    }
    let challenge = cluster.custom().iter().find(|o| {
        let owner = owner.as_ref();
        o.kind == "Challenge"
            && o.metadata.namespace == ingress.namespace()
            && owner.is_some_and(|owner| owner.name == o.metadata.name)
    });
    let reference = |challenge: &CustomResource| {
        let field = |name: &str| challenge.spec.get("issuerRef")?.get(name)?.as_str().map(str::to_string);
        let (name, kind) = (field("name")?, field("kind").unwrap_or_else(|| "Issuer".to_string()));
        let is_near = |o: &&CustomResource| {
            o.metadata.namespace.is_empty() || o.metadata.namespace == challenge.metadata.namespace
        };
        let mut issuers = cluster.custom().iter().filter(|o| o.kind == kind && o.metadata.name == name);
        issuers.find(is_near).map(CustomResource::reference)
    };
    Some(challenge.and_then(reference))
}

/// The deprecated annotation needs no IngressClass, only a controller of that name.
fn no_controller(cluster: &Cluster, ingress: &Ingress, class: &str) -> Option<Finding> {
    let known = cluster.all::<IngressClass>().iter().any(|c| c.name() == class);
    let outside = class.starts_with("gce") || cluster.is_gke() || cluster.is_openshift();
    let all_seen = cluster.covers_all(Kind::Pod) && !cluster.objects().is_empty();
    if class.is_empty() || known || outside || ingress::has_address(ingress) || !all_seen || cluster.runs(&[class]) {
        return None;
    }
    let object = ingress.reference();
    let message = format!(
        "Ingress {} requests class {class} by annotation, but no IngressClass or running controller has that name",
        ingress.name(),
    );
    let finding = Finding::warning(object.clone(), message)
        .evidence(format!("{CLASS_ANNOTATION} is {class}"), &object, "metadata.annotations")
        .rests_on_absence();
    Some(finding.fix_command("Set spec.ingressClassName to an existing class", kubectl(["get", "ingressclass"])))
}

fn no_class(cluster: &Cluster, ingress: &Ingress) -> Option<Finding> {
    let has_default = cluster.all::<IngressClass>().iter().any(ingress::is_default);
    let is_partly_read = !cluster.covers_all(Kind::IngressClass) || !cluster.covers_all(Kind::Pod);
    let is_served = cluster.is_gke() || cluster.is_openshift() || ingress::has_address(ingress);
    if has_default || is_partly_read || is_served || cluster.runs(&SERVES_CLASSLESS) {
        return None;
    }
    let object = ingress.reference();
    let message = format!(
        "Ingress {} has no class and there is no default IngressClass, so no controller serves it",
        ingress.name(),
    );
    let finding = Finding::warning(object.clone(), message)
        .evidence("spec.ingressClassName is not set", &object, "spec.ingressClassName")
        .rests_on_absence();
    Some(finding.fix_command("Set spec.ingressClassName to an existing class", kubectl(["get", "ingressclass"])))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

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
            "error Ingress shop/web: Ingress web uses IngressClass internal, which does not exist (available: public)",
        ]);
        check(&RULE, &[&ingress("ingressClassName: internal", "{}")]).finds(&[
            "error Ingress shop/web: Ingress web uses IngressClass internal, which does not exist (there are no IngressClasses)",
        ]);
    }

    #[test]
    fn fires_without_class_and_default() {
        check(&RULE, &[PUBLIC, &ingress("", "{}")]).finds(&[
            "warning Ingress shop/web: Ingress web has no class and there is no default IngressClass, so no controller serves it",
        ]);
    }

    #[test]
    fn fires_for_an_annotation_that_no_controller_serves() {
        let legacy = ingress("", "{kubernetes.io/ingress.class: nginx}");
        check(&RULE, &[PUBLIC, &legacy])
            .finds(&["warning Ingress shop/web: Ingress web requests class nginx by annotation, \
             but no IngressClass or running controller has that name"]);
        check(&RULE, &[PUBLIC, &legacy, &pod("registry.k8s.io/ingress-nginx/controller:v1")]).finds_nothing();
    }

    #[test]
    fn fires_for_a_solver_because_of_its_issuer() {
        let world = "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: public}
---
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata: {name: acme}
spec: {acme: {solvers: [{http01: {ingress: {ingressClassName: nginx}}}]}}
---
apiVersion: acme.cert-manager.io/v1
kind: Challenge
metadata: {name: wiki-1, namespace: docs}
spec: {issuerRef: {kind: ClusterIssuer, name: acme}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: cm-acme-x, namespace: docs, ownerReferences: [{apiVersion: acme.cert-manager.io/v1, kind: Challenge, name: wiki-1, uid: u, controller: true}]}
spec: {ingressClassName: nginx}";
        let said = crate::testing::TestCluster::new(&[world]).check_all();
        let found = said.by("ingress/class");
        assert_eq!(found.caused_by, [said.by("certificate/solver-class").id.clone()]);
        assert!(found.fix[0].text.contains("ClusterIssuer acme"), "{:?}", found.fix);
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
        TestCluster::new(&[&ingress]).forbid(Kind::IngressClass).check(&RULE).finds_nothing();
        TestCluster::new(&[&ingress.replace("ingressClassName: internal", "")])
            .forbid(Kind::Pod)
            .check(&RULE)
            .finds_nothing();
    }
}
