mod failed;
mod released;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&failed::RULE, &released::RULE];
