//! Conversion between JSON and CEL values.

use std::collections::HashMap;

use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelOptional, CelString, CelUInt,
};
use cel::common::value::Val;
use serde_json::Value;

/// The CEL value of a JSON value. Integers are `int`, as in Kubernetes.
pub(super) fn val(json: &Value) -> Box<dyn Val> {
    match json {
        Value::Null => Box::new(CelNull),
        Value::Bool(truth) => Box::new(CelBool::from(*truth)),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Box::new(CelInt::from(whole)),
            None => Box::new(CelDouble::from(number.as_f64().unwrap_or_default())),
        },
        Value::String(text) => Box::new(CelString::from(text.clone())),
        Value::Array(items) => Box::new(CelList::from(items.iter().map(val).collect::<Vec<_>>())),
        Value::Object(fields) => {
            let entries =
                fields.iter().map(|(key, value)| (CelMapKey::String(CelString::from(key.clone())), val(value)));
            Box::new(CelMap::from(entries.collect::<HashMap<CelMapKey, Box<dyn Val>>>()))
        }
    }
}

/// The JSON value of a CEL value. Values that JSON cannot represent are errors.
pub(super) fn of(value: &dyn Val) -> Result<Value, String> {
    if let Some(truth) = value.downcast_ref::<CelBool>() {
        return Ok((*truth.inner()).into());
    }
    if let Some(number) = value.downcast_ref::<CelInt>() {
        return Ok((*number.inner()).into());
    }
    if let Some(number) = value.downcast_ref::<CelUInt>() {
        return Ok((*number.inner()).into());
    }
    if let Some(number) = value.downcast_ref::<CelDouble>() {
        return Ok((*number.inner()).into());
    }
    if let Some(text) = value.downcast_ref::<CelString>() {
        return Ok(text.inner().into());
    }
    if let Some(list) = value.downcast_ref::<CelList>() {
        return Ok(Value::Array(list.inner().iter().map(|item| of(item.as_ref())).collect::<Result<_, _>>()?));
    }
    if let Some(map) = value.downcast_ref::<CelMap>() {
        let mut fields = serde_json::Map::new();
        for (key, value) in map.inner() {
            fields.insert(text(&of(key.inner())?), of(value.as_ref())?);
        }
        return Ok(Value::Object(fields));
    }
    if let Some(optional) = value.downcast_ref::<CelOptional>() {
        return optional.option().map_or(Ok(Value::Null), of);
    }
    if value.downcast_ref::<CelNull>().is_some() {
        return Ok(Value::Null);
    }
    match super::functions::text(value) {
        Some(text) => Ok(text.into()),
        None => Err(format!("a value of type {} cannot be converted to text", value.get_type().name())),
    }
}

/// As plain text: strings without quotes, list items separated by commas, nothing for null.
pub(super) fn text(json: &Value) -> String {
    match json {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
