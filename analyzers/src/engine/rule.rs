//! The definition of rules.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::engine::finding::{Finding, Severity};
use crate::snapshot::{Cluster, Extent, GroupKind, Kind, KindName, ObjectRef, Reason};

/// A set of rules to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Rules for what is broken or will break. They always run.
    #[default]
    Default,
    /// Rules for best practices. They run only on request.
    Strict,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Profile::Default => "default",
            Profile::Strict => "strict",
        })
    }
}

/// The description of a rule.
#[derive(Clone, Debug)]
pub struct RuleMeta {
    /// `service/target-port`; stable once released.
    pub id: Cow<'static, str>,
    /// The highest severity that it reports.
    pub severity: Severity,
    pub profile: Profile,
    /// One line.
    pub summary: Cow<'static, str>,
    /// Kinds that it cannot work without.
    pub needs: &'static [Kind],
    /// Kinds that only improve its findings.
    pub optional: &'static [Kind],
    /// Whether it reads custom resources: all kinds known only from the cluster's discovery.
    pub reads_custom: bool,
    /// Whether its findings count in a namespace that is being deleted. Most do not: pods are deleted first, and their
    /// workloads remain without pods until all are deleted (KEP-5080).
    pub in_terminating_namespaces: bool,
    /// The rules, with `*` as a wildcard, whose findings on the objects of [`Finding::because`], or on the same object,
    /// explain this rule's findings. With the prefix `elsewhere:` only findings on another object do.
    pub explained_by: &'static [&'static str],
    /// The documentation page, in Markdown.
    pub documentation: Cow<'static, str>,
}

impl RuleMeta {
    /// Every kind that it reads, needed or optional.
    pub fn reads(&self) -> impl Iterator<Item = Kind> + use<> {
        self.needs.iter().chain(self.optional).copied()
    }

    /// The documentation page, without the indentation of doc comments.
    pub fn page(&self) -> String {
        let lines = self.documentation.lines().map(|line| line.strip_prefix(' ').unwrap_or(line));
        lines.fold(String::new(), |page, line| page + line + "\n")
    }
}

/// A check of a cluster.
pub trait Rule: Sync + Send {
    fn meta(&self) -> &RuleMeta;

    /// The kinds of which it reads full objects from [`Cluster::raw`].
    fn raw_kinds(&self) -> &[KindName] {
        &[]
    }

    /// Adds its findings to the report. It reads only the cluster.
    fn check(&self, cluster: &Cluster, report: &mut Report);
}

/// A built-in rule, declared by [`declare_rule!`](crate::engine::declare_rule).
pub(crate) struct BuiltIn {
    pub meta: RuleMeta,
    pub check: fn(&Cluster, &mut Report),
}

impl Rule for BuiltIn {
    fn meta(&self) -> &RuleMeta {
        &self.meta
    }

    fn check(&self, cluster: &Cluster, report: &mut Report) {
        (self.check)(cluster, report);
    }
}

/// Declares a rule as `pub static RULE`, in the default profile or in another one: `"kind/name": Warning in Strict`.
/// The doc comment is the published page: *What it checks*, *Why it matters*, *How to confirm*, *How to fix*,
/// *Exceptions*. The file's `fn check(&Cluster, &mut Report)` implements the rule.
macro_rules! declare_rule {
    (@flag) => { false };
    (@flag $flag:literal) => { $flag };
    (@profile) => { crate::engine::Profile::Default };
    (@profile $profile:ident) => { crate::engine::Profile::$profile };
    (
        $(#[doc = $doc:literal])+
        $id:literal: $severity:ident $(in $profile:ident)?,
        $summary:literal,
        needs: [$($need:ident),* $(,)?],
        optional: [$($optional:ident),* $(,)?],
        $(reads_custom: $custom:literal,)?
        $(in_terminating_namespaces: $terminating:literal,)?
        explained_by: [$($explains:literal),* $(,)?] $(,)?
    ) => {
        $(#[doc = $doc])+
        pub(super) static RULE: crate::engine::BuiltIn = crate::engine::BuiltIn {
            meta: crate::engine::RuleMeta {
                id: std::borrow::Cow::Borrowed($id),
                severity: crate::engine::Severity::$severity,
                profile: $crate::engine::declare_rule!(@profile $($profile)?),
                summary: std::borrow::Cow::Borrowed($summary),
                needs: &[$(crate::snapshot::Kind::$need),*],
                optional: &[$(crate::snapshot::Kind::$optional),*],
                reads_custom: $crate::engine::declare_rule!(@flag $($custom)?),
                in_terminating_namespaces: $crate::engine::declare_rule!(@flag $($terminating)?),
                explained_by: &[$($explains),*],
                documentation: std::borrow::Cow::Borrowed(concat!($($doc, "\n"),+)),
            },
            check,
        };
    };
}
pub(crate) use declare_rule;

/// Collects the findings of one rule.
#[derive(Debug, Default)]
pub struct Report {
    pub(crate) findings: Vec<Finding>,
    /// Each with the name of the kind, if it concerns one.
    pub(crate) gaps: Vec<(Option<String>, Option<ObjectRef>, Reason, String)>,
}

impl Report {
    pub fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Reports which of these kinds could not be read. Objects of the others are still checked.
    pub fn not_read(&mut self, cluster: &Cluster, kinds: &[Kind]) {
        for kind in kinds {
            if let Some(gap) = cluster.coverage().gap(*kind) {
                self.gaps.push((Some(kind.to_string()), None, gap.reason, gap.message.clone()));
            }
        }
    }

    /// Reports that custom resources of one kind could not be read, or not all of them.
    pub fn custom_kind_not_read(&mut self, cluster: &Cluster, kind: &GroupKind) {
        if let Some(gap) = cluster.coverage().custom().get(kind).and_then(Extent::gap) {
            self.gaps.push((Some(kind.to_string()), None, gap.reason, gap.message.clone()));
        }
    }

    /// Reports which custom resources could not be read, or not all of them.
    pub fn custom_not_read(&mut self, cluster: &Cluster) {
        for (kind, extent) in cluster.coverage().custom() {
            if let Some(gap) = extent.gap() {
                self.gaps.push((Some(kind.to_string()), None, gap.reason, gap.message.clone()));
            }
        }
    }

    /// Reports that the rule could not run, and why.
    pub fn not_run(&mut self, reason: Reason, message: impl Into<String>) {
        self.gaps.push((None, None, reason, message.into()));
    }

    /// Reports that one object could not be evaluated because something that it depends on was not read.
    pub fn not_evaluated(&mut self, object: &ObjectRef, reason: Reason, message: impl Into<String>) {
        self.gaps.push((None, Some(object.clone()), reason, message.into()));
    }
}
