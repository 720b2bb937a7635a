mod denied;
mod missing_role;
mod wildcard;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&denied::RULE, &missing_role::RULE, &wildcard::RULE];
