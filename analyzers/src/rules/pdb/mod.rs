mod blocks_drain;
mod overlap;
mod selects_nothing;
mod unhealthy_pods;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] =
    &[&blocks_drain::RULE, &overlap::RULE, &selects_nothing::RULE, &unhealthy_pods::RULE];
