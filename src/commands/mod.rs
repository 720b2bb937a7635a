//! One file a command.

pub mod analyze;
pub mod rules;
pub mod trace;
