mod exhausted;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&exhausted::RULE];
