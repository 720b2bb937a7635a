mod at_limit;
mod no_metrics;
mod target_missing;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&at_limit::RULE, &no_metrics::RULE, &target_missing::RULE];
