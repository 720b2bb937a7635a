use std::collections::BTreeSet;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::time;
use crate::snapshot::model::{CustomResource, Ingress, Secret};
use crate::snapshot::{Cluster, Lookup, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::similar::nearest_name;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that the Secrets in `spec.tls` of an Ingress exist in its namespace and contain `tls.crt` and `tls.key`.
    ///
    /// ## Why it matters
    ///
    /// Without the Secret the ingress controller serves its own self-signed certificate, which browsers and clients
    /// reject, or does not serve the host at all.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get secret NAME` fails, and `openssl s_client -connect HOST:443 -servername HOST` shows
    /// the controller's own certificate.
    ///
    /// ## How to fix
    ///
    /// Create the Secret with `kubectl create secret tls`, correct the name, or check why cert-manager has not issued
    /// the certificate: `kubectl -n NAMESPACE describe certificate`.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire:
    ///
    /// - for `spec.tls` without `secretName`
    /// - in the first 5 minutes where a tool issues certificates for the Ingress (an annotation of cert-manager or a
    ///   similar tool, a Certificate with that Secret)
    /// - where Secrets could not be read; where only their names were read, their keys are not checked
    "ingress/tls-secret": Error,
    "the TLS Secret of an Ingress does not exist or lacks its keys",
    needs: [Ingress, Secret],
    optional: [Namespace],
    explained_by: ["resource/not-ready", "certificate/*"],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for ingress in cluster.all::<Ingress>().iter().filter(|ingress| !cluster.is_terminating(*ingress)) {
        let tls = ingress.spec.iter().flat_map(|spec| spec.tls.iter().flatten());
        let names = tls.filter_map(|tls| tls.secret_name.as_deref());
        // Some controllers accept namespace/name.
        let names: BTreeSet<&str> = names.filter(|name| !name.is_empty() && !name.contains('/')).collect();
        for name in names {
            let found = match cluster.get::<Secret>(ingress.namespace(), name) {
                Lookup::Missing => missing(cluster, ingress, name),
                Lookup::Found(secret) => lacks_keys(ingress, secret),
                Lookup::Unknown => None,
            };
            found.into_iter().for_each(|finding| report.add(finding));
        }
    }
}

fn missing(cluster: &Cluster, ingress: &Ingress, secret: &str) -> Option<Finding> {
    let (namespace, name, object) = (ingress.namespace(), ingress.name(), ingress.reference());
    let certificate = certificate(cluster, namespace, secret);
    let is_issued = certificate.is_some() || has_issuer(ingress);
    let since = certificate.map_or(ingress.created(), |c| c.metadata.creation_timestamp.max(ingress.created()));
    if is_issued && since.is_some_and(|since| time::age(cluster.now(), since) < time::PROVISION) {
        return None;
    }
    let hosts = hosts(ingress, secret);
    let for_hosts =
        if hosts.is_empty() { String::new() } else { format!(" for {}", crate::text::words::list(&hosts, 2)) };
    let existing = cluster.in_namespace::<Secret>(namespace).iter().map(Object::name);
    let hint = nearest_name(secret, existing).map(|name| format!(" (did you mean {name}?)")).unwrap_or_default();
    let by = if is_issued { ", because its certificate has not been issued" } else { "" };
    let message = format!("Ingress {name} uses TLS Secret {secret}{for_hosts}, which does not exist{hint}{by}");
    let finding = Finding::error(object.clone(), message)
        .key(secret)
        .evidence(format!("spec.tls refers to Secret {secret}"), &object, "spec.tls")
        .rests_on_absence();
    Some(match certificate {
        Some(certificate) => {
            let reference = ObjectRef {
                api_version: certificate.api_version.clone().into(),
                kind: certificate.kind.clone().into(),
                namespace: Some(namespace.to_string()),
                name: certificate.metadata.name.clone(),
            };
            finding.because(reference).fix_command(
                "Check why the certificate has not been issued",
                kubectl(["-n", namespace, "describe", "certificate", &certificate.metadata.name]),
            )
        }
        None if is_issued => finding.fix_command(
            "Check why the certificate has not been issued: its Secret is created with it",
            kubectl(["-n", namespace, "get", "certificates,certificaterequests,orders,challenges"]),
        ),
        None => finding.fix_command(
            "Create the Secret, or correct its name in spec.tls",
            kubectl(["-n", namespace, "create", "secret", "tls", secret, "--cert=tls.crt", "--key=tls.key"]),
        ),
    })
}

/// Most controllers accept a Secret of any type that has the two keys.
fn lacks_keys(ingress: &Ingress, secret: &Secret) -> Option<Finding> {
    let absent = ["tls.crt", "tls.key"].into_iter().find(|key| secret.has_key(key) == Some(false))?;
    let object = ingress.reference();
    let message = format!("Ingress {} uses TLS Secret {}, which has no key {absent}", ingress.name(), secret.name());
    let type_ = if secret.type_.is_empty() { "Opaque" } else { &secret.type_ };
    let finding = Finding::error(object.clone(), message)
        .key(secret.name())
        .evidence(format!("the Secret has type {type_}"), &secret.reference(), "type")
        .evidence(format!("spec.tls refers to Secret {}", secret.name()), &object, "spec.tls");
    Some(finding.fix("Recreate the Secret with type kubernetes.io/tls and the keys tls.crt and tls.key"))
}

fn hosts(ingress: &Ingress, secret: &str) -> Vec<String> {
    let tls = ingress.spec.iter().flat_map(|spec| spec.tls.iter().flatten());
    let tls = tls.filter(|tls| tls.secret_name.as_deref() == Some(secret));
    tls.flat_map(|tls| tls.hosts.iter().flatten()).cloned().collect()
}

/// The cert-manager Certificate that writes the Secret.
fn certificate<'a>(cluster: &'a Cluster, namespace: &str, secret: &str) -> Option<&'a CustomResource> {
    cluster.custom().iter().find(|object| {
        object.kind == "Certificate"
            && object.group() == "cert-manager.io"
            && object.metadata.namespace == namespace
            && object.spec.get("secretName").and_then(|name| name.as_str()) == Some(secret)
    })
}

/// Whether an annotation requests a certificate: `cert-manager.io/cluster-issuer`, `kubernetes.io/tls-acme`,
/// `cert.gardener.cloud/purpose` …
fn has_issuer(ingress: &Ingress) -> bool {
    let annotations = ingress.metadata.annotations.iter().flatten();
    annotations.into_iter().any(|(key, _)| key.contains("issuer") || key.contains("acme") || key.starts_with("cert."))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    fn ingress(meta: &str) -> String {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {{name: store, namespace: shop{meta}}}, spec: \
             {{tls: [{{hosts: [store.example.com], secretName: store-tls}}]}}}}"
        )
    }

    fn secret(keys: &str) -> String {
        format!("{{apiVersion: v1, kind: Secret, metadata: {{name: store-tls, namespace: shop}}, data: {keys}}}")
    }

    #[test]
    fn fires_when_the_secret_is_missing() {
        check(&RULE, &[&ingress("")]).finds(&[
            "error Ingress shop/store: Ingress store uses TLS Secret store-tls for store.example.com, which does not exist",
        ]);
    }

    #[test]
    fn fires_when_it_lacks_a_key() {
        check(&RULE, &[&ingress(""), &secret("{tls.crt: YQ==, key.pem: YQ==}")])
            .finds(&["error Ingress shop/store: Ingress store uses TLS Secret store-tls, which has no key tls.key"]);
    }

    #[test]
    fn fires_when_it_was_not_issued_in_time() {
        let issued = |at: &str| {
            ingress(&format!(", creationTimestamp: '{at}', annotations: {{cert-manager.io/cluster-issuer: acme}}"))
        };
        check(&RULE, &[&issued("2026-11-21T11:00:00Z")])
            .finds(&["error Ingress shop/store: Ingress store uses TLS Secret store-tls for store.example.com, \
             which does not exist, because its certificate has not been issued"]);
        check(&RULE, &[&issued("2026-11-21T11:58:00Z")]).finds_nothing();
    }

    #[test]
    fn quiet_when_it_is_there() {
        check(&RULE, &[&ingress(""), &secret("{tls.crt: YQ==, tls.key: YQ==}")]).finds_nothing();
    }

    #[test]
    fn quiet_without_a_name_and_where_secrets_were_refused() {
        check(&RULE, &[&ingress("").replace("store-tls", "")]).finds_nothing();
        TestCluster::new(&[&ingress("")]).forbid(Kind::Secret).check(&RULE).finds_nothing();
    }
}
