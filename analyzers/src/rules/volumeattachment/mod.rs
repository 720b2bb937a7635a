mod failed;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&failed::RULE];
