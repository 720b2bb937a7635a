//! What an API server serves: kinds and their versions.

use std::collections::BTreeMap;

use kubectl_gpt_analyzers::{GroupKind, Kind};

use super::failure::Failure;

/// How a kind is served.
#[derive(Clone, Debug)]
pub(super) enum Serving {
    /// In this version.
    Version(&'static str),
    /// Discovery failed; the preferred version is tried.
    Unknown(&'static str),
    /// The version is registered, but the aggregated server behind it does not respond.
    Stale(&'static str),
    /// Only in versions that the model does not support.
    OtherVersions(String),
    /// In no version.
    NotServed,
}

/// The served APIs.
#[derive(Debug, Default)]
pub(super) struct Served {
    /// The kinds with a type in the model.
    pub kinds: BTreeMap<Kind, Serving>,
    /// All others.
    pub custom: Custom,
}

impl Served {
    /// How a kind is served.
    pub fn of(&self, kind: Kind) -> &Serving {
        self.kinds.get(&kind).unwrap_or(&Serving::NotServed)
    }
}

/// Kinds without a type in the model, from discovery.
#[derive(Debug, Default)]
pub(super) struct Custom {
    /// The kinds that can be listed.
    pub apis: Vec<CustomApi>,
    /// Groups and versions whose server did not respond to the last discovery request.
    pub stale: Vec<(String, String)>,
    /// Groups and versions that an older server lists without resources.
    pub unlisted: Vec<(String, String)>,
    /// Why discovery failed for all of them.
    pub unknown: Option<Failure>,
}

/// A kind that can be listed, in its preferred version.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CustomApi {
    /// `cert-manager.io`.
    pub group: String,
    /// `v1`.
    pub version: String,
    /// `certificates`.
    pub resource: String,
    /// `Certificate`.
    pub kind: String,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
}

impl CustomApi {
    /// Identifies the kind independently of its version.
    pub fn group_kind(&self) -> GroupKind {
        GroupKind { group: self.group.clone(), kind: self.kind.clone() }
    }
}
