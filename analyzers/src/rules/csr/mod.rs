mod pending;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&pending::RULE];
