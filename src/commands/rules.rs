//! `kubectl-gpt rules`: the table of rules, or one rule's page.

use anyhow::anyhow;
use kubectl_gpt_analyzers::rule::{RuleMeta, id_matches};
use kubectl_gpt_analyzers::rules::all;
use kubectl_gpt_analyzers::{Kind, Profile, Rule};
use serde_json::json;
use tabled::builder::Builder;
use tabled::settings::{Padding, Style};

use crate::cli::{Color, RuleArgs, RulesArgs, RulesFormat};
use crate::collect::Crds;
use crate::commands::rbac;
use crate::exit::{Exit, Failure};
use crate::gate::Notice;
use crate::terminal;

pub fn run(arguments: &RulesArgs) -> Result<Exit, Failure> {
    if arguments.rbac {
        let crds = Crds::parse(&arguments.crds).map_err(|error| Failure::usage(anyhow!(error)))?;
        let role = rbac::cluster_role(&choose(&arguments.rules)?, &crds, arguments.watch);
        terminal::write(&role, Color::Auto).map_err(Failure::unreadable)?;
        return Ok(Exit::Clean);
    }
    // The table is of everything there is, unless somebody asks what a profile runs.
    let rules = among(&arguments.rules, arguments.rules.profile.map_or(Profile::Strict, Profile::from))?;
    let mut rules: Vec<&RuleMeta> = rules.into_iter().map(Rule::meta).collect();
    rules.extend(Notice::ALL.map(Notice::meta).into_iter().filter(|meta| is_chosen(&arguments.rules, &meta.id)));
    let text = match (&arguments.id, arguments.output) {
        (Some(id), RulesFormat::Table) => page(find(id)?),
        (Some(id), RulesFormat::Json) => json_text(&description(find(id)?)),
        (None, RulesFormat::Table) => table(&rules),
        (None, RulesFormat::Json) => json_text(&rules.into_iter().map(description).collect()),
    };
    terminal::write(&text, Color::Auto).map_err(Failure::unreadable)?;
    Ok(Exit::Clean)
}

/// The rules that the flags choose.
///
/// # Errors
/// When a pattern matches no rule: a misspelled rule that silently checks nothing would be a gate that is always open.
pub fn choose(arguments: &RuleArgs) -> Result<Vec<&'static dyn Rule>, Failure> {
    among(arguments, arguments.profile.map_or(Profile::Default, Profile::from))
}

/// Those of a profile, and those that are named in full.
fn among(arguments: &RuleArgs, profile: Profile) -> Result<Vec<&'static dyn Rule>, Failure> {
    for pattern in arguments.rules.iter().chain(&arguments.skip_rules) {
        if !documented().any(|meta| id_matches(pattern, &meta.id)) {
            return Err(unknown(pattern));
        }
    }
    let runs = |rule: &dyn Rule| {
        let meta = rule.meta();
        meta.profile <= profile || arguments.rules.iter().any(|id| *id == meta.id)
    };
    for pattern in &arguments.rules {
        let named: Vec<_> = all().into_iter().filter(|rule| id_matches(pattern, &rule.meta().id)).collect();
        if !named.is_empty() && !named.iter().any(|rule| runs(*rule)) {
            return Err(Failure::usage(anyhow!("--rule {pattern}: these rules need --profile strict")));
        }
    }
    let mut rules = all();
    rules.retain(|rule| runs(*rule) && is_chosen(arguments, &rule.meta().id));
    if rules.is_empty() {
        return Err(Failure::usage(anyhow!("--rule and --skip-rule together leave no rule to run")));
    }
    Ok(rules)
}

/// Whether the flags choose this rule.
pub fn is_chosen(arguments: &RuleArgs, id: &str) -> bool {
    let any = |patterns: &[String]| patterns.iter().any(|pattern| id_matches(pattern, id));
    (arguments.rules.is_empty() || any(&arguments.rules)) && !any(&arguments.skip_rules)
}

/// The rules, and what is said about ignores, which is documented like rules.
fn documented() -> impl Iterator<Item = &'static RuleMeta> {
    all().into_iter().map(Rule::meta).chain(Notice::ALL.map(Notice::meta))
}

fn find(id: &str) -> Result<&'static RuleMeta, Failure> {
    documented().find(|meta| meta.id == id).ok_or_else(|| unknown(id))
}

fn unknown(id: &str) -> Failure {
    let word = id.rsplit('/').next().unwrap_or(id).trim_matches('*');
    let similar: Vec<String> = documented()
        .map(|meta| meta.id.to_string())
        .filter(|known| !word.is_empty() && (known.contains(word) || known.rsplit('/').next() == Some(word)))
        .take(3)
        .collect();
    let hint = match similar.as_slice() {
        [] => "`kubectl-gpt rules` lists them".to_string(),
        similar => format!("did you mean {}?", similar.join(" or ")),
    };
    Failure::usage(anyhow!("no rule is called {id:?}; {hint}"))
}

fn page(meta: &RuleMeta) -> String {
    let summary = capitalized(&meta.summary);
    let profile = match meta.profile {
        Profile::Default => "",
        Profile::Strict => "Only with `--profile strict`, or where `--rule` names it.\n\n",
    };
    format!("# {} ({})\n\n{summary}.\n\n{profile}{}\n{}", meta.id, meta.severity, meta.page(), reads(meta))
}

/// What must be readable, and how to permit it.
fn reads(meta: &RuleMeta) -> String {
    if meta.needs.is_empty() && meta.optional.is_empty() && !meta.reads_custom {
        return String::new();
    }
    let list = |kinds: &[Kind]| kinds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut text = String::from("## What it reads\n\n");
    if !meta.needs.is_empty() {
        text += &format!("Needed: {}.\n", list(meta.needs));
    }
    if !meta.optional.is_empty() {
        text += &format!("If permitted: {}.\n", list(meta.optional));
    }
    if meta.reads_custom {
        text += "Custom resources: those that --crds chooses.\n";
    }
    text + &format!("`kubectl-gpt rules --rbac --rule {}` prints the ClusterRole for that.\n", meta.id)
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
