mod unreachable;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&unreachable::RULE];
