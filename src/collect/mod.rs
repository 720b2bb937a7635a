//! Reads a cluster, or files, into a [`Builder`](kubectl_gpt_analyzers::Builder).
//!
//! [`connect()`] resolves the configuration as kubectl does and discovers the served APIs; [`collect`] lists all kinds
//! that the selected rules need, page by page; [`logs::fetch`] reads the ends of a few logs; [`watch`] follows the
//! kinds that change. Only the verbs `get`, `list` and `watch` are used. [`files`] reads recordings and manifests.

mod client_certificate;
mod clock;
mod connect;
mod connection;
pub mod custom;
mod discovery;
mod failure;
pub mod files;
pub mod live;
pub mod logs;
pub mod overlay;
mod page;
mod plugin;
pub mod recorder;
mod redact;
mod request;
mod served;
mod tls;
pub mod watch;

pub use connect::{ConnectError, ConnectOptions, connect};
pub use connection::Connection;
pub use custom::Crds;
pub use live::{CollectError, Collected, Progress, Scope, collect};
pub use recorder::Recorder;
