//! `nodeSelector`, required node affinity, and the node affinity of volumes.
//!
//! Source: <https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#node-affinity>

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};

use super::Refusal;
use crate::snapshot::model::{LabelSet, Node, Pod, PodSpec};

pub(crate) fn check(pod: &Pod, node: &Node, why: &mut Vec<Refusal>) {
    let labels = &node.metadata.labels;
    let selector = pod.spec.node_selector.iter();
    let mut unmet: Vec<String> = selector
        .filter(|(key, value)| labels.value(key) != Some(value))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    if let Some(required) = required(&pod.spec).filter(|required| !matches(required, node)) {
        unmet.push(unmet_of(required, node));
    }
    if !unmet.is_empty() {
        why.push(Refusal::NodeAffinity(unmet.join(",")));
    }
}

/// Whether the node selector and node affinity of a pod allow a node.
pub(crate) fn admits(pod: &Pod, node: &Node) -> bool {
    let mut why = Vec::new();
    check(pod, node, &mut why);
    why.is_empty()
}

fn required(spec: &PodSpec) -> Option<&NodeSelector> {
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    affinity.required_during_scheduling_ignored_during_execution.as_ref()
}

/// One of the terms must hold. A selector without terms matches nothing.
pub(crate) fn matches(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| term_matches(term, node))
}

/// All requirements must hold; a term without any matches nothing.
fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    requirements(term).next().is_some() && requirements(term).all(|(what, field)| holds(what, field, node))
}

/// The requirements of a term, each with whether it applies to a field instead of a label.
fn requirements(term: &NodeSelectorTerm) -> impl Iterator<Item = (&NodeSelectorRequirement, bool)> {
    let expressions = term.match_expressions.iter().flatten().map(|what| (what, false));
    expressions.chain(term.match_fields.iter().flatten().map(|what| (what, true)))
}

fn holds(requirement: &NodeSelectorRequirement, is_field: bool, node: &Node) -> bool {
    let value = match (is_field, requirement.key.as_str()) {
        (false, key) => node.metadata.labels.value(key),
        (true, "metadata.name") => Some(node.metadata.name.as_str()),
        (true, _) => return false,
    };
    let values = requirement.values.as_deref().unwrap_or_default();
    let number = |text: &str| text.parse::<i64>().ok();
    let bound = values.first().and_then(|bound| number(bound));
    let has = value.and_then(number);
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|value| values.iter().any(|v| v == value)),
        "NotIn" => value.is_none_or(|value| values.iter().all(|v| v != value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => has.zip(bound).is_some_and(|(has, bound)| has > bound),
        "Lt" => has.zip(bound).is_some_and(|(has, bound)| has < bound),
        _ => false,
    }
}

/// The unmet requirements of a single term, or else all terms.
pub(crate) fn unmet_of(selector: &NodeSelector, node: &Node) -> String {
    let terms = &selector.node_selector_terms;
    if let [term] = terms.as_slice() {
        let unmet = requirements(term).filter(|(what, field)| !holds(what, *field, node));
        let unmet: Vec<String> = unmet.map(|(what, _)| text(what)).collect();
        if !unmet.is_empty() {
            return unmet.join(",");
        }
    }
    let all = terms.iter().map(|term| requirements(term).map(|(what, _)| text(what)).collect::<Vec<_>>().join(","));
    let all: Vec<String> = all.filter(|term| !term.is_empty()).collect();
    if all.is_empty() { "a node affinity without terms".to_string() } else { all.join(" or ") }
}

/// In the notation of kubectl selectors.
fn text(requirement: &NodeSelectorRequirement) -> String {
    let key = &requirement.key;
    let values = requirement.values.as_deref().unwrap_or_default();
    match (requirement.operator.as_str(), values) {
        ("In", [value]) => format!("{key}={value}"),
        ("In", values) => format!("{key} in ({})", values.join(",")),
        ("NotIn", [value]) => format!("{key}!={value}"),
        ("NotIn", values) => format!("{key} notin ({})", values.join(",")),
        ("Exists", _) => key.clone(),
        ("DoesNotExist", _) => format!("!{key}"),
        ("Gt", values) => format!("{key}>{}", values.join(",")),
        ("Lt", values) => format!("{key}<{}", values.join(",")),
        (operator, _) => format!("{key} {operator}"),
    }
}

/// The node that all terms select by `metadata.name`, as the DaemonSet controller does.
pub(crate) fn pinned_to(spec: &PodSpec) -> Option<&str> {
    let mut name = None;
    for term in &required(spec)?.node_selector_terms {
        let fields = term.match_fields.iter().flatten();
        let mut named = fields.filter(|field| field.key == "metadata.name" && field.operator == "In");
        let [value] = named.next()?.values.as_deref()? else { return None };
        if name.is_some_and(|name| name != value) {
            return None;
        }
        name = Some(value);
    }
    name.map(String::as_str)
}
