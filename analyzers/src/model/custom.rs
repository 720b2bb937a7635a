use serde::Deserialize;
use serde_json::Value;

use crate::finding::ObjectRef;

use super::{Condition, Meta, api_types};

/// An object of a kind that has no type here: a custom resource, or an API newer than this program.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CustomResource {
    pub api_version: String,
    pub kind: String,
    pub metadata: Meta,
    pub spec: Value,
    pub status: Value,
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
            namespace: (!self.metadata.namespace.is_empty()).then(|| self.metadata.namespace.clone()),
            name: self.metadata.name.clone(),
        }
    }

    /// `status.conditions`, those of them that have the usual shape.
    pub fn conditions(&self) -> Vec<Condition> {
        let conditions = self.status.get("conditions").and_then(Value::as_array);
        conditions.into_iter().flatten().filter_map(|c| Condition::deserialize(c).ok()).collect()
    }
}

api_types! {
    /// What rules read of a CustomResourceDefinition: never the schema, which is most of it.
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
