mod ambiguous_selector;
mod at_limit;
mod no_metrics;
mod replicas_reset;
mod target_missing;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] =
    &[&ambiguous_selector::RULE, &at_limit::RULE, &no_metrics::RULE, &replicas_reset::RULE, &target_missing::RULE];
