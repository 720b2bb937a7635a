mod not_established;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&not_established::RULE];
