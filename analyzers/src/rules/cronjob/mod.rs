mod failing;
mod not_running;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&failing::RULE, &not_running::RULE];
