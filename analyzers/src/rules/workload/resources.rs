use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::rules::user_managed::{UserManaged, UserManagedExt};
use crate::snapshot::model::{Container, LimitRange};
use crate::snapshot::{Cluster, Object};
use crate::text::words::list;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that every container, except init containers, has CPU and memory requests and a memory limit.
    ///
    /// ## Why it matters
    ///
    /// The scheduler considers only requests: pods without requests are placed on full nodes and are evicted first.
    /// Without a memory limit a memory leak can exhaust the memory of all pods on the node.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pods -o custom-columns=NAME:.metadata.name,QOS:.status.qosClass` shows `BestEffort`
    /// for pods without requests and limits.
    ///
    /// ## How to fix
    ///
    /// Set `resources.requests.cpu`, `resources.requests.memory` and `resources.limits.memory` to the peak usage shown
    /// by `kubectl top pods --containers` plus a margin, or create a LimitRange in the namespace.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for:
    ///
    /// - missing CPU limits, which throttle more than they protect;
    /// - init containers;
    /// - templates whose pods have the missing values (from a LimitRange, an autoscaler or a webhook), or values set at
    ///   pod level.
    ///
    /// The severity is `warning` if a container has neither a CPU nor a memory request, otherwise `info`.
    "workload/resources": Warning in Strict,
    "containers have no requests or no memory limit",
    needs: [],
    optional: [Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob, Pod, LimitRange],
    explained_by: [],
}

/// The values that every container should set.
const WANTED: [(&str, &str); 3] = [("cpu", "request"), ("memory", "request"), ("memory", "limit")];

fn check(cluster: &Cluster, report: &mut Report) {
    for workload in cluster.user_managed() {
        report_open(cluster, &workload, report);
    }
}

fn report_open(cluster: &Cluster, workload: &UserManaged, report: &mut Report) {
    let containers = workload.spec.running_containers();
    let open: Vec<(&Container, Vec<&str>)> = containers
        .map(|container| (container, lacking(cluster, workload, container)))
        .filter(|(_, lacking)| !lacking.is_empty())
        .collect();
    if open.is_empty() {
        return;
    }
    let no_requests = |lacking: &[&str]| lacking.contains(&"cpu request") && lacking.contains(&"memory request");
    let severity =
        if open.iter().any(|(_, lacking)| no_requests(lacking)) { Severity::Warning } else { Severity::Info };
    let each: Vec<String> = open
        .iter()
        .map(|(container, lacking)| format!("container {} has no {}", container.name, or(lacking)))
        .collect();
    let message = format!("{}: {}", workload.object.title(), list(&each, 2));
    let mut finding: Finding = workload.finding(severity, message);
    for (container, lacking) in &open {
        let path = workload.path(&format!("containers[{}].resources", container.name));
        let text = format!("container {} has no {}", container.name, or(lacking));
        finding = finding.evidence(text, &workload.object, &path);
    }
    report.add(finding.fix_command("Set resources.requests and resources.limits on the containers", workload.edit()));
}

/// `cpu request, memory request or memory limit`.
fn or(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_string(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

fn lacking(cluster: &Cluster, workload: &UserManaged, container: &Container) -> Vec<&'static str> {
    let running = workload.running(&container.name);
    let has = |resource: &str, of: &str| {
        let pod = workload.pods.first().map_or(&workload.spec.resources, |pod| &pod.spec.resources);
        let resources = [Some(&container.resources), running.map(|c| &c.resources), Some(pod)];
        let limit = resources.iter().flatten().any(|r| r.limits.contains_key(resource));
        // A limit without a request is also the request.
        let request = limit || resources.iter().flatten().any(|r| r.requests.contains_key(resource));
        (if of == "limit" { limit } else { request })
            || (running.is_none() && has_default(cluster, workload, resource, of))
    };
    let name = |(resource, of)| match (resource, of) {
        ("cpu", _) => "cpu request",
        ("memory", "request") => "memory request",
        _ => "memory limit",
    };
    WANTED.into_iter().filter(|(resource, of)| !has(resource, of)).map(name).collect()
}

/// Whether a LimitRange sets it on containers without a value.
fn has_default(cluster: &Cluster, workload: &UserManaged, resource: &str, of: &str) -> bool {
    let ranges = cluster.in_namespace::<LimitRange>(workload.object.namespace()).iter();
    let limits = ranges.filter(|range| range.deleted().is_none()).filter_map(|range| range.spec.as_ref());
    limits.flat_map(|spec| &spec.limits).filter(|limit| limit.type_ == "Container").any(|limit| {
        let default = limit.default.as_ref().is_some_and(|amounts| amounts.contains_key(resource));
        let request = limit.default_request.as_ref().is_some_and(|amounts| amounts.contains_key(resource));
        default || (of == "request" && request)
    })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn cart(resources: &str) -> String {
        format!(
            "
            apiVersion: apps/v1
            kind: Deployment
            metadata: {{name: cart, namespace: shop}}
            spec: {{template: {{spec: {{initContainers: [{{name: init}}], containers: [{{name: web, resources: {resources}}}]}}}}}}"
        )
    }

    const ALL: &str = "{requests: {cpu: 100m, memory: 64Mi}, limits: {memory: 64Mi}}";

    #[test]
    fn fires_for_missing_values() {
        check(&RULE, &[&cart("{}")]).finds(&[
            "warning Deployment shop/cart: Deployment cart: container web has no cpu request, memory request or memory limit",
        ]);
        check(&RULE, &[&cart("{requests: {cpu: 100m, memory: 64Mi}}")])
            .finds(&["info Deployment shop/cart: Deployment cart: container web has no memory limit"]);
    }

    #[test]
    fn fires_for_a_job_and_a_pod_without_a_controller() {
        let job = cart("{}").replace("apps/v1", "batch/v1").replace("Deployment", "Job");
        assert_eq!(check(&RULE, &[&job]).finding().object.kind, "Job");
        let pod =
            "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: shop}, spec: {containers: [{name: web}]}}";
        check(&RULE, &[pod]).finding();
    }

    #[test]
    fn quiet_when_only_the_cpu_limit_is_missing() {
        check(&RULE, &[&cart(ALL)]).finds_nothing();
        check(&RULE, &[&cart("{limits: {cpu: 1, memory: 64Mi}}")]).finds_nothing();
    }

    #[test]
    fn quiet_when_a_limit_range_or_the_pod_sets_it() {
        let range = "
            apiVersion: v1
            kind: LimitRange
            metadata: {name: l, namespace: shop}
            spec: {limits: [{type: Container, default: {memory: 64Mi}, defaultRequest: {cpu: 10m}}]}";
        check(&RULE, &[&cart("{}"), range]).finds_nothing();
        let whole = cart("{}").replace("{initContainers", &format!("{{resources: {ALL}, initContainers"));
        check(&RULE, &[&whole]).finds_nothing();
    }
}
