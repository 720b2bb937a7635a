//! How Kubernetes interprets the objects of a snapshot, according to its documentation and source. Independent of rules.

pub mod admission;
pub mod certificate;
pub mod disruption;
pub mod manager;
pub mod nearest;
pub mod network;
pub mod nodes;
pub mod scheduling;
pub mod storage;
pub mod time;
pub mod workloads;
