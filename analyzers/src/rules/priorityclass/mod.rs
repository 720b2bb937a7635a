mod missing;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&missing::RULE];
