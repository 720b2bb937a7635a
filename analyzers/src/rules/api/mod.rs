mod deprecated;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&deprecated::RULE];
