//! `-o json`: machine-readable and versioned; the schema is `docs/findings.schema.json`.

use anyhow::Context;

use crate::report::Report;

/// # Errors
/// When the report cannot be serialized, which is a bug.
pub fn render(report: &Report) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(report).context("serializing the report")?
        + "
")
}

/// The JSON Schema of the output. It is open: later versions may add fields.
pub fn schema() -> schemars::Schema {
    // Fields that are left out when they are empty are not required.
    let settings = schemars::generate::SchemaSettings::draft2020_12().for_serialize();
    let mut schema = settings.into_generator().into_root_schema_for::<Report>();
    schema.insert("$id".to_string(), "https://kubectl-gpt.io/schemas/findings/1".into());
    schema.insert("title".to_string(), "kubectl-gpt findings".into());
    let description = "The output of `kubectl-gpt analyze -o json`, schema version 1. Within a version, fields may be added, \
                       but are not removed and do not change their meaning.";
    schema.insert("description".to_string(), description.into());
    schema
}
