mod paused;
mod rollout_deadlock;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&paused::RULE, &rollout_deadlock::RULE];
