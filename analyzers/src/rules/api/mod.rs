mod deprecated;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&deprecated::RULE];
