use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::network::gateway_api::{From, current, is_granted};
use crate::kubernetes::time;
use crate::snapshot::model::{Condition, Gateway, Listener, Secret, Timestamp};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::{list, shorten};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks the conditions of each listener of a Gateway (`Accepted`, `ResolvedRefs`, `Programmed`, `Conflicted`),
    /// and that the Secrets with its certificates exist.
    ///
    /// ## Why it matters
    ///
    /// A listener that is rejected, conflicts with another one or lacks its certificate accepts no connections, while
    /// the other listeners of the Gateway keep working.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get gateway NAME -o jsonpath='{.status.listeners}'` shows the conditions of each listener.
    ///
    /// ## How to fix
    ///
    /// Follow the condition's message: create the missing Secret, give conflicting listeners different ports or
    /// hostnames, or choose a protocol that the controller supports.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire:
    ///
    /// - in the first two minutes (five for certificates, which cert-manager may still be issuing)
    /// - when the condition refers to an older generation
    /// - for a reference that lacks only a ReferenceGrant (`httproute/reference-grant` reports it)
    /// - while the whole Gateway is still pending (`gateway/not-programmed` reports it)
    "gateway/listener": Error,
    "a listener of a Gateway is not working",
    needs: [Gateway],
    optional: [Secret, ReferenceGrant],
    explained_by: ["resource/not-ready"],
}

/// Why a listener is not working.
struct Problem {
    why: String,
    reason: String,
    since: Option<Timestamp>,
    rests_on_absence: bool,
}

fn check(cluster: &Cluster, report: &mut Report) {
    for gateway in cluster.all::<Gateway>().iter().filter(|gateway| gateway.deleted().is_none()) {
        for listener in &gateway.spec.listeners {
            let status = gateway.status.listeners.iter().find(|status| status.name == listener.name);
            let problem = match status {
                Some(status) => by_status(cluster, gateway, listener, &status.conditions),
                None => by_secret(cluster, gateway, listener),
            };
            if let Some(problem) = problem {
                report.add(finding(gateway, listener, &problem));
            }
        }
    }
}

fn by_status(cluster: &Cluster, gateway: &Gateway, listener: &Listener, conditions: &[Condition]) -> Option<Problem> {
    let condition = |type_| current(conditions, type_, gateway.metadata.generation);
    let bad = |type_, bad: &str| condition(type_).filter(|c: &&Condition| c.status == bad);
    let found = bad("Conflicted", "True").or(bad("Accepted", "False")).or(bad("ResolvedRefs", "False")).or(bad(
        "Programmed",
        "False",
    )
    .filter(|c| c.reason != "Pending" && is_programmed(gateway)))?;
    if found.reason == "RefNotPermitted" && has_ungranted(cluster, gateway, listener) {
        return None;
    }
    let since = found.last_transition_time.filter(|time| time.as_second() > 0).or(gateway.created());
    let wait = if found.type_ == "ResolvedRefs" { time::PROVISION } else { time::START };
    if since.is_some_and(|since| time::age(cluster.now(), since) < wait) {
        return None;
    }
    let missing = missing_secrets(cluster, gateway, listener);
    let why = match (missing.is_empty(), found.message.is_empty()) {
        (false, _) if found.type_ == "ResolvedRefs" => does_not_exist(&missing),
        (_, true) => found.reason.to_string(),
        (_, false) => shorten(&found.message, 240),
    };
    let reason = format!("condition {} is {} ({})", found.type_, found.status, found.reason);
    Some(Problem { why, reason, since, rests_on_absence: false })
}

/// Whether the Gateway as a whole is programmed. If not, its listeners are not to blame.
fn is_programmed(gateway: &Gateway) -> bool {
    crate::snapshot::model::condition(&gateway.status.conditions, "Programmed").is_none_or(Condition::is_true)
}

/// For a listener on which no controller has reported yet.
fn by_secret(cluster: &Cluster, gateway: &Gateway, listener: &Listener) -> Option<Problem> {
    let missing = missing_secrets(cluster, gateway, listener);
    let is_young = gateway.created().is_some_and(|created| time::age(cluster.now(), created) < time::PROVISION);
    let is_issued = gateway.metadata.annotations.iter().any(|(key, _)| key.starts_with("cert-manager.io/"));
    if missing.is_empty() || is_young || (is_issued && !gateway.is_live()) {
        return None;
    }
    let reason = format!("certificateRefs refers to {}", list(&missing, 3));
    Some(Problem { why: does_not_exist(&missing), reason, since: None, rests_on_absence: true })
}

fn does_not_exist(missing: &[String]) -> String {
    let verb = if missing.len() == 1 { "does" } else { "do" };
    format!("{} {verb} not exist", list(missing, 3))
}

fn missing_secrets(cluster: &Cluster, gateway: &Gateway, listener: &Listener) -> Vec<String> {
    let references = listener.tls.iter().flat_map(|tls| &tls.certificate_refs);
    let secrets = references.filter(|reference| reference.is_core("Secret", "Secret")).map(|reference| {
        let namespace = reference.namespace_or(gateway.namespace());
        (namespace, reference.name.as_str(), cluster.get::<Secret>(namespace, &reference.name).is_missing())
    });
    secrets
        .filter(|(.., is_missing)| *is_missing)
        .map(|(namespace, name, _)| {
            if namespace == gateway.namespace() {
                format!("Secret {name}")
            } else {
                format!("Secret {namespace}/{name}")
            }
        })
        .collect()
}

fn has_ungranted(cluster: &Cluster, gateway: &Gateway, listener: &Listener) -> bool {
    let from = From { kind: Kind::Gateway, namespace: gateway.namespace() };
    let mut references = listener.tls.iter().flat_map(|tls| &tls.certificate_refs);
    references.any(|reference| is_granted(cluster, from, reference, "Secret") == Some(false))
}

fn finding(gateway: &Gateway, listener: &Listener, problem: &Problem) -> Finding {
    let object = gateway.reference();
    let path = format!("status.listeners[{}].conditions", listener.name);
    let what = format!("Listener {} ({} {})", listener.name, listener.protocol, listener.port);
    let message = format!("{what} of Gateway {} is not working: {}", gateway.name(), problem.why);
    let finding = Finding::error(object.clone(), message)
        .key(&listener.name)
        .since(problem.since)
        .evidence(&problem.reason, &object, &path)
        .because(ObjectRef {
            api_version: "cert-manager.io/v1".into(),
            kind: "Certificate".into(),
            namespace: Some(gateway.namespace().to_string()),
            name: secret_name(listener),
        })
        .fix_command(
            "Correct the listener, or create the objects that it refers to",
            kubectl(["-n", gateway.namespace(), "edit", "gateways.gateway.networking.k8s.io", gateway.name()]),
        );
    if problem.rests_on_absence { finding.rests_on_absence() } else { finding }
}

/// cert-manager names the Certificate that it creates for a Gateway after the Secret.
fn secret_name(listener: &Listener) -> String {
    let first = listener.tls.iter().flat_map(|tls| &tls.certificate_refs).next();
    first.map(|reference| reference.name.clone()).unwrap_or_default()
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
        metadata: {name: edge, namespace: web, uid: u1, generation: 1, creationTimestamp: '2026-11-21T10:00:00Z'}
        spec:
          gatewayClassName: istio
          listeners:
          - {name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: edge-tls}]}}
        status:
          listeners:
          - name: https
            conditions:
            - {type: Conflicted, status: 'False', reason: NoConflicts}
            - {type: ResolvedRefs, status: 'False', reason: InvalidCertificateRef, message: bad certificate,
               lastTransitionTime: '2026-11-21T11:00:00Z'}";
    const SECRET: &str = "{apiVersion: v1, kind: Secret, metadata: {name: edge-tls, namespace: web}}";

    #[test]
    fn fires_when_the_certificate_is_missing() {
        check(&RULE, &[GATEWAY]).finds(&[
            "error Gateway web/edge: Listener https (HTTPS 443) of Gateway edge is not working: Secret edge-tls does not exist",
        ]);
    }

    #[test]
    fn fires_with_the_message_of_the_condition() {
        check(&RULE, &[GATEWAY, SECRET]).finds(&[
            "error Gateway web/edge: Listener https (HTTPS 443) of Gateway edge is not working: bad certificate",
        ]);
        let conflict = GATEWAY.replace(
            "Conflicted, status: 'False', reason: NoConflicts",
            "Conflicted, status: 'True', reason: HostnameConflict",
        );
        assert!(check(&RULE, &[&conflict, SECRET]).finding().message.ends_with("is not working: HostnameConflict"));
    }

    #[test]
    fn fires_before_a_controller_reports() {
        let bare = GATEWAY.split_once("status:").unwrap().0;
        assert!(check(&RULE, &[bare]).finding().message.ends_with("Secret edge-tls does not exist"));
        let manifest = bare.replace(", uid: u1, generation: 1, creationTimestamp: '2026-11-21T10:00:00Z'", "");
        let said = TestCluster::new(&[&manifest]).origin(Origin::Manifests).check(&RULE);
        assert_eq!(said.finding().severity, crate::Severity::Info);
    }

    #[test]
    fn quiet_when_references_are_resolved() {
        check(&RULE, &[&GATEWAY.replace("ResolvedRefs, status: 'False'", "ResolvedRefs, status: 'True'"), SECRET])
            .finds_nothing();
    }

    #[test]
    fn quiet_while_the_certificate_may_still_come() {
        check(&RULE, &[&GATEWAY.replace("11:00:00", "11:57:00")]).finds_nothing();
    }

    #[test]
    fn quiet_where_only_the_grant_is_missing() {
        let foreign = GATEWAY
            .replace("name: edge-tls}", "name: edge-tls, namespace: certs}")
            .replace("InvalidCertificateRef", "RefNotPermitted");
        check(&RULE, &[&foreign]).finds_nothing();
    }

    #[test]
    fn quiet_about_secrets_that_were_not_read() {
        let bare = GATEWAY.split_once("status:").unwrap().0;
        TestCluster::new(&[bare]).forbid(Kind::Secret).check(&RULE).finds_nothing();
    }
}
