mod not_ready;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&not_ready::RULE];
