use serde_json::Value;

use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::network::ingress::class_name;
use crate::kubernetes::nodes::platform::PlatformExt;
use crate::snapshot::model::{CustomResource, Ingress, IngressClass};
use crate::snapshot::{Cluster, Kind, Object, Origin};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that the class of the Ingresses with which an ACME issuer of cert-manager solves HTTP-01 challenges exists
    /// (`spec.acme.solvers[].http01.ingress.ingressClassName`, or `class`).
    ///
    /// ## Why it matters
    ///
    /// cert-manager creates an Ingress of that class for each challenge. If no controller serves the class, the
    /// challenge gets 404, and no certificate is issued or renewed.
    ///
    /// ## How to confirm
    ///
    /// `kubectl get ingressclass` lists the classes; `kubectl get challenges -A` shows challenges that stay pending with
    /// `wrong status code '404'`.
    ///
    /// ## How to fix
    ///
    /// Set the class in the issuer's solver to the class of the Ingresses that use the certificates. cert-manager copies
    /// the solver into each challenge, so delete the pending CertificateRequest afterwards. Changes to the solver's
    /// Ingress do not last.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire:
    ///
    /// - for the field `class` (an annotation) if a running controller has that name
    /// - where IngressClasses could not be read
    /// - in manifests, unless an Ingress that uses the issuer has another class, which a controller in the manifests
    ///   serves
    ///
    /// The finding is a `warning` while no challenge is pending.
    "certificate/solver-class": Error,
    "the class of an issuer's HTTP-01 solver does not exist",
    needs: [],
    optional: [IngressClass, Ingress, Pod, Node, Service, Deployment, DaemonSet],
    reads_custom: true,
    explained_by: [],
}

/// The class that a solver requests.
struct Requested<'a> {
    solver: usize,
    field: &'static str,
    class: &'a str,
}

fn check(cluster: &Cluster, report: &mut Report) {
    let is_issuer = |o: &&CustomResource| {
        o.group() == "cert-manager.io"
            && matches!(o.kind.as_str(), "Issuer" | "ClusterIssuer")
            && o.metadata.deletion_timestamp.is_none()
    };
    for issuer in cluster.custom().iter().filter(is_issuer) {
        for requested in requested(issuer) {
            let used = class_of_users(cluster, issuer);
            let is_wrong = match cluster.origin() {
                Origin::Manifests => used.is_some_and(|used| differs_in_manifests(cluster, requested.class, used)),
                _ => is_missing(cluster, &requested),
            };
            if is_wrong {
                report.add(finding(cluster, issuer, &requested, used));
            }
        }
    }
}

fn requested(issuer: &CustomResource) -> Vec<Requested<'_>> {
    let solvers = issuer.spec.pointer("/acme/solvers").and_then(Value::as_array).into_iter().flatten();
    let mut found = Vec::new();
    for (solver, value) in solvers.enumerate() {
        for field in ["ingressClassName", "class"] {
            let class = value.pointer("/http01/ingress").and_then(|ingress| ingress.get(field)).and_then(Value::as_str);
            if let Some(class) = class.filter(|class| !class.is_empty()) {
                found.push(Requested { solver, field, class });
                break;
            }
        }
    }
    found
}

fn is_missing(cluster: &Cluster, requested: &Requested) -> bool {
    let class = requested.class;
    let is_absent = cluster.get::<IngressClass>("", class).is_missing();
    // The annotation needs no IngressClass, only a controller of that name.
    let may_be_served = requested.field == "class"
        && (!cluster.covers_all(Kind::Pod)
            || class.starts_with("gce")
            || cluster.is_gke()
            || cluster.is_openshift()
            || cluster.runs(&[class]));
    is_absent && !may_be_served
}

/// Whether the manifests contain no sign of the solver's class, but a controller of the class of the issuer's users.
fn differs_in_manifests(cluster: &Cluster, requested: &str, used: &str) -> bool {
    let exists = |class: &str| cluster.all::<IngressClass>().iter().any(|c| c.name() == class);
    let serves = |class: &str| {
        let argument = format!("--ingress-class={class}");
        cluster.workloads().iter().any(|workload| {
            workload.template.spec.running_containers().any(|c| c.args.iter().chain(&c.command).any(|a| *a == argument))
        })
    };
    let is_used = cluster.all::<Ingress>().iter().any(|ingress| class_name(ingress) == Some(requested));
    requested != used && !exists(requested) && !serves(requested) && !is_used && (exists(used) || serves(used))
}

/// The class of the Ingresses that request certificates of an issuer by annotation, if it is the same for all.
fn class_of_users<'a>(cluster: &'a Cluster, issuer: &CustomResource) -> Option<&'a str> {
    let name = issuer.metadata.name.as_str();
    let uses = |ingress: &&Ingress| match issuer.kind.as_str() {
        "ClusterIssuer" => ingress.annotation("cert-manager.io/cluster-issuer") == Some(name),
        _ => {
            ingress.namespace() == issuer.metadata.namespace.as_str()
                && ingress.annotation("cert-manager.io/issuer") == Some(name)
        }
    };
    let mut classes = cluster.all::<Ingress>().iter().filter(uses).filter_map(class_name);
    let first = classes.next()?;
    classes.all(|class| class == first).then_some(first)
}

/// Whether a challenge of an issuer waits.
fn has_challenge(cluster: &Cluster, issuer: &CustomResource) -> bool {
    let field = |o: &'_ CustomResource, path: &str| o.spec.pointer(path).and_then(Value::as_str).map(str::to_string);
    cluster.custom().iter().any(|o| {
        o.kind == "Challenge"
            && o.group() == "acme.cert-manager.io"
            && field(o, "/issuerRef/name").as_deref() == Some(issuer.metadata.name.as_str())
            && field(o, "/issuerRef/kind").unwrap_or_else(|| "Issuer".to_string()) == issuer.kind
            && (issuer.metadata.namespace.is_empty() || issuer.metadata.namespace == o.metadata.namespace)
    })
}

fn finding(cluster: &Cluster, issuer: &CustomResource, requested: &Requested, used: Option<&str>) -> Finding {
    let (object, name) = (issuer.reference(), &issuer.metadata.name);
    let Requested { solver, field, class } = requested;
    let there: Vec<&str> = cluster.all::<IngressClass>().iter().map(Object::name).collect();
    let why = match (cluster.origin(), used) {
        (Origin::Manifests, Some(used)) => format!("but the Ingresses that use it have class {used}"),
        _ if there.is_empty() => "which does not exist (there are no IngressClasses)".to_string(),
        _ => format!("which does not exist (available: {})", words::list(&there, 5)),
    };
    let message = format!("{} {name} solves HTTP-01 challenges with Ingresses of class {class}, {why}", issuer.kind);
    let is_urgent = cluster.origin() == Origin::Cluster && has_challenge(cluster, issuer);
    let severity = if is_urgent { Severity::Error } else { Severity::Warning };
    let path = format!("spec.acme.solvers[{solver}].http01.ingress.{field}");
    let finding = Finding::new(severity, object.clone(), message).key(solver.to_string()).evidence(
        format!("{path} is {class}"),
        &object,
        &path,
    );
    let meant = used.or(there.first().copied().filter(|_| there.len() == 1));
    let again = "; then delete the pending CertificateRequest, because its challenge still has the old class";
    let again = if is_urgent { again } else { "" };
    match meant {
        Some(meant) => {
            let path = format!("/spec/acme/solvers/{solver}/http01/ingress/{field}");
            let patch = serde_json::json!([{"op": "replace", "path": path, "value": meant}]).to_string();
            let kind = format!("{}s.cert-manager.io", issuer.kind.to_lowercase());
            let mut arguments = vec!["patch", &kind, name, "--type=json", "-p", &patch];
            if !issuer.metadata.namespace.is_empty() {
                arguments.splice(0..0, ["-n", issuer.metadata.namespace.as_str()]);
            }
            finding.fix_command(
                format!("Set {field} of solver {solver} of {} {name} to {meant}{again}", issuer.kind),
                kubectl(arguments),
            )
        }
        None => finding.fix_command(
            format!("Set {field} of solver {solver} of {} {name} to an existing class{again}", issuer.kind),
            kubectl(["get", "ingressclass"]),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::Origin;
    use crate::testing::{TestCluster, check};

    const ISSUER: &str = "
        apiVersion: cert-manager.io/v1
        kind: ClusterIssuer
        metadata: {name: acme}
        spec: {acme: {solvers: [{dns01: {}}, {http01: {ingress: {ingressClassName: nginx}}}]}}";

    fn class(name: &str) -> String {
        format!("{{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {{name: {name}}}}}")
    }

    const INGRESS: &str = "
        apiVersion: networking.k8s.io/v1
        kind: Ingress
        metadata: {name: wiki, namespace: docs, annotations: {cert-manager.io/cluster-issuer: acme}}
        spec: {ingressClassName: public}";

    #[test]
    fn fires_for_a_class_that_does_not_exist() {
        let said = check(&RULE, &[ISSUER, &class("public"), &class("internal"), INGRESS]);
        said.finds(&[
            "warning ClusterIssuer acme: ClusterIssuer acme solves HTTP-01 challenges with Ingresses of class \
                      nginx, which does not exist (available: internal and public)",
        ]);
        assert!(said.text().contains("/spec/acme/solvers/1/http01/ingress/ingressClassName"));
        assert!(said.finding().fix[0].text.contains("to public"));
    }

    #[test]
    fn fires_in_manifests_that_serve_another_class() {
        let controller = "{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: c, namespace: i}, spec: {template: {spec: \
                          {containers: [{name: c, args: [--ingress-class=public]}]}}}}";
        let world = TestCluster::new(&[ISSUER, INGRESS, controller]).origin(Origin::Manifests);
        assert!(world.check(&RULE).finding().message.ends_with("but the Ingresses that use it have class public"));
        TestCluster::new(&[ISSUER, INGRESS]).origin(Origin::Manifests).check(&RULE).finds_nothing();
    }

    #[test]
    fn quiet_for_existing_classes_and_controllers() {
        check(&RULE, &[ISSUER, &class("nginx")]).finds_nothing();
        let by_annotation = ISSUER.replace("ingressClassName", "class");
        let pod = "{apiVersion: v1, kind: Pod, metadata: {name: c, namespace: i}, spec: {containers: [{name: c, args: \
                   [--ingress-class=nginx]}]}, status: {phase: Running}}";
        check(&RULE, &[&by_annotation, &class("public"), pod]).finds_nothing();
        check(&RULE, &[&by_annotation, &class("public")]).finding();
    }
}
