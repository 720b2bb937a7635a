use std::collections::BTreeSet;

use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::admission::webhooks::configurations;
use crate::kubernetes::certificate::{self, Certificate, Validity, day};
use crate::kubernetes::time::{age, human};
use crate::snapshot::model::{APIService, CustomResourceDefinition, Gateway, Ingress, LabelSet, Secret, Timestamp};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::list;

use super::served::{self, Served};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks the validity dates of the certificates in the TLS Secrets of Ingresses and Gateways, and of the
    /// certificates in the `caBundle` of webhook configurations, APIServices and the conversion webhooks of
    /// CustomResourceDefinitions. A certificate that expires within 14 days is a warning. A certificate with a lifetime
    /// of less than 60 days that some software manages is a warning only in the last tenth of its lifetime.
    ///
    /// ## Why it matters
    ///
    /// Clients reject an expired certificate. An expired `caBundle` makes the API server reject the webhook or the
    /// aggregated API behind it and, with `failurePolicy: Fail`, every request that the webhook should review.
    /// Automatic renewal happens long before expiry, so a certificate that is about to expire shows that renewal fails.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get secret NAME -o jsonpath='{.data.tls\.crt}' | base64 -d | openssl x509 -noout -subject
    /// -issuer -dates`
    ///
    /// ## How to fix
    ///
    /// Where cert-manager manages the Secret, `kubectl -n NAMESPACE describe certificate NAME` shows why it has not
    /// been renewed. Otherwise obtain a new certificate and replace the Secret: `kubectl -n NAMESPACE create secret tls
    /// NAME --cert=tls.crt --key=tls.key --dry-run=client -o yaml | kubectl apply -f -`. A `caBundle` is written by the
    /// software that owns the webhook; restarting it usually renews the bundle.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire:
    ///
    /// - where the certificate could not be read
    /// - for an expired certificate next to valid ones in one `caBundle`
    /// - for expired root certificates in the chain of a server
    /// - for Ingresses whose controller does not use Secrets (AWS load balancers, TLS passthrough)
    "certificate/expired": Error,
    "a certificate has expired, is not yet valid, or is about to expire",
    needs: [],
    optional: [
        Ingress, IngressClass, Gateway, Secret, ValidatingWebhookConfiguration, MutatingWebhookConfiguration, APIService,
        CustomResourceDefinition
    ],
    explained_by: ["resource/not-ready"],
}

fn check(cluster: &Cluster, report: &mut Report) {
    // Manifests without any timestamp: the current time is unknown.
    if cluster.now() == Timestamp::UNIX_EPOCH {
        return;
    }
    for served in served::all(cluster) {
        served::report_unread(cluster, report, &served);
        if let Some(gap) = cluster.coverage().gap(Kind::Secret).filter(|_| !served.is_complete) {
            report.not_evaluated(&served.object, gap.reason, gap.message.clone());
        }
        let findings = served.secrets.iter().filter_map(|secret| of_secret(cluster, &served, secret));
        findings.for_each(|finding| report.add(finding));
    }
    bundles_of_webhooks(cluster, report);
    for service in cluster.all::<APIService>() {
        let bundle = service.spec.as_ref().and_then(|spec| spec.ca_bundle.as_ref());
        let who = format!("APIService {}", service.name());
        let bundles =
            bundle.map(|bundle| Bundle { pem: bundle.0.clone(), path: "spec.caBundle".to_string(), is_required: true });
        check_bundles(
            cluster,
            report,
            &service.reference(),
            Object::labels(service),
            &who,
            &bundles.into_iter().collect::<Vec<_>>(),
        );
    }
    for crd in cluster.all::<CustomResourceDefinition>() {
        let webhook = crd.spec.conversion.webhook.as_ref().filter(|_| crd.spec.conversion.strategy == "Webhook");
        let bundle = webhook.and_then(|webhook| webhook.client_config.ca_bundle.as_deref());
        let who = format!("The conversion webhook of CustomResourceDefinition {}", crd.name());
        let path = "spec.conversion.webhook.clientConfig.caBundle".to_string();
        let bundles = bundle.and_then(certificate::decode).map(|pem| Bundle { pem, path, is_required: true });
        check_bundles(
            cluster,
            report,
            &crd.reference(),
            Object::labels(crd),
            &who,
            &bundles.into_iter().collect::<Vec<_>>(),
        );
    }
}

/// The finding about the server certificate, or else about the intermediate that signed it.
fn of_secret(cluster: &Cluster, served: &Served, secret: &Secret) -> Option<Finding> {
    let chain = served::certificates(secret)?.ok()?;
    let (problem, validity) = worst_of_chain(&chain, cluster.now(), is_renewed(cluster, served, secret))?;
    let what = match chain.first().map(crate::kubernetes::certificate::Certificate::names) {
        Some(names) if !names.is_empty() => format!("for {}", list(&names, 2)),
        _ => format!("of {}", problem.subject),
    };
    let role = if Some(problem) == chain.first() { "a certificate" } else { "an intermediate certificate" };
    let message = format!(
        "{} serves {role} that {}: Secret {} ({what}) {}",
        served.who,
        verb(validity, problem, cluster.now()),
        secret.name(),
        until(validity, problem),
    );
    let object = secret.reference();
    let finding = Finding::new(severity(validity), served.object.clone(), message)
        .key(format!("{}/{}", secret.namespace(), secret.name()))
        .since((validity == Validity::Expired).then_some(problem.not_after))
        .evidence(dates(problem), &object, "data[tls.crt]")
        .evidence(format!("it refers to Secret {}", secret.name()), &served.object, &served.path);
    Some(with_renewal(finding, secret))
}

/// The first certificate is the server's own. Of the others, only the one that signed it counts, unless there is a valid
/// one of the same name: clients ignore roots that are sent along, and the other chains of cross-signed authorities.
fn worst_of_chain(chain: &[Certificate], now: Timestamp, is_renewed: bool) -> Option<(&Certificate, Validity)> {
    let (leaf, others) = chain.split_first()?;
    let validity = if is_renewed { leaf.validity(now) } else { leaf.validity_by_hand(now) };
    if validity != Validity::Valid {
        return Some((leaf, validity));
    }
    let issuers: Vec<&Certificate> =
        others.iter().filter(|other| other.subject == leaf.issuer && !other.is_self_issued).collect();
    let is_fine = issuers.iter().any(|issuer| matches!(issuer.validity(now), Validity::Valid | Validity::Ending));
    let issuer = *issuers.first().filter(|_| !is_fine)?;
    Some((issuer, issuer.validity(now)))
}

/// Whether some software manages the certificate and is expected to renew it: a Secret that was created with kubectl has
/// no owner and no annotations except kubectl's own.
fn is_renewed(cluster: &Cluster, served: &Served, secret: &Secret) -> bool {
    let (namespace, name) = (served.object.namespace(), served.object.name.as_str());
    let issues = |key: &str| key.contains("issuer") || key.contains("acme") || key.starts_with("cert.");
    let ingress = cluster.get::<Ingress>(namespace, name).found().filter(|_| served.object.is(Kind::Ingress));
    let gateway = cluster.get::<Gateway>(namespace, name).found().filter(|_| served.object.is(Kind::Gateway));
    !secret.metadata.owner_references.is_empty()
        || secret.metadata.annotations.iter().any(|(key, _)| !key.starts_with("kubectl.kubernetes.io/"))
        || ingress.is_some_and(|i| i.metadata.annotations.iter().flatten().any(|(key, _)| issues(key)))
        || gateway.is_some_and(|g| g.metadata.annotations.iter().any(|(key, _)| issues(key)))
}

fn with_renewal(finding: Finding, secret: &Secret) -> Finding {
    let namespace = secret.namespace();
    if let Some(name) = secret.annotation("cert-manager.io/certificate-name") {
        let managed = ObjectRef {
            api_version: "cert-manager.io/v1".into(),
            kind: "Certificate".into(),
            namespace: Some(namespace.to_string()),
            name: name.to_string(),
        };
        return finding
            .evidence("it is managed by cert-manager, which should have renewed it", &managed, "")
            .fix_command(
                "Check why cert-manager has not renewed it",
                kubectl(["-n", namespace, "describe", "certificates.cert-manager.io", name]),
            )
            .because(managed);
    }
    let create = kubectl([
        "-n",
        namespace,
        "create",
        "secret",
        "tls",
        secret.name(),
        "--cert=tls.crt",
        "--key=tls.key",
        "--dry-run=client",
        "-o",
        "yaml",
    ]);
    finding.fix_command("Obtain a new certificate and replace the Secret", format!("{create} | kubectl apply -f -"))
}

/// A `caBundle`.
struct Bundle {
    pem: Vec<u8>,
    path: String,
    /// Whether requests fail without it.
    is_required: bool,
}

fn bundles_of_webhooks(cluster: &Cluster, report: &mut Report) {
    for configuration in configurations(cluster) {
        let bundles: Vec<Bundle> = configuration
            .webhooks
            .iter()
            .filter_map(|webhook| {
                let path = format!("webhooks[{}].clientConfig.caBundle", webhook.name);
                let pem = webhook.client_config.ca_bundle.as_ref()?.0.clone();
                Some(Bundle { pem, path, is_required: webhook.fails })
            })
            .collect();
        let object = configuration.object;
        let who = format!("{} {}", object.kind, object.name);
        check_bundles(cluster, report, &object, configuration.labels, &who, &bundles);
    }
}

/// Reports one finding for all bundles of an object, about the worst one.
fn check_bundles(
    cluster: &Cluster,
    report: &mut Report,
    object: &ObjectRef,
    labels: &dyn LabelSet,
    who: &str,
    bundles: &[Bundle],
) {
    let mut problems = Vec::new();
    for bundle in bundles {
        let Ok(certificates) = certificate::from_pem(&bundle.pem) else { continue };
        let Some((problem, validity)) = best_of_bundle(&certificates, cluster.now()) else { continue };
        // The Operator Lifecycle Manager renews its two-year certificates only on their last day.
        let is_olm = labels.value("olm.owner").is_some();
        if validity == Validity::Ending && is_olm && age(problem.not_after, cluster.now()).as_secs() > 86_400 {
            continue;
        }
        let severity = if bundle.is_required { severity(validity) } else { Severity::Warning };
        problems.push((severity, validity, problem.clone(), bundle));
    }
    let Some((severity, validity, problem, _)) = problems.iter().rev().max_by_key(|problem| problem.0) else { return };
    let message = format!(
        "{who} has a caBundle that {}: {} {}",
        verb(*validity, problem, cluster.now()),
        problem.subject,
        until(*validity, problem)
    );
    let mut finding = Finding::new(*severity, object.clone(), message)
        .since((*validity == Validity::Expired).then_some(problem.not_after));
    let mut seen = BTreeSet::new();
    for (_, _, problem, bundle) in &problems {
        if seen.insert(dates(problem)) {
            finding = finding.evidence(dates(problem), object, &bundle.path);
        }
    }
    report.add(finding.fix(
        "Restart the software that owns the object, so that it renews its certificate and caBundle, or check the logs of \
         the component that renews them (cert-manager's cainjector if the object has a cert-manager.io/inject-ca-from \
         annotation)",
    ));
}

/// A bundle is as good as the best certificate in it.
fn best_of_bundle(certificates: &[Certificate], now: Timestamp) -> Option<(&Certificate, Validity)> {
    let rank = |validity| match validity {
        Validity::Valid => 3,
        Validity::Ending => 2,
        Validity::NotYet => 1,
        Validity::Expired => 0,
    };
    let judged = certificates.iter().map(|certificate| (certificate, certificate.validity(now)));
    let best = judged.max_by_key(|(certificate, validity)| (rank(*validity), certificate.not_after))?;
    (best.1 != Validity::Valid).then_some(best)
}

fn severity(validity: Validity) -> Severity {
    if validity == Validity::Ending { Severity::Warning } else { Severity::Error }
}

fn verb(validity: Validity, certificate: &Certificate, now: Timestamp) -> String {
    match validity {
        Validity::Expired => format!("expired {} ago", human(age(now, certificate.not_after))),
        Validity::NotYet => format!("becomes valid in {}", human(age(certificate.not_before, now))),
        Validity::Ending | Validity::Valid => format!("expires in {}", human(age(certificate.not_after, now))),
    }
}

fn until(validity: Validity, certificate: &Certificate) -> String {
    match validity {
        Validity::Expired => format!("was valid until {}", day(certificate.not_after)),
        Validity::NotYet => format!("is valid from {}", day(certificate.not_before)),
        Validity::Ending | Validity::Valid => format!("is valid until {}", day(certificate.not_after)),
    }
}

fn dates(certificate: &Certificate) -> String {
    format!(
        "certificate of {}, issued by {}, valid from {} to {}",
        certificate.subject,
        if certificate.is_self_issued { "itself" } else { &certificate.issuer },
        certificate.not_before,
        certificate.not_after
    )
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::kubernetes::certificate::made::{Made, chain};
    use crate::snapshot::Kind;
    use crate::testing::{Findings, TestCluster, check};

    const INGRESS: &str = "
        apiVersion: networking.k8s.io/v1
        kind: Ingress
        metadata: {name: shop, namespace: web}
        spec: {tls: [{hosts: [shop.example.com], secretName: shop-tls}]}";
    const GATEWAY: &str = "
        apiVersion: gateway.networking.k8s.io/v1
        kind: Gateway
        metadata: {name: edge, namespace: web}
        spec:
          listeners:
          - {name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: shop-tls}]}}";

    fn secret(tls_crt: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Secret, metadata: {{name: shop-tls, namespace: web}}, type: kubernetes.io/tls,
              data: {{tls.key: '', tls.crt: '{tls_crt}'}}}}"
        )
    }

    fn made(to: &'static str) -> Made {
        Made::for_names(&["shop.example.com"]).valid("20260101000000Z", to)
    }

    fn ingress_with(tls_crt: &str) -> Findings {
        check(&RULE, &[INGRESS, &secret(tls_crt)])
    }

    fn webhook(policy: &str, bundle: &str) -> String {
        format!(
            "{{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {{name: policy}},
              webhooks: [{{name: a.policy.io, admissionReviewVersions: [v1], sideEffects: None, failurePolicy: {policy},
                clientConfig: {{caBundle: '{bundle}', service: {{namespace: policy, name: webhook}}}}}}]}}"
        )
    }

    #[test]
    fn fires_when_expired() {
        let said = ingress_with(&made("20261118120000Z").base64());
        said.finds(&[
            "error Ingress web/shop: Ingress shop serves a certificate that expired 3d ago: Secret shop-tls \
             (for shop.example.com) was valid until 2026-11-18",
        ]);
        assert!(said.text().contains("issued by Example CA"));
        assert!(said.text().contains("kubectl -n web create secret tls shop-tls"));
    }

    #[test]
    fn fires_before_expiry_and_names_what_should_renew_it() {
        let managed = "
            apiVersion: v1
            kind: Secret
            metadata: {name: shop-tls, namespace: web, annotations: {cert-manager.io/certificate-name: shop}}
            data: {tls.crt: CRT}";
        let said = check(&RULE, &[INGRESS, &managed.replace("CRT", &made("20261125120000Z").base64())]);
        said.finds(&[
            "warning Ingress web/shop: Ingress shop serves a certificate that expires in 4d: Secret shop-tls \
             (for shop.example.com) is valid until 2026-11-25",
        ]);
        assert!(said.text().contains("kubectl -n web describe certificates.cert-manager.io shop"));
    }

    #[test]
    fn fires_for_a_gateway_and_before_the_certificate_is_valid() {
        let future = Made::for_names(&["shop.example.com"]).valid("20261123120000Z", "20280101000000Z").base64();
        check(&RULE, &[GATEWAY, &secret(&future)]).finds(&[
            "error Gateway web/edge: Gateway edge (listener https) serves a certificate that becomes valid in 2d: \
             Secret shop-tls (for shop.example.com) is valid from 2026-11-23",
        ]);
    }

    #[test]
    fn fires_for_an_expired_intermediate() {
        let leaf = made("20280101000000Z").issuer("Middle");
        let middle = Made::for_names(&[]).common_name("Middle").valid("20250101000000Z", "20261120120000Z");
        ingress_with(&chain(&[&leaf, &middle])).finds(&[
            "error Ingress web/shop: Ingress shop serves an intermediate certificate that expired 24h ago: Secret \
             shop-tls (for shop.example.com) was valid until 2026-11-20",
        ]);
    }

    #[test]
    fn fires_for_a_ca_bundle() {
        let expired = Made::ca("policy-ca").valid("20250101000000Z", "20261101000000Z").base64();
        check(&RULE, &[&webhook("Fail", &expired)]).finds(&[
            "error ValidatingWebhookConfiguration policy: ValidatingWebhookConfiguration policy has a caBundle that \
             expired 20d ago: policy-ca was valid until 2026-11-01",
        ]);
        assert_eq!(check(&RULE, &[&webhook("Ignore", &expired)]).finding().severity, crate::Severity::Warning);
    }

    #[test]
    fn fires_for_an_api_service_and_a_conversion_webhook() {
        let expired = Made::ca("ca").valid("20250101000000Z", "20261101000000Z").base64();
        let service = format!(
            "{{apiVersion: apiregistration.k8s.io/v1, kind: APIService, metadata: {{name: v1.x.io}},
              spec: {{caBundle: '{expired}', groupPriorityMinimum: 1, versionPriority: 1}}}}"
        );
        let crd = format!(
            "{{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {{name: a.x.io}},
              spec: {{conversion: {{strategy: Webhook, webhook: {{clientConfig: {{caBundle: '{expired}'}}}}}}}}}}"
        );
        assert_eq!(check(&RULE, &[&service, &crd]).0.findings.len(), 2);
    }

    #[test]
    fn fires_for_a_short_lived_one_that_was_created_by_hand() {
        let short = Made::for_names(&["shop.example.com"]).valid("20261120120000Z", "20261127120000Z").base64();
        check(&RULE, &[INGRESS, &secret(&short)]).finds(&[
            "warning Ingress web/shop: Ingress shop serves a certificate that expires in 6d: Secret shop-tls (for \
             shop.example.com) is valid until 2026-11-27",
        ]);
        let issued = INGRESS.replace("{name: shop,", "{name: shop, annotations: {cert-manager.io/issuer: step},");
        check(&RULE, &[&issued, &secret(&short)]).finds_nothing();
        let managed = secret(&short).replace("{name: shop-tls,", "{name: shop-tls, annotations: {x.io/by: agent},");
        check(&RULE, &[INGRESS, &managed]).finds_nothing();
    }

    #[test]
    fn quiet_long_before_expiry() {
        ingress_with(&made("20261206120000Z").base64()).finds_nothing();
        check(&RULE, &[GATEWAY, &secret(&made("20261206120000Z").base64())]).finds_nothing();
    }

    #[test]
    fn quiet_about_an_old_root_beside_a_valid_one() {
        let (old, new) = (Made::ca("ca").valid("20250101000000Z", "20261101000000Z"), Made::ca("ca"));
        check(&RULE, &[&webhook("Fail", &chain(&[&old, &new]))]).finds_nothing();
        ingress_with(&chain(&[&made("20280101000000Z").issuer("ca"), &old])).finds_nothing();
    }

    #[test]
    fn quiet_where_the_certificate_is_unknown() {
        ingress_with("").finds_nothing();
        ingress_with("REDACTED").finds_nothing();
        check(&RULE, &[INGRESS]).finds_nothing();
        check(&RULE, &[INGRESS, "{apiVersion: v1, kind: Secret, metadata: {name: shop-tls, namespace: web}}"])
            .finds_nothing();
        let blind = TestCluster::new(&[INGRESS]).forbid(Kind::Secret).check(&RULE);
        assert_eq!(blind.finds_nothing().gaps(), ["Ingress forbidden"]);
        check(&RULE, &["{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: shop}}"]).finds_nothing();
        check(&RULE, &[&webhook("Fail", "Cg==")]).finds_nothing();
    }

    #[test]
    fn quiet_when_the_time_is_unknown() {
        TestCluster::new(&[INGRESS, &secret(&made("20261118120000Z").base64())])
            .now("1970-01-01T00:00:00Z")
            .check(&RULE)
            .finds_nothing();
    }

    #[test]
    fn quiet_when_the_load_balancer_has_its_own_certificates() {
        let alb = INGRESS.replace("spec: {", "spec: {ingressClassName: alb, ");
        check(&RULE, &[&alb, &secret(&made("20261118120000Z").base64())]).finds_nothing();
    }
}
