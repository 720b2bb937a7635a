mod default_token;
mod missing;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&default_token::RULE, &missing::RULE];
