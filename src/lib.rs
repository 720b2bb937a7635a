//! kubectl-gpt finds what is wrong in a Kubernetes cluster, tells causes from consequences, and gates a pipeline.
//!
//! This crate is everything that touches the world; what to make of a cluster is in `kubectl-gpt-analyzers`.

pub mod collect;
