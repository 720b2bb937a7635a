use k8s_openapi::api::admissionregistration::v1::ParamRef;

use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::snapshot::model::{ConfigMap, Secret, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use crate::snapshot::{Cluster, Kind, Lookup, Object, ObjectRef, Origin};
use crate::text::kubectl;
use crate::text::similar::nearest_name;
use crate::text::words::list;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks whether the object that `paramRef` of a ValidatingAdmissionPolicyBinding names exists, for parameters in
    /// ConfigMaps and Secrets, where `parameterNotFoundAction` is `Deny` and the policy fails closed.
    ///
    /// ## Why it matters
    ///
    /// Without its parameters the policy denies every request that it matches, whatever the request contains: "no
    /// params found for policy binding". No pod can be created where the policy applies.
    ///
    /// ## How to confirm
    ///
    /// `kubectl get validatingadmissionpolicybinding NAME -o yaml` shows `spec.paramRef`. `kubectl -n NAMESPACE get
    /// configmap NAME` returns NotFound.
    ///
    /// ## How to fix
    ///
    /// Correct `spec.paramRef.name`, or create the object. Until then, `parameterNotFoundAction: Allow` admits the
    /// requests.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for parameters that are selected by labels or looked up in the namespace of the request,
    /// for `parameterNotFoundAction: Allow`, for policies with `failurePolicy: Ignore`, or where the objects could not
    /// be read. For manifests it is a hint, unless they contain an object with a similar name.
    "admissionpolicy/params-missing": Error,
    "a ValidatingAdmissionPolicy denies all requests because its parameters do not exist",
    needs: [ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicy],
    optional: [ConfigMap, Secret],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for binding in cluster.all::<ValidatingAdmissionPolicyBinding>().iter().filter(|b| b.deleted().is_none()) {
        if let Some(finding) = finding(cluster, binding) {
            report.add(finding);
        }
    }
}

fn finding(cluster: &Cluster, binding: &ValidatingAdmissionPolicyBinding) -> Option<Finding> {
    let spec = &binding.spec;
    let reference = spec.param_ref.as_ref()?;
    let (namespace, name) = (reference.namespace.as_deref()?, reference.name.as_deref()?);
    let name_of_policy = spec.policy_name.as_str();
    let policy = cluster.get::<ValidatingAdmissionPolicy>("", name_of_policy).found()?;
    let kind = policy.spec.as_ref()?.param_kind.as_ref()?;
    let kind = Kind::from_api(kind.api_version.as_deref()?, kind.kind.as_deref()?)?;
    let fails = policy.spec.as_ref()?.failure_policy.as_deref() != Some("Ignore");
    if !fails || !denies(reference) || !is_missing(cluster, kind, namespace, name) {
        return None;
    }
    let object = binding.reference();
    let others = names(cluster, kind, namespace);
    let near = nearest_name(name, others.iter().map(String::as_str)).map(str::to_string);
    let exists = near.as_ref().map(|near| format!(" ({near} exists)")).unwrap_or_default();
    let message = format!(
        "ValidatingAdmissionPolicyBinding {} denies all requests that policy {name_of_policy} matches: its paramRef is {kind} \
         {namespace}/{name}, which does not exist{exists}",
        binding.name()
    );
    let is_manifest = cluster.origin() == Origin::Manifests;
    let severity = if is_manifest { Severity::Warning } else { Severity::Error };
    let mut finding = Finding::new(severity, object.clone(), message)
        .evidence(
            format!("paramRef is {kind} {namespace}/{name}, parameterNotFoundAction Deny"),
            &object,
            "spec.paramRef",
        )
        .evidence(format!("paramKind is {kind}"), &policy.reference(), "spec.paramKind");
    if !is_manifest || near.is_none() {
        finding = finding.rests_on_absence();
    }
    if let Some(near) = near {
        let patch = format!(r#"{{"spec":{{"paramRef":{{"name":"{near}"}}}}}}"#);
        let similar = ObjectRef::new(kind, namespace, &near);
        finding = finding.evidence(format!("{kind} {namespace}/{near} exists"), &similar, "metadata.name").fix_command(
            format!("Set spec.paramRef.name to {near}, if that has the parameters"),
            kubectl(["patch", "validatingadmissionpolicybinding", binding.name(), "--type=merge", "-p", &patch]),
        );
    } else if !others.is_empty() {
        finding = finding.evidence(format!("{kind}s in {namespace}: {}", list(&others, 5)), &object, "");
    }
    Some(
        finding
            .fix(format!("Or create {kind} {namespace}/{name} with the parameters of policy {name_of_policy}"))
            .fix("Until then, parameterNotFoundAction: Allow admits the requests without this policy"),
    )
}

fn denies(reference: &ParamRef) -> bool {
    reference.parameter_not_found_action.as_deref() == Some("Deny")
}

fn is_missing(cluster: &Cluster, kind: Kind, namespace: &str, name: &str) -> bool {
    match kind {
        Kind::ConfigMap => matches!(cluster.get::<ConfigMap>(namespace, name), Lookup::Missing),
        Kind::Secret => matches!(cluster.get::<Secret>(namespace, name), Lookup::Missing),
        _ => false,
    }
}

/// The names of the objects of the kind in the namespace, without those that Kubernetes creates itself.
fn names(cluster: &Cluster, kind: Kind, namespace: &str) -> Vec<String> {
    let names: Vec<&str> = match kind {
        Kind::ConfigMap => cluster.in_namespace::<ConfigMap>(namespace).iter().map(Object::name).collect(),
        Kind::Secret => cluster.in_namespace::<Secret>(namespace).iter().map(Object::name).collect(),
        _ => Vec::new(),
    };
    names.into_iter().filter(|name| *name != "kube-root-ca.crt").map(str::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::{Kind, Origin};
    use crate::testing::{TestCluster, check};

    const POLICY: &str = "
        apiVersion: admissionregistration.k8s.io/v1
        kind: ValidatingAdmissionPolicy
        metadata: {name: limits.example}
        spec: {failurePolicy: Fail, paramKind: {apiVersion: v1, kind: ConfigMap}}";
    const BINDING: &str = "
        apiVersion: admissionregistration.k8s.io/v1
        kind: ValidatingAdmissionPolicyBinding
        metadata: {name: limits}
        spec: {policyName: limits.example, validationActions: [Deny],
          paramRef: {name: replica-limits, namespace: policies, parameterNotFoundAction: Deny}}";

    fn config(name: &str) -> String {
        format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}, namespace: policies}}}}")
    }

    #[test]
    fn fires_when_the_parameters_do_not_exist() {
        let message = "ValidatingAdmissionPolicyBinding limits: ValidatingAdmissionPolicyBinding limits denies all requests that \
                       policy limits.example matches: its paramRef is ConfigMap policies/replica-limits, which does not \
                       exist (replicas-limits exists)";
        check(&RULE, &[POLICY, BINDING, &config("replicas-limits")]).finds(&[&format!("error {message}")]);
        TestCluster::new(&[POLICY, BINDING, &config("replicas-limits")])
            .origin(Origin::Manifests)
            .check(&RULE)
            .finds(&[&format!("warning {message}")]);
    }

    #[test]
    fn quiet_when_they_exist_or_are_not_required() {
        check(&RULE, &[POLICY, BINDING, &config("replica-limits")]).finds_nothing();
        check(&RULE, &[POLICY, &BINDING.replace("Action: Deny", "Action: Allow")]).finds_nothing();
        check(&RULE, &[&POLICY.replace("Policy: Fail", "Policy: Ignore"), BINDING]).finds_nothing();
        check(&RULE, &[POLICY, &BINDING.replace(", namespace: policies", "")]).finds_nothing();
        TestCluster::new(&[POLICY, BINDING]).forbid(Kind::ConfigMap).check(&RULE).finds_nothing();
    }
}
