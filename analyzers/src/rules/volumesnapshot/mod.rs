mod not_ready;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&not_ready::RULE];
