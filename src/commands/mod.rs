//! The commands, one file per command.

pub mod analyze;
pub mod arguments;
pub mod ask;
pub mod cache;
pub mod completions;
pub mod config;
pub mod explain;
pub mod man;
pub mod rbac;
pub mod rules;
pub mod snapshot;
pub mod trace;
pub mod watch;
