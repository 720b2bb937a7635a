use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::certificate;
use crate::kubernetes::time;
use crate::rules::answers::Answers;
use crate::snapshot::model::{CustomResource, CustomResourceDefinition, condition};
use crate::snapshot::{Cluster, Object};
use crate::text::kubectl;
use crate::text::words::{count, list, shorten};

declare_rule! {
    /// ## What it checks
    ///
    /// That every CustomResourceDefinition is established, that its names are accepted, that its conversion webhook is
    /// reachable, and that its deletion completes.
    ///
    /// ## Why it matters
    ///
    /// Objects of a definition that is not established cannot be read or written. Without the conversion webhook even a
    /// list request fails if objects are stored in a version other than the requested one: controllers, garbage
    /// collection and namespace deletion stop.
    ///
    /// ## How to confirm
    ///
    /// `kubectl describe crd NAME` shows the conditions and `spec.conversion`.
    ///
    /// ## How to fix
    ///
    /// - Names not accepted: remove the other definition that uses them.
    /// - Conversion webhook unreachable: restore the pods behind its Service.
    /// - Deletion does not complete: the finding names the objects that still have finalizers. Start the controller that
    ///   owns the finalizer, or remove the finalizer if that controller is gone. Do not remove the finalizer of the
    ///   definition itself: its objects would remain in etcd.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire
    ///
    /// - in the first two minutes (five for the webhook's `caBundle`),
    /// - for a conversion webhook that is never called because the definition has a single version,
    /// - where the Service could not be read.
    "crd/not-established": Error,
    "a CustomResourceDefinition is not established, or its conversion webhook is unreachable",
    needs: [CustomResourceDefinition],
    optional: [
        Service, EndpointSlice, Endpoints, Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job,
        CronJob, Node
    ],
    explained_by: ["service/*", "workload/*", "pod/*", "deployment/*", "daemonset/*", "node/*"],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for crd in cluster.all::<CustomResourceDefinition>() {
        let is_young = crd.created().is_some_and(|created| time::age(cluster.now(), created) < time::START);
        if is_young {
            continue;
        }
        let finding = match crd.deleted() {
            Some(_) => terminating(cluster, crd),
            None => not_established(cluster, crd).or_else(|| conversion(cluster, report, crd)),
        };
        if let Some(finding) = finding {
            report.add(finding);
        }
    }
}

fn not_established(cluster: &Cluster, crd: &CustomResourceDefinition) -> Option<Finding> {
    let bad = |type_| condition(&crd.status.conditions, type_).filter(|condition| condition.is_false());
    let found = bad("NamesAccepted").or(bad("Established"))?;
    if found.last_transition_time.is_some_and(|since| time::age(cluster.now(), since) < time::START) {
        return None;
    }
    let object = crd.reference();
    let why = if found.message.is_empty() { found.reason.as_str() } else { found.message.as_str() };
    let (name, type_) = (crd.name(), &found.type_);
    let message = format!("CustomResourceDefinition {name} is not served ({type_} is False): {}", shorten(why, 200));
    let text = format!("condition {} is False ({})", found.type_, found.reason);
    Some(
        Finding::error(object.clone(), message)
            .since(found.last_transition_time)
            .evidence(text, &object, &format!("status.conditions[{}]", found.type_))
            .fix_command("Find the definition that already uses the names", kubectl(["get", "crds"])),
    )
}

fn conversion(cluster: &Cluster, report: &mut Report, crd: &CustomResourceDefinition) -> Option<Finding> {
    let conversion = &crd.spec.conversion;
    if conversion.strategy != "Webhook" || crd.spec.versions.len() < 2 {
        return None;
    }
    let config = &conversion.webhook.as_ref()?.client_config;
    let service = config.service.as_ref()?;
    let object = crd.reference();
    let path = "spec.conversion.webhook.clientConfig";
    let what = format!("CustomResourceDefinition {} has no working conversion webhook", crd.name());
    match cluster.answers(&service.namespace, &service.name, Some(service.port.unwrap_or(443))) {
        Answers::Not(outage) => {
            let finding = Finding::error(object.clone(), format!("{what}: {}", outage.why))
                .key("conversion")
                .evidence(
                    format!("conversion webhook is Service {}/{}", service.namespace, service.name),
                    &object,
                    path,
                )
                .fix_command(
                    "Restore the backend of the conversion webhook",
                    kubectl(["-n", &service.namespace, "describe", "service", &service.name]),
                )
                .rests_on_absence();
            Some(outage.because.into_iter().fold(finding, Finding::because))
        }
        Answers::Unread(gap) => {
            report.not_evaluated(&object, gap.reason, gap.message);
            None
        }
        Answers::Likely if lacks_ca(cluster, crd, config.ca_bundle.as_deref()) => Some(
            Finding::error(object.clone(), format!("{what}: caBundle is empty"))
                .key("conversion")
                .evidence("the API server does not trust the webhook without a caBundle", &object, path)
                .fix("Set caBundle (usually injected by the operator of the CRD or by cert-manager's cainjector)"),
        ),
        Answers::Likely => None,
    }
}

fn lacks_ca(cluster: &Cluster, crd: &CustomResourceDefinition, bundle: Option<&str>) -> bool {
    let is_settled = crd.created().is_some_and(|created| time::age(cluster.now(), created) >= time::PROVISION);
    let decoded = bundle.and_then(certificate::decode).unwrap_or_default();
    is_settled && decoded.iter().all(u8::is_ascii_whitespace)
}

fn terminating(cluster: &Cluster, crd: &CustomResourceDefinition) -> Option<Finding> {
    let deleted = crd.deleted()?;
    let age = time::age(cluster.now(), deleted);
    if age < time::PROVISION {
        return None;
    }
    let object = crd.reference();
    let left = held(cluster, crd);
    let names: Vec<String> = left.iter().map(|c| c.reference().to_string()).collect();
    let why = match left.as_slice() {
        [only] => format!("{} still has finalizers ({})", only.reference(), only.metadata.finalizers.join(", ")),
        [first, ..] => format!(
            "{} of this kind still have finalizers ({}): {}",
            count(left.len(), "object"),
            first.metadata.finalizers.join(", "),
            list(&names, 3),
        ),
        [] => "objects of this kind still exist".to_string(),
    };
    let message =
        format!("CustomResourceDefinition {} has been terminating for {}: {why}", crd.name(), time::human(age));
    let finding = Finding::error(object.clone(), message).key("deletion").since(Some(deleted));
    let mut finding = finding.evidence("metadata.deletionTimestamp is set", &object, "metadata.deletionTimestamp");
    let plural = format!("{}.{}", crd.spec.names.plural, crd.spec.group);
    for custom in left.iter().take(3) {
        let text = format!("{}: {}", custom.reference(), custom.metadata.finalizers.join(", "));
        finding = finding.evidence(text, &custom.reference(), "metadata.finalizers");
    }
    if let Some(first) = left.first() {
        return Some(release(finding, first, &plural));
    }
    Some(finding.fix_command(
        "List the remaining objects and check which controllers own their finalizers",
        kubectl(["get", &plural, "-A"]),
    ))
}

/// The objects of the kind that have finalizers, those that are being deleted first.
fn held<'a>(cluster: &'a Cluster, crd: &CustomResourceDefinition) -> Vec<&'a CustomResource> {
    let is_held = |c: &&CustomResource| {
        c.group() == crd.spec.group && c.kind == crd.spec.names.kind && !c.metadata.finalizers.is_empty()
    };
    let mut held: Vec<&CustomResource> = cluster.custom().iter().filter(is_held).collect();
    held.sort_by_cached_key(|c| (c.metadata.deletion_timestamp.is_none(), c.reference()));
    held
}

/// How to remove the finalizers that block the deletion.
fn release(finding: Finding, held: &CustomResource, plural: &str) -> Finding {
    let (namespace, name) = (held.metadata.namespace.as_str(), held.metadata.name.as_str());
    let finalizers = held.metadata.finalizers.join(", ");
    let patch = ["patch", plural, name, "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#];
    let place = if namespace.is_empty() { Vec::new() } else { vec!["-n", namespace] };
    finding
        .fix(format!("Start the controller again that owns finalizer {finalizers}; it removes it after its cleanup"))
        .fix_command(
            format!(
                "Or, if that controller is gone for good, remove the finalizer from {}; what it would have cleaned up \
                 remains",
                held.reference()
            ),
            kubectl(place.into_iter().chain(patch)),
        )
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::kubernetes::certificate::made::Made;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    const CRD: &str = "
        apiVersion: apiextensions.k8s.io/v1
        kind: CustomResourceDefinition
        metadata: {name: widgets.example.com, uid: u1, creationTimestamp: '2026-11-21T10:00:00Z'}
        spec:
          group: example.com
          names: {kind: Widget, plural: widgets}
          versions: [{name: v1, served: true, storage: true}, {name: v1beta1, served: true}]
          conversion: {strategy: Webhook, webhook: {clientConfig: {caBundle: CA, service: {namespace: widgets, name: webhook}}}}
        status:
          conditions: [{type: NamesAccepted, status: NAMES, reason: ListKindConflict, message: widgets is already in use}]";
    const READY: &[&str] = &[
        "{apiVersion: v1, kind: Service, metadata: {name: webhook, namespace: widgets, uid: u2}, spec: {ports: [{port: 443}]}}",
        "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, endpoints: [{addresses: [10.0.0.1]}],
          metadata: {name: w, namespace: widgets, labels: {kubernetes.io/service-name: webhook}}}",
    ];

    fn crd(names: &str) -> String {
        CRD.replace("NAMES", names).replace("CA,", &format!("{},", Made::ca("ca").base64()))
    }

    #[test]
    fn fires_when_the_names_are_taken() {
        check(&RULE, &[&[crd("'False'").as_str()], READY].concat()).finds(&[
            "error CustomResourceDefinition widgets.example.com: CustomResourceDefinition widgets.example.com is not \
             served (NamesAccepted is False): widgets is already in use",
        ]);
    }

    #[test]
    fn fires_when_the_conversion_webhook_is_gone() {
        check(&RULE, &[&crd("'True'")]).finds(&[
            "error CustomResourceDefinition widgets.example.com: CustomResourceDefinition widgets.example.com has no \
             working conversion webhook: Service widgets/webhook does not exist",
        ]);
        let bare = CRD.replace("NAMES", "'True'").replace("caBundle: CA, ", "");
        let said = check(&RULE, &[&[bare.as_str()], READY].concat());
        assert!(said.finding().message.ends_with("caBundle is empty"));
    }

    #[test]
    fn fires_when_stuck_in_deletion() {
        let deleted = crd("'True'").replace("uid: u1,", "uid: u1, deletionTimestamp: '2026-11-21T11:00:00Z',");
        let widget = "{apiVersion: example.com/v1, kind: Widget, metadata: {name: w, namespace: a, finalizers: [example.com/x]}}";
        let said = check(&RULE, &[&deleted, widget]);
        assert!(
            said.finding().message.ends_with("terminating for 60m: Widget a/w still has finalizers (example.com/x)")
        );
    }

    #[test]
    fn quiet_when_established_and_convertible() {
        check(&RULE, &[&[crd("'True'").as_str()], READY].concat()).finds_nothing();
    }

    #[test]
    fn quiet_when_nothing_needs_converting_or_young() {
        check(&RULE, &[&crd("'True'").replace(", {name: v1beta1, served: true}", "")]).finds_nothing();
        check(&RULE, &[&crd("'False'").replace("10:00:00", "11:59:00")]).finds_nothing();
    }

    #[test]
    fn quiet_where_it_could_not_be_read() {
        let said = TestCluster::new(&[&crd("'True'")]).forbid(Kind::Service).check(&RULE);
        assert_eq!(said.finds_nothing().gaps(), ["CustomResourceDefinition forbidden"]);
    }
}
