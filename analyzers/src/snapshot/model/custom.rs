use std::borrow::Cow;
use std::fmt;

use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::snapshot::object_ref::ObjectRef;

use super::{Condition, Meta, api_types};

/// An object of a kind without a type in the model: a custom resource, or an object of a newer API. Spec and status
/// contain only what rules read, because there may be many large objects.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CustomResource {
    pub api_version: String,
    pub kind: String,
    pub metadata: Meta,
    #[serde(deserialize_with = "spec")]
    pub spec: Value,
    #[serde(deserialize_with = "status")]
    pub status: Value,
    /// The results of a PolicyReport that are `fail` or `error`.
    #[serde(deserialize_with = "results")]
    pub results: Box<[PolicyResult]>,
    /// The object that all results of a PolicyReport are about.
    #[serde(deserialize_with = "scope")]
    pub scope: Option<ObjectRef>,
}

/// A policy result (wgpolicyk8s.io).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PolicyResult {
    pub policy: String,
    pub rule: String,
    /// `fail` or `error`.
    pub result: String,
    /// `critical`, `high`, `medium`, `low` or `info`; may be empty.
    pub severity: String,
    pub message: String,
    pub resources: Vec<ObjectRef>,
}

const SPEC: &[&str] = &[
    "suspend",
    "suspended",
    "paused",
    "replicas",
    "running",
    "runStrategy",
    "issuerRef",
    "secretName",
    "template",
    // The solvers of ACME issuers (cert-manager)
    "acme",
    // IPAddressPools and their advertisements (MetalLB)
    "addresses",
    "ipAddressPools",
    "ipAddressPoolSelectors",
    "nodeSelectors",
    // CiliumNodes
    "ipam",
    "health",
    "ingress",
    // PeerAuthentications (Istio)
    "mtls",
    "portLevelMtls",
    "selector",
    // Argo CD
    "syncPolicy",
    "ignoreDifferences",
    // Kueue
    "clusterQueue",
    "stopPolicy",
    "queueName",
    "resourceGroups",
    // Karpenter
    "limits",
    // VerticalPodAutoscaler
    "targetRef",
    "updatePolicy",
    "resourcePolicy",
];
const STATUS: &[&str] = &[
    "observedGeneration",
    "conditions",
    "phase",
    "message",
    "health",
    "sync",
    "operationState",
    "resources",
    "recommendation",
    "readyToUse",
    "error",
    "boundVolumeSnapshotContentName",
];

fn spec<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    let mut spec = deserializer.deserialize_any(Only(SPEC))?;
    // Only the labels of pod templates are read.
    if let Some(template) = spec.get_mut("template") {
        let labels = template.pointer_mut("/metadata/labels").map(Value::take).unwrap_or_default();
        *template = serde_json::json!({ "metadata": { "labels": labels } });
    }
    // An account's settings and the addresses of all interfaces of a node are not read.
    for (field, kept) in [("acme", "solvers"), ("ipam", "podCIDRs")] {
        if let Some(Value::Object(fields)) = spec.get_mut(field) {
            fields.retain(|key, _| key == kept);
        }
    }
    Ok(spec)
}

fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    let mut status = deserializer.deserialize_any(Only(STATUS))?;
    // Argo CD stores large comparison and sync results here.
    let kept: [(&str, &[&str]); 4] = [
        ("/sync", &["status"]),
        ("/operationState", &["phase", "message", "finishedAt", "operation"]),
        ("/operationState/operation", &["sync"]),
        ("/operationState/operation/sync", &["resources", "autoHealAttemptsCount"]),
    ];
    for (path, kept) in kept {
        if let Some(Value::Object(fields)) = status.pointer_mut(path) {
            fields.retain(|key, _| kept.contains(&key.as_str()));
        }
    }
    match status.get_mut("resources") {
        // Argo CD lists all objects of an Application.
        Some(resources @ Value::Array(_)) => keep_missing(resources),
        // Amounts in use (Karpenter).
        Some(Value::Object(_)) | None => {}
        Some(other) => *other = Value::Null,
    }
    Ok(status)
}

/// Of the resources of an Argo CD Application, keeps those that it has not created.
fn keep_missing(resources: &mut Value) {
    let Value::Array(all) = resources else { return *resources = Value::Null };
    all.retain(|resource| resource.pointer("/health/status").and_then(Value::as_str) == Some("Missing"));
    for resource in all {
        if let Value::Object(fields) = resource {
            fields.retain(|key, _| ["group", "kind", "namespace", "name"].contains(&key.as_str()));
        }
    }
}

fn results<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<[PolicyResult]>, D::Error> {
    let all = Value::deserialize(deserializer)?;
    let text = |result: &Value, field: &str| result.get(field).and_then(Value::as_str).unwrap_or_default().to_string();
    let of = |result: &Value| PolicyResult {
        policy: text(result, "policy"),
        rule: text(result, "rule"),
        result: text(result, "result"),
        severity: text(result, "severity"),
        message: text(result, "message"),
        resources: result.get("resources").and_then(Value::as_array).into_iter().flatten().filter_map(named).collect(),
    };
    let all = all.as_array().into_iter().flatten().map(of);
    Ok(all.filter(|result| matches!(result.result.as_str(), "fail" | "error") && !result.policy.is_empty()).collect())
}

fn scope<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ObjectRef>, D::Error> {
    Ok(named(&Value::deserialize(deserializer)?))
}

/// Parses an object reference.
fn named(reference: &Value) -> Option<ObjectRef> {
    let text = |field: &str| reference.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    Some(ObjectRef {
        api_version: text("apiVersion").unwrap_or("v1").to_string().into(),
        kind: text("kind")?.to_string().into(),
        namespace: text("namespace").map(str::to_string),
        name: text("name")?.to_string(),
    })
}

/// Keeps only these fields of an object; anything else becomes null.
struct Only(&'static [&'static str]);

impl<'de> Visitor<'de> for Only {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut kept = serde_json::Map::new();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if self.0.contains(&key.as_ref()) {
                kept.insert(key.into_owned(), map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Value::Object(kept))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

impl CustomResource {
    /// The API group; empty for the core group.
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    pub fn reference(&self) -> ObjectRef {
        ObjectRef {
            api_version: self.api_version.clone().into(),
            kind: self.kind.clone().into(),
            namespace: (!self.metadata.namespace.is_empty()).then(|| self.metadata.namespace.to_string()),
            name: self.metadata.name.clone(),
        }
    }

    /// Whether its status has conditions. Kinds without conditions cannot be checked, except those of Argo and policy
    /// reports, which use fields of their own.
    pub fn tells_conditions(&self) -> bool {
        self.status.get("conditions").is_some_and(Value::is_array)
            || self.group() == "argoproj.io"
            || self.is_policy_report()
    }

    /// A PolicyReport or ClusterPolicyReport.
    pub fn is_policy_report(&self) -> bool {
        self.group() == "wgpolicyk8s.io"
    }

    /// The entries of `status.conditions` that have the usual form.
    pub fn conditions(&self) -> Vec<Condition> {
        let conditions = self.status.get("conditions").and_then(Value::as_array);
        conditions.into_iter().flatten().filter_map(|c| Condition::deserialize(c).ok()).collect()
    }
}

api_types! {
    /// The part of a CustomResourceDefinition that rules read; without the schema, which is most of it.
    pub struct CustomResourceDefinition {
        pub metadata: Meta,
        pub spec: CustomResourceDefinitionSpec,
        pub status: CustomResourceDefinitionStatus,
    }

    pub struct CustomResourceDefinitionSpec {
        pub group: String,
        pub names: CustomResourceDefinitionNames,
        pub scope: String,
        pub versions: Vec<CustomResourceDefinitionVersion>,
        pub conversion: CustomResourceConversion,
    }

    pub struct CustomResourceDefinitionNames {
        pub kind: String,
        pub plural: String,
    }

    pub struct CustomResourceDefinitionVersion {
        pub name: String,
        pub served: bool,
        pub storage: bool,
        pub subresources: CustomResourceSubresources,
    }

    pub struct CustomResourceSubresources {
        pub scale: Option<CustomResourceScale>,
    }

    pub struct CustomResourceScale {
        pub label_selector_path: String,
    }

    pub struct CustomResourceConversion {
        pub strategy: String,
        pub webhook: Option<WebhookConversion>,
    }

    pub struct WebhookConversion {
        pub client_config: WebhookClientConfig,
    }

    /// How the API server reaches a webhook.
    pub struct WebhookClientConfig {
        pub url: String,
        pub service: Option<WebhookService>,
        /// Base64 as in the API.
        pub ca_bundle: Option<String>,
    }

    pub struct WebhookService {
        pub namespace: String,
        pub name: String,
        pub port: Option<i32>,
    }

    pub struct CustomResourceDefinitionStatus {
        pub conditions: Vec<Condition>,
    }
}
