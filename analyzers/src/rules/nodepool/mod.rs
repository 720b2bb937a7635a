mod limit;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&limit::RULE];
