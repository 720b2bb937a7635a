mod nowhere;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&nowhere::RULE];
