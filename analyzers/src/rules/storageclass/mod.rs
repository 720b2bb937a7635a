mod default;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&default::RULE];
