//! docs/findings.schema.json is derived from the types of the report. `cargo xtask regen` writes it.

use std::fs;

use jsonschema::Validator;
use kubectl_gpt::report::json;
use serde_json::{Value, json};

const FILE: &str = "docs/findings.schema.json";

/// The schema, closed: the tests notice a field that it does not describe.
pub fn closed() -> Validator {
    let mut schema = json::schema().to_value();
    close(&mut schema);
    jsonschema::validator_for(&schema).unwrap()
}

fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(close);
            if fields.get("properties").is_some_and(Value::is_object) && fields.get("type") == Some(&json!("object")) {
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
