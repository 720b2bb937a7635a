mod evicted;
mod image_pull;
mod lost;
mod missing_reference;
mod rejected;
mod terminating;
mod cannot_start;
mod crash_loop;
mod image_pull;
mod init_stuck;
mod liveness_kills;
mod missing_reference;
mod not_ready;
mod oom_killed;
mod restarting;
mod unschedulable;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[
    &evicted::RULE,
    &image_pull::RULE,
    &lost::RULE,
    &missing_reference::RULE,
    &rejected::RULE,
    &terminating::RULE,
    &cannot_start::RULE,
    &crash_loop::RULE,
    &image_pull::RULE,
    &init_stuck::RULE,
    &liveness_kills::RULE,
    &missing_reference::RULE,
    &not_ready::RULE,
    &oom_killed::RULE,
    &restarting::RULE,
    &unschedulable::RULE,
];
