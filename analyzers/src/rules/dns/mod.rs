mod corefile;
mod down;
mod missing;
mod single;
mod zone_not_imported;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] =
    &[&corefile::RULE, &down::RULE, &missing::RULE, &single::RULE, &zone_not_imported::RULE];
