mod failing;
mod not_running;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&failing::RULE, &not_running::RULE];
