//! The rules of kubectl-gpt: from a snapshot of a Kubernetes cluster to findings.
//!
//! Nothing here touches the network, files, the clock or the environment: a [`Cluster`] goes in, an [`Analysis`] comes
//! out, and the same input gives the same output to the byte.
//!
//! The rooms, from the top down; each knows only those below it (`tests/layers.rs` holds that):
//! [`rules`], [`user_rules`] and [`trace`], [`engine`], [`kubernetes`], [`snapshot`], [`text`].

pub mod engine;
pub mod kubernetes;
pub mod rules;
pub mod snapshot;
pub mod text;
pub mod trace;
pub mod user_rules;

#[cfg(test)]
mod testing;

pub use engine::{Analysis, Evidence, Finding, Fix, Location, Profile, Report, Rule, RuleMeta, Severity, analyze};
pub use snapshot::{
    Api, Batch, Broken, Builder, Cluster, ContainerLog, Coverage, Extent, Gap, GroupKind, Kind, Lookup, NotEvaluated,
    Now, Object, ObjectRef, Objects, Origin, PodGroup, Reason, Selector, Table, Workload,
};
pub use text::kubectl;
