//! `kubectl-gpt rules`: lists the rules, or shows the documentation of one.

use crate::config::{ConfigArgs, RuleArgs};
use clap::{Args, Subcommand, ValueEnum};
use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::anyhow;
use kubectl_gpt_analyzers::RuleMeta;
use kubectl_gpt_analyzers::rules::all as built_in;
use kubectl_gpt_analyzers::text::similar;
use kubectl_gpt_analyzers::text::words;
use kubectl_gpt_analyzers::{Kind, Profile, Rule};
use serde_json::json;
use tabled::builder::Builder;
use tabled::settings::{Padding, Style};

use crate::collect::Crds;
use crate::commands::rbac;
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::gate::Notice;
use crate::glob::Glob;
use crate::terminal;
use crate::terminal::Color;
use crate::user_rules;

/// List the rules, or show the documentation of one rule.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, disable_help_subcommand = true)]
pub struct RulesArgs {
    #[command(subcommand)]
    pub command: Option<RulesCommand>,
    /// Rule to document.
    pub id: Option<String>,
    #[command(flatten)]
    pub rules: RuleArgs,
    /// Print the minimum ClusterRole that the rules need.
    #[arg(long, conflicts_with_all = ["id", "output"])]
    pub rbac: bool,
    /// With --rbac: include the permissions for `analyze --watch`.
    #[arg(long, requires = "rbac")]
    pub watch: bool,
    /// With --rbac: API groups of custom resources, as with analyze.
    #[arg(long, value_name = "GROUP", value_delimiter = ',', default_values_t = vec!["all".to_string()])]
    pub crds: Vec<String>,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = RulesOutput::Table)]
    pub output: RulesOutput,
    #[command(flatten)]
    pub config: ConfigArgs,
}

#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// Run the tests of custom rules.
    ///
    /// Exit codes: 0 all tests passed, 1 a test failed, 2 invalid rule file.
    Test {
        /// Directories of YAML files, or single files.
        #[arg(required = true, value_name = "DIR")]
        paths: Vec<PathBuf>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RulesOutput {
    Table,
    /// Also the kinds that each rule reads, and all API requests of the rules combined.
    Wide,
    Json,
}

pub fn run(arguments: &RulesArgs) -> Result<Exit, Failure> {
    if let Some(RulesCommand::Test { paths }) = &arguments.command {
        return run_tests(paths);
    }
    let mut chosen = arguments.rules.clone();
    if chosen.folders.is_empty() {
        chosen.folders = Config::load(&arguments.config)?.rule_folders();
    }
    if arguments.rbac {
        let crds = Crds::parse(&arguments.crds).map_err(|error| Failure::usage(anyhow!(error)))?;
        let role = rbac::cluster_role(&choose(&chosen)?, &crds, arguments.watch);
        terminal::write(&role, Color::Auto).map_err(Failure::unreadable)?;
        return Ok(Exit::Clean);
    }
    let all = catalogue(&chosen.folders)?;
    // The table lists all rules unless a profile is given.
    let rules = among(&all, &chosen, chosen.profile.unwrap_or(Profile::Strict))?;
    let filter = Chosen::new(&chosen)?;
    let mut metas: Vec<&RuleMeta> = rules.iter().map(|rule| rule.meta()).collect();
    metas.extend(Notice::ALL.map(Notice::meta).into_iter().filter(|meta| filter.includes(&meta.id)));
    let text = match (&arguments.id, arguments.output) {
        (Some(id), RulesOutput::Table | RulesOutput::Wide) => page(find(&all, id)?),
        (Some(id), RulesOutput::Json) => json_text(&description(find(&all, id)?)),
        (None, RulesOutput::Table) => table(&metas),
        (None, RulesOutput::Wide) => wide(&rules),
        (None, RulesOutput::Json) => json_text(&metas.into_iter().map(description).collect()),
    };
    terminal::write(&terminal::plain_lines(&text), Color::Auto).map_err(Failure::unreadable)?;
    Ok(Exit::Clean)
}

/// The rules selected by the flags.
///
/// # Errors
/// When a pattern matches no rule: a misspelled rule id would silently disable the check.
pub fn choose(arguments: &RuleArgs) -> Result<Vec<&'static dyn Rule>, Failure> {
    let profile = arguments.profile.map_or(Profile::Default, Profile::from);
    among(&catalogue(&arguments.folders)?, arguments, profile)
}

/// All rules, built-in and custom, sorted by id.
fn catalogue(folders: &[PathBuf]) -> Result<Vec<&'static dyn Rule>, Failure> {
    let own = user_rules::load(folders).map_err(|error| Failure::usage(anyhow!("{error:#}")))?;
    let mut rules = built_in();
    rules.extend(own.into_iter().map(|from_file| from_file.rule as &dyn Rule));
    rules.sort_by(|a, b| a.meta().id.cmp(&b.meta().id));
    Ok(rules)
}

/// The rules of a profile, and those that are named in full.
fn among(all: &[&'static dyn Rule], arguments: &RuleArgs, profile: Profile) -> Result<Vec<&'static dyn Rule>, Failure> {
    let chosen = Chosen::new(arguments)?;
    for pattern in chosen.rules.iter().chain(&chosen.skipped) {
        if !documented(all).any(|meta| pattern.is_match(&meta.id)) {
            return Err(unknown(all, pattern.as_str()));
        }
    }
    let runs = |rule: &dyn Rule| {
        let meta = rule.meta();
        meta.profile <= profile || arguments.rules.iter().any(|id| *id == meta.id)
    };
    for pattern in &chosen.rules {
        let named: Vec<_> = all.iter().filter(|rule| pattern.is_match(&rule.meta().id)).collect();
        if !named.is_empty() && !named.iter().any(|rule| runs(**rule)) {
            return Err(Failure::usage(anyhow!("--rule {pattern}: matching rules require --profile strict")));
        }
    }
    let mut rules = all.to_vec();
    rules.retain(|rule| runs(*rule) && chosen.includes(&rule.meta().id));
    if rules.is_empty() {
        return Err(Failure::usage(anyhow!("no rules left to run after --rule and --skip-rule")));
    }
    Ok(rules)
}

/// What --rule and --skip-rule select.
pub struct Chosen {
    rules: Vec<Glob>,
    skipped: Vec<Glob>,
}

impl Chosen {
    /// # Errors
    /// When a pattern is invalid.
    pub fn new(arguments: &RuleArgs) -> Result<Chosen, Failure> {
        let globs = |flag: &str, patterns: &[String]| -> Result<Vec<Glob>, Failure> {
            let invalid = |error| Failure::usage(anyhow!("{flag}: {error}"));
            patterns.iter().map(|pattern| Glob::new(pattern).map_err(invalid)).collect()
        };
        Ok(Chosen { rules: globs("--rule", &arguments.rules)?, skipped: globs("--skip-rule", &arguments.skip_rules)? })
    }

    /// Whether this rule is selected.
    pub fn includes(&self, id: &str) -> bool {
        let any = |patterns: &[Glob]| patterns.iter().any(|pattern| pattern.is_match(id));
        (self.rules.is_empty() || any(&self.rules)) && !any(&self.skipped)
    }
}

/// The rules and the notices about ignores, which are documented like rules.
fn documented(all: &[&'static dyn Rule]) -> impl Iterator<Item = &'static RuleMeta> {
    all.iter().map(|rule| rule.meta()).chain(Notice::ALL.map(Notice::meta))
}

fn find(all: &[&'static dyn Rule], id: &str) -> Result<&'static RuleMeta, Failure> {
    documented(all).find(|meta| meta.id == id).ok_or_else(|| unknown(all, id))
}

fn unknown(all: &[&'static dyn Rule], id: &str) -> Failure {
    let ids: Vec<String> = documented(all).map(|meta| meta.id.to_string()).collect();
    let hint = match similar::did_you_mean(id, ids.iter().map(String::as_str)) {
        Some(hint) => hint,
        None => "run `kubectl-gpt rules` to list all rules".to_string(),
    };
    Failure::usage(anyhow!("unknown rule {id:?} ({hint})"))
}

/// Runs the tests of custom rules.
fn run_tests(paths: &[PathBuf]) -> Result<Exit, Failure> {
    let rules = user_rules::load(paths).map_err(|error| Failure::usage(anyhow!("{error:#}")))?;
    let (mut text, mut run, mut failed) = (String::new(), 0, 0);
    for rule in &rules {
        let id = &rule.rule.meta().id;
        if rule.tests.is_empty() {
            text += &format!("{id} has no tests\n");
        }
        for (test, failure) in rule.run_tests() {
            run += 1;
            if let Some(failure) = failure {
                failed += 1;
                text += &format!("FAILED  {id}: {} ({})\n        {failure}\n", test.name, test.place);
            }
        }
    }
    text += &match failed {
        0 => format!("{} of {} passed\n", words::count(run, "test"), words::count(rules.len(), "rule")),
        _ => format!("{failed} of {} of {} failed\n", words::count(run, "test"), words::count(rules.len(), "rule")),
    };
    terminal::write(&terminal::plain_lines(&text), Color::Auto).map_err(Failure::unreadable)?;
    Ok(if failed == 0 { Exit::Clean } else { Exit::Findings })
}

fn page(meta: &RuleMeta) -> String {
    let summary = capitalized(&meta.summary);
    let profile = match meta.profile {
        Profile::Default => "",
        Profile::Strict => "Runs only with `--profile strict`, or if `--rule` names it.\n\n",
    };
    format!("# {} ({})\n\n{summary}.\n\n{profile}{}\n{}", meta.id, meta.severity, meta.page(), reads(meta))
}

/// The kinds that a rule reads, and how to print the required ClusterRole.
pub fn reads(meta: &RuleMeta) -> String {
    if meta.needs.is_empty() && meta.optional.is_empty() && !meta.reads_custom {
        return String::new();
    }
    let list = |kinds: &[Kind]| kinds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut text = String::from("## Required access\n\n");
    if !meta.needs.is_empty() {
        text += &format!("Required: {}.\n", list(meta.needs));
    }
    if !meta.optional.is_empty() {
        text += &format!("Optional: {}.\n", list(meta.optional));
    }
    if meta.reads_custom {
        text += "Custom resources: those selected by --crds.\n";
    }
    text + &format!("`kubectl-gpt rules --rbac --rule {}` prints the required ClusterRole.\n", meta.id)
}

fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

fn table(rules: &[&RuleMeta]) -> String {
    let longest = rules.iter().map(|meta| meta.id.len()).max().unwrap_or(0);
    let room = terminal::width().saturating_sub(longest + "  SEVERITY  PROFILE  ".len()).max(20);
    let mut builder = Builder::new();
    builder.push_record(["RULE", "SEVERITY", "PROFILE", "FINDS"]);
    for meta in rules {
        let summary = textwrap::wrap(&meta.summary, room).join("\n");
        builder.push_record([meta.id.to_string(), meta.severity.to_string(), meta.profile.to_string(), summary]);
    }
    let mut table = builder.build();
    table.with(Style::empty()).with(Padding::new(0, 2, 0, 0));
    table.to_string().lines().fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

/// The table with the kinds that each rule reads, followed by all API requests of the rules combined.
fn wide(rules: &[&dyn Rule]) -> String {
    let list = |kinds: &[Kind]| kinds.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let mut builder = Builder::new();
    builder.push_record(["RULE", "SEVERITY", "PROFILE", "REQUIRES", "OPTIONAL", "FINDS"]);
    for rule in rules {
        let meta = rule.meta();
        let mut optional = list(meta.optional);
        if meta.reads_custom {
            optional += if optional.is_empty() { "custom resources" } else { ",custom resources" };
        }
        let dash = |text: String| if text.is_empty() { "-".to_string() } else { text };
        builder.push_record([
            meta.id.to_string(),
            meta.severity.to_string(),
            meta.profile.to_string(),
            dash(list(meta.needs)),
            dash(optional),
            meta.summary.to_string(),
        ]);
    }
    let mut table = builder.build();
    table.with(Style::empty()).with(Padding::new(0, 2, 0, 0));
    let table = table.to_string().lines().fold(String::new(), |text, line| text + line.trim_end() + "\n");
    table + "\n" + &plan(rules)
}

/// All API requests of the rules combined: one list per kind.
fn plan(rules: &[&dyn Rule]) -> String {
    let metas = || rules.iter().map(|rule| rule.meta());
    let kinds: BTreeSet<Kind> = metas().flat_map(|meta| meta.reads()).collect();
    let mut resources: Vec<String> = kinds
        .iter()
        .map(|kind| match kind.api().group {
            "" => kind.api().plural.to_string(),
            group => format!("{}.{group}", kind.api().plural),
        })
        .collect();
    resources.sort();
    let raw: BTreeSet<String> = rules.iter().flat_map(|rule| rule.raw_kinds()).map(ToString::to_string).collect();
    let mut text =
        format!("{} list {} in total:\n", words::count(rules.len(), "rule"), words::count(kinds.len(), "kind"));
    text += &(textwrap::fill(&resources.join(", "), terminal::width().max(40)) + "\n");
    if !raw.is_empty() {
        let raw: Vec<String> = raw.into_iter().collect();
        text += &format!("custom rules read whole objects of: {}\n", raw.join(", "));
    }
    if metas().any(|meta| meta.reads_custom) {
        text += "plus the custom resources selected by --crds\n";
    }
    text + "`kubectl-gpt rules --rbac` prints the required ClusterRole.\n"
}

fn description(meta: &RuleMeta) -> serde_json::Value {
    let kinds = |kinds: &[Kind]| kinds.iter().map(ToString::to_string).collect::<Vec<_>>();
    json!({
        "id": meta.id,
        "severity": meta.severity,
        "profile": meta.profile,
        "summary": meta.summary,
        "needs": kinds(meta.needs),
        "optional": kinds(meta.optional),
        "readsCustomResources": meta.reads_custom,
        "documentation": meta.page(),
    })
}

fn json_text(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}
