mod service;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&service::RULE];
