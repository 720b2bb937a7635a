//! What is printed, a file a format.

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

/// Everything that a format may print. Its JSON form is the output of `-o json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report<'a> {
    pub schema_version: &'static str,
    pub tool: Tool,
    pub source: Source,
    pub summary: Summary,
    pub findings: &'a [Finding],
    pub not_evaluated: &'a [NotEvaluated],
    /// With `--show-ignored`, what is ignored or in the baseline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignored: Option<&'a [Ignored]>,
    /// What a language model said about root causes; only with `--explain`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub explanations: Vec<Explanation>,
    #[serde(skip)]
    pub run: Run<'a>,
}

/// How the report came about. Some formats have a place for it; it is no part of the JSON.
#[derive(Debug, Default)]
pub struct Run<'a> {
    /// The rules that were chosen.
    pub rules: Vec<&'a RuleMeta>,
    /// The least severity that fails, if any does.
    pub fail_on: Option<Severity>,
    /// Whether what could not be evaluated is no failure.
    pub allow_partial: bool,
    /// The namespaces and the labels to which it was limited.
    pub namespaces: Vec<String>,
    pub selector: Option<String>,
    /// Whether it is read on a terminal, where long lines are better broken between words.
    pub on_terminal: bool,
    /// How long it took to read a cluster and to look at it; `None` for files, whose report is the same every time. It
    /// is told in the last line for people.
    pub took: Option<Duration>,
}

#[derive(Debug, Serialize)]
pub struct Tool {
    pub name: &'static str,
    pub version: &'static str,
}

/// Where the objects come from.
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
    /// The time by which ages are reckoned; of files, the newest time stamp in them.
    pub time: String,
    /// What the reader should know about how it was read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    pub error: usize,
    pub warning: usize,
    pub info: usize,
    /// Findings that an entry of the configuration file or an annotation ignores.
    pub ignored: usize,
    /// Findings that are in the baseline.
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

    /// Says how it was run.
    pub fn run(self, run: Run<'a>) -> Report<'a> {
        Report { run, ..self }
    }

    /// Counts what does not count as a finding, and has it listed if that is asked for.
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

    /// How a language model explains a root cause, line by line.
    pub fn explained(&self, finding: &Finding) -> Vec<Line> {
        self.explanations.iter().filter(|e| e.finding == finding.id).flat_map(Explanation::lines).collect()
    }
}

/// The report in one of the formats; `width` is the terminal's.
///
/// # Errors
/// When a format cannot express the report: a defect of this program.
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

/// A root cause with everything that follows from it.
#[derive(Debug)]
pub struct Problem<'a> {
    pub root: &'a Finding,
    /// Each with how many steps it is away from the root, at least 1; nearer ones first.
    pub consequences: Vec<(usize, &'a Finding)>,
}

/// The findings as problems: root causes by severity, then by how much follows from them. A finding with several root
/// causes stands under each of them.
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
    // The findings are sorted already; a stable sort keeps that order among equals.
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
