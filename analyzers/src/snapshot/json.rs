//! Objects as the API writes them, for readers that know no Rust types.

use serde_json::{Map, Value};

use crate::snapshot::kind::Kind;

/// Says what the object is and drops the fields that are empty: the model does not tell them from absent ones.
pub(crate) fn complete(kind: Kind, json: Value) -> Option<Value> {
    let mut object = Map::new();
    object.insert("apiVersion".to_string(), kind.api_version().into());
    object.insert("kind".to_string(), kind.api().kind.into());
    if let Value::Object(fields) = pruned(json)? {
        object.extend(fields);
    }
    Some(Value::Object(object))
}

/// Without `null`, empty texts, lists and objects. A number or a boolean always says something.
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
