//! docs/findings.schema.json is derived from the types of the report. `cargo xtask regen` writes it.

use std::collections::BTreeSet;
use std::fs;

use jsonschema::Validator;
use kubectl_gpt::report::json;
use serde_json::{Value, json};

const FILE: &str = "docs/findings.schema.json";

/// The schema, closed: the tests notice a field that it does not describe.
pub fn closed() -> Validator {
    let mut schema = json::schema().to_value();
    // What is part of another object cannot be closed by itself.
    let mut parts = BTreeSet::new();
    find_parts(&schema, &mut parts);
    close(&mut schema);
    for part in parts {
        if let Some(Value::Object(fields)) = schema.pointer_mut(part.trim_start_matches('#')) {
            fields.remove("additionalProperties");
        }
    }
    jsonschema::validator_for(&schema).unwrap()
}

fn find_parts(schema: &Value, parts: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            let part = fields.get("$ref").and_then(Value::as_str).filter(|_| fields.contains_key("properties"));
            parts.extend(part.map(str::to_string));
            fields.values().for_each(|value| find_parts(value, parts));
        }
        Value::Array(items) => items.iter().for_each(|item| find_parts(item, parts)),
        _ => {}
    }
}

fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(close);
            if fields.get("properties").is_some_and(Value::is_object)
                && fields.get("type") == Some(&json!("object"))
                && !fields.contains_key("$ref")
            {
                fields.insert("additionalProperties".to_string(), json!(false));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

#[test]
fn the_schema_of_findings_is_up_to_date() {
    let schema = serde_json::to_string_pretty(&json::schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(FILE, &schema).unwrap();
    }
    assert_eq!(fs::read_to_string(FILE).unwrap(), schema, "{FILE} is outdated: cargo xtask regen");
}

#[test]
fn later_versions_may_add_fields() {
    assert!(!serde_json::to_string(&json::schema()).unwrap().contains("additionalProperties"));
}
