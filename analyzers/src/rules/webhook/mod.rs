mod unreachable;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&unreachable::RULE];
