mod default_token;
mod missing;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&default_token::RULE, &missing::RULE];
