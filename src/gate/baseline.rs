//! `--baseline`, `--write-baseline`: records known findings, so that a pipeline fails only on new ones.

use clap::Args;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::{Context, bail};
use kubectl_gpt_analyzers::Finding;
use serde::{Deserialize, Serialize};

use crate::whole_file::{self, Readers};

/// Known findings.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Gate")]
pub struct BaselineArgs {
    /// Ignore findings recorded in this file; only new findings affect the exit code.
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
    /// Write the current findings to this file, for use with --baseline.
    #[arg(long, value_name = "FILE", conflicts_with = "watch")]
    pub write_baseline: Option<PathBuf>,
    /// Also list ignored and baselined findings, with the reason.
    #[arg(long)]
    pub show_ignored: bool,
}

/// Known findings, by id.
#[derive(Debug)]
pub struct Baseline {
    /// The path as given on the command line.
    pub file: String,
    known: BTreeMap<String, Entry>,
}

/// One entry of the file. Only the id is compared; the other fields are for reviewers.
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

/// The format version that this program reads and writes.
const VERSION: &str = "1";

impl Baseline {
    /// # Errors
    /// When the file cannot be read or is not a baseline.
    pub fn read(path: &Path) -> anyhow::Result<Baseline> {
        let file = path.display().to_string();
        let text = fs::read_to_string(path)
            .with_context(|| format!("reading baseline {file} (create one with --write-baseline)"))?;
        let read: File = serde_json::from_str(&text).with_context(|| format!("{file} is not a baseline file"))?;
        if read.schema_version != VERSION {
            bail!("unsupported baseline version {:?} in {file}, expected {VERSION:?}", read.schema_version);
        }
        Ok(Baseline { file, known: read.findings.into_iter().map(|entry| (entry.id.clone(), entry)).collect() })
    }

    pub fn contains(&self, finding: &Finding) -> bool {
        self.known.contains_key(&finding.id)
    }

    /// The entries, sorted by id.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.known.values()
    }
}

/// Writes a baseline of these findings, atomically.
///
/// # Errors
/// When the file cannot be written.
pub fn write<'a>(path: &Path, findings: impl IntoIterator<Item = &'a Finding>) -> anyhow::Result<()> {
    // A baseline is committed to the repository; it is not secret.
    whole_file::write(path, Readers::Everybody, |out| out.write_all(text(findings).as_bytes()))
        .with_context(|| format!("writing baseline {}", path.display()))
}

/// One finding per line, in an order that is independent of severity, so that diffs are easy to review.
fn text<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> String {
    let entry = |finding: &Finding| Entry {
        id: finding.id.clone(),
        rule: finding.rule.clone(),
        object: finding.object.to_string(),
    };
    let mut entries: Vec<Entry> = findings.into_iter().map(entry).collect();
    entries.sort_by(|a, b| (&a.rule, &a.object, &a.id).cmp(&(&b.rule, &b.object, &b.id)));
    // Serializing three strings cannot fail.
    let lines: Vec<String> = entries.iter().map(|e| serde_json::to_string(e).unwrap_or_default()).collect();
    let list = if lines.is_empty() { "[]".to_string() } else { format!("[\n    {}\n  ]", lines.join(",\n    ")) };
    format!("{{\n  \"schemaVersion\": \"{VERSION}\",\n  \"findings\": {list}\n}}\n")
}
