mod cannot_create_pods;
mod not_observed;
mod overlapping_selectors;
mod rollout_stuck;
mod unavailable;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[
    &cannot_create_pods::RULE,
    &not_observed::RULE,
    &overlapping_selectors::RULE,
    &rollout_stuck::RULE,
    &unavailable::RULE,
];
