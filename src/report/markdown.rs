//! `-o markdown`: for pull requests and chat. Problems and fixes are visible, evidence is collapsed.

use std::fmt::Write as _;

use kubectl_gpt_analyzers::text::words;
use kubectl_gpt_analyzers::{Evidence, Finding};

use crate::explain::answer::Line;
use crate::explain::command::MARK;
use crate::problems::{Problem, problems};
use crate::report::{Report, table};
use crate::terminal::plain;

/// GitHub rejects comments of more than 65,536 characters; this leaves room for the summary.
const MAX_BYTES: usize = 60_000;
/// How many consequences are listed per root cause.
const MAX_CONSEQUENCES: usize = 20;

pub fn render(report: &Report) -> String {
    let summary = &report.summary;
    let mut text = format!(
        "**kubectl-gpt: {}, {}, {} info**\n\n",
        words::count(summary.error, "error"),
        words::count(summary.warning, "warning"),
        summary.info
    );
    let problems = problems(report.findings);
    for (n, problem) in problems.iter().enumerate() {
        let block = block(problem, &report.explained(problem.root));
        if text.len() + block.len() > MAX_BYTES {
            let _ = writeln!(text, "And {} more, in the full report.\n", words::count(problems.len() - n, "problem"));
            break;
        }
        text.push_str(&block);
    }
    for line in table::last_lines(report).lines() {
        let _ = writeln!(text, "{}\n", escaped(&words::shorten(line, 1000)));
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

fn block(problem: &Problem, explained: &[Line]) -> String {
    let root = problem.root;
    let mut text =
        format!("### {}: {}\n\n{}\n\n", title(root), escaped(&root.object.to_string()), escaped(&root.message));
    if let Some(place) = &root.location {
        let _ = writeln!(text, "At {}\n", escaped(&place.to_string()));
    }
    for fix in &root.fix {
        let _ = writeln!(text, "{}{}\n", escaped(&fix.text), if fix.command.is_some() { ":" } else { "" });
        if let Some(command) = &fix.command {
            text.push_str(&fenced(command));
        }
    }
    text + &explanation(explained) + &details(problem)
}

/// The explanation by a language model.
fn explanation(lines: &[Line]) -> String {
    let mut text = String::new();
    for line in lines {
        match line {
            Line::Text { label: "", text: line } => {
                let _ = writeln!(text, "{}\n", escaped(line));
            }
            Line::Text { label, text: line } => {
                let _ = writeln!(text, "*{label}:* {}\n", escaped(line));
            }
            Line::Command(command) => {
                if !command.read_only {
                    let _ = writeln!(text, "{}\n", escaped(MARK));
                }
                text.push_str(&fenced(&command.line));
            }
        }
    }
    text
}

fn title(finding: &Finding) -> String {
    let severity = finding.severity.to_string();
    severity[..1].to_uppercase() + &severity[1..]
}

/// The blank line after the summary makes GitHub render the list as Markdown.
fn details(problem: &Problem) -> String {
    let root = problem.root;
    let mut summary = format!("Evidence ({})", root.rule);
    if !problem.consequences.is_empty() {
        let _ = write!(summary, " and {}", words::count(problem.consequences.len(), "consequence"));
    }
    let mut text = format!("<details>\n<summary>{}</summary>\n\n", escaped(&summary));
    for evidence in &root.evidence {
        let _ = writeln!(text, "- {}", fact(evidence));
    }
    if !problem.consequences.is_empty() {
        text.push_str("\nSo also:\n\n");
    }
    for (distance, finding) in problem.consequences.iter().take(MAX_CONSEQUENCES) {
        let indent = "  ".repeat(distance - 1);
        let _ = writeln!(text, "{indent}- {}: {}", finding.severity, escaped(&finding.message));
    }
    if problem.consequences.len() > MAX_CONSEQUENCES {
        let _ = writeln!(text, "- and {} more", problem.consequences.len() - MAX_CONSEQUENCES);
    }
    text + "\n</details>\n\n"
}

fn fact(evidence: &Evidence) -> String {
    let text = escaped(&evidence.text);
    match &evidence.object {
        Some(object) if !evidence.text.contains(&object.name) => format!("{text} ({})", escaped(&object.to_string())),
        _ => text,
    }
}

/// A code fence longer than any run of backticks in the command.
fn fenced(command: &str) -> String {
    let command = plain(command);
    let longest = command.split(|c| c != '`').map(str::len).max().unwrap_or_default();
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}sh\n{command}\n{fence}\n\n")
}

/// Escapes untrusted text: no markup, HTML, table cells or images. A zero-width space keeps GitHub from notifying
/// `@people` and linking `#1`, which a backslash does not prevent.
pub(super) fn escaped(text: &str) -> String {
    let text = plain(text);
    let mut safe = String::with_capacity(text.len() + 16);
    for (n, c) in text.chars().enumerate() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '@' => safe.push_str("@\u{200b}"),
            '#' => safe.push_str("\\#\u{200b}"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '$' => safe.extend(['\\', c]),
            // At the start of a line these would begin lists and headings.
            '-' | '+' | '=' if n == 0 => safe.extend(['\\', c]),
            '.' | ')' if text.chars().take(n).all(|c| c.is_ascii_digit()) => safe.extend(['\\', c]),
            _ => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::{escaped, fenced};

    #[test]
    fn untrusted_text_is_escaped() {
        assert_eq!(escaped("a|b `c` *d* <img src=x>"), "a\\|b \\`c\\` \\*d\\* &lt;img src=x&gt;");
        assert_eq!(escaped("@admins see #12 &lt;"), "@\u{200b}admins see \\#\u{200b}12 &amp;lt;");
        assert_eq!(escaped("![x](javascript:y)\n# z"), "!\\[x\\](javascript:y) \\#\u{200b} z");
        assert_eq!(escaped("- a"), "\\- a");
        assert_eq!(escaped("1. a"), "1\\. a");
        assert_eq!(escaped("10.0.0.1 is"), "10\\.0.0.1 is");
        assert_eq!(escaped("nginx:1.2-x"), "nginx:1.2-x");
    }

    #[test]
    fn commands_cannot_close_their_fence() {
        assert_eq!(fenced("kubectl get pods"), "```sh\nkubectl get pods\n```\n\n");
        assert_eq!(fenced("echo '```\n</details>'"), "````sh\necho '``` </details>'\n````\n\n");
    }
}
