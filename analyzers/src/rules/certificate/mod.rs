mod expired;
mod host;
mod served;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&expired::RULE, &host::RULE];
