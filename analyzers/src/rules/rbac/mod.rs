mod denied;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&denied::RULE];
