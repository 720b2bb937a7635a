mod default_in_use;
mod sidecar_injector;
mod terminating;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&default_in_use::RULE, &sidecar_injector::RULE, &terminating::RULE];
