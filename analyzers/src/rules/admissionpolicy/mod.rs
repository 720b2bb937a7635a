mod params_missing;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&params_missing::RULE];
