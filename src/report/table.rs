//! `-o table`: human-readable. Root causes first, each with evidence, fixes and consequences.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use kubectl_gpt_analyzers::text::words;
use kubectl_gpt_analyzers::{Finding, NotEvaluated, Severity};
use tabled::builder::Builder;
use tabled::settings::{Padding, Style as Lines};

use crate::explain::answer::{Command, Line};
use crate::explain::command::MARK;
use crate::problems::{Problem, problems};
use crate::report::{Report, gaps};
use crate::terminal::plain;

/// The width of the label column, including the gap after it.
const LABEL: usize = 15;
/// How many consequences are shown per root cause.
const MAX_CONSEQUENCES: usize = 20;
/// How many pieces of evidence are shown per finding; the JSON has all.
const MAX_EVIDENCE: usize = 8;

pub fn render(report: &Report, width: usize) -> String {
    let mut text = String::new();
    for problem in problems(report.findings) {
        text.push_str(&block(&problem, width));
        text.push_str(&explained(&report.explained(problem.root), width));
        text.push('\n');
    }
    let last_lines = last_lines(report);
    text + &if report.run.on_terminal { paragraphs(&last_lines, width) } else { last_lines }
}

/// The explanation by a language model.
pub fn explained(lines: &[Line], width: usize) -> String {
    let mut text = String::new();
    for line in lines {
        match line {
            Line::Text { label, text: line } => text.push_str(&columns(&[(label.to_string(), plain(line))], width)),
            Line::Command(Command { line, read_only: true }) => {
                let _ = writeln!(text, "{:LABEL$}{BOLD}{}{BOLD:#}", "", plain(line));
            }
            Line::Command(Command { line, read_only: false }) => {
                let warn = AnsiColor::Yellow.on_default();
                let _ = writeln!(text, "{:LABEL$}{warn}{MARK}{warn:#} {BOLD}{}{BOLD:#}", "", plain(line));
            }
        }
    }
    text
}

/// One problem: labels and text in two columns. Commands are not wrapped, so that they can be pasted.
pub(crate) fn block(problem: &Problem, width: usize) -> String {
    let root = problem.root;
    let mut text = heading(root, width);
    let mut rows = vec![(String::new(), root.message.to_string())];
    rows.extend(root.location.iter().map(|place| ("at".to_string(), plain(&place.to_string()))));
    let facts =
        root.evidence.iter().map(|evidence| evidence.text.to_string()).filter(|fact| !root.message.contains(fact));
    for (n, fact) in facts.take(MAX_EVIDENCE).enumerate() {
        rows.push((if n == 0 { "because" } else { "" }.to_string(), fact));
    }
    text.push_str(&columns(&rows, width));
    for (n, fix) in root.fix.iter().enumerate() {
        text.push_str(&columns(&[(if n == 0 { "fix" } else { "" }.to_string(), fix.text.to_string())], width));
        if let Some(command) = &fix.command {
            let _ = writeln!(text, "{:LABEL$}{}{}{:#}", "", BOLD, plain(command), BOLD);
        }
    }
    text + &consequences(problem, width)
}

const BOLD: Style = Style::new().bold();

fn heading(finding: &Finding, width: usize) -> String {
    let style = color(finding.severity);
    let object = finding.object.to_string();
    let rule = &finding.rule;
    let used = LABEL + object.chars().count() + rule.len();
    // A rule that does not fit beside the object is on a line of its own.
    let gap = match width.checked_sub(used) {
        Some(gap) if gap >= 2 => " ".repeat(gap),
        _ => format!("\n{:LABEL$}", ""),
    };
    let dim = Style::new().dimmed();
    let severity = finding.severity.to_string();
    let object_styled = format!("{BOLD}{object}{BOLD:#}");
    format!("{style}{severity:LABEL$}{style:#}{object_styled}{gap}{dim}{rule}{dim:#}\n")
}

fn consequences(problem: &Problem, width: usize) -> String {
    let mut text = String::new();
    for (n, (distance, finding)) in problem.consequences.iter().take(MAX_CONSEQUENCES).enumerate() {
        let label = if n == 0 { "also affected" } else { "" };
        let indent = "  ".repeat(distance - 1);
        // The message names its object, but not the namespace.
        let elsewhere = finding.object.namespace() != problem.root.object.namespace();
        let place = if elsewhere { format!(" ({})", finding.object) } else { String::new() };
        let sentence = plain(&format!("{}{place}", finding.message));
        let options = wrapping(width.saturating_sub(LABEL).max(20))
            .initial_indent(&indent)
            .subsequent_indent(&indent)
            .break_words(true);
        for (m, line) in textwrap::wrap(&sentence, options).iter().enumerate() {
            let _ = writeln!(text, "{:LABEL$}{line}", if m == 0 { label } else { "" });
        }
    }
    if problem.consequences.len() > MAX_CONSEQUENCES {
        let _ = writeln!(text, "{:LABEL$}and {} more", "", problem.consequences.len() - MAX_CONSEQUENCES);
    }
    text
}

/// Hyphenated names are not split, so that they can be copied.
fn wrapping<'a>(width: usize) -> textwrap::Options<'a> {
    textwrap::Options::new(width).word_splitter(textwrap::WordSplitter::NoHyphenation)
}

fn columns(rows: &[(String, String)], width: usize) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut builder = Builder::new();
    for (label, text) in rows {
        let lines = textwrap::wrap(text, wrapping(width.saturating_sub(LABEL).max(20)));
        builder.push_record([format!("{label:LABEL$}"), lines.join("\n")]);
    }
    let mut table = builder.build();
    table.with(Lines::empty()).with(Padding::zero());
    table.to_string().lines().fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

pub(crate) fn color(severity: Severity) -> Style {
    match severity {
        Severity::Error => AnsiColor::Red.on_default().bold(),
        Severity::Warning => AnsiColor::Yellow.on_default().bold(),
        Severity::Info => AnsiColor::Cyan.on_default(),
    }
}

/// The summary: counts, scope, notes, and what could not be evaluated.
pub(crate) fn last_lines(report: &Report) -> String {
    let suppressed = suppressed(report);
    let found = match report.findings {
        [] if !gaps::unread(report.not_evaluated).is_empty() => {
            "No problems found, but some checks could not be evaluated"
        }
        [] if !suppressed.is_empty() => "No new problems found",
        [] if report.not_evaluated.is_empty() => "No problems found",
        // There may still be problems in combination with the cluster, or with files that were not given.
        [] => "No problems found in these files",
        _ => &counts(report),
    };
    let suppressed = if suppressed.is_empty() { suppressed } else { format!(" ({suppressed})") };
    let mut text = format!("{found}{suppressed}: {}.\n", checked(report));
    for ignored in report.ignored.unwrap_or_default() {
        let _ = writeln!(text, "ignored: {}", plain(&ignored.to_string()));
    }
    for note in &report.source.notes {
        let _ = writeln!(text, "note: {}", plain(note));
    }
    text + &not_evaluated(report.not_evaluated)
}

/// The findings that do not count: `2 ignored, 1 in the baseline`.
fn suppressed(report: &Report) -> String {
    let counts = [(report.summary.ignored, "ignored"), (report.summary.baselined, "in the baseline")];
    let counts = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    counts.collect::<Vec<_>>().join(", ")
}

fn counts(report: &Report) -> String {
    let summary = &report.summary;
    format!(
        "{}, {}, {} info",
        words::count(summary.error, "error"),
        words::count(summary.warning, "warning"),
        summary.info
    )
}

/// `250 objects checked by 90 rules (namespace shop, context prod, 1.2s)`.
fn checked(report: &Report) -> String {
    let run = &report.run;
    let scope = match run.namespaces.as_slice() {
        [] => None,
        [one] => Some(format!("namespace {one}")),
        many => Some(format!("namespaces {}", words::list(many, 3))),
    };
    let labels = run.selector.as_ref().map(|labels| format!("labels {labels}"));
    let context = report.source.context.as_ref().map(|context| format!("context {context}"));
    let took = run.took.map(|took| format!("{:.1}s", took.as_secs_f64()));
    let facts: Vec<String> = [scope, labels, context, took].into_iter().flatten().map(|fact| plain(&fact)).collect();
    let (objects, rules) = (report.summary.objects, report.summary.rules_run);
    let checked = format!("{} checked by {}", words::count(objects, "object"), words::count(rules, "rule"));
    if facts.is_empty() { checked } else { format!("{checked} ({})", facts.join(", ")) }
}

/// Wraps long lines between words for a terminal. Elsewhere each fact stays on one line, for `grep`.
pub(crate) fn paragraphs(lines: &str, width: usize) -> String {
    let options = wrapping(width).subsequent_indent("  ").break_words(false);
    lines.lines().fold(String::new(), |text, line| text + &textwrap::fill(line, &options) + "\n")
}

/// One line per unreadable kind, with the rules that need it.
fn not_evaluated(lines: &[NotEvaluated]) -> String {
    let mut text = String::new();
    for unread in gaps::unread(lines) {
        let _ = writeln!(text, "not evaluated: {}", plain(&unread.to_string()));
    }
    let absent = gaps::not_in_the_input(lines);
    if !absent.is_empty() {
        let _ = writeln!(text, "not in the input: {}", words::list(&absent, 12));
    }
    text
}
