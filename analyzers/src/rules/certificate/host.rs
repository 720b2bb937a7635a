use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::certificate::{Certificate, Unreadable};
use crate::snapshot::model::Secret;
use crate::snapshot::{Cluster, Object};
use crate::text::kubectl;
use crate::text::words::list;

use super::served::{self, Served};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that the certificate in the TLS Secret of an Ingress covers each host listed with it
    /// (`spec.tls[].hosts`), and that one of a Gateway listener's certificates covers the listener's `hostname`. Only
    /// the subjectAltName counts, and a wildcard matches exactly one label (RFC 6125). A Secret whose `tls.crt` is not
    /// a certificate is reported too.
    ///
    /// ## Why it matters
    ///
    /// Browsers and clients reject the connection ("certificate is valid for X, not Y"). Many ingress controllers serve
    /// their self-signed default certificate instead of one that does not match, which hides the cause.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get secret NAME -o jsonpath='{.data.tls\.crt}' | base64 -d | openssl x509 -noout -ext
    /// subjectAltName`
    ///
    /// ## How to fix
    ///
    /// Set `secretName` to the Secret with the host's certificate, or obtain a certificate that covers the host. With
    /// cert-manager, add the host to `dnsNames` of the Certificate.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire:
    ///
    /// - where the certificate could not be read
    /// - where the Ingress lists no hosts for the Secret, and for listeners without a hostname
    /// - for wildcard listeners for which the certificate covers some of the hosts
    /// - for Ingresses whose controller does not use Secrets (AWS load balancers, TLS passthrough)
    "certificate/host": Error,
    "a certificate does not cover the host that it is served for",
    needs: [Secret],
    optional: [Ingress, IngressClass, Gateway],
    explained_by: ["resource/not-ready"],
}

fn check(cluster: &Cluster, report: &mut Report) {
    let all = served::all(cluster);
    for served in &all {
        served::report_unread(cluster, report, served);
        for secret in &served.secrets {
            if let Some(Err(unreadable)) = served::certificates(secret) {
                report_unreadable(report, served, secret, unreadable);
            }
        }
        // A host may have several certificates, one per key type: one that covers it is sufficient.
        let same_object: Vec<&Served> = all.iter().filter(|other| other.object == served.object).collect();
        if let Some(chains) = all_chains(served) {
            let is_uncovered = |host: &&String| {
                !chains.iter().any(|chain| covers(chain, host)) && !is_covered_by_another(&same_object, served, host)
            };
            let uncovered: Vec<&str> = served.hosts.iter().filter(is_uncovered).map(String::as_str).collect();
            if !uncovered.is_empty() {
                report.add(finding(served, &chains, &uncovered));
            }
        }
    }
}

/// The chains of all Secrets; `None` if one of them is unknown.
fn all_chains(served: &Served) -> Option<Vec<Vec<Certificate>>> {
    if !served.is_complete || served.secrets.is_empty() {
        return None;
    }
    served.secrets.iter().map(|secret| served::certificates(secret)?.ok()).collect()
}

/// Whether the server's own certificate, the first of the chain, covers a host. For a wildcard listener a certificate
/// for one of its hosts is sufficient: the routes may use no other.
fn covers(chain: &[Certificate], host: &str) -> bool {
    let Some(leaf) = chain.first() else { return false };
    let is_below = |name: &String| {
        let suffix = host.strip_prefix('*').unwrap_or(host).to_ascii_lowercase();
        host.starts_with("*.") && name.to_ascii_lowercase().ends_with(&suffix)
    };
    leaf.covers(host) || leaf.dns_names.iter().any(is_below)
}

fn is_covered_by_another(same_object: &[&Served], served: &Served, host: &str) -> bool {
    same_object.iter().filter(|other| other.path != served.path && other.hosts.iter().any(|h| h == host)).any(|other| {
        // An unknown certificate may cover it.
        all_chains(other).is_none_or(|chains| chains.iter().any(|chain| covers(chain, host)))
    })
}

fn finding(served: &Served, chains: &[Vec<Certificate>], hosts: &[&str]) -> Finding {
    let secrets: Vec<&str> = served.secrets.iter().map(|secret| secret.name()).collect();
    let leaves: Vec<&Certificate> = chains.iter().filter_map(|chain| chain.first()).collect();
    let message = format!(
        "{} serves {} with a certificate that does not cover {}: the certificate in Secret {} {}",
        served.who,
        list(hosts, 3),
        if hosts.len() == 1 { "it" } else { "them" },
        list(&secrets, 3),
        coverage(&leaves, chains, hosts)
    );
    let mut finding = Finding::error(served.object.clone(), message).key(secrets.join(",")).evidence(
        format!("it lists the hosts {}", list(&served.hosts, 5)),
        &served.object,
        &served.path,
    );
    for (secret, leaf) in served.secrets.iter().zip(&leaves) {
        let names = if leaf.names().is_empty() { "none".to_string() } else { list(&leaf.names(), 10) };
        let text = format!("certificate of {}, issued by {}, with names {names}", leaf.subject, leaf.issuer);
        finding = finding.evidence(text, &secret.reference(), "data[tls.crt]");
    }
    match served.secrets.first().and_then(|s| Some((s, s.annotation("cert-manager.io/certificate-name")?))) {
        Some((secret, certificate)) => finding.fix_command(
            format!("Add {} to dnsNames of the Certificate", list(hosts, 3)),
            kubectl(["-n", secret.namespace(), "edit", "certificates.cert-manager.io", certificate]),
        ),
        None => finding.fix(format!("Refer to the Secret with the certificate for {}, or obtain one", list(hosts, 3))),
    }
}

fn coverage(leaves: &[&Certificate], chains: &[Vec<Certificate>], hosts: &[&str]) -> String {
    let names: Vec<String> = leaves.iter().flat_map(|leaf| leaf.names()).collect();
    let is_misordered =
        chains.iter().any(|chain| chain.iter().skip(1).any(|other| hosts.iter().any(|host| other.covers(host))));
    let is_common_name =
        leaves.iter().any(|leaf| leaf.common_name.as_deref().is_some_and(|name| hosts.contains(&name)));
    if is_misordered {
        let first = leaves.first().map(|leaf| leaf.subject.as_str()).unwrap_or_default();
        format!("starts with {first}; the server certificate must come first")
    } else if names.is_empty() && is_common_name {
        "has no subjectAltName, only a common name, which clients ignore".to_string()
    } else if names.is_empty() {
        "has no subjectAltName".to_string()
    } else {
        format!("is valid for {}", list(&names, 4))
    }
}

/// A value that was redacted from a recording is not a finding.
fn report_unreadable(report: &mut Report, served: &Served, secret: &Secret, unreadable: Unreadable) {
    if unreadable == Unreadable::Empty {
        return;
    }
    let message = format!("{} has no usable certificate: tls.crt of Secret {} {unreadable}", served.who, secret.name());
    let name = secret.name();
    report.add(
        Finding::error(served.object.clone(), message)
            .key(name)
            .evidence(format!("tls.crt {unreadable}"), &secret.reference(), "data[tls.crt]")
            .evidence(format!("it refers to Secret {name}"), &served.object, &served.path)
            .fix("Set tls.crt to the certificate chain in PEM format, base64-encoded once, and tls.key to the private key"),
    );
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::kubernetes::certificate::made::{Made, chain};
    use crate::snapshot::{Gap, Kind, Reason};
    use crate::testing::{Findings, TestCluster, check};

    const INGRESS: &str = "
        apiVersion: networking.k8s.io/v1
        kind: Ingress
        metadata: {name: shop, namespace: web}
        spec: {tls: [{hosts: [shop.example.com, Pay.example.com], secretName: shop-tls}]}";
    const GATEWAY: &str = "
        apiVersion: gateway.networking.k8s.io/v1
        kind: Gateway
        metadata: {name: edge, namespace: web}
        spec:
          listeners:
          - {name: https, hostname: HOST, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: shop-tls}]}}";

    fn secret(tls_crt: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Secret, metadata: {{name: shop-tls, namespace: web}}, type: kubernetes.io/tls,
              data: {{tls.key: '', tls.crt: '{tls_crt}'}}}}"
        )
    }

    fn ingress_with(made: &Made) -> Findings {
        check(&RULE, &[INGRESS, &secret(&made.base64())])
    }

    fn gateway_with(host: &str, names: &[&str]) -> Findings {
        check(&RULE, &[&GATEWAY.replace("HOST", host), &secret(&Made::for_names(names).base64())])
    }

    #[test]
    fn fires_when_the_certificate_is_for_another_host() {
        let said = ingress_with(&Made::for_names(&["blog.example.org", "*.pay.example.com"]));
        said.finds(&[
            "error Ingress web/shop: Ingress shop serves shop.example.com and Pay.example.com with a certificate that does \
             not cover them: the certificate in Secret shop-tls is valid for blog.example.org and *.pay.example.com",
        ]);
        ingress_with(&Made::for_names(&["shop.example.com"])).finds(&[
            "error Ingress web/shop: Ingress shop serves Pay.example.com with a certificate that does not cover it: the \
             certificate in Secret shop-tls is valid for shop.example.com",
        ]);
    }

    #[test]
    fn fires_for_a_listener() {
        gateway_with("shop.example.com", &["blog.example.org"]).finds(&[
            "error Gateway web/edge: Gateway edge (listener https) serves shop.example.com with a certificate that does \
             not cover it: the certificate in Secret shop-tls is valid for blog.example.org",
        ]);
        gateway_with("'*.example.com'", &["example.com"]).finding();
    }

    #[test]
    fn fires_for_a_common_name_without_alternative_names() {
        let gateway = GATEWAY.replace("HOST", "shop.example.com");
        let certificate = Made::for_names(&[]).common_name("shop.example.com").base64();
        let said = check(&RULE, &[&gateway, &secret(&certificate)]);
        assert!(said.finding().message.ends_with("has no subjectAltName, only a common name, which clients ignore"));
    }

    #[test]
    fn fires_when_the_chain_is_in_the_wrong_order() {
        let wildcard = Made::for_names(&["*.example.com"]);
        let said = check(&RULE, &[INGRESS, &secret(&chain(&[&Made::ca("Middle"), &wildcard]))]);
        assert!(said.finding().message.ends_with("starts with Middle; the server certificate must come first"));
    }

    #[test]
    fn fires_when_it_is_not_a_certificate() {
        let twice = k8s_openapi::ByteString(Made::for_names(&["a"]).base64().into_bytes());
        let twice = serde_json::to_value(twice).unwrap();
        check(&RULE, &[INGRESS, &secret(twice.as_str().unwrap())])
            .finds(&["error Ingress web/shop: Ingress shop has no usable certificate: tls.crt of Secret shop-tls is \
             base64-encoded twice"]);
    }

    #[test]
    fn quiet_when_a_name_or_a_wildcard_covers_each_host() {
        ingress_with(&Made::for_names(&["*.example.com"])).finds_nothing();
        ingress_with(&Made::for_names(&["shop.example.com", "pay.example.com"])).finds_nothing();
        gateway_with("shop.example.com", &["*.example.com"]).finds_nothing();
    }

    #[test]
    fn quiet_for_a_wildcard_listener_with_some_of_its_hosts() {
        gateway_with("'*.example.com'", &["shop.example.com"]).finds_nothing();
        gateway_with("''", &["shop.example.com"]).finds_nothing();
    }

    #[test]
    fn quiet_when_another_secret_covers_the_host() {
        let two = INGRESS.replace("spec: {tls: [", "spec: {tls: [{hosts: [Pay.example.com], secretName: pay-tls}, ");
        let pay = secret(&Made::for_names(&["pay.example.com"]).base64()).replace("shop-tls", "pay-tls");
        let shop = secret(&Made::for_names(&["shop.example.com"]).base64());
        check(&RULE, &[&two, &shop, &pay]).finds_nothing();
    }

    #[test]
    fn quiet_where_the_certificate_is_unknown() {
        check(&RULE, &[INGRESS]).finds_nothing();
        check(&RULE, &[INGRESS, &secret("")]).finds_nothing();
        check(&RULE, &[INGRESS, "{apiVersion: v1, kind: Secret, metadata: {name: shop-tls, namespace: web}}"])
            .finds_nothing();
        let blind = TestCluster::new(&[INGRESS]).forbid(Kind::Secret).check(&RULE);
        assert_eq!(blind.finds_nothing().gaps(), ["Secret forbidden"]);
    }

    #[test]
    fn quiet_with_a_note_where_the_secret_was_refused() {
        let gap = Gap { reason: Reason::Forbidden, message: "forbidden".to_string() };
        let documents = [INGRESS, "{apiVersion: v1, kind: Secret, metadata: {name: shop-tls, namespace: web}}"];
        let said = TestCluster::new(&documents).unread_secret("web", "shop-tls", gap).check(&RULE);
        assert_eq!(said.finds_nothing().gaps(), ["Ingress forbidden"]);
    }

    #[test]
    fn quiet_without_hosts() {
        let bare = INGRESS.replace("hosts: [shop.example.com, Pay.example.com], ", "");
        check(&RULE, &[&bare, &secret(&Made::for_names(&["a.org"]).base64())]).finds_nothing();
    }
}
