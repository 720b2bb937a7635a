mod attach;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&attach::RULE];
