mod terminating;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&terminating::RULE];
