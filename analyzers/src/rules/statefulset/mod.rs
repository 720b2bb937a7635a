mod outdated_pod;
mod service;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&outdated_pod::RULE, &service::RULE];
