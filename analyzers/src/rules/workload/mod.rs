mod cannot_create_pods;
mod unavailable;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&cannot_create_pods::RULE, &unavailable::RULE];
