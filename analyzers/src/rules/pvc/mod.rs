mod pending;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&pending::RULE];
