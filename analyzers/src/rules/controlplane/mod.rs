mod leader;
mod pod;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&leader::RULE, &pod::RULE];
