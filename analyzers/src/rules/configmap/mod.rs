mod unused;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&unused::RULE];
