//! Reads a cluster, or files, into a [`Builder`](kubectl_gpt_analyzers::Builder).
//!
//! [`connect()`] resolves the configuration as kubectl does and finds out what the API server serves; [`collect`] lists
//! every kind that the chosen rules need, a page at a time; [`logs::fetch`] reads the ends of a few logs; [`watch`] goes
//! on with the kinds that change. Only `get`, `list` and `watch` are ever asked for. [`files`] reads what others recorded.

mod client_certificate;
mod clock;
mod connect;
pub mod custom;
mod discovery;
pub mod files;
pub mod live;
pub mod logs;
pub mod overlay;
mod page;
mod plugin;
pub mod recorder;
mod redact;
mod request;
mod tls;
pub mod watch;

pub use connect::{ConnectError, ConnectOptions, Connection, connect};
pub use custom::Crds;
pub use live::{CollectError, Collected, Progress, Scope, collect};
pub use recorder::Recorder;
