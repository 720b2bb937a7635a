//! `-o json`: for programs, versioned, described by `docs/findings.schema.json`.

use crate::report::Report;

pub fn render(report: &Report) -> String {
    // Strings and numbers in plain structures: there is nothing that could fail to serialize.
    serde_json::to_string_pretty(report).map(|json| json + "\n").unwrap_or_default()
}
