mod denied;
mod missing_role;
mod wildcard;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&denied::RULE, &missing_role::RULE, &wildcard::RULE];
