//! Custom rules in YAML files: loading them and running their tests.
//!
//! The format is documented in docs/user-rules.md; expressions are evaluated by `kubectl_gpt_analyzers::user_rules`.

use kubectl_gpt_analyzers::Severity;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use kubectl_gpt_analyzers::engine::Rule;
use kubectl_gpt_analyzers::rules;
use kubectl_gpt_analyzers::snapshot::{KindName, RawObject};
use kubectl_gpt_analyzers::user_rules::{Definition, DefinitionError, FixDefinition, UserRule};
use serde::Deserialize;
use serde_json::{Map, Value};
use serde_saphyr::Spanned;

use crate::collect::custom::holds_credentials;
use crate::config::{FILE, Strings};

/// The maximum size of a rule file, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// The maximum depth of nested directories.
const MAX_DEPTH: usize = 8;

/// A rule with its tests.
#[derive(Debug)]
pub struct FromFile {
    pub rule: &'static UserRule,
    pub tests: Vec<Test>,
}

/// A test case: an object and the message that the rule is expected to report.
#[derive(Debug)]
pub struct Test {
    /// `team.yaml:12`
    pub place: String,
    pub name: String,
    object: Value,
    expect: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    rules: Vec<Spanned<RuleFields>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFields {
    id: String,
    severity: Severity,
    #[serde(default)]
    summary: Option<String>,
    #[serde(default)]
    description: String,
    kinds: Strings,
    when: Spanned<String>,
    message: Spanned<String>,
    #[serde(default)]
    fix: Vec<FixFields>,
    #[serde(default)]
    tests: Vec<Spanned<TestFields>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FixFields {
    text: String,
    #[serde(default)]
    command: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TestFields {
    #[serde(default)]
    name: String,
    object: Map<String, Value>,
    /// The expected message; none if the rule is not expected to fire.
    #[serde(default)]
    expect: Option<String>,
}

/// Loads all rules in files and directories (`.yaml` and `.yml`). They live until the program ends, like built-in
/// rules.
///
/// # Errors
/// Names file, line and expression of an invalid rule. Duplicate rule ids and directories without rule files are errors
/// too.
pub fn load(paths: &[PathBuf]) -> Result<Vec<FromFile>> {
    let mut files = Vec::new();
    for path in paths {
        let before = files.len();
        find(path, 0, &mut files).with_context(|| format!("reading rules in {}", path.display()))?;
        if files.len() == before {
            bail!("no rules in {}: no .yaml files found", path.display());
        }
    }
    let mut known: BTreeMap<String, String> = rules::all()
        .iter()
        .map(|rule| (rule.meta().id.to_string(), "defined as a built-in rule".to_string()))
        .collect();
    let mut all = Vec::new();
    for file in files {
        for (place, rule) in read(&file)? {
            let id = rule.rule.meta().id.to_string();
            if let Some(other) = known.insert(id.clone(), format!("defined at {place}")) {
                bail!("{place}: duplicate rule {id}: already {other}");
            }
            all.push(rule);
        }
    }
    Ok(all)
}

fn find(path: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    if depth > MAX_DEPTH {
        bail!("directories are nested more than {MAX_DEPTH} levels deep");
    }
    let entries: std::io::Result<Vec<_>> = fs::read_dir(path)?.collect();
    let mut paths: Vec<PathBuf> = entries?.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let is_yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        let is_settings = path.file_name().is_some_and(|name| name == FILE);
        let is_link = path.is_symlink() && path.is_dir();
        if (path.is_dir() && !is_link) || (is_yaml && !is_settings && !path.is_dir()) {
            find(&path, depth + 1, files)?;
        }
    }
    Ok(())
}

/// The rules of one file, each with its location.
fn read(file: &Path) -> Result<Vec<(String, FromFile)>> {
    let name = file.display().to_string();
    let size = fs::metadata(file).with_context(|| format!("reading {name}"))?.len();
    if size > MAX_FILE_BYTES {
        bail!("reading {name}: file is larger than {} KiB", MAX_FILE_BYTES >> 10);
    }
    let text = fs::read_to_string(file).with_context(|| format!("reading {name}"))?;
    let document: Document = serde_saphyr::from_str(&text)
        .map_err(|error| anyhow!("reading {name}: {}", error.to_string().lines().next().unwrap_or_default()))?;
    if document.rules.is_empty() {
        bail!("reading {name}: file contains no rules");
    }
    document.rules.into_iter().map(|fields| compile(&name, fields)).collect()
}

fn compile(file: &str, fields: Spanned<RuleFields>) -> Result<(String, FromFile)> {
    let place = format!("{file}:{}", fields.referenced.line());
    let fields = fields.value;
    let id = fields.id.clone();
    let kinds: Vec<KindName> = fields
        .kinds
        .iter()
        .map(|kind| kind.parse().map_err(|error: String| anyhow!("{place}: rule {id}: kinds: {error}")))
        .collect::<Result<_>>()?;
    if let Some(kind) = kinds.iter().find(|kind| kind.known().is_none() && holds_credentials(&kind.kind)) {
        bail!("{place}: rule {id}: kinds: {kind} contains credentials, which are never read");
    }
    let lines = [("when", fields.when.referenced.line()), ("message", fields.message.referenced.line())];
    let at = |error: &DefinitionError| match lines.iter().find(|(field, _)| *field == error.field) {
        Some((_, line)) => format!("{file}:{line}"),
        None => place.clone(),
    };
    let definition = Definition {
        id: fields.id,
        severity: fields.severity,
        summary: fields.summary.unwrap_or_else(|| id.clone()).trim().to_string(),
        description: fields.description,
        kinds: kinds.clone(),
        when: fields.when.value,
        message: fields.message.value,
        fixes: fields.fix.into_iter().map(|fix| FixDefinition { text: fix.text, command: fix.command }).collect(),
    };
    let rule = UserRule::new(definition).map_err(|error| anyhow!("{}: rule {id}: {error}", at(&error)))?;
    let tests = fields.tests.into_iter().map(|test| test_of(file, &id, &kinds, test)).collect::<Result<_>>()?;
    Ok((place, FromFile { rule: Box::leak(Box::new(rule)), tests }))
}

fn test_of(file: &str, rule: &str, kinds: &[KindName], test: Spanned<TestFields>) -> Result<Test> {
    let place = format!("{file}:{}", test.referenced.line());
    let TestFields { name, object, expect } = test.value;
    let raw = RawObject::new(object)
        .ok_or_else(|| anyhow!("{place}: rule {rule}: a test object needs apiVersion, kind and metadata.name"))?;
    let reference = raw.reference();
    if !kinds.iter().any(|kind| kind.kind == reference.kind && kind.group == reference.group()) {
        bail!("{place}: rule {rule}: kinds does not include {} of {}", reference.kind, reference.api_version);
    }
    let name = if name.is_empty() { reference.title() } else { name };
    Ok(Test { place, name, object: raw.value(), expect })
}

impl FromFile {
    /// Runs the tests; each result is the failure message, or `None` if the test passed.
    pub fn run_tests(&self) -> Vec<(&Test, Option<String>)> {
        self.tests.iter().map(|test| (test, self.failure(test))).collect()
    }

    fn failure(&self, test: &Test) -> Option<String> {
        let reported = match self.rule.judge(&test.object) {
            Ok(verdict) => verdict.map(|verdict| verdict.message),
            Err(why) => return Some(format!("could not be evaluated: {why}")),
        };
        let expected = test.expect.as_deref().map(str::trim);
        match (expected, reported.as_deref()) {
            (expected, reported) if expected == reported => None,
            (None, Some(reported)) => Some(format!("expected no finding, got: {reported}")),
            (Some(expected), None) => Some(format!("expected: {expected}; got no finding")),
            (Some(expected), Some(reported)) => Some(format!("expected: {expected}; got: {reported}")),
            (None, None) => None,
        }
    }
}
