mod unused;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&unused::RULE];
