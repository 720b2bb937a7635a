mod lost;
mod pending;
mod resize;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&lost::RULE, &pending::RULE, &resize::RULE];
