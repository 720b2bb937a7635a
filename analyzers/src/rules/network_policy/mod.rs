mod cluster_ip;
mod dns_blocked;
mod named_port;
mod not_enforced;
mod path_closed;
mod peer_matches_nothing;
mod selects_nothing;
mod service_port;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[
    &cluster_ip::RULE,
    &dns_blocked::RULE,
    &named_port::RULE,
    &not_enforced::RULE,
    &path_closed::RULE,
    &peer_matches_nothing::RULE,
    &selects_nothing::RULE,
    &service_port::RULE,
];
