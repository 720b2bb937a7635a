//! The gate of a pipeline: ignored and baselined findings, and the exit code.

mod annotation;
mod baseline;
mod judge;
mod notice;

use std::fmt;

use kubectl_gpt_analyzers::{Analysis, Finding, Location, Reason};
use schemars::JsonSchema;
use serde::Serialize;

pub use crate::gate::annotation::ANNOTATION;
pub use crate::gate::baseline::{Baseline, BaselineArgs, write as write_baseline};
pub use crate::gate::judge::{CONFIGURATION, Gate, Judged, LookedAt};
pub use crate::gate::notice::Notice;

use crate::config::{Expiry, Settings};
use crate::exit::Exit;

/// A finding that does not count, and why.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ignored {
    pub reason: String,
    /// The last day on which it is ignored, in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Expiry>,
    pub from: By,
    pub finding: Finding,
}

/// The source of an ignore.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum By {
    /// The annotation [`ANNOTATION`] of the object.
    Annotation,
    /// An entry of the configuration file.
    Config(Location),
    /// The file of `--baseline`.
    Baseline { file: String },
}

impl Ignored {
    pub fn is_baselined(&self) -> bool {
        matches!(self.from, By::Baseline { .. })
    }
}

/// `Service shop/cart (service/no-ready-endpoints): team X, until 2027-01-01, kubectl-gpt.yaml:3`.
impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.finding.object, self.finding.rule, self.reason)?;
        if let Some(date) = self.expires {
            write!(f, ", until {date}")?;
        }
        match &self.from {
            By::Annotation => write!(f, ", annotation {ANNOTATION}"),
            By::Config(place) => write!(f, ", {}:{}", place.file, place.line),
            By::Baseline { file } => write!(f, ", baseline {file}"),
        }
    }
}

/// The exit code: findings take precedence over rules that could not be evaluated.
pub fn exit(settings: &Settings, analysis: &Analysis) -> Exit {
    let threshold = settings.fail_on.value.threshold();
    let fails = threshold.is_some_and(|min| analysis.findings.iter().any(|f| f.severity >= min));
    // A kind that does not occur in a file is not a read failure.
    let incomplete = analysis.not_evaluated.iter().any(|gap| gap.reason != Reason::NotInInput);
    match (fails, incomplete && !settings.allow_partial.value) {
        (true, _) => Exit::Findings,
        (false, true) => Exit::Incomplete,
        (false, false) => Exit::Clean,
    }
}
