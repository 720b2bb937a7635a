mod paused;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&paused::RULE];
