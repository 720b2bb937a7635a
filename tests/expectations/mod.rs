//! What is truly wrong in a recorded cluster (`expect.yaml`), and how far a report is from it.

#![allow(dead_code, reason = "not every test that includes it needs all of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Expectations {
    namespace: String,
    #[serde(default)]
    namespaces: Vec<String>,
    expect: Vec<Expectation>,
}

#[derive(Deserialize)]
struct Expectation {
    /// `Kind/name`
    object: String,
    /// What the finding's text must contain (a regular expression).
    r#match: String,
    /// The object that explains it.
    because: Option<String>,
    /// Other kinds on which the same trouble may be reported.
    #[serde(default)]
    also: Vec<String>,
    #[serde(default)]
    optional: bool,
    #[serde(default)]
    root: bool,
    severity: Option<String>,
}

impl Expectations {
    fn is_here(&self, finding: &Value) -> bool {
        let namespace = finding["object"]["namespace"].as_str().unwrap_or_default();
        namespace.is_empty() || namespace == self.namespace || self.namespaces.iter().any(|n| n == namespace)
    }

    fn is_about(&self, finding: &Value, expected: &str, also: &[String]) -> bool {
        let (expected_kind, expected_name) = expected.split_once('/').unwrap();
        let (kind, name) = (text(&finding["object"]["kind"]), text(&finding["object"]["name"]));
        let owned = name.starts_with(&format!("{expected_name}-")) && ["Pod", "ReplicaSet", "Job"].contains(&kind);
        self.is_here(finding)
            && ((kind == expected_kind && name == expected_name) || also.iter().any(|k| k == kind) || owned)
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The folders of recorded clusters: `scenarios`, `field` or `realworld`.
pub fn folders(of: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(of);
    let mut folders: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    assert!(folders.len() > 10, "{of} is there");
    folders
}

/// All findings that explain one, near and far.
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

/// What is wrong with a report (the JSON of `-o json`) about the cluster of a folder, in words. Only findings in the
/// folder's namespaces and of cluster scope count.
pub fn mistakes(folder: &Path, report: &Value) -> Vec<String> {
    let expectations: Expectations =
        serde_saphyr::from_str(&fs::read_to_string(folder.join("expect.yaml")).unwrap()).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let by_id: BTreeMap<&str, &Value> = findings.iter().map(|f| (text(&f["id"]), f)).collect();
    assert_eq!(by_id.len(), findings.len(), "ids are unique");
    let serious: Vec<&Value> = findings.iter().filter(|f| f["severity"] != "info" && expectations.is_here(f)).collect();
    let mut mistakes = Vec::new();
    for expected in expectations.expect.iter().filter(|e| !e.optional) {
        let (object, also) = (&expected.object, &expected.also);
        let pattern = Regex::new(&format!("(?i){}", expected.r#match)).unwrap();
        let hits: Vec<&Value> = serious
            .iter()
            .copied()
            .filter(|f| expectations.is_about(f, object, also) && pattern.is_match(&f.to_string()))
            .collect();
        if hits.is_empty() {
            mistakes.push(format!("missed: {object} ({})", expected.r#match));
            continue;
        }
        if let Some(severity) = &expected.severity
            && !hits.iter().any(|f| f["severity"] == severity.as_str())
        {
            mistakes.push(format!("{object} is not of severity {severity}"));
        }
        let is_root = |f: &&Value| causes(f, &by_id).iter().all(|c| expectations.is_about(c, object, also));
        if expected.root && !hits.iter().any(is_root) {
            mistakes.push(format!("{object} is a root cause, but not here"));
        }
        if let Some(because) = &expected.because {
            let root = expectations.expect.iter().find(|e| e.object == *because);
            let also = root.map(|root| root.also.as_slice()).unwrap_or_default();
            if !hits.iter().any(|f| causes(f, &by_id).iter().any(|c| expectations.is_about(c, because, also))) {
                mistakes.push(format!("{object} is not linked to {because}"));
            }
        }
    }
    let expected = |f: &Value| expectations.expect.iter().any(|e| expectations.is_about(f, &e.object, &e.also));
    for finding in serious {
        if !expected(finding) && !causes(finding, &by_id).into_iter().any(expected) {
            let (rule, object) = (text(&finding["rule"]), &finding["object"]);
            mistakes.push(format!("false alarm: [{rule}] {object}: {}", text(&finding["message"])));
        }
    }
    mistakes
}
