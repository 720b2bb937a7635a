//! Objects as the API gives them, for the rules that users write.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::coverage::GroupKind;
use crate::finding::ObjectRef;
use crate::model::LAST_APPLIED;

/// One object.
#[derive(Clone, Debug)]
pub struct RawObject {
    object: ObjectRef,
    json: Box<str>,
}

impl RawObject {
    /// Of an object's JSON, less what no rule has use for (`managedFields`, what kubectl applied last) and what nobody is to
    /// see: of a Secret there is only its type and its metadata. `None` for what has no kind or no name.
    pub fn new(mut fields: Map<String, Value>) -> Option<RawObject> {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_string();
        let (api_version, kind) = (text(fields.get("apiVersion")), text(fields.get("kind")));
        let metadata = fields.get_mut("metadata")?.as_object_mut()?;
        metadata.remove("managedFields");
        if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
            annotations.remove(LAST_APPLIED);
        }
        let (namespace, name) = (text(metadata.get("namespace")), text(metadata.get("name")));
        if kind.is_empty() || name.is_empty() {
            return None;
        }
        if kind == "Secret" && api_version == "v1" {
            fields.retain(|key, _| matches!(key.as_str(), "apiVersion" | "kind" | "metadata" | "type" | "immutable"));
        }
        let namespace = (!namespace.is_empty()).then_some(namespace);
        let object = ObjectRef { api_version: api_version.into(), kind: kind.into(), namespace, name };
        Some(RawObject { object, json: Value::Object(fields).to_string().into() })
    }

    pub fn reference(&self) -> ObjectRef {
        self.object.clone()
    }

    /// All that is known of it.
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.json).unwrap_or_default()
    }
}

/// Objects by kind, sorted.
#[derive(Clone, Debug, Default)]
pub struct RawObjects {
    kinds: BTreeMap<GroupKind, BTreeMap<(String, String), RawObject>>,
}

impl RawObjects {
    /// Adds an object; a later one replaces an earlier one of the same name.
    pub fn add(&mut self, object: RawObject) {
        let of = &object.object;
        let group = of.api_version.split_once('/').map_or("", |(group, _)| group);
        let kind = GroupKind { group: group.to_string(), kind: of.kind.to_string() };
        let key = (of.namespace().to_string(), of.name.clone());
        self.kinds.entry(kind).or_default().insert(key, object);
    }

    /// The objects of a kind, by namespace and name.
    pub fn of(&self, kind: &GroupKind) -> impl Iterator<Item = &RawObject> {
        self.kinds.get(kind).into_iter().flat_map(BTreeMap::values)
    }
}
