mod not_established;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&not_established::RULE];
