mod selector_matches_nothing;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&selector_matches_nothing::RULE];
