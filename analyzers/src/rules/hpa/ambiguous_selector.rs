use std::collections::BTreeMap;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::workloads::autoscaler::{condition, target_reference};
use crate::snapshot::model::HorizontalPodAutoscaler;
use crate::snapshot::{Cluster, Object, ObjectRef, Selector, Workload};
use crate::text::kubectl;
use crate::text::words::list;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for HorizontalPodAutoscalers that select the same pods: the selector of one target also matches the pods
    /// of another target, or two autoscalers have the same target. In a cluster, one of them must report
    /// `AmbiguousSelector`.
    ///
    /// ## Why it matters
    ///
    /// The autoscaler finds pods by the selector of its target. If it finds pods that another autoscaler also controls,
    /// it sets `ScalingActive` to False with reason `AmbiguousSelector`, and none of the two scales. Deployments
    /// themselves work, because their ReplicaSets have a distinct selector.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe hpa` shows "pods by selector … are controlled by multiple HPAs".
    /// `kubectl -n NAMESPACE get pods -l SELECTOR` lists the pods of both workloads.
    ///
    /// ## How to fix
    ///
    /// Add a label to the selector that only the pods of this workload have. The selector of a workload is immutable:
    /// recreate the workload. Of two autoscalers with the same target, keep one and give it the metrics of both.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire if the selectors are distinct, or in a cluster whose autoscalers do not report
    /// `AmbiguousSelector`.
    "hpa/ambiguous-selector": Error,
    "two HorizontalPodAutoscalers select the same pods, so neither scales",
    needs: [HorizontalPodAutoscaler],
    optional: [Deployment, StatefulSet, ReplicaSet, ReplicationController, DaemonSet, Job, CronJob],
    explained_by: [],
}

/// An autoscaler and its target.
struct Scaled<'a> {
    hpa: &'a HorizontalPodAutoscaler,
    workload: Workload<'a>,
}

fn check(cluster: &Cluster, report: &mut Report) {
    let mut by_namespace: BTreeMap<&str, Vec<&HorizontalPodAutoscaler>> = BTreeMap::new();
    for hpa in cluster.all::<HorizontalPodAutoscaler>().iter().filter(|hpa| hpa.deleted().is_none()) {
        by_namespace.entry(hpa.namespace()).or_default().push(hpa);
    }
    by_namespace.retain(|_, hpas| hpas.len() > 1);
    for (namespace, hpas) in by_namespace {
        let targets = hpas
            .into_iter()
            .filter_map(|hpa| Some(Scaled { hpa, workload: cluster.workload(&target_reference(hpa))? }));
        let mut by_target: BTreeMap<ObjectRef, Vec<Scaled>> = BTreeMap::new();
        for scaled in targets {
            by_target.entry(scaled.workload.object.clone()).or_default().push(scaled);
        }
        for scaled in by_target.values().filter(|scaled| scaled.len() > 1 && is_affected(scaled)) {
            report.add(same_target(scaled));
        }
        for scaled in by_target.values() {
            let Some(selector) = scaled[0].workload.selector.as_ref().filter(|selector| !selector.is_empty()) else {
                continue;
            };
            for other in cluster.workloads_matching(namespace, selector) {
                let Some(others) = by_target.get(&other.object) else { continue };
                if other.object != scaled[0].workload.object && is_affected(scaled) && is_affected(others) {
                    report.add(overlap(&scaled[0], selector, &others[0]));
                }
            }
        }
    }
}

/// Whether one of the autoscalers reports the ambiguity, or they have not been applied.
fn is_affected(scaled: &[Scaled]) -> bool {
    scaled.iter().any(|scaled| {
        let active = condition(scaled.hpa, "ScalingActive");
        let reports = active.is_some_and(|c| c.status == "False" && c.reason.as_deref() == Some("AmbiguousSelector"));
        reports || !scaled.hpa.is_live()
    })
}

fn same_target(scaled: &[Scaled]) -> Finding {
    let names: Vec<&str> = scaled.iter().map(|scaled| scaled.hpa.name()).collect();
    let target = &scaled[0].workload.object;
    let object = scaled[0].hpa.reference();
    // The autoscaler of a ScaledObject is recreated if it is deleted.
    let owned = scaled.iter().find_map(|scaled| Some((scaled.hpa.name(), scaled.hpa.controller()?)));
    let message =
        format!("HorizontalPodAutoscalers {} have the same target, {target}, so none of them scales", list(&names, 3));
    let mut finding = Finding::error(object, message);
    for scaled in scaled.iter().take(5) {
        let text = format!("scaleTargetRef of {} is {}", scaled.hpa.name(), target.title());
        finding = finding.evidence(text, &scaled.hpa.reference(), "spec.scaleTargetRef");
    }
    match owned {
        Some((name, owner)) => finding.fix(format!(
            "Keep {name}, which {} manages, add the metrics of the others to {}, and delete the others",
            owner.title(),
            owner.title()
        )),
        None => finding.fix("Move the metrics of all of them to one HorizontalPodAutoscaler, and delete the others"),
    }
}

fn overlap(scaled: &Scaled, selector: &Selector, other: &Scaled) -> Finding {
    let (object, second) = (&scaled.workload.object, &other.workload.object);
    let message = format!(
        "the selector {selector} of {} also matches the pods of {}, so HorizontalPodAutoscalers {} and {} select the \
         same pods and do not scale",
        object.title(),
        second.title(),
        scaled.hpa.name(),
        other.hpa.name(),
    );
    let labels = &scaled.workload.template.metadata.labels;
    let others = &other.workload.template.metadata.labels;
    let own: Vec<String> = labels
        .iter()
        .filter(|(key, value)| others.get(key) != Some(*value) && !selector.keys().any(|known| known == *key))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let finding = Finding::error(object.clone(), message)
        .key(format!("hpa {}", second.name))
        .evidence(format!("spec.selector is {selector}"), object, "spec.selector")
        .evidence(
            format!("labels of the pods of {}: {}", second.title(), pairs(others)),
            second,
            "spec.template.metadata.labels",
        );
    let how = match own.first() {
        Some(label) => format!(
            "Add {label} to the selector of {}: its pods have this label, those of {} do not",
            object.title(),
            second.title()
        ),
        None => format!(
            "Add a label to the selector and pod template of {} that the pods of {} do not have",
            object.title(),
            second.title()
        ),
    };
    let (kind, name) = (object.kind.to_lowercase(), object.name.as_str());
    finding.fix_command(
        format!("{how}. The selector is immutable: delete the object without its pods, then apply it again"),
        kubectl(["-n", object.namespace(), "delete", &kind, name, "--cascade=orphan"]),
    )
}

fn pairs(labels: &crate::snapshot::model::Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Origin;
    use crate::testing::{TestCluster, check};

    fn deployment(name: &str, selector: &str, labels: &str) -> String {
        format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}, namespace: shop}},
            spec: {{selector: {{matchLabels: {{{selector}}}}}, template: {{metadata: {{labels: {{{labels}}}}}}}}}}}"
        )
    }

    fn hpa(name: &str, target: &str, live: bool) -> String {
        let meta = if live { ", uid: u" } else { "" };
        let status = if live {
            "status: {conditions: [{type: ScalingActive, status: 'False', reason: AmbiguousSelector, message: m}]}"
        } else {
            "status: {}"
        };
        format!(
            "{{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {{name: {name}, namespace: shop{meta}}},
            spec: {{scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: {target}}}, maxReplicas: 5}}, {status}}}"
        )
    }

    const MESSAGE: &str = "error Deployment shop/web: the selector app=shop of Deployment web also matches the pods of Deployment \
        worker, so HorizontalPodAutoscalers web and worker select the same pods and do not scale";

    #[test]
    fn fires_when_one_selector_also_matches_the_pods_of_the_other() {
        let web = deployment("web", "app: shop", "app: shop, role: http");
        let worker = deployment("worker", "app: shop, component: worker", "app: shop, component: worker");
        let said = check(&RULE, &[&web, &worker, &hpa("web", "web", true), &hpa("worker", "worker", true)]);
        said.finds(&[MESSAGE]);
        assert!(said.finding().fix[0].text.contains("Add role=http to the selector"));
        TestCluster::new(&[&web, &worker, &hpa("web", "web", false), &hpa("worker", "worker", false)])
            .origin(Origin::Manifests)
            .check(&RULE)
            .finds(&[MESSAGE]);
    }

    #[test]
    fn fires_for_two_autoscalers_of_one_target() {
        let web = deployment("web", "app: web", "app: web");
        check(&RULE, &[&web, &hpa("a", "web", true), &hpa("b", "web", true)]).finds(&[
            "error HorizontalPodAutoscaler shop/a: HorizontalPodAutoscalers a and b have the same target, Deployment shop/web, \
             so none of them scales",
        ]);
    }

    #[test]
    fn quiet_when_the_selectors_are_distinct() {
        let web = deployment("web", "app: shop, role: http", "app: shop, role: http");
        let worker = deployment("worker", "app: shop, component: worker", "app: shop, component: worker");
        check(&RULE, &[&web, &worker, &hpa("web", "web", true), &hpa("worker", "worker", true)]).finds_nothing();
        let broad = deployment("web", "app: shop", "app: shop, role: http");
        check(&RULE, &[&broad, &worker, &hpa("web", "web", true)]).finds_nothing();
    }
}
