//! `kubectl-gpt analyze`: collect, check, report, gate.

use std::collections::BTreeSet;

use anyhow::{Context, anyhow};
use kubectl_gpt_analyzers::logs::logs_wanted;
use kubectl_gpt_analyzers::rule::{Analysis, Rule, analyze};
use kubectl_gpt_analyzers::{Cluster, Kind, Lookup, Now, Origin, Reason, Selector, model};

use crate::cli::{AnalyzeArgs, ConnectionArgs, Format, InputArgs};
use crate::collect::{ConnectOptions, connect, files, live, logs};
use crate::commands::rules;
use crate::exit::{Exit, Failure};
use crate::report::{self, Report, Source};
use crate::scope::Scope;
use crate::terminal;

pub fn run(arguments: &AnalyzeArgs) -> Result<Exit, Failure> {
    let rules = rules::choose(&arguments.rules)?;
    let scope = scope(arguments)?;
    quiet_panics();
    let (cluster, source) =
        if arguments.input.filename.is_empty() { from_cluster(arguments, &rules)? } else { from_files(arguments)? };
    let mut analysis = analyze(&cluster, &rules);
    analysis.findings = scope.apply(&cluster, analysis.findings);
    let report = Report::new(source, &cluster, &analysis);
    let text = match arguments.output {
        Format::Table => report::table::render(&report, terminal::width()),
        Format::Wide => report::wide::render(&report),
        Format::Json => report::json::render(&report),
    };
    terminal::write(&text, arguments.color).context("writing the report").map_err(Failure::unreadable)?;
    Ok(gate(arguments, &analysis))
}

/// The exit code: findings first, then what could not be looked at.
fn gate(arguments: &AnalyzeArgs, analysis: &Analysis) -> Exit {
    let fails =
        arguments.fail_on.threshold().is_some_and(|least| analysis.findings.iter().any(|f| f.severity >= least));
    // That a file holds no Nodes is no failure to read them.
    let incomplete = analysis.not_evaluated.iter().any(|gap| gap.reason != Reason::NotInInput);
    match (fails, incomplete && !arguments.allow_partial) {
        (true, _) => Exit::Findings,
        (false, true) => Exit::Incomplete,
        (false, false) => Exit::Clean,
    }
}

fn scope(arguments: &AnalyzeArgs) -> Result<Scope, Failure> {
    let selector =
        arguments.input.selector.as_deref().map(|text| {
            text.parse::<Selector>().map_err(|error| Failure::usage(anyhow!("--selector {text:?}: {error}")))
        });
    Ok(Scope {
        namespaces: arguments.input.namespace.clone(),
        selector: selector.transpose()?,
        min_severity: Some(arguments.min_severity.into()),
    })
}

fn from_files(arguments: &AnalyzeArgs) -> Result<(Cluster, Source), Failure> {
    let input = files::read(&arguments.input.filename).map_err(Failure::unreadable)?;
    let cluster = input.builder.build(Now::NewestInData, input.origin);
    for namespace in &arguments.input.namespace {
        let known = match cluster.get::<model::Namespace>("", namespace) {
            Lookup::Found(_) => true,
            Lookup::Missing => false,
            Lookup::Unknown => Kind::ALL.iter().any(|kind| cluster.objects().namespaces(*kind).contains(namespace)),
        };
        if !known {
            return Err(Failure::unreadable(anyhow!("there is no namespace {namespace} in the input")));
        }
    }
    let files = arguments.input.filename.iter().map(|path| path.display().to_string()).collect();
    let source = Source::files(files, &cluster);
    Ok((cluster, source))
}

fn from_cluster(arguments: &AnalyzeArgs, rules: &[&dyn Rule]) -> Result<(Cluster, Source), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::unreadable)?;
    runtime.block_on(async {
        let connection = connect(&options(&arguments.connection)).await.map_err(|error| match error.is_config() {
            true => Failure::usage(error),
            false => Failure::unreadable(error),
        })?;
        let collected = live::collect(&connection, &kinds(rules), &live_scope(&arguments.input), &|_| {})
            .await
            .map_err(Failure::unreadable)?;
        let mut notes = collected.notes;
        let mut cluster = collected.builder.build(Now::At(jiff::Timestamp::now()), Origin::Cluster);
        if !arguments.no_logs {
            let (logs, refused) = logs::fetch(&connection, &logs_wanted(&cluster)).await;
            notes.extend(refused);
            for (of, log) in logs {
                cluster.add_log(&of.namespace, &of.pod, &of.container, log);
            }
        }
        let source = Source::cluster(connection.context().map(str::to_string), notes, &cluster);
        Ok((cluster, source))
    })
}

/// What the chosen rules read.
fn kinds(rules: &[&dyn Rule]) -> BTreeSet<Kind> {
    rules.iter().flat_map(|rule| rule.meta().needs.iter().chain(rule.meta().optional)).copied().collect()
}

fn options(arguments: &ConnectionArgs) -> ConnectOptions {
    ConnectOptions {
        kubeconfig: arguments.kubeconfig.clone(),
        context: arguments.context.clone(),
        cluster: arguments.cluster.clone(),
        user: arguments.user.clone(),
        as_user: arguments.as_user.clone(),
        as_groups: arguments.as_groups.clone(),
        request_timeout: arguments.request_timeout,
    }
}

fn live_scope(arguments: &InputArgs) -> live::Scope {
    if arguments.all_namespaces {
        live::Scope::AllNamespaces
    } else if arguments.namespace.is_empty() {
        live::Scope::Cluster
    } else {
        live::Scope::Namespaces(arguments.namespace.iter().cloned().collect())
    }
}

/// A rule that panics is reported as not evaluated, with the panic's message; the default hook would print it twice.
fn quiet_panics() {
    std::panic::set_hook(Box::new(|_| {}));
}
