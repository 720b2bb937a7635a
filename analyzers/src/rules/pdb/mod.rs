mod blocks_drain;
mod overlap;
mod selects_nothing;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&blocks_drain::RULE, &overlap::RULE, &selects_nothing::RULE];
