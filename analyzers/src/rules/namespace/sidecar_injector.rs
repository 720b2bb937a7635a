use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::network::mesh::{self, INJECTION, REVISION};
use crate::snapshot::model::{Namespace, Pod};
use crate::snapshot::{Cluster, Object};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that an Istio sidecar injector handles the namespaces whose label `istio.io/rev` or `istio-injection`
    /// requests sidecars.
    ///
    /// ## Why it matters
    ///
    /// After an upgrade that removes a revision, running pods keep their sidecars, but each new pod starts without one.
    /// Pods that require mutual TLS (`PeerAuthentication` STRICT) reset its connections, and the policies of the mesh do
    /// not apply to it.
    ///
    /// ## How to confirm
    ///
    /// `kubectl get namespace NAME --show-labels` and `kubectl get mutatingwebhookconfigurations -l
    /// app=sidecar-injector -o yaml` show the label and the selectors; `istioctl analyze` reports the namespace.
    ///
    /// ## How to fix
    ///
    /// Change the label of the namespace to an existing revision or revision tag, and restart the workloads that run
    /// without a sidecar.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for namespaces in ambient mode, or where the cluster has no sidecar injector. The finding
    /// is a `warning` while every pod of the namespace has a sidecar.
    "namespace/sidecar-injector": Error,
    "no Istio sidecar injector handles a namespace that requests sidecars",
    needs: [Namespace, MutatingWebhookConfiguration],
    optional: [Pod],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    let injectors = mesh::injectors(cluster);
    if injectors.is_empty() {
        return;
    }
    let revisions = mesh::revisions(&injectors);
    for namespace in
        cluster.all::<Namespace>().iter().filter(|namespace| !cluster.is_namespace_terminating(namespace.name()))
    {
        if let Some((key, value)) = mesh::unmatched_label(cluster, &injectors, namespace) {
            report.add(finding(cluster, namespace, (key, &value), &revisions));
        }
    }
}

fn finding(cluster: &Cluster, namespace: &Namespace, (key, value): (&str, &str), revisions: &[String]) -> Finding {
    let (name, object) = (namespace.name(), namespace.reference());
    let lacks = |pod: &&Pod| pod.is_active() && !mesh::has_proxy(&pod.spec) && !mesh::opts_out(pod);
    let without: Vec<&Pod> = cluster.in_namespace::<Pod>(name).iter().filter(lacks).collect();
    let there = if revisions.is_empty() {
        String::new()
    } else {
        format!(" (existing revisions: {})", words::list(revisions, 5))
    };
    let effect = match without.len() {
        0 => "its new pods get no sidecar".to_string(),
        1 => "1 pod runs without a sidecar".to_string(),
        n => format!("{n} pods run without a sidecar"),
    };
    let message =
        format!("label {key}={value} of Namespace {name} matches no Istio sidecar injector{there}, so {effect}");
    let severity = if without.is_empty() { Severity::Warning } else { Severity::Error };
    let mut finding = Finding::new(severity, object.clone(), message)
        .pods(without.len())
        .since(without.iter().filter_map(|pod| pod.metadata.creation_timestamp).min())
        .evidence(format!("label {key} is {value}"), &object, "metadata.labels");
    for pod in without.iter().take(3) {
        finding = finding.evidence(
            format!("Pod {} has no container istio-proxy", pod.name()),
            &pod.reference(),
            "spec.containers",
        );
    }
    let restart = "then restart its workloads (kubectl rollout restart) so that their pods get the sidecar";
    match revisions {
        [only] if key == INJECTION => finding.fix_command(
            format!("Replace the label {key} by {REVISION}={only}, {restart}"),
            kubectl(["label", "namespace", name, &format!("{INJECTION}-"), &format!("{REVISION}={only}")]),
        ),
        [only] => finding.fix_command(
            format!("Set the label {REVISION} to {only}, {restart}"),
            kubectl(["label", "--overwrite", "namespace", name, &format!("{REVISION}={only}")]),
        ),
        _ => finding.fix_command(
            format!("Set the label {REVISION} to an existing revision or revision tag, {restart}"),
            kubectl(["get", "mutatingwebhookconfigurations", "--show-labels"]),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn injector(revision: &str) -> String {
        format!(
            "
            apiVersion: admissionregistration.k8s.io/v1
            kind: MutatingWebhookConfiguration
            metadata: {{name: istio-sidecar-injector-{revision}, labels: {{app: sidecar-injector, istio.io/rev: '{revision}'}}}}
            webhooks:
            - name: rev.namespace.sidecar-injector.istio.io
              admissionReviewVersions: [v1]
              sideEffects: None
              clientConfig: {{}}
              namespaceSelector: {{matchExpressions: [{{key: istio.io/rev, operator: In, values: ['{revision}']}}]}}
              rules: [{{operations: [CREATE], apiGroups: [''], apiVersions: [v1], resources: [pods]}}]"
        )
    }

    fn namespace(labels: &str) -> String {
        format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: front, labels: {{{labels}}}}}}}")
    }

    fn pod(container: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: web, namespace: front}}, spec: {{containers: [{{name: web}}, \
             {{name: {container}}}]}}, status: {{phase: Running}}}}"
        )
    }

    #[test]
    fn fires_for_a_revision_that_is_gone() {
        let said = check(&RULE, &[&injector("1-27"), &namespace("istio.io/rev: '1-24'"), &pod("log")]);
        said.finds(&[
            "error Namespace front: label istio.io/rev=1-24 of Namespace front matches no Istio sidecar injector \
                      (existing revisions: 1-27), so 1 pod runs without a sidecar",
        ]);
        let command = said.finding().fix[0].command.clone();
        assert_eq!(command.as_deref(), Some("kubectl label --overwrite namespace front istio.io/rev=1-27"));
        check(&RULE, &[&injector("1-27"), &namespace("istio-injection: enabled"), &pod("istio-proxy")]).finds(&[
            "warning Namespace front: label istio-injection=enabled of Namespace front matches no Istio sidecar injector \
             (existing revisions: 1-27), so its new pods get no sidecar",
        ]);
    }

    #[test]
    fn quiet_for_existing_revisions_ambient_mode_and_without_istio() {
        let (injector, pod) = (injector("1-27"), pod("log"));
        check(&RULE, &[&injector, &namespace("istio.io/rev: '1-27'"), &pod]).finds_nothing();
        check(&RULE, &[&injector, &namespace("istio-injection: disabled"), &pod]).finds_nothing();
        let ambient = namespace("istio.io/rev: '1-24', istio.io/dataplane-mode: ambient");
        check(&RULE, &[&injector, &ambient, &pod]).finds_nothing();
        check(&RULE, &[&namespace("istio.io/rev: '1-24'"), &pod]).finds_nothing();
    }
}
