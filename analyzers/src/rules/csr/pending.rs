use std::collections::BTreeSet;

use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::nodes::csr::{Pending, Purpose, pending};
use crate::kubernetes::time::{PROVISION, age, human};
use crate::snapshot::model::Node;
use crate::snapshot::{Cluster, Lookup, Object};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for CertificateSigningRequests of kubelets that nobody has approved or denied for five minutes: for the
    /// client certificate of a kubelet (signer `kubernetes.io/kube-apiserver-client-kubelet`) and for its serving
    /// certificate (`kubernetes.io/kubelet-serving`).
    ///
    /// ## Why it matters
    ///
    /// Without a client certificate a new node does not join, and a node whose certificate has expired stays `NotReady`
    /// although its machine and kubelet run. Without a serving certificate `kubectl logs`, `kubectl exec` and metrics-server
    /// fail on the node.
    ///
    /// ## How to confirm
    ///
    /// `kubectl get csr` shows `Pending`. `kubectl describe csr NAME` shows the requesting user and the subject.
    ///
    /// ## How to fix
    ///
    /// Check that the request comes from the machine, then approve it: `kubectl certificate approve NAME`. After a client
    /// certificate the kubelet requests a serving certificate, which may need approval too. If requests are meant to be
    /// approved automatically, check the approver (kube-controller-manager, the cloud controller manager, or the
    /// machine-approver of OpenShift).
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for requests that are less than five minutes old, and for requests older than an approved one
    /// of the same kubelet.
    "csr/pending": Error,
    "a kubelet waits for the approval of its certificate",
    needs: [CertificateSigningRequest],
    optional: [Node],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    let all = pending(cluster);
    let is_overdue = |pending: &&Pending| pending.since().is_some_and(|since| age(cluster.now(), since) >= PROVISION);
    let (client, serving): (Vec<&Pending>, Vec<&Pending>) =
        all.iter().filter(is_overdue).partition(|pending| pending.purpose == Purpose::Client);
    for pending in client {
        if let Some(finding) = about_client(cluster, pending) {
            report.add(finding);
        }
    }
    if let Some(finding) = about_serving(cluster, &serving) {
        report.add(finding);
    }
}

fn about_client(cluster: &Cluster, pending: &Pending) -> Option<Finding> {
    let newest = pending.newest()?;
    let (object, name, node) = (newest.reference(), newest.name(), &pending.node);
    let node_object = cluster.get::<Node>("", node);
    let is_ready = node_object.found().is_some_and(Node::is_ready);
    let severity = if is_ready { Severity::Warning } else { Severity::Error };
    let effect = match node_object {
        Lookup::Missing => ", so the node cannot join",
        _ if is_ready => "",
        _ => ", so the node cannot become ready",
    };
    let waited = pending.since().map_or(String::new(), |since| format!(" for {}", human(age(cluster.now(), since))));
    let message = format!(
        "the kubelet of {node} has been waiting{waited} for the approval of its client certificate \
         (CertificateSigningRequest {name}){effect}"
    );
    let names: Vec<&str> = pending.requests.iter().map(|request| request.name()).collect();
    let user = &newest.spec.username;
    let finding = Finding::new(severity, object.clone(), message)
        .key("client")
        .since(pending.since())
        .evidence(format!("pending requests for system:node:{node}: {}", words::list(&names, 5)), &object, "")
        .evidence(format!("requested by {user}"), &object, "spec.username");
    Some(finding.fix_command(
        "Check that the request comes from that machine, then approve it, and the request for the serving certificate that \
         follows",
        kubectl(["certificate", "approve", name]),
    ))
}

fn about_serving(cluster: &Cluster, serving: &[&Pending]) -> Option<Finding> {
    let newest = serving.iter().filter_map(|pending| pending.newest()).max_by_key(|request| request.created())?;
    let object = newest.reference();
    let nodes: BTreeSet<&str> = serving.iter().map(|pending| pending.node.as_str()).collect();
    let nodes: Vec<&str> = nodes.into_iter().collect();
    let since = serving.iter().filter_map(|pending| pending.since()).min();
    let waited = since.map_or(String::new(), |since| format!(" for {}", human(age(cluster.now(), since))));
    let (kubelets, certificates) = if nodes.len() == 1 {
        ("a kubelet has", "its serving certificate")
    } else {
        ("kubelets have", "serving certificates")
    };
    let message = format!(
        "{kubelets} been waiting{waited} for the approval of {certificates} ({}), so logs, exec and metrics may fail there",
        words::list(&nodes, 3)
    );
    let approve: Vec<&str> =
        serving.iter().filter_map(|pending| pending.newest()).map(crate::snapshot::Object::name).collect();
    let command = ["certificate", "approve"].into_iter().chain(approve.iter().take(20).copied());
    Some(
        Finding::warning(object.clone(), message)
            .key("serving")
            .since(since)
            .evidence(format!("pending: {}", words::list(&approve, 5)), &object, "status.conditions")
            .fix_command("Check that the requests come from these machines, then approve them", kubectl(command)),
    )
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn request(name: &str, signer: &str, user: &str, created: &str, conditions: &str) -> String {
        format!(
            "{{apiVersion: certificates.k8s.io/v1, kind: CertificateSigningRequest, metadata: {{name: {name},
            creationTimestamp: '{created}'}}, spec: {{signerName: kubernetes.io/{signer}, username: '{user}',
            request: {}}}, status: {{conditions: [{conditions}]}}}}",
            include_str!("../../kubernetes/nodes/csr_example.txt").trim()
        )
    }

    const OLD: &str = "2026-11-21T11:00:00Z";
    const BOOTSTRAP: &str = "system:bootstrap:abcdef";
    const CLIENT: &str = "kube-apiserver-client-kubelet";

    #[test]
    fn fires_for_the_node_in_the_request() {
        let pending = request("csr-a", CLIENT, BOOTSTRAP, OLD, "");
        check(&RULE, &[&pending]).finds(&[
            "error CertificateSigningRequest csr-a: the kubelet of machine-7 has been waiting for 60m for the approval of its \
             client certificate (CertificateSigningRequest csr-a), so the node cannot join",
        ]);
        let node = "{apiVersion: v1, kind: Node, metadata: {name: machine-7}, status: {conditions: [
            {type: Ready, status: 'True'}]}}";
        assert_eq!(check(&RULE, &[&pending, node]).finding().severity.to_string(), "warning");
    }

    #[test]
    fn fires_once_for_serving_certificates() {
        let a = request("csr-a", "kubelet-serving", "system:node:a", OLD, "");
        let b = request("csr-b", "kubelet-serving", "system:node:b", "2026-11-21T11:30:00Z", "");
        check(&RULE, &[&a, &b]).finds(&[
            "warning CertificateSigningRequest csr-b: kubelets have been waiting for 60m for the approval of serving \
             certificates (a and b), so logs, exec and metrics may fail there",
        ]);
    }

    #[test]
    fn quiet_for_new_decided_superseded_and_foreign_requests() {
        check(&RULE, &[&request("csr-a", CLIENT, BOOTSTRAP, "2026-11-21T11:59:00Z", "")]).finds_nothing();
        for decided in ["Approved", "Denied"] {
            let decided = request("csr-a", CLIENT, BOOTSTRAP, OLD, &format!("{{type: {decided}, status: 'True'}}"));
            check(&RULE, &[&decided]).finds_nothing();
        }
        let approved = request("csr-b", CLIENT, BOOTSTRAP, "2026-11-21T11:20:00Z", "{type: Approved, status: 'True'}");
        check(&RULE, &[&request("csr-a", CLIENT, BOOTSTRAP, OLD, ""), &approved]).finds_nothing();
        check(&RULE, &[&request("csr-a", "kube-apiserver-client", "jane", OLD, "")]).finds_nothing();
    }
}
