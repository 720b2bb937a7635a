mod exhausted;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&exhausted::RULE];
