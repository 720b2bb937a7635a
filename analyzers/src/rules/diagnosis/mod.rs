//! What the log of a failing container says about its cause, resolved to objects of the cluster. The rules about pods,
//! Jobs and CronJobs share it.

mod configuration;
mod connection;
mod credentials;
mod kinds;
mod names;

use crate::engine::{Finding, Fix};
use crate::kubernetes::workloads::log_lines::{is_error, log_lines, whole_telling_line};
use crate::kubernetes::workloads::restarts::PodContainer;
use crate::kubernetes::workloads::symptoms::{Failure, Symptom, symptoms};
use crate::snapshot::{Cluster, ObjectRef};
use crate::text::SafeText;

/// The cause that a log names.
#[derive(Debug, Default)]
pub(crate) struct Diagnosis {
    /// What is wrong, as clauses for the message.
    clauses: Vec<String>,
    /// A text, and the object and field that it was read from.
    evidence: Vec<(String, ObjectRef, String)>,
    fixes: Vec<Fix>,
    /// Objects whose findings explain it.
    because: Vec<ObjectRef>,
}

impl Diagnosis {
    /// Adds the diagnosis to the finding about the container.
    pub(crate) fn apply(self, mut finding: Finding) -> Finding {
        for clause in &self.clauses {
            finding.message = format!("{}; {clause}", finding.message).into();
        }
        for (text, object, path) in self.evidence {
            finding = finding.evidence(text, &object, &path);
        }
        finding.fix.splice(0..0, self.fixes);
        finding.because.extend(self.because);
        finding
    }

    fn clause(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.clauses.contains(&text) {
            self.clauses.push(text);
        }
    }

    fn evidence(&mut self, text: impl Into<String>, object: ObjectRef, path: impl Into<String>) {
        let evidence = (text.into(), object, path.into());
        if !self.evidence.contains(&evidence) {
            self.evidence.push(evidence);
        }
    }

    fn fix(&mut self, text: impl Into<SafeText>) {
        self.add_fix(Fix { text: text.into(), command: None });
    }

    fn fix_command(&mut self, text: impl Into<SafeText>, command: String) {
        self.add_fix(Fix { text: text.into(), command: Some(command.into()) });
    }

    fn add_fix(&mut self, fix: Fix) {
        if !self.fixes.contains(&fix) {
            self.fixes.push(fix);
        }
    }

    fn because(&mut self, object: ObjectRef) {
        if !self.because.contains(&object) {
            self.because.push(object);
        }
    }
}

/// What the log of a failing container names as the cause.
pub(crate) fn diagnose(cluster: &Cluster, container: &PodContainer) -> Diagnosis {
    let mut diagnosis = Diagnosis::default();
    let Some(line) = line(cluster, container) else {
        connection::awaited_by_command(cluster, container, &mut diagnosis);
        return diagnosis;
    };
    let symptoms = symptoms(&line);
    let credentials = symptoms.contains(&Symptom::Credentials);
    for symptom in &symptoms {
        match symptom {
            Symptom::Lookup { host, server, answered: true } => {
                names::unknown(cluster, container, host, server.as_deref(), &mut diagnosis);
            }
            Symptom::Lookup { .. } => connection::no_dns_answer(cluster, container.pod, &mut diagnosis),
            Symptom::Connect { targets, .. } if credentials => {
                credentials::refused_by(cluster, container, targets, &mut diagnosis);
            }
            Symptom::Connect { targets, failure } => {
                connection::failed(cluster, container.pod, targets, *failure, &mut diagnosis);
            }
            Symptom::WrongHost { host, valid_for } => {
                names::wrong_certificate(cluster, container, host, valid_for, &mut diagnosis);
            }
            Symptom::NoAddressInCertificate => configuration::no_address_in_certificate(&line, &mut diagnosis),
            Symptom::NotServed { kind, version } => kinds::not_served(cluster, kind, version, &mut diagnosis),
            Symptom::NotRegistered { kind, version } => {
                kinds::not_registered(cluster, container, kind, version, &mut diagnosis);
            }
            Symptom::Credentials => credentials::outdated(cluster, container, &mut diagnosis),
            Symptom::HeaderValue => configuration::header_value(cluster, container, &mut diagnosis),
        }
    }
    if credentials {
        credentials::refused(container, &mut diagnosis);
    }
    configuration::service_links(cluster, container, &line, &mut diagnosis);
    connection::awaited_by_command(cluster, container, &mut diagnosis);
    diagnosis
}

/// The line that names the cause: an error, or the last line of a container that waits.
fn line(cluster: &Cluster, container: &PodContainer) -> Option<String> {
    let line = whole_telling_line(cluster, container)?;
    if is_error(&line) {
        return Some(line);
    }
    let waits = |line: &String| {
        let is_wait = |symptom: &Symptom| matches!(symptom, Symptom::Connect { failure: Failure::Waits, .. });
        symptoms(line).iter().any(is_wait)
    };
    log_lines(cluster, container).into_iter().rev().take(5).find(waits)
}

#[cfg(test)]
mod tests {
    use crate::testing::TestCluster;

    fn pod(spec: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: Pod
            metadata: {{name: web, namespace: shop, creationTimestamp: '2026-11-21T11:00:00Z'}}
            spec: {{nodeName: n1, {spec}}}
            status: {{phase: Running, conditions: [{{type: Ready, status: 'False'}}], containerStatuses: [{{name: app,
              restartCount: 4, state: {{waiting: {{reason: CrashLoopBackOff}}}}, lastState: {{terminated: {{exitCode: 1,
              startedAt: '2026-11-21T11:59:44Z', finishedAt: '2026-11-21T11:59:45Z'}}}}}}]}}"
        )
    }

    fn service(name: &str, namespace: &str, ip: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: {namespace}}},
               spec: {{clusterIP: {ip}, ports: [{{port: 80}}]}}}}"
        )
    }

    /// What follows the quoted line in the message of the crash loop, and all fixes.
    fn said(spec: &str, more: &[&str], line: &str) -> (String, String) {
        let pod = pod(spec);
        let documents: Vec<&str> = [pod.as_str()].into_iter().chain(more.iter().copied()).collect();
        let said = TestCluster::new(&documents).log("shop", "web", "app", &[line]).check_all();
        let finding = said.by("pod/crash-loop");
        let clause = finding.message.rsplit_once("\"; ").map(|(_, clause)| clause.to_string()).unwrap_or_default();
        (clause, finding.fix.iter().map(|fix| fix.text.as_str()).collect::<Vec<_>>().join(" | "))
    }

    const UNKNOWN: &str = "Caused by: java.net.UnknownHostException: db";

    #[test]
    fn fires_for_a_service_of_another_namespace() {
        let spec = "containers: [{name: app, env: [{name: URL, value: 'http://db:80'}]}]";
        let (clause, fixes) = said(spec, &[&service("db", "data", "10.96.1.1")], UNKNOWN);
        assert_eq!(clause, "Service db is in namespace data, not in shop");
        assert!(fixes.starts_with("Change db to db.data in variable URL"), "{fixes}");
        let (clause, _) = said(spec, &[&service("dbs", "shop", "10.96.1.1")], &UNKNOWN.replace(": db", ": dbz"));
        assert_eq!(clause, "namespace shop has no Service dbz (did you mean dbs?)");
    }

    #[test]
    fn fires_with_the_secret_whose_credentials_are_refused() {
        let spec = "containers: [{name: app, envFrom: [{secretRef: {name: web-db}}]}]";
        let secret = "{apiVersion: v1, kind: Secret, metadata: {name: web-db, namespace: shop}}";
        let line = "fatal: pq: password authentication failed for user \"web\"";
        let (_, fixes) = said(spec, &[secret], line);
        assert!(fixes.contains("Compare the credentials in Secret web-db"), "{fixes}");
        let (_, fixes) = said(spec, &[secret], "fatal: listen tcp :80: bind: address already in use");
        assert!(!fixes.contains("web-db"), "{fixes}");
    }

    #[test]
    fn quiet_for_a_service_of_the_namespace_and_for_names_outside() {
        let spec = "containers: [{name: app}]";
        let own = [service("db", "shop", "10.96.1.1"), service("db", "data", "10.96.1.2")];
        assert_eq!(said(spec, &[&own[0], &own[1]], UNKNOWN).0, "");
        assert_eq!(said(spec, &[&own[1]], "lookup db.example.com on 10.96.0.10:53: no such host").0, "");
    }

    #[test]
    fn fires_for_the_dns_of_the_node() {
        let line = "lookup db.data.svc on 192.0.2.53:53: no such host";
        let data = service("db", "data", "10.96.1.1");
        let (clause, fixes) = said("hostNetwork: true, containers: [{name: app}]", &[&data], line);
        assert!(clause.ends_with("ClusterFirstWithHostNet uses the cluster's"), "{clause}");
        assert!(fixes.starts_with("Set spec.dnsPolicy of Pod web to ClusterFirstWithHostNet"), "{fixes}");
        let right = "hostNetwork: true, dnsPolicy: ClusterFirstWithHostNet, containers: [{name: app}]";
        assert_eq!(said(right, &[&data], line).0, "");
    }

    #[test]
    fn fires_for_a_service_link_and_not_for_an_own_variable() {
        let line = "fatal: listen tcp://10.96.1.1:80: too many colons in address";
        let web = service("web-x", "shop", "10.96.1.1");
        let (clause, fixes) = said("containers: [{name: app}]", &[&web], line);
        assert!(clause.starts_with("WEB_X_PORT=tcp://10.96.1.1:80 comes from Service web-x"), "{clause}");
        assert!(fixes.starts_with("Set spec.enableServiceLinks of Pod web to false"), "{fixes}");
        assert_eq!(said("enableServiceLinks: false, containers: [{name: app}]", &[&web], line).0, "");
        assert_eq!(said("containers: [{name: app, env: [{name: WEB_X_PORT, value: 'x'}]}]", &[&web], line).0, "");
    }

    #[test]
    fn fires_for_a_kind_that_is_not_served_in_the_version() {
        let crd = "
            apiVersion: apiextensions.k8s.io/v1
            kind: CustomResourceDefinition
            metadata: {name: things.example.com}
            spec: {group: example.com, names: {kind: Thing, plural: things}, versions: [{name: v1, served: true}]}";
        let line = |version: &str| format!("error: no matches for kind \"Thing\" in version \"example.com/{version}\"");
        let spec = "containers: [{name: app}]";
        let (clause, _) = said(spec, &[crd], &line("v1alpha1"));
        assert_eq!(clause, "CustomResourceDefinition things.example.com serves v1, not v1alpha1");
        assert_eq!(said(spec, &[crd], &line("v1")).0, "");
    }

    #[test]
    fn fires_for_a_host_that_a_namespace_shadows() {
        let line = "x509: certificate is valid for a.internal, not accounts.example";
        let shadow = service("accounts", "example", "10.96.1.1");
        let (clause, fixes) = said("containers: [{name: app}]", &[&shadow], line);
        assert!(clause.starts_with("accounts.example resolves to Service accounts in namespace example"), "{clause}");
        assert!(fixes.contains("trailing dot (accounts.example.)"), "{fixes}");
        let meant = "x509: certificate is valid for accounts.example.svc, not accounts.example";
        assert_eq!(said("containers: [{name: app}]", &[&shadow], meant).0, "");
        let ndots = "dnsConfig: {options: [{name: ndots, value: '1'}]}, containers: [{name: app}]";
        assert_eq!(said(ndots, &[&shadow], line).0, "");
    }
}
