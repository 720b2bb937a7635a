//! `kubectl-gpt analyze --explain`: lets a language model explain each root cause.

use crate::explain::provider::ModelArgs;
use std::io::{self, IsTerminal};
use std::sync::Arc;

use anyhow::anyhow;
use kubectl_gpt_analyzers::Cluster;

use crate::commands::arguments::{AnalyzeArgs, ExplainArgs};
use crate::config::Config;
use crate::exit::Failure;
use crate::explain::answer::{Explanation, Line};
use crate::explain::prompt::Prompts;
use crate::explain::provider::{Configured, Settings};
use crate::explain::{Explainer, Prepared, dry_run, masker, prepare};
use crate::load;
use crate::problems::{Problem, problems};
use crate::report::Format;
use crate::report::{Report, table};
use crate::terminal;

/// The settings, validated before the cluster is read.
pub struct Plan {
    settings: Settings,
    prompts: Prompts,
    dry_run: bool,
}

/// What has been printed to standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    Nothing,
    /// The requests, instead of a report.
    Requests,
    Report,
}

/// The plan for `--explain` and its flags, if they are given.
///
/// # Errors
/// When no model is configured, or the configuration is invalid.
pub fn plan(arguments: &ExplainArgs, config: &Config) -> Result<Option<Plan>, Failure> {
    if !arguments.explain && !arguments.dry_run {
        return match unused(&arguments.model) {
            Some(flag) => Err(Failure::usage(anyhow!("{flag} requires --explain"))),
            None => Ok(None),
        };
    }
    let (settings, prompts) = settings(&arguments.model, config, arguments.dry_run)?;
    Ok(Some(Plan { settings, prompts, dry_run: arguments.dry_run }))
}

/// The settings of the language model and its prompts.
///
/// # Errors
/// When no model is configured, or the configuration is invalid.
pub fn settings(arguments: &ModelArgs, config: &Config, dry_run: bool) -> Result<(Settings, Prompts), Failure> {
    let variable = |name: &str| std::env::var(name).ok();
    let file = Configured { explain: config.explain()?, prompts: config.prompts() };
    let settings = Settings::new(arguments, &file, dry_run, variable).map_err(Failure::usage)?;
    let prompts = Prompts::new(settings.prompts.as_deref()).map_err(Failure::usage)?;
    if let Some(warning) = settings.warning() {
        eprintln!("{warning}");
    }
    Ok((settings, prompts))
}

/// A model flag that was given without `--explain`.
fn unused(arguments: &ModelArgs) -> Option<&'static str> {
    let given = [
        ("--provider", arguments.provider.is_some()),
        ("--base-url", arguments.base_url.is_some()),
        ("--model", arguments.model.is_some()),
        ("--language", arguments.language.is_some()),
        ("--max-tokens", arguments.max_tokens.is_some()),
        ("--max-requests", arguments.max_requests.is_some()),
        ("--model-timeout", arguments.model_timeout.is_some()),
        ("--prompts", arguments.prompts.is_some()),
    ];
    given.into_iter().find(|(_, is_given)| *is_given).map(|(flag, _)| flag)
}

impl Plan {
    /// Adds the explanations to the report. On a terminal, the table is printed here, each part as soon as it arrives;
    /// a dry run prints the requests instead. Findings never depend on the model.
    ///
    /// # Errors
    /// When a custom template is invalid, or standard output cannot be written.
    pub fn run(self, report: &mut Report, cluster: &Cluster, arguments: &AnalyzeArgs) -> Result<Shown, Failure> {
        let masker = Arc::new(masker(&self.settings, cluster, report.source.context.as_deref()));
        let mut problems = problems(report.findings);
        let max = self.settings.max_requests as usize;
        if problems.len() > max {
            let note = format!("only {max} of {} root causes are explained; raise --max-requests", problems.len());
            report.source.notes.push(note);
        }
        let all = problems.len();
        let unexplained = problems.split_off(max.min(all));
        let requests = prepare(&self.settings, &self.prompts, cluster, &problems, &masker).map_err(Failure::usage)?;
        if self.dry_run {
            let text = dry_run(&self.settings.endpoint, &requests);
            terminal::write(&text, arguments.color).map_err(Failure::unreadable)?;
            return Ok(Shown::Requests);
        }
        if requests.is_empty() {
            return Ok(Shown::Nothing);
        }
        let runtime = load::runtime()?;
        // A failure to set up TLS must not suppress the findings.
        let explainer = match Explainer::new(self.settings, masker) {
            Ok(explainer) => Arc::new(explainer),
            Err(failed) => {
                report.source.notes.push(format!("not explained: {failed}"));
                return Ok(Shown::Nothing);
            }
        };
        if arguments.output == Format::Table && io::stdout().is_terminal() {
            problems.extend(unexplained);
            let explanations = runtime.block_on(stream(&explainer, requests, report, &problems, arguments))?;
            report.explanations = explanations;
            return Ok(Shown::Report);
        }
        report.explanations = runtime.block_on(explainer.explain(requests, &mut |_, _| {}));
        Ok(Shown::Nothing)
    }
}

/// Prints the table while the answers arrive.
async fn stream(
    explainer: &Arc<Explainer>,
    requests: Vec<Prepared>,
    report: &Report<'_>,
    problems: &[Problem<'_>],
    arguments: &AnalyzeArgs,
) -> Result<Vec<Explanation>, Failure> {
    let width = terminal::width();
    let mut written = Ok(());
    let mut print = |text: &str| {
        if written.is_ok() {
            written = terminal::write(&terminal::spelled(text), arguments.color);
        }
    };
    let (mut begun, explained) = (0, requests.len());
    let mut tell = |n: usize, line: Line| {
        while begun <= n {
            let gap = if begun > 0 { "\n" } else { "" };
            print(&format!("{gap}{}", table::block(&problems[begun], width)));
            begun += 1;
        }
        print(&table::explained(&[line], width));
    };
    let explanations = explainer.explain(requests, &mut tell).await;
    // Every explanation has at least one line: a note if it failed.
    debug_assert_eq!(begun, explained);
    for (n, problem) in problems.iter().enumerate().skip(begun) {
        let gap = if n > 0 { "\n" } else { "" };
        print(&format!("{gap}{}", table::block(problem, width)));
    }
    print(&format!("\n{}", table::paragraphs(&table::last_lines(report), width)));
    written.map_err(Failure::unreadable)?;
    Ok(explanations)
}
