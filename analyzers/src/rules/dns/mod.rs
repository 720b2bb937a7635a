mod down;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&down::RULE];
