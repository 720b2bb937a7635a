//! The rules of kubectl-gpt: from a snapshot of a Kubernetes cluster to findings.
//!
//! Nothing here touches the network, files, the clock or the environment: a [`Cluster`] goes in, an [`Analysis`] comes
//! out, and the same input gives the same output to the byte.

pub mod address;
mod admission;
pub mod answers;
mod authored;
mod autoscaler;
pub mod causes;
pub mod certificate;
pub mod cluster;
pub mod cluster_dns;
pub mod corefile;
pub mod coverage;
pub mod decode;
mod disruption;
pub mod endpoints;
mod exit;
mod finding;
pub mod gateway_api;
mod hash;
pub mod image_pull;
pub mod ingress;
mod job;
pub mod kind;
mod kubelet;
pub mod lease;
pub mod logs;
pub mod model;
pub mod nearest;
pub mod netpol;
mod object_json;
pub mod outage;
mod owner;
pub mod platform;
mod probe;
pub mod quantity;
pub mod readiness;
pub mod references;
mod refusal;
mod restarts;
pub mod rule;
pub mod rules;
mod schedule;
pub mod scheduling;
mod selector;
pub mod storage;
mod table;
pub mod time;
pub mod trace;
pub mod user_rule;
pub mod webhooks;
pub mod words;
mod workload;

#[cfg(test)]
mod testing;

pub use cluster::{Builder, Cluster, ContainerLog, Lookup, Now, Origin};
pub use coverage::{Broken, Coverage, Extent, Gap, GroupKind, NotEvaluated, Reason};
pub use finding::{Evidence, Finding, Fix, Location, ObjectRef, Severity, kubectl};
pub use kind::{Api, Batch, Kind, Object, Objects};
pub use owner::PodGroup;
pub use rule::{Analysis, Profile, Report, Rule, RuleMeta, analyze};
pub use selector::Selector;
pub use table::Table;
pub use workload::Workload;
