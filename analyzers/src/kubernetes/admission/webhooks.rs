//! A common view of validating and mutating webhooks, and of the pods that they apply to.

use std::collections::BTreeMap;

use k8s_openapi::api::admissionregistration::v1::{RuleWithOperations, WebhookClientConfig};

use crate::snapshot::model::{
    LabelSelector, LabelSet, MutatingWebhookConfiguration, Namespace, Timestamp, ValidatingWebhookConfiguration,
};
use crate::snapshot::{Cluster, Object, ObjectRef, Selector};
use crate::text::words::list;

/// A ValidatingWebhookConfiguration or MutatingWebhookConfiguration.
pub struct Configuration<'a> {
    pub object: ObjectRef,
    pub created: Option<Timestamp>,
    pub labels: &'a dyn LabelSet,
    pub webhooks: Vec<Webhook<'a>>,
}

/// One of its webhooks.
pub struct Webhook<'a> {
    /// The index in the list, for patches.
    pub index: usize,
    pub name: &'a str,
    pub client_config: &'a WebhookClientConfig,
    /// `failurePolicy: Fail`, which is the default: requests are rejected when the webhook does not respond.
    pub fails: bool,
    pub rules: &'a [RuleWithOperations],
    pub has_match_conditions: bool,
    namespace_selector: Option<&'a LabelSelector>,
    object_selector: Option<&'a LabelSelector>,
}

macro_rules! webhooks {
    ($configuration:expr) => {
        $configuration.webhooks.iter().flatten().enumerate().map(|(index, webhook)| Webhook {
            index,
            name: &webhook.name,
            client_config: &webhook.client_config,
            fails: webhook.failure_policy.as_deref() != Some("Ignore"),
            rules: webhook.rules.as_deref().unwrap_or_default(),
            has_match_conditions: webhook.match_conditions.as_ref().is_some_and(|conditions| !conditions.is_empty()),
            namespace_selector: webhook.namespace_selector.as_ref(),
            object_selector: webhook.object_selector.as_ref(),
        })
    };
}

/// All webhook configurations, by kind and name.
pub fn configurations(cluster: &Cluster) -> Vec<Configuration<'_>> {
    let validating = cluster.all::<ValidatingWebhookConfiguration>().iter().map(|c| Configuration {
        object: c.reference(),
        created: c.created(),
        labels: Object::labels(c),
        webhooks: webhooks!(c).collect(),
    });
    let mutating = cluster.all::<MutatingWebhookConfiguration>().iter().map(|c| Configuration {
        object: c.reference(),
        created: c.created(),
        labels: Object::labels(c),
        webhooks: webhooks!(c).collect(),
    });
    validating.chain(mutating).collect()
}

/// The configurations that have a webhook of this name.
pub fn configurations_with(cluster: &Cluster, webhook: &str) -> Vec<ObjectRef> {
    let validating = cluster.all::<ValidatingWebhookConfiguration>().iter();
    let validating = validating.filter(|c| c.webhooks.iter().flatten().any(|w| w.name == webhook));
    let mutating = cluster.all::<MutatingWebhookConfiguration>().iter();
    let mutating = mutating.filter(|c| c.webhooks.iter().flatten().any(|w| w.name == webhook));
    validating.map(Object::reference).chain(mutating.map(Object::reference)).collect()
}

impl Webhook<'_> {
    /// Whether it applies to the creation of a pod with these labels in a namespace. Ignores match conditions.
    pub fn sees_pods(&self, cluster: &Cluster, namespace: &str, labels: &dyn LabelSet) -> bool {
        self.rules.iter().any(is_about_creating_pods)
            && self.namespace_selector.is_none_or(|selector| matches_namespace(cluster, selector, namespace))
            && self.object_selector.is_none_or(|selector| Selector::new(selector).matches(labels))
    }

    /// ` in namespaces with istio-injection=enabled`; empty where it applies to all of them.
    pub fn scope(&self) -> String {
        let selector = |what: &str, selector: Option<&LabelSelector>| {
            let selector = selector.map(Selector::new).filter(|selector| !selector.is_empty());
            selector.map(|selector| format!("{what} with {selector}")).unwrap_or_default()
        };
        selector(" in namespaces", self.namespace_selector) + &selector(" for objects", self.object_selector)
    }
}

/// `CREATE and UPDATE of pods and deployments`.
pub fn what(webhooks: &[&Webhook]) -> String {
    let mut operations: Vec<&str> = Vec::new();
    let mut resources: Vec<String> = Vec::new();
    for rule in webhooks.iter().flat_map(|webhook| webhook.rules) {
        for operation in rule.operations.iter().flatten() {
            let operation = if operation == "*" { "all operations" } else { operation };
            if !operations.contains(&operation) {
                operations.push(operation);
            }
        }
        for resource in names_of_resources(rule) {
            if !resources.contains(&resource) {
                resources.push(resource);
            }
        }
    }
    if operations.contains(&"all operations") {
        operations = vec!["all operations"];
    }
    let on = if operations == ["all operations"] { "on" } else { "of" };
    format!("{} {on} {}", list(&operations, 4), list(&resources, 4))
}

fn names_of_resources(rule: &RuleWithOperations) -> Vec<String> {
    let groups: Vec<&str> = rule.api_groups.iter().flatten().map(String::as_str).collect();
    let resources = rule.resources.iter().flatten();
    let named = resources.map(|resource| match resource.as_str() {
        "*" | "*/*" if groups.is_empty() || groups.contains(&"*") => "all resources".to_string(),
        "*" | "*/*" => {
            let groups: Vec<&str> = groups.iter().map(|g| if g.is_empty() { "the core group" } else { g }).collect();
            format!("all resources in {}", list(&groups, 3))
        }
        other => other.to_string(),
    });
    named.collect()
}

fn is_about_creating_pods(rule: &RuleWithOperations) -> bool {
    let has = |values: &Option<Vec<String>>, wanted: &[&str]| {
        values.iter().flatten().any(|value| wanted.contains(&value.as_str()))
    };
    has(&rule.api_groups, &["", "*"])
        && has(&rule.operations, &["CREATE", "*"])
        && has(&rule.resources, &["pods", "*", "*/*"])
        && rule.scope.as_deref() != Some("Cluster")
}

/// A namespace that was not read still has the label that the API server gives it.
fn matches_namespace(cluster: &Cluster, selector: &LabelSelector, name: &str) -> bool {
    let selector = Selector::new(selector);
    match cluster.get::<Namespace>("", name).found() {
        Some(namespace) => selector.matches(Object::labels(namespace)),
        None => selector.matches(&BTreeMap::from([("kubernetes.io/metadata.name".to_string(), name.to_string())])),
    }
}
