mod taken_over;
mod unavailable;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&taken_over::RULE, &unavailable::RULE];
