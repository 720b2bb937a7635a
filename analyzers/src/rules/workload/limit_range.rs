use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::rules::user_managed::{Specified, specified};
use crate::snapshot::model::{Container, LimitRange, Quantity};
use crate::snapshot::{Amount, Cluster, Kind, Object};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for containers that request more than the limit that a LimitRange of the namespace sets by default, and that
    /// have no limit of their own.
    ///
    /// ## Why it matters
    ///
    /// The API server adds the default limit to each new pod, and then rejects the pod, because its request exceeds its
    /// limit: `must be less than or equal to cpu limit of …`. The limit is in neither the pod template nor the message's
    /// workload, so it is hard to find.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe limitrange` shows the default limits. `kubectl -n NAMESPACE get deployment NAME -o
    /// yaml` shows the request, and no limit.
    ///
    /// ## How to fix
    ///
    /// Set a limit in the pod template that is at least the request, lower the request, or raise `default` of the
    /// LimitRange.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for containers with a limit of their own, and for resources without a default. It is a
    /// warning while pods exist: the LimitRange is applied only when pods are created.
    "workload/limit-range": Error,
    "a LimitRange sets a default limit below a container's request",
    needs: [LimitRange],
    optional: [Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob, Pod],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    if cluster.all::<LimitRange>().is_empty() {
        return;
    }
    for specified in specified(cluster).iter().filter(|specified| !specified.object.is(Kind::Pod)) {
        for (container, path) in specified.containers() {
            container.resources.requests.iter().for_each(|(resource, request)| {
                if let Some(finding) = judge(cluster, specified, container, &path, (resource, request)) {
                    report.add(finding);
                }
            });
        }
    }
}

/// The lowest default limit of a resource in the namespace.
fn default_limit<'a>(cluster: &'a Cluster, namespace: &str, resource: &str) -> Option<(&'a LimitRange, &'a Quantity)> {
    let all = cluster.in_namespace::<LimitRange>(namespace).iter().filter(|range| range.deleted().is_none());
    let defaults = all.flat_map(|range| {
        let items = range.spec.iter().flat_map(|spec| &spec.limits).filter(|item| item.type_ == "Container");
        items.filter_map(move |item| Some((range, item.default.as_ref()?.get(resource)?)))
    });
    defaults.min_by_key(|(_, default)| Amount::of(default))
}

fn judge(
    cluster: &Cluster,
    specified: &Specified,
    container: &Container,
    path: &str,
    (resource, request): (&String, &Quantity),
) -> Option<Finding> {
    if container.resources.limits.contains_key(resource) || specified.spec.resources.limits.contains_key(resource) {
        return None;
    }
    let (range, default) = default_limit(cluster, specified.object.namespace(), resource)?;
    if Amount::of(request)? <= Amount::of(default)? {
        return None;
    }
    let severity = if specified.has_pods { Severity::Warning } else { Severity::Error };
    let (object, name) = (&specified.object, container.name.as_str());
    let effect = if specified.has_pods { "new pods will be rejected" } else { "its pods are rejected" };
    let message = format!(
        "container {name} of {} requests {resource} {}, but LimitRange {} sets a default {resource} limit of {}: {effect}",
        object.title(),
        request.0,
        range.name(),
        default.0
    );
    Some(
        Finding::new(severity, object.clone(), message)
            .key(format!("{name}/{resource}"))
            .evidence(
                format!("requests.{resource} is {}, and there is no limit", request.0),
                object,
                &format!("{path}.resources"),
            )
            .evidence(format!("default {resource} limit is {}", default.0), &range.reference(), "spec.limits[].default")
            .because(range.reference())
            .fix(format!("Set {path}.resources.limits.{resource} to at least {}", request.0))
            .fix(format!("Or raise default.{resource} of LimitRange {} to at least {}", range.name(), request.0)),
    )
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::{Findings, check};

    fn said(resources: &str, range: &str) -> Findings {
        let objects = format!(
            "
            apiVersion: apps/v1
            kind: Deployment
            metadata: {{name: web, namespace: shop}}
            spec: {{template: {{spec: {{containers: [{{name: app, resources: {resources}}}]}}}}}}
            ---
            apiVersion: v1
            kind: LimitRange
            metadata: {{name: standard, namespace: shop}}
            spec: {{limits: [{range}]}}"
        );
        check(&RULE, &[&objects])
    }

    const RANGE: &str = "{type: Container, default: {cpu: 100m}}";

    #[test]
    fn fires_for_a_request_above_the_default_limit() {
        said("{requests: {cpu: 650m}}", RANGE).finds(&[
            "error Deployment shop/web: container app of Deployment web requests cpu 650m, but LimitRange standard sets a \
             default cpu limit of 100m: its pods are rejected",
        ]);
    }

    #[test]
    fn quiet_with_an_own_limit_or_a_higher_default() {
        said("{requests: {cpu: 650m}, limits: {cpu: '1'}}", RANGE).finds_nothing();
        said("{requests: {cpu: 100m}}", RANGE).finds_nothing();
        said("{requests: {memory: 1Gi}}", RANGE).finds_nothing();
        said("{requests: {cpu: 650m}}", "{type: Pod, max: {cpu: '1'}}").finds_nothing();
    }
}
