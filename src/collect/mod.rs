//! Reads a cluster into a [`Builder`](kubectl_gpt_analyzers::Builder).
