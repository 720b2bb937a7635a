mod corefile;
mod down;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&corefile::RULE, &down::RULE];
