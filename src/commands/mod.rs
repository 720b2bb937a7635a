//! One file a command.

pub mod analyze;
pub mod config;
pub mod rbac;
pub mod rules;
pub mod trace;
