//! `-o junit`: JUnit XML for CI systems. One suite per rule; each finding is a test case, and a rule without findings
//! is one passing test case. Findings at or above `--fail-on` are failures. Rules that could not be evaluated are
//! errors, or skipped with `--allow-partial`, but never successes.

use std::collections::BTreeMap;

use kubectl_gpt_analyzers::{Finding, NotEvaluated, Reason};
use quick_junit::{NonSuccessKind, SerializeError, TestCase, TestCaseStatus, TestSuite};

use crate::report::{Report, gaps};
use crate::terminal::plain;

/// # Errors
/// None are known: the report is written to memory.
pub fn render(report: &Report) -> Result<String, SerializeError> {
    let mut suites = quick_junit::Report::new(report.tool.name);
    for (rule, cases) in cases(report) {
        let mut suite = TestSuite::new(rule);
        suite.add_test_cases(cases.into_iter().map(|mut case| {
            case.set_classname(rule);
            case
        }));
        suites.add_test_suite(suite);
    }
    suites.to_string()
}

fn cases<'a>(report: &'a Report) -> BTreeMap<&'a str, Vec<TestCase>> {
    let mut cases: BTreeMap<&str, Vec<TestCase>> = BTreeMap::new();
    for finding in report.findings {
        cases.entry(&finding.rule).or_default().push(case(report, finding));
    }
    for line in report.not_evaluated {
        cases.entry(&line.rule).or_default().push(unread(report, line));
    }
    for meta in &report.run.rules {
        let about = || vec![TestCase::new(format!("no findings: {}", meta.summary), TestCaseStatus::success())];
        cases.entry(&meta.id).or_insert_with(about);
    }
    cases
}

fn case(report: &Report, finding: &Finding) -> TestCase {
    let fails = report.fails(finding);
    let mut status = TestCaseStatus::success();
    if fails {
        status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        status.set_message(finding.message.to_string()).set_type(finding.severity.to_string());
        status.set_description(details(finding));
    }
    let mut case = TestCase::new(format!("{} ({})", finding.object, finding.id), status);
    if !fails {
        case.set_system_out(format!("{}: {}\n{}", finding.severity, finding.message, details(finding)));
    }
    if let Some(place) = &finding.location {
        case.extra.insert("file".into(), plain(&place.file).into());
        case.extra.insert("line".into(), place.line.to_string().into());
    }
    case
}

/// Evidence, causes and fixes, one line each.
fn details(finding: &Finding) -> String {
    let because = finding.evidence.iter().map(|evidence| format!("because {}\n", evidence.text));
    let causes = finding.caused_by.iter().map(|id| format!("caused by {id}\n"));
    let fixes = finding.fix.iter().map(|fix| match &fix.command {
        Some(command) => format!("fix {}: {}\n", fix.text, plain(command)),
        None => format!("fix {}\n", fix.text),
    });
    because.chain(causes).chain(fixes).collect()
}

fn unread(report: &Report, line: &NotEvaluated) -> TestCase {
    let tolerated = report.run.allow_partial || line.reason == Reason::NotInInput;
    let mut status =
        if tolerated { TestCaseStatus::skipped() } else { TestCaseStatus::non_success(NonSuccessKind::Error) };
    status.set_message(format!("not evaluated: {}", plain(&gaps::why(line)))).set_type(line.reason.to_string());
    TestCase::new(format!("not evaluated: {}", plain(&gaps::what(line))), status)
}
