mod expired;
mod host;
mod served;
mod solver_class;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&expired::RULE, &host::RULE, &solver_class::RULE];
