//! What Kubernetes does with the objects of a snapshot: by its documentation and source, not by what rules make of it.

pub mod admission;
pub mod disruption;
pub mod nearest;
pub mod network;
pub mod nodes;
pub mod scheduling;
pub mod storage;
pub mod time;
pub mod workloads;
