mod external_name;
mod load_balancer_pending;
mod local_traffic;
mod no_endpoints;
mod no_ready_endpoints;
mod not_announced;
mod peers_not_published;
mod selector_matches_nothing;
mod silent_workload;
mod target_port;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[
    &external_name::RULE,
    &load_balancer_pending::RULE,
    &local_traffic::RULE,
    &no_endpoints::RULE,
    &no_ready_endpoints::RULE,
    &not_announced::RULE,
    &peers_not_published::RULE,
    &selector_matches_nothing::RULE,
    &silent_workload::RULE,
    &target_port::RULE,
];
