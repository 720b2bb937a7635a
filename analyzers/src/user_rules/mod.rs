//! User-defined rules: a CEL condition over one object of certain kinds, a message, and fixes.
//!
//! A rule evaluates full objects of the API ([`RawObjects`]), one at a time, Secrets without their data.

mod cost;
mod expression;
mod functions;
mod json;
mod template;

use std::collections::BTreeMap;

use serde_json::Value;

use self::expression::{Evaluator, Expression, Invalid, on_deep_stack};
use self::template::{Template, Use};
use crate::engine::{Finding, Fix, Profile, Report, Rule, RuleMeta, Severity};
use crate::snapshot::model::Pod;
use crate::snapshot::{Cluster, Kind, KindName, ObjectRef, Reason};
use crate::text::{SafeText, words};

/// A rule definition from a file.
#[derive(Clone, Debug)]
pub struct Definition {
    /// `folder/name`, like all rule ids.
    pub id: String,
    pub severity: Severity,
    /// One line; defaults to the id.
    pub summary: String,
    /// In Markdown; may be empty.
    pub description: String,
    pub kinds: Vec<KindName>,
    /// A CEL condition that is true for objects with the problem.
    pub when: String,
    /// May contain CEL between `{{` and `}}`.
    pub message: String,
    pub fixes: Vec<FixDefinition>,
}

/// A suggested fix. May contain CEL between `{{` and `}}`.
#[derive(Clone, Debug)]
pub struct FixDefinition {
    pub text: String,
    /// A shell command; values are quoted.
    pub command: Option<String>,
}

/// The invalid part of a definition, and why it is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct DefinitionError {
    /// `when`, `message`, `fix` …
    pub field: &'static str,
    /// Contains the expression, if it is about one.
    pub message: String,
}

impl DefinitionError {
    fn new(field: &'static str, message: impl Into<String>) -> DefinitionError {
        DefinitionError { field, message: message.into() }
    }

    fn of(field: &'static str, expression: &str, why: &Invalid) -> DefinitionError {
        let at = why.at.map(|(line, column)| match line {
            1 => format!(" (column {column})"),
            _ => format!(" (line {line}, column {column})"),
        });
        DefinitionError::new(field, format!("`{expression}`: {}{}", why.message, at.unwrap_or_default()))
    }
}

/// A user-defined rule.
#[derive(Debug)]
pub struct UserRule {
    meta: RuleMeta,
    kinds: Vec<KindName>,
    when: Expression,
    message: Template,
    fixes: Vec<(Template, Option<Template>)>,
}

/// The result of a rule for one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub message: String,
    pub fixes: Vec<Fix>,
}

impl UserRule {
    /// # Errors
    /// If a part of the definition is invalid.
    pub fn new(definition: Definition) -> Result<UserRule, DefinitionError> {
        check_id(&definition.id)?;
        if definition.kinds.is_empty() {
            return Err(DefinitionError::new("kinds", "must not be empty"));
        }
        let when = Expression::parse(&definition.when)
            .map_err(|why| DefinitionError::of("when", definition.when.trim(), &why))?;
        let template = |field, source: &str, use_| {
            Template::parse(source, use_).map_err(|(expression, why)| DefinitionError::of(field, &expression, &why))
        };
        let message = template("message", &definition.message, Use::Prose)?;
        if definition.message.trim().is_empty() {
            return Err(DefinitionError::new("message", "must not be empty"));
        }
        let mut fixes = Vec::new();
        for fix in &definition.fixes {
            let command = fix.command.as_deref().map(|command| template("fix.command", command, Use::Command));
            fixes.push((template("fix.text", &fix.text, Use::Prose)?, command.transpose()?));
        }
        let meta = meta(&definition);
        Ok(UserRule { meta, kinds: definition.kinds, when, message, fixes })
    }

    /// Evaluates the rule for one object.
    ///
    /// # Errors
    /// If an expression fails on this object, or exceeds the cost limit.
    pub fn judge(&self, object: &Value) -> Result<Option<Verdict>, String> {
        let judge = || {
            let mut evaluator = Evaluator::new();
            evaluator.look_at(object);
            self.judge_with(&evaluator)
        };
        on_deep_stack(judge).unwrap_or_else(|error| Err(error.to_string()))
    }

    fn judge_with(&self, evaluator: &Evaluator) -> Result<Option<Verdict>, String> {
        if !evaluator.holds(&self.when).map_err(|why| format!("when: {why}"))? {
            return Ok(None);
        }
        let message = self.message.render(evaluator, Use::Prose).map_err(|why| format!("message: {why}"))?;
        let mut fixes = Vec::new();
        for (text, command) in &self.fixes {
            let failed = |why| format!("fix: {why}");
            let command = command.as_ref().map(|command| command.render(evaluator, Use::Command));
            let text = text.render(evaluator, Use::Prose).map_err(failed)?;
            let command = command.transpose().map_err(failed)?;
            fixes.push(Fix { text: text.into(), command: command.map(SafeText::from) });
        }
        Ok(Some(Verdict { message: words::shorten(&message, 400), fixes }))
    }
}

impl Rule for UserRule {
    fn meta(&self) -> &RuleMeta {
        &self.meta
    }

    fn raw_kinds(&self) -> &[KindName] {
        &self.kinds
    }

    fn check(&self, cluster: &Cluster, report: &mut Report) {
        if !cluster.has_raw() {
            return report.not_run(Reason::RuleError, "full objects, which user-defined rules need, were not kept");
        }
        if let Err(error) = on_deep_stack(|| self.check_objects(cluster, &mut *report)) {
            report.not_run(Reason::RuleError, format!("cannot start a thread: {error}"));
        }
    }
}

impl UserRule {
    fn check_objects(&self, cluster: &Cluster, report: &mut Report) {
        let mut evaluator = Evaluator::new();
        let mut found: BTreeMap<ObjectRef, Finding> = BTreeMap::new();
        let mut failed = Failures::default();
        for kind in &self.kinds {
            match kind.known() {
                Some(known) => report.not_read(cluster, &[known]),
                None => report.custom_kind_not_read(cluster, &kind.group_kind()),
            }
            for raw in cluster.raw(&kind.group_kind()) {
                let object = raw.reference();
                if !kind.is_in(&object.api_version) {
                    failed
                        .add(&object, format!("object was read as {}, the rule applies to {kind}", object.api_version));
                    continue;
                }
                evaluator.look_at(&raw.value());
                match self.judge_with(&evaluator) {
                    Ok(None) => {}
                    Ok(Some(verdict)) => self.add(cluster, object, verdict, &mut found),
                    Err(why) => failed.add(&object, why),
                }
            }
        }
        found.into_values().for_each(|finding| report.add(finding));
        if let Some((object, message)) = failed.summary() {
            report.not_evaluated(&object, Reason::RuleError, message);
        }
    }

    /// Pods are reported once, on their workload.
    fn add(&self, cluster: &Cluster, object: ObjectRef, verdict: Verdict, found: &mut BTreeMap<ObjectRef, Finding>) {
        let is_pod = object.is(Kind::Pod);
        let pod = is_pod.then(|| cluster.get::<Pod>(object.namespace(), &object.name).found()).flatten();
        if is_pod && pod.is_none() {
            // The pod is no longer in the snapshot.
            return;
        }
        let on = pod.map_or_else(|| object.clone(), |pod| cluster.owner_of(pod).into_owned());
        if let Some(known) = found.get_mut(&on) {
            known.pods += usize::from(is_pod);
            return;
        }
        let condition = format!("condition is true: {}", words::shorten(self.when.source(), 200));
        let mut finding = Finding::new(self.meta.severity, on.clone(), verdict.message)
            .evidence(condition, &object, "")
            .pods(usize::from(is_pod));
        finding.fix = verdict.fixes;
        found.insert(on, finding);
    }
}

/// The objects on which a rule failed. Reported once, with the first object and its error.
#[derive(Default)]
struct Failures {
    first: Option<(ObjectRef, String)>,
    count: usize,
}

impl Failures {
    fn add(&mut self, object: &ObjectRef, why: String) {
        self.count += 1;
        self.first.get_or_insert_with(|| (object.clone(), why));
    }

    fn summary(self) -> Option<(ObjectRef, String)> {
        let (object, why) = self.first?;
        let others = match self.count {
            1 => String::new(),
            n => format!("; {} more also affected", words::count(n - 1, "object")),
        };
        Some((object, why + &others))
    }
}

fn check_id(id: &str) -> Result<(), DefinitionError> {
    let is_word =
        |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    match id.split_once('/') {
        Some((folder, name)) if is_word(folder) && is_word(name) => Ok(()),
        _ => Err(DefinitionError::new("id", format!("expected an id such as team/no-owner, found {id:?}"))),
    }
}

/// Rules are never freed, so neither are the kinds that they read.
fn meta(definition: &Definition) -> RuleMeta {
    let mut known: Vec<Kind> = definition.kinds.iter().filter_map(KindName::known).collect();
    known.sort();
    known.dedup();
    RuleMeta {
        id: definition.id.clone().into(),
        severity: definition.severity,
        profile: Profile::Default,
        summary: definition.summary.clone().into(),
        needs: &[],
        optional: known.leak(),
        reads_custom: false,
        in_terminating_namespaces: false,
        explained_by: &[],
        documentation: page(definition).into(),
    }
}

fn page(definition: &Definition) -> String {
    let kinds: Vec<String> = definition.kinds.iter().map(KindName::to_string).collect();
    let mut page = String::new();
    if !definition.description.trim().is_empty() {
        page += &format!("{}\n\n", definition.description.trim());
    }
    page += &format!("## What it checks\n\n{}, where:\n\n", kinds.join(", "));
    page += &format!("```cel\n{}\n```\n\n## Message\n\n{}\n", definition.when.trim(), definition.message.trim());
    if !definition.fixes.is_empty() {
        page += "\n## How to fix\n\n";
        for fix in &definition.fixes {
            page += &format!("{}\n", fix.text.trim());
            if let Some(command) = &fix.command {
                page += &format!("\n```console\n{}\n```\n", command.trim());
            }
        }
    }
    page
}

#[cfg(test)]
mod tests;
