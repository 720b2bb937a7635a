mod unavailable;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&unavailable::RULE];
