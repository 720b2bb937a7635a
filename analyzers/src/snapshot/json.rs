//! Objects in the JSON form of the API.

use serde_json::{Map, Value};

use crate::snapshot::kind::Kind;

/// Adds `apiVersion` and `kind`, and drops empty fields: the model does not distinguish them from absent ones.
pub(crate) fn complete(kind: Kind, json: Value) -> Option<Value> {
    let mut object = Map::new();
    object.insert("apiVersion".to_string(), kind.api_version().into());
    object.insert("kind".to_string(), kind.api().kind.into());
    if let Value::Object(fields) = pruned(json)? {
        object.extend(fields);
    }
    Some(Value::Object(object))
}

/// Removes `null` and empty strings, lists and objects. Numbers and booleans are kept.
pub(crate) fn pruned(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::String(text) => (!text.is_empty()).then_some(Value::String(text)),
        Value::Array(items) => {
            let items: Vec<Value> = items.into_iter().filter_map(pruned).collect();
            (!items.is_empty()).then_some(Value::Array(items))
        }
        Value::Object(fields) => {
            let fields: Map<String, Value> =
                fields.into_iter().filter_map(|(name, value)| Some((name, pruned(value)?))).collect();
            (!fields.is_empty()).then_some(Value::Object(fields))
        }
        other => Some(other),
    }
}
