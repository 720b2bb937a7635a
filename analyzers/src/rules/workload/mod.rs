mod cannot_create_pods;
mod cloud_permissions;
mod disruption_budget;
mod env_order;
mod host_access;
mod image_tag;
mod limit_range;
mod memory_volume;
mod mounted_files;
mod node_name;
mod not_observed;
mod overlapping_selectors;
mod privileged;
mod probe_protocol;
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
    &cloud_permissions::RULE,
    &disruption_budget::RULE,
    &env_order::RULE,
    &host_access::RULE,
    &image_tag::RULE,
    &limit_range::RULE,
    &memory_volume::RULE,
    &mounted_files::RULE,
    &node_name::RULE,
    &not_observed::RULE,
    &overlapping_selectors::RULE,
    &privileged::RULE,
    &probe_protocol::RULE,
    &probes::RULE,
    &resources::RULE,
    &rollout_stuck::RULE,
    &runs_as_root::RULE,
    &single_replica::RULE,
    &spread::RULE,
    &unavailable::RULE,
];
