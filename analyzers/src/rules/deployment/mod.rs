mod paused;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&paused::RULE];
