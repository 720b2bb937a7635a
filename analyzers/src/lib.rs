//! The rules of kubectl-gpt: they turn a snapshot of a Kubernetes cluster into findings.
//!
//! This crate does not access the network, files, the clock or the environment. [`analyze`] turns a [`Cluster`] into an
//! [`Analysis`], and the output for the same input is identical to the byte.
//!
//! The modules, from the top down; each may use only those below it (checked by `tests/layers.rs`):
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
