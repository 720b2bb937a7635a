mod failed;
pub(crate) mod failure;
mod hook_order;
mod not_admitted;
mod sidecar;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&failed::RULE, &hook_order::RULE, &not_admitted::RULE, &sidecar::RULE];
