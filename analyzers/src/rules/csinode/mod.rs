mod driver_missing;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&driver_missing::RULE];
