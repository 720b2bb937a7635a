//! `-o prometheus`: metrics in the text exposition format, for node_exporter's textfile collector or a Pushgateway.
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
        "Version of kubectl-gpt, always 1.",
        [(vec![("version", report.tool.version.to_string())], 1)],
    );
    gauge(
        &mut text,
        "findings",
        "Number of findings by rule and severity; 0 for rules without findings.",
        findings(report),
    );
    let not_evaluated = not_evaluated(report);
    gauge(
        &mut text,
        "not_evaluated",
        "Number of rules that could not be evaluated completely, by unreadable kind and reason.",
        not_evaluated,
    );
    gauge(&mut text, "objects", "Number of objects analyzed.", [(Vec::new(), report.summary.objects)]);
    gauge(&mut text, "rules", "Number of rules evaluated, at least in part.", [(Vec::new(), report.summary.rules_run)]);
    // Always present, so that an alert can detect a stale report.
    if let Ok(time) = report.source.time.parse::<Timestamp>() {
        let help = "Unix time at which the cluster was read.";
        gauge(&mut text, "time_seconds", help, [(Vec::new(), time.as_second())]);
    }
    text
}

/// Rules without findings report 0, so that the series does not disappear when a problem is resolved. Rules that could
/// not be evaluated at all report nothing.
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
    fn labels_are_escaped() {
        assert_eq!(label("a\"} 1\n\\"), "a\\\"} 1 \\\\");
    }
}
