mod blocks_drain;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&blocks_drain::RULE];
