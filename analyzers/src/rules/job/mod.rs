mod failed;
pub(crate) mod failure;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&failed::RULE];
