use k8s_openapi::api::core::v1::NamespaceCondition;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::admission::webhooks::configurations;
use crate::kubernetes::time;
use crate::snapshot::model::{
    APIService, ConfigMap, Deployment, Job, Namespace, PersistentVolumeClaim, Pod, Secret, Service, StatefulSet,
};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::{list, shorten};

declare_rule! {
    /// ## What it checks
    ///
    /// That a namespace that is being deleted disappears. If it does not, the rule reports what blocks the deletion: an
    /// API group that cannot be listed, objects with finalizers that are never removed, or objects that cannot be
    /// deleted.
    ///
    /// ## Why it matters
    ///
    /// A namespace in `Terminating` accepts no new objects, so nothing can be installed there again. The cause is
    /// usually broken itself: an aggregated API without a server, or an operator that was removed before its resources.
    ///
    /// ## How to confirm
    ///
    /// `kubectl get namespace NAME -o jsonpath='{.status.conditions}'` shows what remains and why.
    ///
    /// ## How to fix
    ///
    /// Restore the aggregated API or delete its APIService. Reinstall the operator that should remove the finalizers.
    /// Removing finalizers by hand leaves behind what they protect (cloud disks, load balancers, DNS records) and is
    /// the last resort. Do not remove the namespace's own finalizer: that leaves its objects behind, unreachable.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire in the first two minutes, or while pods of the namespace are within their termination
    /// grace period.
    "namespace/terminating": Error,
    "the deletion of a namespace is blocked",
    needs: [Namespace],
    optional: [
        APIService, ValidatingWebhookConfiguration, MutatingWebhookConfiguration, Pod, PersistentVolumeClaim, Service,
        ConfigMap, Secret, Job, Deployment, StatefulSet
    ],
    in_terminating_namespaces: true,
    explained_by: ["apiservice/unavailable", "webhook/unreachable", "pod/terminating", "crd/not-established"],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for namespace in cluster.all::<Namespace>() {
        let Some(deleted) = namespace.deleted() else { continue };
        let is_young = time::age(cluster.now(), deleted) < time::START;
        if !is_young && !has_pods_in_grace(cluster, namespace.name()) {
            report.add(finding(cluster, namespace).since(Some(deleted)));
        }
    }
}

fn has_pods_in_grace(cluster: &Cluster, namespace: &str) -> bool {
    let pods = cluster.in_namespace::<Pod>(namespace);
    pods.iter().any(|pod| pod.deleted().is_some_and(|end| end + time::DELETE > cluster.now()))
}

fn finding(cluster: &Cluster, namespace: &Namespace) -> Finding {
    let name = namespace.name();
    let object = namespace.reference();
    let conditions: Vec<&NamespaceCondition> = namespace
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .filter(|c| c.status == "True")
        .collect();
    let age = namespace.deleted().map(|deleted| time::human(time::age(cluster.now(), deleted))).unwrap_or_default();
    let unserved = unserved(cluster, &conditions);
    let held = held_objects(cluster, name);
    let why = why(&conditions, &unserved).or_else(|| held_by(&held)).unwrap_or_else(|| UNREPORTED.to_string());
    let mut finding = Finding::error(object.clone(), format!("Namespace {name} has been terminating for {age}: {why}"));
    for condition in &conditions {
        let message = condition.message.as_deref().or(condition.reason.as_deref()).unwrap_or_default();
        let path = format!("status.conditions[{}]", condition.type_);
        finding = finding.evidence(shorten(message, 300), &object, &path);
    }
    for (held, finalizers) in held.into_iter().take(5) {
        finding = finding.evidence(format!("{held} has {}", describe(finalizers)), &held, "metadata.finalizers");
    }
    for api in unserved {
        finding = finding.because(api.reference());
    }
    let text: String = conditions.iter().filter_map(|c| c.message.as_deref()).collect();
    for configuration in configurations(cluster) {
        if configuration.webhooks.iter().any(|webhook| text.contains(&format!("\"{}\"", webhook.name))) {
            finding = finding.because(configuration.object);
        }
    }
    for pod in cluster.in_namespace::<Pod>(name).iter().filter(|pod| pod.is_terminating()) {
        finding = finding.because(cluster.owner_of(pod).into_owned());
    }
    finding.fix_command(
        "Check what remains and restore its controller; remove finalizers by hand only as a last resort",
        kubectl(["get", "namespace", name, "-o", "jsonpath={.status.conditions}"]),
    )
}

/// The unavailable aggregated APIs that the conditions name.
fn unserved<'a>(cluster: &'a Cluster, conditions: &[&NamespaceCondition]) -> Vec<&'a APIService> {
    let discovery = conditions.iter().filter(|condition| condition.type_ == "NamespaceDeletionDiscoveryFailure");
    let messages: Vec<&str> = discovery.filter_map(|condition| condition.message.as_deref()).collect();
    let is_down = |api: &&APIService| {
        let conditions = api.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|condition| condition.type_ == "Available" && condition.status != "True")
    };
    let is_named = |api: &&APIService| {
        let Some(spec) = &api.spec else { return false };
        let group = spec.group.as_deref().unwrap_or_default();
        let version = spec.version.as_deref().unwrap_or_default();
        messages.iter().any(|message| message.contains(&format!("{group}/{version}")))
    };
    cluster.all::<APIService>().iter().filter(is_down).filter(is_named).collect()
}

/// The most specific cause: a discovery failure comes first because it can hide any object, then finalizers, then the
/// rest.
fn why(conditions: &[&NamespaceCondition], unserved: &[&APIService]) -> Option<String> {
    let message = |type_: &str| {
        let condition = conditions.iter().find(|condition| condition.type_ == type_)?;
        condition.message.as_deref().filter(|message| !message.is_empty())
    };
    let tail = |text: &str| shorten(text.split_once(": ").map_or(text, |(_, tail)| tail), 200);
    if !unserved.is_empty() {
        let names: Vec<&str> = unserved.iter().map(|api| api.name()).collect();
        let is = if names.len() == 1 { "is" } else { "are" };
        return Some(format!("its contents cannot be listed: APIService {} {is} unavailable", list(&names, 3)));
    }
    if let Some(text) = message("NamespaceDeletionDiscoveryFailure") {
        return Some(format!("its contents cannot be listed: {}", tail(text)));
    }
    if let Some(text) = message("NamespaceFinalizersRemaining") {
        let content = message("NamespaceContentRemaining").map(|text| format!(" ({})", tail(text))).unwrap_or_default();
        return Some(format!("finalizers remain: {}{content}", tail(text)));
    }
    if let Some(text) = message("NamespaceDeletionContentFailure") {
        return Some(format!("its contents cannot be deleted: {}", shorten(text, 200)));
    }
    message("NamespaceContentRemaining").map(|text| format!("remaining content: {}", tail(text)))
}

const UNREPORTED: &str = "its status does not report what remains";

/// The controller deletes pods first (KEP-5080); while one of them remains, the status reports nothing.
fn held_by(held: &[(ObjectRef, &[String])]) -> Option<String> {
    let (first, finalizers) = held.iter().find(|(object, _)| object.is(Kind::Pod)).or(held.first())?;
    Some(format!("{} still exists with {}", first.title(), describe(finalizers)))
}

/// `finalizer a`, `finalizers a and b`.
fn describe(finalizers: &[String]) -> String {
    format!("{} {}", if finalizers.len() == 1 { "finalizer" } else { "finalizers" }, list(finalizers, 3))
}

/// Objects of the namespace that are being deleted and have finalizers, of the kinds that were read.
fn held_objects<'a>(cluster: &'a Cluster, namespace: &str) -> Vec<(ObjectRef, &'a [String])> {
    fn of<'a, T: Object>(cluster: &'a Cluster, namespace: &str) -> Vec<(ObjectRef, &'a [String])> {
        let objects = cluster.in_namespace::<T>(namespace).iter();
        let held = objects.filter(|object| object.deleted().is_some() && !object.finalizers().is_empty());
        held.map(|object| (object.reference(), object.finalizers())).collect()
    }
    let custom = cluster.custom().iter().filter(|c| c.metadata.namespace == namespace);
    let custom = custom.filter(|c| c.metadata.deletion_timestamp.is_some() && !c.metadata.finalizers.is_empty());
    let mut held: Vec<(ObjectRef, &[String])> =
        custom.map(|custom| (custom.reference(), &*custom.metadata.finalizers)).collect();
    held.sort();
    held.extend(of::<PersistentVolumeClaim>(cluster, namespace));
    held.extend(of::<Service>(cluster, namespace));
    held.extend(of::<Pod>(cluster, namespace));
    held.extend(of::<ConfigMap>(cluster, namespace));
    held.extend(of::<Secret>(cluster, namespace));
    held.extend(of::<Job>(cluster, namespace));
    held.extend(of::<Deployment>(cluster, namespace));
    held.extend(of::<StatefulSet>(cluster, namespace));
    held
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    const NAMESPACE: &str = "
        apiVersion: v1
        kind: Namespace
        metadata: {name: old, deletionTimestamp: '2026-11-21T11:00:00Z'}
        spec: {finalizers: [kubernetes]}
        status:
          phase: Terminating
          conditions:
          - {type: NamespaceDeletionDiscoveryFailure, status: 'False', reason: ResourcesDiscovered, message: All resources successfully discovered}
          - {type: NamespaceContentRemaining, status: 'True', reason: SomeResourcesRemain, message: 'Some resources are remaining: widgets.example.com has 1 resource instances'}
          - {type: NamespaceFinalizersRemaining, status: 'True', reason: SomeFinalizersRemain, message: 'Some content in the namespace has finalizers remaining: example.com/cleanup in 1 resource instances'}";
    const WIDGET: &str = "
        apiVersion: example.com/v1
        kind: Widget
        metadata: {name: w, namespace: old, deletionTimestamp: '2026-11-21T11:00:00Z', finalizers: [example.com/cleanup]}";

    #[test]
    fn fires_naming_the_finalizers() {
        let said = check(&RULE, &[NAMESPACE, WIDGET]);
        said.finds(&["error Namespace old: Namespace old has been terminating for 60m: finalizers remain: \
                      example.com/cleanup in 1 resource instances (widgets.example.com has 1 resource instances)"]);
        assert!(said.text().contains("Widget old/w has finalizer example.com/cleanup"));
    }

    #[test]
    fn fires_as_a_consequence_of_an_unavailable_api() {
        let api = "
            apiVersion: apiregistration.k8s.io/v1
            kind: APIService
            metadata: {name: v1beta1.metrics.k8s.io}
            spec: {group: metrics.k8s.io, version: v1beta1, groupPriorityMinimum: 1, versionPriority: 1}
            status: {conditions: [{type: Available, status: 'False'}]}";
        let namespace =
            NAMESPACE.replace("DiscoveryFailure, status: 'False'", "DiscoveryFailure, status: 'True'").replace(
                "All resources successfully discovered",
                "'Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: \
             metrics.k8s.io/v1beta1: the server is currently unable to handle the request'",
            );
        let said = check(&RULE, &[&namespace, api]);
        assert!(
            said.finding()
                .message
                .ends_with("its contents cannot be listed: APIService v1beta1.metrics.k8s.io is unavailable")
        );
        assert_eq!(said.finding().because[0].to_string(), "APIService v1beta1.metrics.k8s.io");
    }

    #[test]
    fn fires_with_the_pod_that_blocks_deletion() {
        let silent = NAMESPACE.replace("status: 'True'", "status: 'False'");
        let pod = "{apiVersion: v1, kind: Pod, metadata: {name: fin, namespace: old, deletionTimestamp: \
                   '2026-11-21T11:00:00Z', finalizers: [example.com/wait]}}";
        check(&RULE, &[&silent, pod])
            .finds(&["error Namespace old: Namespace old has been terminating for 60m: Pod fin still exists with \
             finalizer example.com/wait"]);
    }

    #[test]
    fn fires_without_status() {
        let bare = NAMESPACE.split_once("status:").unwrap().0;
        assert!(check(&RULE, &[bare]).finding().message.ends_with("its status does not report what remains"));
    }

    #[test]
    fn quiet_when_just_deleted_or_not_at_all() {
        check(&RULE, &[&NAMESPACE.replace("11:00:00", "11:59:00")]).finds_nothing();
        check(&RULE, &[&NAMESPACE.replace(", deletionTimestamp: '2026-11-21T11:00:00Z'", "")]).finds_nothing();
    }

    #[test]
    fn quiet_while_pods_are_in_their_grace_period() {
        let pod = "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: old, deletionTimestamp: '2026-11-21T12:10:00Z'}}";
        check(&RULE, &[NAMESPACE, pod]).finds_nothing();
    }

    #[test]
    fn quiet_where_namespaces_were_not_read() {
        let said = TestCluster::new(&[NAMESPACE]).forbid(Kind::Namespace).check(&RULE);
        assert_eq!(said.finds_nothing().gaps(), ["Namespace forbidden"]);
    }
}
