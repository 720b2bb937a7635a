//! `-o json`: machine-readable and versioned; the schema is `docs/findings.schema.json`.

use crate::report::Report;

pub fn render(report: &Report) -> String {
    // Serializing plain structures of strings and numbers cannot fail.
    serde_json::to_string_pretty(report).map(|json| json + "\n").unwrap_or_default()
}
