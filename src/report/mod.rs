//! The report formats, one file per format.

pub mod gaps;
pub mod github;
pub mod html;
pub mod json;
pub mod junit;
pub mod markdown;
pub mod prometheus;
pub mod sarif;
pub mod table;
pub mod wide;
pub mod yaml;

use std::collections::BTreeMap;
use std::time::Duration;

use kubectl_gpt_analyzers::engine::Analysis;
use kubectl_gpt_analyzers::{Cluster, Finding, NotEvaluated, RuleMeta, Severity};
use serde::Serialize;

use crate::cli::Format;
use crate::explain::answer::{Explanation, Line};
use crate::gate::Ignored;

/// The data of a report. Its JSON form is the output of `-o json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report<'a> {
    pub schema_version: &'static str,
    pub tool: Tool,
    pub source: Source,
    pub summary: Summary,
    pub findings: &'a [Finding],
    pub not_evaluated: &'a [NotEvaluated],
    /// With `--show-ignored`, the ignored and baselined findings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignored: Option<&'a [Ignored]>,
    /// Explanations of root causes by a language model; only with `--explain`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub explanations: Vec<Explanation>,
    #[serde(skip)]
    pub run: Run<'a>,
}

/// How the report was produced. Some formats include this; the JSON does not.
#[derive(Debug, Default)]
pub struct Run<'a> {
    /// The selected rules.
    pub rules: Vec<&'a RuleMeta>,
    /// The minimum severity that fails, if any does.
    pub fail_on: Option<Severity>,
    /// Whether rules that could not be evaluated are tolerated.
    pub allow_partial: bool,
    /// The namespace and label filters.
    pub namespaces: Vec<String>,
    pub selector: Option<String>,
    /// Whether the report is printed to a terminal, where long lines are wrapped between words.
    pub on_terminal: bool,
    /// The duration of reading and analyzing a cluster, shown in the summary line; `None` for files, whose report is
    /// reproducible.
    pub took: Option<Duration>,
}

#[derive(Debug, Serialize)]
pub struct Tool {
    pub name: &'static str,
    pub version: &'static str,
}

/// The source of the objects.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    #[serde(rename = "type")]
    pub type_: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    /// The reference time for ages; for files, the newest timestamp in them.
    pub time: String,
    /// Notes about how the input was read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    pub error: usize,
    pub warning: usize,
    pub info: usize,
    /// Findings ignored by the configuration file or an annotation.
    pub ignored: usize,
    /// Findings in the baseline.
    pub baselined: usize,
    pub objects: usize,
    pub rules_run: usize,
}

impl Source {
    pub fn files(files: Vec<String>, cluster: &Cluster) -> Source {
        Source {
            type_: "files",
            files,
            server_version: cluster.server_version().map(str::to_string),
            time: cluster.now().to_string(),
            ..Source::default()
        }
    }

    pub fn cluster(context: Option<String>, notes: Vec<String>, cluster: &Cluster) -> Source {
        Source {
            type_: "cluster",
            context,
            server_version: cluster.server_version().map(str::to_string),
            time: cluster.now().to_string(),
            notes,
            ..Source::default()
        }
    }
}

impl<'a> Report<'a> {
    pub fn new(source: Source, cluster: &Cluster, analysis: &'a Analysis) -> Report<'a> {
        let count = |severity| analysis.findings.iter().filter(|f| f.severity == severity).count();
        Report {
            schema_version: "1",
            tool: Tool { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION") },
            source,
            summary: Summary {
                error: count(Severity::Error),
                warning: count(Severity::Warning),
                info: count(Severity::Info),
                ignored: 0,
                baselined: 0,
                objects: cluster.objects().len(),
                rules_run: analysis.rules_run,
            },
            findings: &analysis.findings,
            not_evaluated: &analysis.not_evaluated,
            ignored: None,
            run: Run::default(),
            explanations: Vec::new(),
        }
    }

    /// Sets how the report was produced.
    pub fn run(self, run: Run<'a>) -> Report<'a> {
        Report { run, ..self }
    }

    /// Counts ignored and baselined findings, and lists them if `show` is set.
    pub fn ignoring(mut self, ignored: &'a [Ignored], show: bool) -> Report<'a> {
        self.summary.baselined = ignored.iter().filter(|ignored| ignored.is_baselined()).count();
        self.summary.ignored = ignored.len() - self.summary.baselined;
        self.ignored = show.then_some(ignored);
        self
    }

    /// Whether a finding makes the exit code 1.
    pub fn fails(&self, finding: &Finding) -> bool {
        self.run.fail_on.is_some_and(|least| finding.severity >= least)
    }

    /// The explanation of a root cause, line by line.
    pub fn explained(&self, finding: &Finding) -> Vec<Line> {
        self.explanations.iter().filter(|e| e.finding == finding.id).flat_map(Explanation::lines).collect()
    }
}

/// The report in one of the formats; `width` is the terminal's.
///
/// # Errors
/// When the report cannot be rendered, which is a bug.
pub fn render(report: &Report, format: Format, width: usize) -> anyhow::Result<String> {
    Ok(match format {
        Format::Table => table::render(report, width),
        Format::Wide => wide::render(report),
        Format::Json => json::render(report),
        Format::Yaml => yaml::render(report)?,
        Format::Markdown => markdown::render(report),
        Format::Html => html::render(report)?,
        Format::Sarif => sarif::render(report),
        Format::Junit => junit::render(report)?,
        Format::Github => github::render(report),
        Format::Prometheus => prometheus::render(report),
    })
}

/// A root cause with its consequences.
#[derive(Debug)]
pub struct Problem<'a> {
    pub root: &'a Finding,
    /// Each with its distance from the root, at least 1; nearest first.
    pub consequences: Vec<(usize, &'a Finding)>,
}

/// Groups findings by root cause, sorted by severity, then by number of consequences. A finding with several root
/// causes is listed under each.
pub fn problems(findings: &[Finding]) -> Vec<Problem<'_>> {
    let mut effects: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
    for finding in findings {
        for cause in &finding.caused_by {
            effects.entry(cause).or_default().push(finding);
        }
    }
    let known = |id: &String| findings.iter().any(|f| f.id == *id);
    let roots = findings.iter().filter(|finding| !finding.caused_by.iter().any(known));
    let mut problems: Vec<Problem> =
        roots.map(|root| Problem { root, consequences: reached(root, &effects) }).collect();
    // The findings are already sorted; a stable sort keeps that order among equals.
    problems.sort_by_key(|p| {
        let worst = p.consequences.iter().map(|(_, f)| f.severity).chain([p.root.severity]).max();
        std::cmp::Reverse((worst, p.root.severity, p.consequences.len()))
    });
    problems
}

fn reached<'a>(root: &'a Finding, effects: &BTreeMap<&str, Vec<&'a Finding>>) -> Vec<(usize, &'a Finding)> {
    let mut found: Vec<(usize, &Finding)> = vec![(0, root)];
    let mut next = 0;
    while next < found.len() {
        let (distance, finding) = found[next];
        for effect in effects.get(finding.id.as_str()).into_iter().flatten() {
            if !found.iter().any(|(_, f)| f.id == effect.id) {
                found.push((distance + 1, effect));
            }
        }
        next += 1;
    }
    found.remove(0);
    found
}
