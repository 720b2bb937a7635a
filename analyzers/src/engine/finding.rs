//! What rules report.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::snapshot::ObjectRef;
use crate::snapshot::model::Timestamp;
use crate::text::SafeText;

/// How severe a finding is, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// It works, but is degraded or will fail at a foreseeable event.
    Warning,
    /// Something does not work.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// One fact that supports the finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Evidence {
    pub text: SafeText,
    /// The object that it was read from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectRef>,
    /// The field, in the dotted form of `kubectl explain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// A suggested fix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Fix {
    pub text: SafeText,
    /// A complete shell command, quoted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<SafeText>,
}

/// The position of an object in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Location {
    /// The path as given or found, with `/` as separator; `-` for standard input.
    pub file: String,
    /// The line of the object's first field, or of the faulty field; from 1.
    pub line: usize,
}

/// `k8s/shop.yaml:14`.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.file.as_str() {
            "-" => write!(f, "line {} of the input", self.line),
            file => write!(f, "{file}:{}", self.line),
        }
    }
}

/// A problem of one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Twelve hexadecimal digits: a fingerprint of rule, object and [`Finding::key`], stable across runs.
    pub id: String,
    pub rule: String,
    pub severity: Severity,
    pub object: ObjectRef,
    /// One sentence without a full stop that names the object and states the problem, in the terms of the API.
    pub message: SafeText,
    pub evidence: Vec<Evidence>,
    /// The ids of the findings that explain this one, sorted; empty for a root cause.
    pub caused_by: Vec<String>,
    /// The number of affected pods; 0 if the finding is not about pods.
    pub pods: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// The position of the object in a manifest; set by the code that reads the files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    pub fix: Vec<Fix>,
    /// The documentation page: `kubectl-gpt rules ID`.
    pub docs: String,

    /// Objects whose findings explain this one, if the rules in `RuleMeta::explained_by` report any.
    #[serde(skip)]
    pub(crate) because: Vec<ObjectRef>,
    /// Distinguishes several findings of one rule on one object.
    #[serde(skip)]
    pub(crate) key: String,
    /// The affected container, if it is a single one. Findings about other containers do not explain it.
    #[serde(skip)]
    pub(crate) container: Option<String>,
    /// Whether the finding depends on an object being absent. It is then at most `info` for manifests.
    #[serde(skip)]
    pub(crate) rests_on_absence: bool,
    /// Whether other findings on the same object do not explain it.
    #[serde(skip)]
    pub(crate) is_caused_elsewhere: bool,
}

impl Finding {
    pub fn new(severity: Severity, object: ObjectRef, message: impl Into<SafeText>) -> Finding {
        Finding {
            id: String::new(),
            rule: String::new(),
            severity,
            object,
            message: message.into(),
            evidence: Vec::new(),
            caused_by: Vec::new(),
            pods: 0,
            since: None,
            location: None,
            fix: Vec::new(),
            docs: String::new(),
            because: Vec::new(),
            key: String::new(),
            container: None,
            rests_on_absence: false,
            is_caused_elsewhere: false,
        }
    }

    pub fn error(object: ObjectRef, message: impl Into<SafeText>) -> Finding {
        Finding::new(Severity::Error, object, message)
    }

    pub fn warning(object: ObjectRef, message: impl Into<SafeText>) -> Finding {
        Finding::new(Severity::Warning, object, message)
    }

    pub fn info(object: ObjectRef, message: impl Into<SafeText>) -> Finding {
        Finding::new(Severity::Info, object, message)
    }

    /// A fact and its source: the object, and the path of the field (empty if there is none).
    pub fn evidence(mut self, text: impl Into<SafeText>, object: &ObjectRef, path: &str) -> Finding {
        let path = (!path.is_empty()).then(|| path.to_string());
        self.evidence.push(Evidence { text: text.into(), object: Some(object.clone()), path });
        self
    }

    /// Adds a fix without a command.
    pub fn fix(mut self, text: impl Into<SafeText>) -> Finding {
        self.fix.push(Fix { text: text.into(), command: None });
        self
    }

    /// Adds a fix with a command (created by [`kubectl`]).
    pub fn fix_command(mut self, text: impl Into<SafeText>, command: String) -> Finding {
        self.fix.push(Fix { text: text.into(), command: Some(command.into()) });
        self
    }

    pub fn since(mut self, since: Option<Timestamp>) -> Finding {
        self.since = since;
        self
    }

    pub fn pods(mut self, pods: usize) -> Finding {
        self.pods = pods;
        self
    }

    /// Adds an object whose findings may explain this one. The rule's `explained_by` lists the rules that may.
    pub fn because(mut self, object: ObjectRef) -> Finding {
        self.because.push(object);
        self
    }

    /// Distinguishes several findings of one rule on one object: the port, the host, the container.
    pub fn key(mut self, key: impl Into<String>) -> Finding {
        self.key = key.into();
        self
    }

    /// Sets the affected container: the key, and a restriction on the findings of the same object that explain it.
    pub fn container(mut self, name: impl Into<String>) -> Finding {
        let name = name.into();
        self.key.clone_from(&name);
        self.container = Some(name);
        self
    }

    /// Only findings on the objects in `because` explain it, none on the same object.
    pub fn caused_elsewhere(mut self) -> Finding {
        self.is_caused_elsewhere = true;
        self
    }

    /// Marks the finding as dependent on an object being absent.
    pub fn rests_on_absence(mut self) -> Finding {
        self.rests_on_absence = true;
        self
    }
}
