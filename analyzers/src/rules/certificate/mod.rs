mod expired;
mod host;
mod served;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&expired::RULE, &host::RULE];
