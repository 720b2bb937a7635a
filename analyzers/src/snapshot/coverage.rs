//! What was read, what was not, and why: distinguishes objects that do not exist from objects that could not be read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::snapshot::kind::Kind;

/// Why something could not be read or evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum Reason {
    /// The API server denied the request (403 or 401).
    #[serde(rename = "forbidden")]
    Forbidden,
    #[serde(rename = "timeout")]
    Timeout,
    /// The API, or the aggregated server behind it, returned an error.
    #[serde(rename = "unavailable")]
    Unavailable,
    /// A response or a file that cannot be decoded.
    #[serde(rename = "malformed")]
    Malformed,
    /// More objects than kubectl-gpt reads.
    #[serde(rename = "too many")]
    TooMany,
    /// The files contain no object of this kind.
    #[serde(rename = "not in the input")]
    NotInInput,
    /// Interrupted before it was read.
    #[serde(rename = "interrupted")]
    Interrupted,
    /// An expression of a user-defined rule failed on an object.
    #[serde(rename = "rule error")]
    RuleError,
    /// A built-in rule panicked: a bug in kubectl-gpt.
    #[serde(rename = "internal error")]
    Internal,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Forbidden => "forbidden",
            Reason::Timeout => "timeout",
            Reason::Unavailable => "unavailable",
            Reason::Malformed => "malformed",
            Reason::TooMany => "too many",
            Reason::NotInInput => "not in the input",
            Reason::Interrupted => "interrupted",
            Reason::RuleError => "rule error",
            Reason::Internal => "internal error",
        })
    }
}

/// Why a kind, or part of it, was not read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    pub reason: Reason,
    /// The full error message.
    pub message: String,
}

/// How much of a kind was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Extent {
    /// No selected rule needs it.
    #[default]
    NotRequested,
    /// Every object of the cluster.
    Everything,
    /// Every object in these namespaces; no others were requested.
    Namespaces(BTreeSet<String>),
    /// Every object in these namespaces; the others could not be read.
    Partly(BTreeSet<String>, Gap),
    /// The cluster does not serve this API, so no such objects exist.
    NotServed,
    /// Nothing.
    Failed(Gap),
}

/// One thing that could not be evaluated, as a line of the report.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct NotEvaluated {
    pub rule: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    pub reason: Reason,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// An object that exists but could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub kind: Option<Kind>,
    /// Kind and name as far as they could be read: `Pod shop/cart-0`, `item 3 of pods.yaml`.
    pub name: String,
    pub message: String,
}

/// A kind that has no type in the model, in any version: `Certificate.cert-manager.io`, or only `cert-manager.io` if
/// the kinds of the group are unknown.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupKind {
    pub group: String,
    pub kind: String,
}

impl From<Kind> for GroupKind {
    fn from(kind: Kind) -> GroupKind {
        let api = kind.api();
        GroupKind { group: api.group.to_string(), kind: api.kind.to_string() }
    }
}

impl fmt::Display for GroupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind.as_str(), self.group.as_str()) {
            ("", "") => f.write_str("custom resources"),
            ("", group) => f.write_str(group),
            (kind, group) => write!(f, "{kind}.{group}"),
        }
    }
}

/// The extent of every kind, and the objects that could not be decoded.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    extents: BTreeMap<Kind, Extent>,
    custom: BTreeMap<GroupKind, Extent>,
    pub broken: Vec<Broken>,
}

impl Coverage {
    pub fn set(&mut self, kind: Kind, extent: Extent) {
        self.extents.insert(kind, extent);
    }

    pub fn set_custom(&mut self, kind: GroupKind, extent: Extent) {
        self.custom.insert(kind, extent);
    }

    pub(crate) fn forget_custom(&mut self) {
        self.custom.clear();
    }

    pub(crate) fn append(&mut self, other: Coverage) {
        self.extents.extend(other.extents);
        self.custom.extend(other.custom);
        self.broken.extend(other.broken);
    }

    /// How much was read of the custom resources, by kind.
    pub fn custom(&self) -> &BTreeMap<GroupKind, Extent> {
        &self.custom
    }

    pub fn extent(&self, kind: Kind) -> &Extent {
        self.extents.get(&kind).unwrap_or(&Extent::NotRequested)
    }

    /// Whether all objects of a kind in a namespace are known. One that is not found then does not exist.
    pub fn covers(&self, kind: Kind, namespace: &str) -> bool {
        if self.broken.iter().any(|broken| broken.kind.is_none_or(|k| k == kind)) {
            return false;
        }
        match self.extent(kind) {
            Extent::Everything | Extent::NotServed => true,
            Extent::Namespaces(namespaces) | Extent::Partly(namespaces, _) => namespaces.contains(namespace),
            Extent::NotRequested | Extent::Failed(_) => false,
        }
    }

    /// Whether all objects of a kind in the whole cluster are known.
    pub fn covers_all(&self, kind: Kind) -> bool {
        !self.broken.iter().any(|broken| broken.kind.is_none_or(|k| k == kind))
            && matches!(self.extent(kind), Extent::Everything | Extent::NotServed)
    }

    /// Why a kind was not read, or not everywhere.
    pub fn gap(&self, kind: Kind) -> Option<&Gap> {
        self.extent(kind).gap()
    }
}

impl Extent {
    /// Why it is less than what was requested.
    pub fn gap(&self) -> Option<&Gap> {
        match self {
            Extent::Failed(gap) | Extent::Partly(_, gap) => Some(gap),
            _ => None,
        }
    }
}
