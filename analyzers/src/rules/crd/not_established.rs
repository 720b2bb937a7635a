use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::network::certificate;
use crate::kubernetes::time;
use crate::rules::answers::Answers;
use crate::snapshot::model::{CustomResourceDefinition, condition};
use crate::snapshot::{Cluster, Object};
use crate::text::kubectl;
use crate::text::words::{count, shorten};

declare_rule! {
    /// ## What it checks
    ///
    /// That each CustomResourceDefinition is established, that its names are accepted, that the webhook which converts
    /// between its versions can be reached, and that one which is being deleted goes away.
    ///
    /// ## Why it matters
    ///
    /// Objects of a definition that is not established cannot be read or written. Without the conversion webhook not even
    /// a list works, if objects are stored in another version than the one asked for: controllers, garbage collection and
    /// the deletion of namespaces stop.
    ///
    /// ## How to confirm
    ///
    /// `kubectl describe crd NAME` shows the conditions and `spec.conversion`.
    ///
    /// ## How to fix
    ///
    /// For names that are not accepted, remove the other definition that uses them. For a conversion webhook, bring back
    /// the pods behind its Service. For one that is stuck in deletion, see which objects of the kind still have finalizers.
    ///
    /// ## Exceptions
    ///
    /// In the first two minutes (five for the webhook's `caBundle`), for a conversion webhook that a definition with a
    /// single version never calls, and where the Service could not be read.
    "crd/not-established": Error,
    "a CustomResourceDefinition is not established, or its conversion webhook is dead",
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
            Some(_) => stuck(cluster, crd),
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
    let state = if found.type_ == "NamesAccepted" { "its names are not accepted" } else { "it is not established" };
    let message = format!("CustomResourceDefinition {} is not served, {state}: {}", crd.name(), shorten(why, 200));
    let text = format!("condition {} is False ({})", found.type_, found.reason);
    Some(
        Finding::error(object.clone(), message)
            .since(found.last_transition_time)
            .evidence(text, &object, &format!("status.conditions[{}]", found.type_))
            .fix_command("See which other definition has the names", kubectl(["get", "crds"])),
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
    let what = format!("CustomResourceDefinition {} cannot be converted between its versions", crd.name());
    match cluster.answers(&service.namespace, &service.name, Some(service.port.unwrap_or(443))) {
        Answers::Not(outage) => {
            let finding = Finding::error(object.clone(), format!("{what}: {}", outage.why))
                .key("conversion")
                .evidence(format!("its webhook is Service {}/{}", service.namespace, service.name), &object, path)
                .fix_command(
                    "Bring back what is behind the conversion webhook",
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
            Finding::error(object.clone(), format!("{what}: the caBundle of its webhook is empty"))
                .key("conversion")
                .evidence("without it the API server does not trust the webhook", &object, path)
                .fix("Let the software that it belongs to, or cert-manager's cainjector, write the caBundle"),
        ),
        Answers::Likely => None,
    }
}

fn lacks_ca(cluster: &Cluster, crd: &CustomResourceDefinition, bundle: Option<&str>) -> bool {
    let is_settled = crd.created().is_some_and(|created| time::age(cluster.now(), created) >= time::PROVISION);
    let decoded = bundle.and_then(certificate::decode).unwrap_or_default();
    is_settled && decoded.iter().all(u8::is_ascii_whitespace)
}

fn stuck(cluster: &Cluster, crd: &CustomResourceDefinition) -> Option<Finding> {
    let deleted = crd.deleted()?;
    let age = time::age(cluster.now(), deleted);
    if age < time::PROVISION {
        return None;
    }
    let object = crd.reference();
    let left = cluster.custom().iter().filter(|c| c.group() == crd.spec.group && c.kind == crd.spec.names.kind);
    let left: Vec<_> = left.filter(|c| !c.metadata.finalizers.is_empty()).collect();
    let why = match left.first() {
        Some(first) => format!(
            "{} of its kind has finalizers ({})",
            count(left.len(), "object"),
            first.metadata.finalizers.join(", ")
        ),
        None => "objects of its kind are still there".to_string(),
    };
    let message =
        format!("CustomResourceDefinition {} has been terminating for {}: {why}", crd.name(), time::human(age));
    let finding = Finding::error(object.clone(), message).key("deletion").since(Some(deleted));
    let finding = finding.evidence("metadata.deletionTimestamp is set", &object, "metadata.deletionTimestamp");
    let plural = format!("{}.{}", crd.spec.names.plural, crd.spec.group);
    Some(finding.fix_command("See what is left and what its finalizers wait for", kubectl(["get", &plural, "-A"])))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::kubernetes::network::certificate::made::Made;
    use crate::snapshot::Kind;
    use crate::testing::{World, check};

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
             served, its names are not accepted: widgets is already in use",
        ]);
    }

    #[test]
    fn fires_when_the_conversion_webhook_is_gone() {
        check(&RULE, &[&crd("'True'")]).finds(&[
            "error CustomResourceDefinition widgets.example.com: CustomResourceDefinition widgets.example.com cannot be \
             converted between its versions: Service widgets/webhook does not exist",
        ]);
        let bare = CRD.replace("NAMES", "'True'").replace("caBundle: CA, ", "");
        let said = check(&RULE, &[&[bare.as_str()], READY].concat());
        assert!(said.finding().message.ends_with("the caBundle of its webhook is empty"));
    }

    #[test]
    fn fires_when_stuck_in_deletion() {
        let deleted = crd("'True'").replace("uid: u1,", "uid: u1, deletionTimestamp: '2026-11-21T11:00:00Z',");
        let widget = "{apiVersion: example.com/v1, kind: Widget, metadata: {name: w, namespace: a, finalizers: [example.com/x]}}";
        let said = check(&RULE, &[&deleted, widget]);
        assert!(
            said.finding()
                .message
                .ends_with("terminating for 60m: 1 object of its kind has finalizers (example.com/x)")
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
        let said = World::new(&[&crd("'True'")]).forbid(Kind::Service).check(&RULE);
        assert_eq!(said.finds_nothing().gaps(), ["CustomResourceDefinition forbidden"]);
    }
}
