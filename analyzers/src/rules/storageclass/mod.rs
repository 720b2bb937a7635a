mod default;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&default::RULE];
