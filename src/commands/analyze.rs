//! `kubectl-gpt analyze`: collect, check, report, gate.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Context, anyhow};
use kubectl_gpt_analyzers::rule::{Analysis, Rule, analyze};
use kubectl_gpt_analyzers::{Cluster, Kind, Reason, Selector};

use crate::cli::{AnalyzeArgs, Format, InputArgs};
use crate::commands::rules;
use crate::commands::watch::{self, Steps};
use crate::config::{Config, Settings};
use crate::exit::{Exit, Failure};
use crate::load::{Loaded, Wanted, load};
use crate::report::{self, Report, Run};
use crate::scope::Scope;
use crate::terminal;

pub fn run(arguments: &AnalyzeArgs) -> Result<Exit, Failure> {
    let config = Config::load(&arguments.config)?;
    let settings = Settings::new(&config, &arguments.rules, &arguments.input.crds, &arguments.thresholds);
    let rules = rules::choose(&settings.rules())?;
    let scope = scope(&arguments.input, &settings)?;
    arguments.files.check()?;
    quiet_panics();
    let wanted = Wanted {
        kinds: kinds(&rules),
        custom: rules.iter().any(|rule| rule.meta().reads_custom),
        logs: !arguments.no_logs,
        recorder: None,
    };
    let input = InputArgs { crds: settings.crds.value.clone(), ..arguments.input.clone() };
    let run = |took| Run {
        rules: rules.iter().map(|rule| rule.meta()).collect(),
        fail_on: settings.fail_on.value.threshold(),
        allow_partial: settings.allow_partial.value,
        namespaces: arguments.input.namespace.clone(),
        selector: arguments.input.selector.clone(),
        on_terminal: terminal::is_read_there(),
        took,
    };
    let check = |cluster: &Cluster| {
        let mut analysis = analyze(cluster, &rules);
        analysis.findings = scope.apply(cluster, analysis.findings);
        analysis
    };
    if arguments.watch.watch {
        let gate = |analysis: &Analysis| gate(&settings, analysis);
        return watch::run(arguments, &input, &wanted, &Steps { check: &check, run: &run, gate: &gate });
    }
    let start = Instant::now();
    let Loaded { mut cluster, source, places, overlay, .. } = load(&arguments.connection, &input, &wanted)?;
    let mut analysis = match overlay {
        None => check(&cluster),
        Some(overlay) => {
            let before = analyze(&cluster, &rules);
            cluster = overlay.apply(cluster);
            let mut after = check(&cluster);
            overlay.limit(&mut after, &before);
            after
        }
    };
    places.locate(&mut analysis.findings);
    let took = arguments.input.filename.is_empty().then(|| start.elapsed());
    let report = Report::new(source, &cluster, &analysis).run(run(took));
    let text = report::render(&report, arguments.output, terminal::width()).map_err(Failure::unreadable)?;
    let text = match arguments.output {
        Format::Table | Format::Wide => terminal::spelled(&text),
        _ => text,
    };
    terminal::write(&text, arguments.color).context("writing the report").map_err(Failure::unreadable)?;
    arguments.files.write(&report).map_err(Failure::unreadable)?;
    Ok(gate(&settings, &analysis))
}

/// The exit code: findings first, then what could not be looked at.
fn gate(settings: &Settings, analysis: &Analysis) -> Exit {
    let fails =
        settings.fail_on.value.threshold().is_some_and(|least| analysis.findings.iter().any(|f| f.severity >= least));
    // That a file holds no Nodes is no failure to read them.
    let incomplete = analysis.not_evaluated.iter().any(|gap| gap.reason != Reason::NotInInput);
    match (fails, incomplete && !settings.allow_partial.value) {
        (true, _) => Exit::Findings,
        (false, true) => Exit::Incomplete,
        (false, false) => Exit::Clean,
    }
}

fn scope(input: &InputArgs, settings: &Settings) -> Result<Scope, Failure> {
    let selector = input
        .selector
        .as_deref()
        .map(|text| text.parse::<Selector>().map_err(|error| Failure::usage(anyhow!("--selector {text:?}: {error}"))));
    let least = settings.min_severity.value.into();
    // A gate that fails on what it does not show would leave people without a reason.
    if settings.fail_on.value.threshold().is_some_and(|fails| fails < least) {
        let message = "--min-severity hides findings that --fail-on would fail on; lower the one or raise the other";
        return Err(Failure::usage(anyhow!(message)));
    }
    Ok(Scope { namespaces: input.namespace.clone(), selector: selector.transpose()?, min_severity: Some(least) })
}

/// What the chosen rules read.
fn kinds(rules: &[&dyn Rule]) -> BTreeSet<Kind> {
    rules.iter().flat_map(|rule| rule.meta().needs.iter().chain(rule.meta().optional)).copied().collect()
}

/// A rule that panics is reported as not evaluated, with the panic's message; the default hook would print it twice.
fn quiet_panics() {
    std::panic::set_hook(Box::new(|_| {}));
}
