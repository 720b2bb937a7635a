mod denied;
mod missing_role;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&denied::RULE, &missing_role::RULE];
