mod cannot_create_pods;
mod disruption_budget;
mod host_access;
mod image_tag;
mod not_observed;
mod overlapping_selectors;
mod privileged;
mod probes;
mod resources;
mod rollout_stuck;
mod runs_as_root;
mod single_replica;
mod spread;
mod unavailable;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[
    &cannot_create_pods::RULE,
    &disruption_budget::RULE,
    &host_access::RULE,
    &image_tag::RULE,
    &not_observed::RULE,
    &overlapping_selectors::RULE,
    &privileged::RULE,
    &probes::RULE,
    &resources::RULE,
    &rollout_stuck::RULE,
    &runs_as_root::RULE,
    &single_replica::RULE,
    &spread::RULE,
    &unavailable::RULE,
];
