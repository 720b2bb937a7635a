//! `-o github`: workflow commands for annotations in a GitHub Actions run.
//! <https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands>

use std::fmt::Write as _;

use kubectl_gpt_analyzers::text::words;
use kubectl_gpt_analyzers::{Finding, Severity};

use crate::problems::problems;
use crate::report::{Report, gaps, table};
use crate::terminal::plain;

/// GitHub keeps this many annotations of each level per step and silently drops the rest.
const MAX_ANNOTATIONS: usize = 10;

/// Annotations, worst first and root causes before consequences. Those beyond GitHub's limit are printed as plain log
/// lines, followed by the summary.
pub fn render(report: &Report) -> String {
    let mut log = Log::default();
    for unread in gaps::unread(report.not_evaluated) {
        let level = if report.run.allow_partial { "notice" } else { "error" };
        log.annotate(level, &[("title", "kubectl-gpt: not evaluated")], &unread.to_string());
    }
    for problem in problems(report.findings) {
        for finding in [problem.root].into_iter().chain(problem.consequences.into_iter().map(|(_, f)| f)) {
            log.finding(finding);
        }
    }
    for line in table::last_lines(report).lines() {
        log.say(line);
    }
    log.text
}

#[derive(Default)]
struct Log<'a> {
    text: String,
    /// The ids of reported findings: a finding with two causes is listed under both.
    reported: Vec<&'a str>,
    errors: usize,
    warnings: usize,
    notices: usize,
}

impl<'a> Log<'a> {
    fn finding(&mut self, finding: &'a Finding) {
        if self.reported.contains(&finding.id.as_str()) {
            return;
        }
        self.reported.push(&finding.id);
        let level = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Info => "notice",
        };
        let title = format!("{}: {}", finding.object, finding.rule);
        let line = finding.location.as_ref().map(|place| place.line.to_string());
        let mut properties = Vec::new();
        if let (Some(place), Some(line)) = (&finding.location, &line)
            && place.file != "-"
        {
            properties.extend([("file", place.file.as_str()), ("line", line.as_str())]);
        }
        properties.push(("title", &title));
        self.annotate(level, &properties, &message(finding));
    }

    fn annotate(&mut self, level: &str, properties: &[(&str, &str)], message: &str) {
        let count = match level {
            "error" => &mut self.errors,
            "warning" => &mut self.warnings,
            _ => &mut self.notices,
        };
        *count += 1;
        if *count > MAX_ANNOTATIONS {
            let title = properties.last().map(|(_, title)| *title).unwrap_or_default();
            self.say(&format!("{level}: {title}: {}", message.replace('\n', "; ")));
            return;
        }
        let properties: Vec<String> =
            properties.iter().map(|(name, value)| format!("{name}={}", property(value))).collect();
        let _ = writeln!(self.text, "::{level} {}::{}", properties.join(","), data(message));
    }

    /// A plain log line. Escapes `::…` and the older `##[…]`, which the runner also recognizes in the middle of a line.
    fn say(&mut self, line: &str) {
        let line = plain(line).replace("##[", "##\u{200b}[");
        let _ = writeln!(self.text, "{}", line.trim_start().trim_start_matches(':'));
    }
}

/// The message, the first pieces of evidence and the first fix.
fn message(finding: &Finding) -> String {
    let mut lines = vec![finding.message.to_string()];
    let facts = finding.evidence.iter().map(|evidence| evidence.text.to_string());
    lines.extend(facts.filter(|fact| !finding.message.contains(fact)).take(3).map(|fact| format!("because {fact}")));
    if let Some(fix) = finding.fix.first() {
        lines.push(match &fix.command {
            Some(command) => format!("fix: {}: {}", fix.text, plain(command)),
            None => format!("fix: {}", fix.text),
        });
    }
    words::shorten(&lines.join("\n"), 4000)
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(&plain(text)).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::{Log, data, property};

    #[test]
    fn commands_are_escaped() {
        assert_eq!(data("100%\r\n::error::x"), "100%25%0D%0A::error::x");
        assert_eq!(property("a,line=1::b\nc"), "a%2Cline=1%3A%3Ab c");
    }

    #[test]
    fn plain_lines_are_not_commands() {
        let mut log = Log::default();
        log.say("  ::stop-commands::x");
        log.say("note ##[error]x");
        assert_eq!(log.text, "stop-commands::x\nnote ##\u{200b}[error]x\n");
    }

    #[test]
    fn annotations_beyond_the_limit_are_plain_lines() {
        let mut log = Log::default();
        for n in 0..12 {
            log.annotate("error", &[("title", "t")], &format!("m{n}"));
        }
        log.annotate("warning", &[("title", "t")], "w");
        assert_eq!(log.text.matches("::error title=t::").count(), 10);
        assert!(log.text.ends_with("error: t: m10\nerror: t: m11\n::warning title=t::w\n"), "{}", log.text);
    }
}
