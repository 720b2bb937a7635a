//! `-o prometheus`: metrics in the text exposition format, for node_exporter's textfile collector or a push gateway.
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use jiff::Timestamp;

use crate::report::Report;
use crate::terminal::plain;

type Labels = Vec<(&'static str, String)>;

pub fn render(report: &Report) -> String {
    let mut text = String::new();
    gauge(
        &mut text,
        "build_info",
        "The version of the program, always 1.",
        [(vec![("version", report.tool.version.to_string())], 1)],
    );
    gauge(&mut text, "findings", "Findings, by rule and severity; 0 for a rule that found nothing.", findings(report));
    let not_evaluated = not_evaluated(report);
    gauge(
        &mut text,
        "not_evaluated",
        "What could not be looked at, by kind and reason: how many rules miss it.",
        not_evaluated,
    );
    gauge(&mut text, "objects", "Objects that were looked at.", [(Vec::new(), report.summary.objects)]);
    gauge(&mut text, "rules", "Rules that were evaluated, at least in part.", [(Vec::new(), report.summary.rules_run)]);
    // Always there, so that an alert can tell an old report from a good one.
    if let Ok(time) = report.source.time.parse::<Timestamp>() {
        let help = "When the cluster was read, in seconds since 1970.";
        gauge(&mut text, "time_seconds", help, [(Vec::new(), time.as_second())]);
    }
    text
}

/// Zero for the rules that found nothing, so that a series does not vanish when things are well again; nothing for the
/// rules that could not be evaluated at all, which is not well.
fn findings(report: &Report) -> BTreeMap<Labels, usize> {
    let labels = |rule: &str, severity: String| vec![("rule", rule.to_string()), ("severity", severity)];
    let mut found: BTreeMap<Labels, usize> = BTreeMap::new();
    for meta in &report.run.rules {
        if !report.not_evaluated.iter().any(|line| line.rule == meta.id) {
            found.insert(labels(&meta.id, meta.severity.to_string()), 0);
        }
    }
    for finding in report.findings {
        *found.entry(labels(&finding.rule, finding.severity.to_string())).or_default() += 1;
    }
    found
}

fn not_evaluated(report: &Report) -> BTreeMap<Labels, usize> {
    let mut missed: BTreeMap<Labels, usize> = BTreeMap::new();
    for line in report.not_evaluated {
        let labels = vec![("kind", line.kind.clone()), ("reason", line.reason.to_string())];
        *missed.entry(labels).or_default() += 1;
    }
    missed
}

fn gauge<V: Display>(text: &mut String, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, V)>) {
    let _ = writeln!(text, "# HELP kubectl_gpt_{name} {help}\n# TYPE kubectl_gpt_{name} gauge");
    for (labels, value) in values {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", label(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(text, "kubectl_gpt_{name}{labels} {value}");
    }
}

fn label(value: &str) -> String {
    plain(value).replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::label;

    #[test]
    fn labels_cannot_be_broken_out_of() {
        assert_eq!(label("a\"} 1\n\\"), "a\\\"} 1 \\\\");
    }
}
