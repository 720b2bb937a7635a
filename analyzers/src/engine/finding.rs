//! What rules report.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::snapshot::ObjectRef;
use crate::snapshot::model::Timestamp;

/// How bad a finding is. The order is from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// It works, but part of it is lost or will fail at a foreseeable event.
    Warning,
    /// Something does not work now.
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

/// One fact that convinced the rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Evidence {
    pub text: String,
    /// Where it was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectRef>,
    /// The field, in the dotted form of `kubectl explain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// One way to make it right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Fix {
    pub text: String,
    /// A command for a shell, complete and quoted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// Where an object stands in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Location {
    /// The path as it was given or found, with `/`; `-` for standard input.
    pub file: String,
    /// The line of the object's first field, or of the field at fault; from 1.
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

/// One thing that is wrong, about one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Twelve hexadecimal digits: a fingerprint of rule, object and [`Finding::key`], stable over restarts.
    pub id: String,
    pub rule: String,
    pub severity: Severity,
    pub object: ObjectRef,
    /// One sentence without a full stop that names the object and says what is wrong, in the words of the API.
    pub message: String,
    pub evidence: Vec<Evidence>,
    /// The ids of the findings that explain this one, sorted; empty for a root cause.
    pub caused_by: Vec<String>,
    /// How many pods show it; 0 where the finding is not about pods.
    pub pods: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Where the object stands, of manifests; filled in by whoever read the files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    pub fix: Vec<Fix>,
    /// The page of documentation: `kubectl-gpt rules ID`.
    pub docs: String,

    /// Objects whose findings explain this one, if they have any by the rules in `RuleMeta::explained_by`.
    #[serde(skip)]
    pub(crate) because: Vec<ObjectRef>,
    /// Tells apart several findings of one rule on one object.
    #[serde(skip)]
    pub(crate) key: String,
    /// The container that it is about, if it is about one: another container's trouble does not explain it.
    #[serde(skip)]
    pub(crate) container: Option<String>,
    /// True only because some object is not there; at most `info` where the input is bare manifests.
    #[serde(skip)]
    pub(crate) rests_on_absence: bool,
}

impl Finding {
    pub fn new(severity: Severity, object: ObjectRef, message: impl Into<String>) -> Finding {
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
        }
    }

    pub fn error(object: ObjectRef, message: impl Into<String>) -> Finding {
        Finding::new(Severity::Error, object, message)
    }

    pub fn warning(object: ObjectRef, message: impl Into<String>) -> Finding {
        Finding::new(Severity::Warning, object, message)
    }

    pub fn info(object: ObjectRef, message: impl Into<String>) -> Finding {
        Finding::new(Severity::Info, object, message)
    }

    /// A fact and where it was read: the object, and the field's path (empty if it is none).
    pub fn evidence(mut self, text: impl Into<String>, object: &ObjectRef, path: &str) -> Finding {
        let path = (!path.is_empty()).then(|| path.to_string());
        self.evidence.push(Evidence { text: text.into(), object: Some(object.clone()), path });
        self
    }

    /// What to do, in words.
    pub fn fix(mut self, text: impl Into<String>) -> Finding {
        self.fix.push(Fix { text: text.into(), command: None });
        self
    }

    /// What to do, with a command to paste (made with [`kubectl`]).
    pub fn fix_command(mut self, text: impl Into<String>, command: String) -> Finding {
        self.fix.push(Fix { text: text.into(), command: Some(command) });
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

    /// An object whose findings, if any, explain this one. The rule's `explained_by` says which rules may.
    pub fn because(mut self, object: ObjectRef) -> Finding {
        self.because.push(object);
        self
    }

    /// Tells apart several findings of one rule on one object: the port, the host, the container.
    pub fn key(mut self, key: impl Into<String>) -> Finding {
        self.key = key.into();
        self
    }

    /// The one container that it is about: the key, and a limit to what explains it on the same object.
    pub fn container(mut self, name: impl Into<String>) -> Finding {
        let name = name.into();
        self.key.clone_from(&name);
        self.container = Some(name);
        self
    }

    /// Says that the finding is true only because some object is not there.
    pub fn rests_on_absence(mut self) -> Finding {
        self.rests_on_absence = true;
        self
    }
}
