use std::collections::BTreeSet;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::network::ingress::IngressExt;
use crate::snapshot::model::{CustomResource, Ingress};
use crate::snapshot::{Cluster, Extent, Object};
use crate::text::similar::nearest_name;
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks the annotation `traefik.ingress.kubernetes.io/router.middlewares` of Ingresses: each entry must be
    /// `NAMESPACE-NAME@kubernetescrd` of an existing Middleware.
    ///
    /// ## Why it matters
    ///
    /// Traefik leaves out a route with a middleware that it does not find. Requests get 404, or the response of a less
    /// specific route, while the Ingress, its Service and its endpoints look healthy.
    ///
    /// ## How to confirm
    ///
    /// `kubectl get middlewares.traefik.io -A` lists the Middlewares. Traefik's log contains `middleware "…" does not
    /// exist`.
    ///
    /// ## How to fix
    ///
    /// Correct the annotation: the namespace, a hyphen, the name, and the provider `@kubernetescrd`.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for middlewares of other providers (`@file`, `@docker`), for Ingresses of a class of
    /// another controller, or where Middlewares could not be read. A Middleware that is not in the manifests may exist
    /// in the cluster, so that it is reported only if one in the manifests is obviously meant.
    "ingress/middleware": Error,
    "an Ingress refers to a Traefik Middleware that does not exist",
    needs: [Ingress],
    optional: [IngressClass, Namespace],
    reads_custom: true,
    explained_by: [],
}

const ANNOTATION: &str = "traefik.ingress.kubernetes.io/router.middlewares";
const PROVIDER: &str = "kubernetescrd";

fn check(cluster: &Cluster, report: &mut Report) {
    let annotated = cluster.all::<Ingress>().iter().filter(|ingress| ingress.annotation(ANNOTATION).is_some());
    let mut annotated = annotated.filter(|ingress| !cluster.is_terminating(*ingress)).peekable();
    if annotated.peek().is_none() {
        return;
    }
    let middlewares = Middlewares::of(cluster);
    for ingress in annotated.filter(|ingress| may_be_served_by_traefik(cluster, ingress)) {
        report_wrong(ingress, &middlewares, report);
    }
}

/// The Middlewares of Traefik.
struct Middlewares<'a> {
    all: Vec<&'a CustomResource>,
    /// `NAMESPACE-NAME`.
    names: BTreeSet<String>,
    /// Whether a Middleware that is not among them does not exist.
    is_complete: bool,
}

impl<'a> Middlewares<'a> {
    fn of(cluster: &'a Cluster) -> Middlewares<'a> {
        const GROUPS: [&str; 2] = ["traefik.io", "traefik.containo.us"];
        let is_middleware = |o: &&CustomResource| o.kind == "Middleware" && GROUPS.contains(&o.group());
        let all: Vec<&CustomResource> = cluster.custom().iter().filter(is_middleware).collect();
        let mut extents = cluster.coverage().custom().iter();
        let is_unread = extents.any(|(kind, extent)| {
            GROUPS.contains(&kind.group.as_str())
                && (kind.kind == "Middleware" || kind.kind.is_empty())
                && !matches!(extent, Extent::Everything | Extent::NotServed)
        });
        let names = all.iter().map(|m| qualified(m)).collect();
        let is_complete = !is_unread && !all.is_empty();
        Middlewares { all, names, is_complete }
    }

    /// The qualified name of the Middleware that an entry without a match most likely means.
    fn meant(&self, namespace: &str, name: &str) -> Option<String> {
        let named = |m: &&&CustomResource| {
            let (own, of) = (m.metadata.name.as_str(), m.metadata.namespace.as_str());
            name == own || name == format!("{of}/{own}") || name == format!("{own}-{of}")
        };
        let mut found: Vec<&CustomResource> = self.all.iter().filter(named).copied().collect();
        found.sort_by_key(|m| m.metadata.namespace != namespace);
        let is_clear = found.len() == 1 || found.first().is_some_and(|m| m.metadata.namespace == namespace);
        found.first().filter(|_| is_clear).map(|m| qualified(m))
    }
}

/// The name by which Traefik knows a Middleware, without the provider.
fn qualified(middleware: &CustomResource) -> String {
    format!("{}-{}", middleware.metadata.namespace, middleware.metadata.name)
}

fn may_be_served_by_traefik(cluster: &Cluster, ingress: &Ingress) -> bool {
    let class = cluster.ingress_class(ingress).and_then(|class| class.spec.as_ref()?.controller.as_deref());
    class.is_none_or(|controller| controller == "traefik.io/ingress-controller")
}

fn report_wrong(ingress: &Ingress, middlewares: &Middlewares, report: &mut Report) {
    let value = ingress.annotation(ANNOTATION).unwrap_or_default();
    let entries: Vec<&str> = value.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect();
    for entry in &entries {
        let (name, provider) = entry.split_once('@').unwrap_or((entry, ""));
        let has_provider = provider == PROVIDER;
        if !(has_provider || provider.is_empty()) || (has_provider && middlewares.names.contains(name)) {
            continue;
        }
        let exact = middlewares.names.get(name).cloned();
        let meant = exact.or_else(|| middlewares.meant(ingress.namespace(), name));
        if meant.is_none() && (!middlewares.is_complete || !has_provider) {
            continue;
        }
        let is_sure = meant.is_some();
        let near = || nearest_name(name, middlewares.names.iter().map(String::as_str)).map(str::to_string);
        let correct = meant.or_else(near).map(|name| format!("{name}@{PROVIDER}"));
        let corrected = correct.map(|correct| {
            let all =
                entries.iter().map(|e| if e == entry { correct.as_str() } else { *e }).collect::<Vec<_>>().join(",");
            (correct, all)
        });
        let found = finding(ingress, entry, corrected, middlewares);
        report.add(if is_sure { found } else { found.rests_on_absence() });
    }
}

fn finding(ingress: &Ingress, entry: &str, corrected: Option<(String, String)>, known: &Middlewares) -> Finding {
    let (object, name) = (ingress.reference(), ingress.name());
    let message = format!(
        "Ingress {name} refers to middleware {entry}, which does not exist, so Traefik does not serve its routes"
    );
    let names: Vec<&String> = known.names.iter().collect();
    let finding = Finding::error(object.clone(), message)
        .key(entry)
        .evidence(format!("{ANNOTATION} contains {entry}"), &object, "metadata.annotations")
        .evidence(
            format!("Traefik knows a Middleware as NAMESPACE-NAME@{PROVIDER} (existing: {})", words::list(&names, 5)),
            &object,
            "",
        );
    match corrected {
        Some((correct, all)) => finding.fix_command(
            format!("Change {entry} to {correct} in the annotation"),
            kubectl([
                "-n",
                ingress.namespace(),
                "annotate",
                "--overwrite",
                "ingress",
                name,
                &format!("{ANNOTATION}={all}"),
            ]),
        ),
        None => finding.fix_command(
            "Correct the annotation to the name of an existing Middleware",
            kubectl(["get", "middlewares.traefik.io", "-A"]),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::Origin;
    use crate::testing::{TestCluster, check};

    fn ingress(middlewares: &str) -> String {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {{name: api, namespace: web, annotations: \
             {{traefik.ingress.kubernetes.io/router.middlewares: '{middlewares}'}}}}}}"
        )
    }

    const MIDDLEWARE: &str = "
        apiVersion: traefik.io/v1alpha1
        kind: Middleware
        metadata: {name: strip, namespace: web}";

    #[test]
    fn fires_for_a_name_without_its_namespace_or_provider() {
        let said = check(&RULE, &[&ingress("auth@file, strip@kubernetescrd"), MIDDLEWARE]);
        said.finds(&[
            "error Ingress web/api: Ingress api refers to middleware strip@kubernetescrd, which does not exist, \
                      so Traefik does not serve its routes",
        ]);
        let command = said.finding().fix[0].command.clone().unwrap();
        assert!(command.ends_with("router.middlewares=auth@file,web-strip@kubernetescrd"), "{command}");
        check(&RULE, &[&ingress("web-strip"), MIDDLEWARE]).finding();
        check(&RULE, &[&ingress("web-other@kubernetescrd"), MIDDLEWARE]).finding();
        let manifests = TestCluster::new(&[&ingress("strip@kubernetescrd"), MIDDLEWARE]).origin(Origin::Manifests);
        manifests.check(&RULE).finding();
    }

    #[test]
    fn quiet_for_existing_ones_other_providers_and_what_was_not_read() {
        check(&RULE, &[&ingress("web-strip@kubernetescrd,auth@file"), MIDDLEWARE]).finds_nothing();
        check(&RULE, &[&ingress("other@kubernetescrd")]).finds_nothing();
        let class = "{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: nginx, annotations: \
                     {ingressclass.kubernetes.io/is-default-class: 'true'}}, spec: {controller: k8s.io/ingress-nginx}}";
        check(&RULE, &[&ingress("strip@kubernetescrd"), MIDDLEWARE, class]).finds_nothing();
    }
}
