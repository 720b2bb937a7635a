mod nowhere;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&nowhere::RULE];
