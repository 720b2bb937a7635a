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

use clap::ValueEnum;
use std::time::Duration;

use kubectl_gpt_analyzers::engine::Analysis;
use kubectl_gpt_analyzers::{Cluster, Finding, NotEvaluated, RuleMeta, Severity};
use schemars::JsonSchema;
use serde::Serialize;

use crate::explain::answer::{Explanation, Line};
use crate::gate::Ignored;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Human-readable: root causes first, consequences below them.
    Table,
    /// One line per finding, with all columns.
    Wide,
    /// JSON; the schema is docs/findings.schema.json.
    Json,
    /// YAML with the same schema.
    Yaml,
    /// Markdown for pull requests and chat.
    Markdown,
    /// A single self-contained page.
    Html,
    /// SARIF 2.1.0 for code scanning and editors.
    Sarif,
    /// JUnit XML: one suite per rule, one failure per finding at or above --fail-on.
    Junit,
    /// GitHub Actions annotations.
    Github,
    /// Metrics for node_exporter's textfile collector or a Pushgateway.
    Prometheus,
}

impl Format {
    /// The name of the format on the command line: `sarif`.
    pub fn word(&self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_string()).unwrap_or_default()
    }
}

/// The data of a report. Its JSON form is the output of `-o json`.
#[derive(Debug, Serialize, JsonSchema)]
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

#[derive(Debug, Serialize, JsonSchema)]
pub struct Tool {
    pub name: &'static str,
    pub version: &'static str,
}

/// The source of the objects.
#[derive(Debug, Default, Serialize, JsonSchema)]
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

#[derive(Debug, Serialize, JsonSchema)]
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
        Format::Json => json::render(report)?,
        Format::Yaml => yaml::render(report)?,
        Format::Markdown => markdown::render(report),
        Format::Html => html::render(report)?,
        Format::Sarif => sarif::render(report)?,
        Format::Junit => junit::render(report)?,
        Format::Github => github::render(report),
        Format::Prometheus => prometheus::render(report),
    })
}
