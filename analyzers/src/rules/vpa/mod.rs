mod not_applied;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&not_applied::RULE];
