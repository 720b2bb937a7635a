mod leader;
mod pod;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&leader::RULE, &pod::RULE];
