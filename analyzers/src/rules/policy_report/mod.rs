mod failed;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&failed::RULE];
