mod service;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&service::RULE];
