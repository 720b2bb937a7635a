//! `-o sarif`: SARIF 2.1.0 for code scanning and editors.
//! <https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html>

use anyhow::Context;
use std::collections::BTreeMap;

use kubectl_gpt_analyzers::{Finding, Location, NotEvaluated, ObjectRef, Reason, RuleMeta, Severity};
use serde_json::{Value, json};
use serde_sarif::sarif::{
    self, ArtifactLocation, Invocation, LogicalLocation, Message, MultiformatMessageString, Notification,
    PhysicalLocation, PropertyBag, Region, ReportingConfiguration, ReportingDescriptor, ReportingDescriptorReference,
    ResultLevel, Sarif, Suppression, Tool, ToolComponent, Version,
};

use crate::gate::{By, Ignored};
use crate::report::{Report, gaps};
use crate::terminal::plain;

const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";
const REPOSITORY: &str = env!("CARGO_PKG_REPOSITORY");
/// The fingerprint covers rule, object (the owner instead of a pod) and the key that distinguishes several findings.
const FINGERPRINT: &str = "kubectlGptFinding/v1";

/// # Errors
/// When the report cannot be serialized, which is a bug.
pub fn render(report: &Report) -> anyhow::Result<String> {
    let run = sarif::Run::builder()
        .tool(Tool::builder().driver(driver(report)).build())
        .invocations(vec![invocation(report)])
        .results(results(report))
        .properties(properties([("source", json!(report.source)), ("summary", json!(report.summary))]))
        .build();
    let log = Sarif::builder().schema(SCHEMA).version(Version::V2_1_0.to_string()).runs(vec![run]).build();
    // Serializing plain structures of strings and numbers cannot fail.
    Ok(serde_json::to_string_pretty(&log).context("serializing the report")? + "\n")
}

fn driver(report: &Report) -> ToolComponent {
    ToolComponent::builder()
        .name(report.tool.name)
        .version(report.tool.version)
        .semantic_version(report.tool.version)
        .information_uri(REPOSITORY)
        .rules(report.run.rules.iter().map(|meta| descriptor(meta)).collect::<Vec<_>>())
        .build()
}

fn descriptor(meta: &RuleMeta) -> ReportingDescriptor {
    let id = meta.id.as_ref();
    let text = |text: &str| MultiformatMessageString::builder().text(literal(text)).build();
    let page = meta.page();
    let help = MultiformatMessageString::builder().text(literal(&page)).markdown(literal(&page)).build();
    let tags = id.split_once('/').map(|(group, _)| vec!["kubernetes".to_string(), group.to_string()]);
    ReportingDescriptor::builder()
        .id(id)
        .short_description(text(&meta.summary))
        .help(help)
        .help_uri(format!("{REPOSITORY}/blob/main/docs/rules/{id}.md"))
        .default_configuration(ReportingConfiguration::builder().level(json!(level(meta.severity))).build())
        .properties(PropertyBag { tags, additional_properties: BTreeMap::new() })
        .build()
}

/// The findings and, with `--show-ignored`, the suppressed ones. Not every consumer supports `suppressions`: GitHub
/// opens alerts for suppressed results too.
fn results(report: &Report) -> Vec<sarif::Result> {
    let mut results: Vec<_> = report.findings.iter().map(|finding| result(report, finding)).collect();
    let Some(ignored) = report.ignored else { return results };
    // Either all results of a run have the property or none (§3.27.23).
    results.iter_mut().for_each(|result| result.suppressions = Some(Vec::new()));
    results.extend(ignored.iter().map(|ignored| sarif::Result {
        suppressions: Some(vec![suppression(ignored)]),
        ..result(report, &ignored.finding)
    }));
    results
}

fn suppression(ignored: &Ignored) -> Suppression {
    let kind = if ignored.from == By::Annotation { "inSource" } else { "external" };
    let mut suppression = Suppression::builder()
        .kind(kind)
        .status(json!("accepted"))
        .justification(plain(&ignored.reason))
        .properties(properties([("expires", json!(ignored.expires))]))
        .build();
    suppression.location = match &ignored.from {
        By::Annotation => None,
        By::Config(place) => Some(physical(place)),
        By::Baseline { file } => Some(whole(file)),
    }
    .map(|place| sarif::Location::builder().physical_location(place).build());
    suppression
}

fn result(report: &Report, finding: &Finding) -> sarif::Result {
    let mut result = sarif::Result::builder()
        .rule_id(finding.rule.as_str())
        .level(level(finding.severity))
        .message(message(&finding.message))
        .locations(vec![location(finding)])
        .partial_fingerprints(BTreeMap::from([(FINGERPRINT.to_string(), finding.id.clone())]))
        .properties(properties([
            ("causedBy", json!(finding.caused_by)),
            ("evidence", json!(finding.evidence)),
            ("fix", json!(finding.fix)),
            ("object", json!(finding.object)),
            ("pods", json!(finding.pods)),
            ("since", json!(finding.since)),
        ]))
        .build();
    result.rule_index = rule_index(report, &finding.rule);
    result
}

fn rule_index(report: &Report, id: &str) -> Option<i64> {
    report.run.rules.iter().position(|meta| meta.id == id).and_then(|n| i64::try_from(n).ok())
}

fn level(severity: Severity) -> ResultLevel {
    match severity {
        Severity::Error => ResultLevel::Error,
        Severity::Warning => ResultLevel::Warning,
        Severity::Info => ResultLevel::Note,
    }
}

/// The object by name and, for a manifest, its line.
fn location(finding: &Finding) -> sarif::Location {
    let logical = sarif::Location::builder().logical_locations(vec![logical(&finding.object)]);
    match finding.location.as_ref().filter(|location| location.file != "-") {
        Some(place) => logical.physical_location(physical(place)).build(),
        None => logical.build(),
    }
}

fn logical(object: &ObjectRef) -> LogicalLocation {
    let name = plain(&object.name);
    let full: Vec<String> = object.namespace.iter().map(|n| plain(n)).chain([object.kind.to_string(), name]).collect();
    LogicalLocation::builder().name(plain(&object.name)).fully_qualified_name(full.join("/")).kind("resource").build()
}

fn physical(place: &Location) -> PhysicalLocation {
    let line = i64::try_from(place.line.max(1)).unwrap_or(1);
    PhysicalLocation { region: Some(Region::builder().start_line(line).build()), ..whole(&place.file) }
}

fn whole(file: &str) -> PhysicalLocation {
    PhysicalLocation::builder().artifact_location(ArtifactLocation::builder().uri(uri(file)).build()).build()
}

/// A path as a URI reference: relative paths stay relative, in most pipelines to the root of the repository.
fn uri(path: &str) -> String {
    let mut uri = String::from(if path.starts_with('/') { "file://" } else { "" });
    for byte in path.strip_prefix("./").unwrap_or(path).bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => uri.push(char::from(byte)),
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}

/// Incomplete evaluation is not a result, but makes the run unsuccessful.
fn invocation(report: &Report) -> Invocation {
    let lines = report.not_evaluated;
    let complete = lines.iter().all(|line| line.reason == Reason::NotInInput);
    Invocation::builder()
        .execution_successful(complete)
        .tool_execution_notifications(lines.iter().map(|line| notification(report, line)).collect::<Vec<_>>())
        .build()
}

fn notification(report: &Report, line: &NotEvaluated) -> Notification {
    let level = if line.reason == Reason::NotInInput { ResultLevel::Note } else { ResultLevel::Error };
    let text = format!("{} not evaluated: {} ({})", line.rule, gaps::what(line), gaps::why(line));
    let mut notification = Notification::builder()
        .message(message(&text))
        .level(json!(level))
        .descriptor(ReportingDescriptorReference::builder().id(line.reason.to_string()).build())
        .build();
    notification.associated_rule = rule_index(report, &line.rule)
        .map(|index| ReportingDescriptorReference::builder().id(line.rule.as_str()).index(index).build());
    notification
}

fn message(text: &str) -> Message {
    Message::builder().text(literal(&plain(text))).build()
}

/// Escapes plain text: SARIF interprets `{0}` as a placeholder (§3.11.5) and `[text](place)` as a link (§3.11.6).
fn literal(text: &str) -> String {
    text.replace('{', "{{").replace('}', "}}").replace("](", "] (")
}

fn properties<const N: usize>(values: [(&str, Value); N]) -> PropertyBag {
    let known = values.into_iter().filter(|(_, value)| !value.is_null());
    PropertyBag { tags: None, additional_properties: known.map(|(name, value)| (name.to_string(), value)).collect() }
}

#[cfg(test)]
mod tests {
    use super::{literal, uri};

    #[test]
    fn paths_become_uri_references() {
        assert_eq!(uri("deploy/shop.yaml"), "deploy/shop.yaml");
        assert_eq!(uri("./a b/ü#1?.yaml"), "a%20b/%C3%BC%231%3F.yaml");
        assert_eq!(uri("c:/x.yaml"), "c%3A/x.yaml");
        assert_eq!(uri("/srv/shop.yaml"), "file:///srv/shop.yaml");
    }

    #[test]
    fn text_is_neither_placeholder_nor_link() {
        assert_eq!(literal("{0} [a](https://evil)"), "{{0}} [a] (https://evil)");
    }
}
