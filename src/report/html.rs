//! `-o html`: a self-contained page. The template is `report.html` in this directory.

use kubectl_gpt_analyzers::Finding;
use minijinja::value::Serde;
use minijinja::{Environment, Error};
use serde_json::{Value, json};

use crate::explain::answer::Line;
use crate::problems::{Problem, problems};
use crate::report::{Report, gaps, table};
use crate::terminal::plain;

/// # Errors
/// When the template does not match the data.
pub fn render(report: &Report) -> Result<String, Error> {
    let problems: Vec<Value> = problems(report.findings).iter().map(|problem| tree(report, problem)).collect();
    let unread: Vec<String> = gaps::unread(report.not_evaluated).iter().map(ToString::to_string).collect();
    let last_lines = table::last_lines(report);
    let last_lines: Vec<&str> = last_lines.lines().filter(|line| !line.starts_with("not evaluated: ")).collect();
    let page = json!({
        "summary": report.summary,
        "source": report.source,
        "tool": report.tool,
        "problems": problems,
        "unread": unread,
        "last_lines": last_lines,
    });
    // The file extension enables HTML escaping.
    Environment::new().render_named_str("report.html", include_str!("report.html"), Serde(escaped(page)))
}

/// A root cause with its consequences, each below the nearest finding that causes it.
fn tree(report: &Report, problem: &Problem) -> Value {
    let mut tree = node(problem.root, 1, &problem.consequences, &mut Vec::new());
    let lines = report.explained(problem.root).into_iter().map(|line| match line {
        Line::Text { label, text } => json!({ "label": label, "text": text }),
        Line::Command(command) => json!({ "command": command.line, "read_only": command.read_only }),
    });
    tree["explained"] = lines.collect();
    tree
}

fn node<'a>(
    finding: &'a Finding,
    distance: usize,
    consequences: &[(usize, &'a Finding)],
    placed: &mut Vec<&'a str>,
) -> Value {
    let mut effects = Vec::new();
    for (at, effect) in consequences {
        let is_next = *at == distance && effect.caused_by.contains(&finding.id);
        if is_next && !placed.contains(&effect.id.as_str()) {
            placed.push(&effect.id);
            effects.push(node(effect, distance + 1, consequences, placed));
        }
    }
    json!({ "finding": finding, "object": finding.object.to_string(), "effects": effects })
}

/// Escapes control characters and characters that reorder text.
fn escaped(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(plain(&text)),
        Value::Array(items) => items.into_iter().map(escaped).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, field)| (name, escaped(field))).collect(),
        other => other,
    }
}
