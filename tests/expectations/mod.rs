//! The expected findings of a recorded cluster (`expect.yaml`), and their comparison with a report.

#![allow(dead_code, reason = "not every test that includes it needs all of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

/// All findings of a report are held against it, whatever their namespace.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expectations {
    /// What the recording shows, for people.
    #[serde(rename = "title")]
    _title: Option<String>,
    /// Where the objects are, unless an expectation says otherwise.
    namespace: String,
    /// Further namespaces in which the expected objects may be.
    #[serde(default)]
    namespaces: Vec<String>,
    expect: Vec<Expectation>,
    /// Findings that are true and not the point.
    #[serde(default)]
    allow: Vec<Allowed>,
    /// What no advice may contain (a regular expression): it would not have helped.
    never: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expectation {
    /// `Kind/name`
    object: String,
    /// Where it is, if not in the recording's own namespace; empty for any.
    namespace: Option<String>,
    /// The rules one of which finds it.
    rule: Rules,
    /// What is wrong, for people.
    #[serde(rename = "cause")]
    _cause: Option<String>,
    /// What the message or the evidence must contain (a regular expression).
    r#match: String,
    /// The object of the cause.
    because: Option<String>,
    /// Other kinds on which the problem may be reported.
    #[serde(default)]
    also: Vec<String>,
    #[serde(default)]
    optional: bool,
    #[serde(default)]
    root: bool,
    severity: Option<String>,
    /// What the advice of the finding, or of a cause of it, must contain (a regular expression).
    fix: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Rules {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Allowed {
    rule: String,
    object: String,
    #[serde(rename = "reason")]
    _reason: String,
}

impl Rules {
    fn contains(&self, rule: &str) -> bool {
        match self {
            Rules::One(one) => one == rule,
            Rules::Several(several) => several.iter().any(|one| one == rule),
        }
    }
}

impl Expectations {
    /// Whether a finding is in the recording's own namespaces, or of cluster scope.
    fn is_here(&self, finding: &Value) -> bool {
        let namespace = text(&finding["object"]["namespace"]);
        namespace.is_empty() || namespace == self.namespace || self.namespaces.iter().any(|n| n == namespace)
    }

    fn is_about(&self, finding: &Value, expected: &Expectation) -> bool {
        let object = &finding["object"];
        let (kind, name, namespace) = (text(&object["kind"]), text(&object["name"]), text(&object["namespace"]));
        let is_here = match expected.namespace.as_deref() {
            Some(own) => own.is_empty() || namespace == own || namespace.is_empty(),
            None => self.is_here(finding),
        };
        let (expected_kind, expected_name) = expected.object.split_once('/').unwrap();
        let owned = name.starts_with(&format!("{expected_name}-")) && ["Pod", "ReplicaSet", "Job"].contains(&kind);
        let is_same = kind == expected_kind && name == expected_name;
        is_here && (is_same || owned || expected.also.iter().any(|k| k == kind))
    }

    fn allows(&self, finding: &Value) -> bool {
        let object = format!("{}/{}", text(&finding["object"]["kind"]), text(&finding["object"]["name"]));
        self.allow.iter().any(|allowed| allowed.rule == text(&finding["rule"]) && allowed.object == object)
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The message and the evidence.
fn statements(finding: &Value) -> String {
    let evidence = finding["evidence"].as_array().into_iter().flatten().map(|piece| text(&piece["text"]));
    [text(&finding["message"])].into_iter().chain(evidence).collect::<Vec<_>>().join("\n")
}

/// The texts and commands of the advice.
fn advice(finding: &Value) -> String {
    let fixes = finding["fix"].as_array().into_iter().flatten();
    fixes.map(|fix| format!("{} {}", text(&fix["text"]), text(&fix["command"]))).collect::<Vec<_>>().join("\n")
}

/// The folders of recorded clusters: `scenarios`, `field`, `realworld`, `installs` or `reports`.
pub fn folders(of: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(of);
    let mut folders: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    assert!(folders.len() > 10, "{of} is complete");
    folders
}

/// All direct and indirect causes of a finding.
fn causes<'a>(finding: &'a Value, by_id: &BTreeMap<&str, &'a Value>) -> Vec<&'a Value> {
    let (mut todo, mut seen) = (vec![finding], BTreeSet::new());
    let mut causes = Vec::new();
    while let Some(finding) = todo.pop() {
        for id in finding["causedBy"].as_array().unwrap().iter().map(text) {
            if seen.insert(id) {
                let cause = by_id.get(id).unwrap_or_else(|| panic!("{id} is a finding"));
                causes.push(*cause);
                todo.push(cause);
            }
        }
    }
    causes
}

fn pattern(text: &str) -> Regex {
    Regex::new(&format!("(?i){text}")).unwrap()
}

/// What is wrong with a report (the JSON of `-o json`) about the cluster of a folder, in words.
pub fn mistakes(folder: &Path, report: &Value) -> Vec<String> {
    judge(folder, report, false)
}

/// The same of a cluster in which the folder's namespaces are some among others, which do not count.
pub fn mistakes_among_others(folder: &Path, report: &Value) -> Vec<String> {
    judge(folder, report, true)
}

fn judge(folder: &Path, report: &Value, among_others: bool) -> Vec<String> {
    let file = folder.join("expect.yaml");
    let expectations: Expectations = serde_saphyr::from_str(&fs::read_to_string(&file).unwrap())
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let findings = report["findings"].as_array().unwrap();
    let by_id: BTreeMap<&str, &Value> = findings.iter().map(|f| (text(&f["id"]), f)).collect();
    assert_eq!(by_id.len(), findings.len(), "ids are unique");
    let counts = |f: &&Value| f["severity"] != "info" && (!among_others || expectations.is_here(f));
    let serious: Vec<&Value> = findings.iter().filter(counts).collect();
    let mut mistakes = Vec::new();
    for expected in expectations.expect.iter().filter(|e| !e.optional) {
        let object = &expected.object;
        let wanted = pattern(&expected.r#match);
        let about: Vec<&Value> = serious.iter().copied().filter(|f| expectations.is_about(f, expected)).collect();
        let hits: Vec<&Value> = about.iter().copied().filter(|f| wanted.is_match(&statements(f))).collect();
        if hits.is_empty() {
            mistakes.push(format!("missed: {object} ({})", expected.r#match));
            continue;
        }
        if !hits.iter().any(|f| expected.rule.contains(text(&f["rule"]))) {
            let rules: Vec<&str> = hits.iter().map(|f| text(&f["rule"])).collect();
            mistakes.push(format!("{object} is found by {rules:?}, not by the rule expected"));
        }
        if let Some(severity) = &expected.severity
            && !hits.iter().any(|f| f["severity"] == severity.as_str())
        {
            mistakes.push(format!("{object} is not of severity {severity}"));
        }
        let is_root = |f: &&Value| causes(f, &by_id).iter().all(|c| expectations.is_about(c, expected));
        if expected.root && !hits.iter().any(is_root) {
            mistakes.push(format!("{object} is a root cause, but not here"));
        }
        if let Some(because) = &expected.because {
            let root = expectations.expect.iter().find(|e| e.object == *because);
            let root = root.unwrap_or_else(|| panic!("{}: {because} is expected", file.display()));
            if !about.iter().any(|f| causes(f, &by_id).iter().any(|c| expectations.is_about(c, root))) {
                mistakes.push(format!("{object} is not linked to {because}"));
            }
        }
        let advises = |f: &&Value, wanted: &Regex| {
            wanted.is_match(&advice(f)) || causes(f, &by_id).iter().any(|cause| wanted.is_match(&advice(cause)))
        };
        if let Some(fix) = &expected.fix
            && !about.iter().any(|f| advises(f, &pattern(fix)))
        {
            mistakes.push(format!("the advice about {object} lacks {fix}"));
        }
    }
    if let Some(never) = &expectations.never {
        let never = pattern(never);
        for finding in findings.iter().filter(|f| never.is_match(&advice(f))) {
            mistakes.push(format!("advice that does not help: {}", advice(finding)));
        }
    }
    let expected = |f: &Value| expectations.expect.iter().any(|e| expectations.is_about(f, e));
    for finding in serious {
        if !expected(finding) && !expectations.allows(finding) && !causes(finding, &by_id).into_iter().any(expected) {
            let (rule, object) = (text(&finding["rule"]), &finding["object"]);
            mistakes.push(format!("false alarm: [{rule}] {object}: {}", text(&finding["message"])));
        }
    }
    mistakes
}
