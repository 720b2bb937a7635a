mod not_announced;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&not_announced::RULE];
