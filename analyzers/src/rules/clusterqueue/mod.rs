pub(super) mod inactive;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&inactive::RULE];
