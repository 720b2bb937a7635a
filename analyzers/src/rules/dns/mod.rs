mod corefile;
mod down;
mod missing;
mod single;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&corefile::RULE, &down::RULE, &missing::RULE, &single::RULE];
