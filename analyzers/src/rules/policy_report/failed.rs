use std::collections::{BTreeMap, BTreeSet};

use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::snapshot::model::{CustomResource, Pod, PolicyResult, ReplicaSet};
use crate::snapshot::{Cluster, GroupKind, Kind, Object, ObjectRef};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// The results `fail` and `error` in PolicyReports and ClusterPolicyReports (`wgpolicyk8s.io`), which Kyverno and
    /// other policy engines write for existing objects. The rule reports one finding per policy and namespace, with all
    /// objects that fail the policy.
    ///
    /// ## Why it matters
    ///
    /// Where the policy is enforced, such an object cannot be applied again: the next rollout is rejected. An `error`
    /// means that the policy could not be evaluated at all.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get policyreports` shows how many results each report has; `-o yaml` shows the results.
    ///
    /// ## How to fix
    ///
    /// Change the objects as the message describes, or exempt them from the policy.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for the results `pass`, `skip` and `warn`. Pods are reported as their workload. The
    /// severity is `warning` if the policy has severity `high` or `critical`, or could not be evaluated, and `info`
    /// otherwise.
    "policy-report/failed": Warning,
    "objects that violate policies, according to PolicyReports",
    needs: [],
    optional: [Pod, ReplicaSet],
    reads_custom: true,
    explained_by: [],
}

/// The maximum number of objects in the evidence.
const MAX_EVIDENCE: usize = 20;

/// One failed policy result for one object.
struct Failure<'a> {
    about: ObjectRef,
    result: &'a PolicyResult,
    /// The report that contains the result.
    report: ObjectRef,
}

fn check(cluster: &Cluster, report: &mut Report) {
    for kind in ["PolicyReport", "ClusterPolicyReport"] {
        let kind = GroupKind { group: "wgpolicyk8s.io".to_string(), kind: kind.to_string() };
        report.custom_kind_not_read(cluster, &kind);
    }
    let mut policies: BTreeMap<(String, &str), Vec<Failure>> = BTreeMap::new();
    let mut reports: Vec<&CustomResource> = cluster.custom().iter().filter(|c| !c.results.is_empty()).collect();
    reports.sort_by_cached_key(|report| report.reference());
    for written in reports.into_iter().filter(|report| report.is_policy_report()) {
        for result in &written.results {
            for about in objects(cluster, written, result) {
                let key = (about.namespace().to_string(), result.policy.as_str());
                policies.entry(key).or_default().push(Failure { about, result, report: written.reference() });
            }
        }
    }
    for ((namespace, policy), failures) in policies {
        report.add(finding(&namespace, policy, &failures));
    }
}

/// The objects that a result is about. Pods are replaced by their workload.
fn objects(cluster: &Cluster, report: &CustomResource, result: &PolicyResult) -> Vec<ObjectRef> {
    let named: Vec<&ObjectRef> = result.resources.iter().chain(&report.scope).collect();
    if named.is_empty() {
        return vec![report.reference()];
    }
    let own = &report.metadata.namespace;
    let topmost = |object: &ObjectRef| {
        let mut object = object.clone();
        if object.namespace.is_none() && !own.is_empty() {
            object.namespace = Some(own.to_string());
        }
        if object.is(Kind::Pod) {
            let pod = cluster.get::<Pod>(object.namespace(), &object.name).found();
            return pod.map_or(object, |pod| cluster.owner_of(pod).into_owned());
        }
        let set = object.is(Kind::ReplicaSet).then(|| cluster.get::<ReplicaSet>(object.namespace(), &object.name));
        set.and_then(|set| set.found()?.controller()).unwrap_or(object)
    };
    // Objects named in the result take precedence over the scope of the report.
    let count = if result.resources.is_empty() { named.len() } else { result.resources.len() };
    named.into_iter().take(count).map(topmost).collect()
}

fn finding(namespace: &str, policy: &str, failures: &[Failure]) -> Finding {
    let objects: BTreeSet<&ObjectRef> = failures.iter().map(|failure| &failure.about).collect();
    let first = &failures[0];
    let is_error = failures.iter().any(|failure| failure.result.result == "error");
    let is_severe = failures.iter().any(|f| matches!(f.result.severity.as_str(), "high" | "critical"));
    let severity = if is_error || is_severe { Severity::Warning } else { Severity::Info };
    let titles: Vec<String> = objects.iter().map(|object| object.title()).collect();
    let does = if is_error { "could not be evaluated for" } else { "fails for" };
    let said = words::shorten(first.result.message.lines().next().unwrap_or_default(), 200);
    let why = if said.is_empty() { String::new() } else { format!(": {said}") };
    let message = format!("policy {policy} {does} {}{why}", words::list(&titles, 2));
    let object = match namespace {
        "" => first.report.clone(),
        namespace => ObjectRef::new(Kind::Namespace, "", namespace),
    };
    let mut finding = Finding::new(severity, object, message).key(policy);
    for failure in failures.iter().take(MAX_EVIDENCE) {
        let text = format!(
            "{}: rule {}: {}",
            failure.about.title(),
            failure.result.rule,
            words::shorten(&failure.result.message, 200)
        );
        finding = finding.evidence(text, &failure.report, "results");
    }
    let command = match first.report.namespace() {
        "" => kubectl(["get", "clusterpolicyreport.wgpolicyk8s.io", &first.report.name, "-o", "yaml"]),
        namespace => kubectl(["-n", namespace, "get", "policyreport.wgpolicyk8s.io", &first.report.name, "-o", "yaml"]),
    };
    finding.fix_command("List all results, then fix the objects or exempt them from the policy", command)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    /// As Kyverno writes it: one report per object.
    fn report(name: &str, kind: &str, result: &str, severity: &str) -> String {
        format!(
            "
            apiVersion: wgpolicyk8s.io/v1alpha2
            kind: PolicyReport
            metadata: {{name: '{kind}-{name}', namespace: shop, uid: u-{kind}-{name}}}
            scope: {{apiVersion: apps/v1, kind: {kind}, name: {name}, namespace: shop, uid: u1}}
            results:
            - {{policy: require-labels, rule: check, result: {result}, severity: {severity}, scored: true, source: kyverno,
               message: 'validation error: label team is required', timestamp: {{nanos: 0, seconds: 1}}}}
            - {{policy: other, rule: check, result: pass, scored: true}}
            summary: {{error: 0, fail: 1, pass: 1, skip: 0, warn: 0}}"
        )
    }

    #[test]
    fn fires_once_per_policy_and_namespace() {
        let (cart, web) =
            (report("cart", "Deployment", "fail", "medium"), report("web", "Deployment", "fail", "medium"));
        let said = check(&RULE, &[&cart, &web]);
        said.finds(&[
            "info Namespace shop: policy require-labels fails for Deployment cart and Deployment web: validation error: label \
             team is required",
        ]);
        assert_eq!(said.finding().evidence.len(), 2);
    }

    #[test]
    fn fires_as_a_warning_for_severe_policies_and_errors() {
        for (result, severity) in [("fail", "high"), ("fail", "critical"), ("error", "low")] {
            let said = check(&RULE, &[&report("cart", "Deployment", result, severity)]);
            assert_eq!(said.finding().severity.to_string(), "warning", "{result} {severity}");
        }
    }

    #[test]
    fn fires_for_objects_named_in_a_result_and_for_cluster_scope() {
        let older = "
            apiVersion: wgpolicyk8s.io/v1beta1
            kind: ClusterPolicyReport
            metadata: {name: all, uid: u}
            results: [{policy: nodes, rule: r, result: fail, resources: [{apiVersion: v1, kind: Node, name: a}]}]";
        check(&RULE, &[older]).finds(&["info ClusterPolicyReport all: policy nodes fails for Node a"]);
    }

    #[test]
    fn quiet_for_passing_results_and_pods_count_as_their_workload() {
        for result in ["pass", "skip", "warn"] {
            check(&RULE, &[&report("cart", "Deployment", result, "high")]).finds_nothing();
        }
        let set = "{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: cart-1, namespace: shop,
                    ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: cart, controller: true}]}}";
        let of_set = report("cart-1", "ReplicaSet", "fail", "low");
        let said = check(&RULE, &[set, &of_set, &report("cart", "Deployment", "fail", "low")]);
        assert!(
            said.finding().message.starts_with("policy require-labels fails for Deployment cart:"),
            "{}",
            said.text()
        );
    }

    #[test]
    fn quiet_for_results_of_other_kinds() {
        let other = report("cart", "Deployment", "fail", "high").replace("wgpolicyk8s.io/v1alpha2", "example.com/v1");
        check(&RULE, &[&other]).finds_nothing();
        check(&RULE, &["{apiVersion: e.com/v1, kind: Quiz, metadata: {name: q, uid: u}, results: [1, null, x]}"])
            .finds_nothing();
        check(&RULE, &["{apiVersion: e.com/v1, kind: Quiz, metadata: {name: q, uid: u}, results: {a: b}, scope: all}"])
            .finds_nothing();
    }
}
