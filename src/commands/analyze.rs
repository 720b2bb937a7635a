//! `kubectl-gpt analyze`: collects objects, runs rules, reports findings and sets the exit code.

use crate::commands::arguments::AnalyzeArgs;
use crate::config::RuleArgs;
use crate::load::InputArgs;
use crate::report::Format;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use kubectl_gpt_analyzers::engine::{Analysis, Rule, analyze};
use kubectl_gpt_analyzers::snapshot::KindName;
use kubectl_gpt_analyzers::{Cluster, Finding, Selector};

use crate::commands::explain::{self, Shown};
use crate::commands::rules::{self, Chosen};
use crate::commands::watch::{self, Steps};
use crate::config::{Config, Settings};
use crate::exit::{Exit, Failure};
use crate::gate::{self, Baseline, Gate, Judged, LookedAt, Notice};
use crate::load::{Loaded, Wanted, load};
use crate::report::{self, Report, Run, Source};
use crate::scope::Scope;
use crate::terminal;

pub fn run(arguments: &AnalyzeArgs) -> Result<Exit, Failure> {
    let config = Config::load(&arguments.config)?;
    let settings = Settings::new(&config, &arguments.rules, &arguments.input.crds, &arguments.thresholds);
    let rules = rules::choose(&settings.rules())?;
    let chosen = Chosen::new(&settings.rules())?;
    let explain = explain::plan(&arguments.explain, &config)?;
    let scope = scope(&arguments.input, &settings)?;
    arguments.files.check()?;
    let baseline = arguments.baseline.baseline.as_deref().map(Baseline::read).transpose().map_err(Failure::usage)?;
    let gate = Gate::new(&config, baseline)?;
    let input = InputArgs { crds: settings.crds.value.clone(), ..arguments.input.clone() };
    // With --with-cluster, only findings about the manifests are reported.
    let is_narrowed = !input.namespace.is_empty() || input.with_cluster;
    let looked = LookedAt { left_out: left_out(&rules, &settings)?, is_narrowed };
    quiet_panics();
    let plan = Plan { arguments, settings, rules, chosen, scope, gate, input, looked };
    if arguments.watch.watch {
        if explain.is_some() {
            return Err(Failure::usage(anyhow!(
                "--watch cannot be used with --explain, which would query the model after every change"
            )));
        }
        return plan.watch();
    }
    plan.once(explain)
}

/// A validated run.
struct Plan<'a> {
    arguments: &'a AnalyzeArgs,
    settings: Settings,
    rules: Vec<&'static dyn Rule>,
    chosen: Chosen,
    scope: Scope,
    gate: Gate,
    input: InputArgs,
    looked: LookedAt,
}

impl Plan<'_> {
    fn wanted(&self) -> Wanted {
        let raw = self.rules.iter().flat_map(|rule| rule.raw_kinds());
        Wanted {
            kinds: self.rules.iter().flat_map(|rule| rule.meta().reads()).collect(),
            custom: self.rules.iter().any(|rule| rule.meta().reads_custom),
            logs: !self.arguments.no_logs,
            recorder: None,
            raw: raw.map(KindName::group_kind).collect(),
        }
    }

    fn run(&self, took: Option<Duration>) -> Run<'_> {
        Run {
            rules: self.rules.iter().map(|rule| rule.meta()).chain(Notice::ALL.map(Notice::meta)).collect(),
            fail_on: self.settings.fail_on.value.threshold(),
            allow_partial: self.settings.allow_partial.value,
            namespaces: self.arguments.input.namespace.clone(),
            selector: self.arguments.input.selector.clone(),
            on_terminal: terminal::is_read_there(),
            took,
        }
    }

    /// Removes ignored and baselined findings, and those outside the requested scope.
    fn judge(&self, cluster: &Cluster, analysis: Analysis) -> Judged {
        limit(&self.scope, &self.chosen, cluster, self.gate.judge(cluster, analysis, &self.looked))
    }

    fn watch(&self) -> Result<Exit, Failure> {
        let check = |cluster: &Cluster| self.judge(cluster, analyze(cluster, &self.rules));
        let run = |took| self.run(took);
        let gate = |analysis: &Analysis| gate::exit(&self.settings, analysis);
        let steps = Steps { check: &check, run: &run, gate: &gate };
        watch::run(self.arguments, &self.input, &self.wanted(), &steps)
    }

    fn once(&self, explain: Option<explain::Plan>) -> Result<Exit, Failure> {
        let arguments = self.arguments;
        let start = Instant::now();
        let loaded = load(&arguments.connection, &self.input, &self.wanted())?;
        let (cluster, mut source, analysis) = self.analyze(loaded);
        let judged = self.judge(&cluster, analysis);
        if let Some(file) = &arguments.baseline.write_baseline {
            gate::write_baseline(file, judged.counted().chain(judged.baselined())).map_err(Failure::usage)?;
        }
        source.notes.extend(judged.notes.iter().cloned());
        let took = self.input.filename.is_empty().then(|| start.elapsed());
        let mut report = Report::new(source, &cluster, &judged.analysis)
            .ignoring(&judged.ignored, arguments.baseline.show_ignored)
            .run(self.run(took));
        let shown = match explain {
            Some(explain) => explain.run(&mut report, &cluster, arguments)?,
            None => Shown::Nothing,
        };
        match shown {
            Shown::Requests => return Ok(gate::exit(&self.settings, &judged.analysis)),
            Shown::Report => {}
            Shown::Nothing => print(&report, arguments)?,
        }
        arguments.files.write(&report).map_err(Failure::unreadable)?;
        Ok(gate::exit(&self.settings, &judged.analysis))
    }

    /// Runs the rules. With `--with-cluster`, keeps only the findings that the manifests cause.
    fn analyze(&self, loaded: Loaded) -> (Cluster, Source, Analysis) {
        let Loaded { mut cluster, source, source_map, overlay, .. } = loaded;
        let mut analysis = analyze(&cluster, &self.rules);
        if let Some(overlay) = overlay {
            let before = analysis;
            cluster = overlay.apply(cluster);
            analysis = analyze(&cluster, &self.rules);
            overlay.limit(&mut analysis, &before);
        }
        source_map.locate(&mut analysis.findings);
        (cluster, source, analysis)
    }
}

fn print(report: &Report, arguments: &AnalyzeArgs) -> Result<(), Failure> {
    let text = report::render(report, arguments.output, terminal::width()).map_err(Failure::unreadable)?;
    let text = match arguments.output {
        Format::Table | Format::Wide => terminal::spelled(&text),
        _ => text,
    };
    terminal::write(&text, arguments.color).context("writing the report").map_err(Failure::unreadable)
}

/// The rules that are excluded, or whose objects are not all read.
fn left_out(chosen: &[&dyn Rule], settings: &Settings) -> Result<Vec<&'static dyn Rule>, Failure> {
    let all_custom = settings.crds.value == ["all"];
    let mut left_out = rules::choose(&RuleArgs { rules: Vec::new(), skip_rules: Vec::new(), ..settings.rules() })?;
    left_out.retain(|rule| {
        let runs = chosen.iter().any(|chosen| chosen.meta().id == rule.meta().id);
        !runs || (rule.meta().reads_custom && !all_custom)
    });
    Ok(left_out)
}

/// Applies the filters of the command line.
fn limit(scope: &Scope, chosen: &Chosen, cluster: &Cluster, mut judged: Judged) -> Judged {
    let (notices, findings) = judged.analysis.findings.into_iter().partition(|finding| Notice::is(&finding.rule));
    let (notices, findings): (Vec<Finding>, Vec<Finding>) = (notices, scope.apply(cluster, findings));
    let is_selected = |notice: &Finding| {
        let in_scope = notice.object.kind == gate::CONFIGURATION || scope.contains(cluster, notice);
        in_scope && scope.is_severe(notice) && chosen.includes(&notice.rule)
    };
    judged.analysis.findings = findings.into_iter().chain(notices.into_iter().filter(is_selected)).collect();
    judged.analysis.sort();
    judged.ignored.retain(|ignored| scope.contains(cluster, &ignored.finding));
    judged
}

fn scope(input: &InputArgs, settings: &Settings) -> Result<Scope, Failure> {
    let selector = input
        .selector
        .as_deref()
        .map(|text| text.parse::<Selector>().map_err(|error| Failure::usage(anyhow!("--selector {text:?}: {error}"))));
    let least = settings.min_severity.value;
    // A run must not fail because of findings that it hides.
    if settings.fail_on.value.threshold().is_some_and(|fails| fails < least) {
        let message = "--min-severity hides findings that --fail-on fails on; lower --min-severity or raise --fail-on";
        return Err(Failure::usage(anyhow!(message)));
    }
    Ok(Scope { namespaces: input.namespace.clone(), selector: selector.transpose()?, min_severity: Some(least) })
}

/// A rule that panics is reported as not evaluated, with the panic message; the default hook would print the message a
/// second time.
fn quiet_panics() {
    std::panic::set_hook(Box::new(|_| {}));
}
