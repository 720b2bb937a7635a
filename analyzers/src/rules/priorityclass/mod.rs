mod missing;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&missing::RULE];
