mod failed;
mod released;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&failed::RULE, &released::RULE];
