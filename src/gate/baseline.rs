//! `--baseline`, `--write-baseline`: what was wrong already, so that a pipeline fails on what is new.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use kubectl_gpt_analyzers::Finding;
use serde::{Deserialize, Serialize};

use crate::whole_file::{self, Readers};

/// Findings that are known, by id.
#[derive(Debug)]
pub struct Baseline {
    /// The path as it was given.
    pub file: String,
    known: BTreeMap<String, Entry>,
}

/// A line of the file. Only the id counts; the rest is for those who review a change of the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    pub id: String,
    pub rule: String,
    pub object: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    schema_version: String,
    findings: Vec<Entry>,
}

/// What this version writes and reads.
const VERSION: &str = "1";

impl Baseline {
    /// # Errors
    /// When the file cannot be read or is no baseline.
    pub fn read(path: &Path) -> anyhow::Result<Baseline> {
        let file = path.display().to_string();
        let text = fs::read_to_string(path)
            .with_context(|| format!("reading the baseline {file} (--write-baseline writes one)"))?;
        let read: File = serde_json::from_str(&text).with_context(|| format!("{file} is no baseline"))?;
        if read.schema_version != VERSION {
            bail!("{file} is a baseline of version {:?}, this program reads {VERSION:?}", read.schema_version);
        }
        Ok(Baseline { file, known: read.findings.into_iter().map(|entry| (entry.id.clone(), entry)).collect() })
    }

    pub fn contains(&self, finding: &Finding) -> bool {
        self.known.contains_key(&finding.id)
    }

    /// In the order of the ids.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.known.values()
    }
}

/// Writes the baseline of these findings, in one step: nobody reads half of it.
///
/// # Errors
/// When the file cannot be written.
pub fn write<'a>(path: &Path, findings: impl IntoIterator<Item = &'a Finding>) -> anyhow::Result<()> {
    // A baseline is checked in; it is no secret.
    whole_file::write(path, Readers::Everybody, |out| out.write_all(text(findings).as_bytes()))
        .with_context(|| format!("writing the baseline {}", path.display()))
}

/// One finding a line, in an order that does not depend on how bad each is, so that differences are easy to review.
fn text<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> String {
    let entry = |finding: &Finding| Entry {
        id: finding.id.clone(),
        rule: finding.rule.clone(),
        object: finding.object.to_string(),
    };
    let mut entries: Vec<Entry> = findings.into_iter().map(entry).collect();
    entries.sort_by(|a, b| (&a.rule, &a.object, &a.id).cmp(&(&b.rule, &b.object, &b.id)));
    // Three strings: there is nothing that could fail to serialize.
    let lines: Vec<String> = entries.iter().map(|e| serde_json::to_string(e).unwrap_or_default()).collect();
    let list = if lines.is_empty() { "[]".to_string() } else { format!("[\n    {}\n  ]", lines.join(",\n    ")) };
    format!("{{\n  \"schemaVersion\": \"{VERSION}\",\n  \"findings\": {list}\n}}\n")
}
