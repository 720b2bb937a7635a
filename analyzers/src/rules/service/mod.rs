mod no_ready_endpoints;
mod selector_matches_nothing;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&no_ready_endpoints::RULE, &selector_matches_nothing::RULE];
