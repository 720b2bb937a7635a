mod default_in_use;
mod terminating;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&default_in_use::RULE, &terminating::RULE];
