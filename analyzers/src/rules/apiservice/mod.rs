mod unavailable;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&unavailable::RULE];
