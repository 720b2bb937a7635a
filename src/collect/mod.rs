//! Reads a cluster, or files, into a [`Builder`](kubectl_gpt_analyzers::Builder).

pub mod files;
