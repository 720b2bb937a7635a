mod denied;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&denied::RULE];
mod missing_role;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&missing_role::RULE];
