mod cannot_start;
mod crash_loop;
mod evicted;
mod fs_group;
mod image_pull;
mod init_stuck;
mod liveness_kills;
mod lost;
mod missing_reference;
mod not_ready;
mod oom_killed;
mod rejected;
mod restarting;
mod sandbox;
mod scheduling_advice;
mod terminating;
mod unauthorized;
mod unschedulable;
mod volume;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[
    &cannot_start::RULE,
    &crash_loop::RULE,
    &evicted::RULE,
    &fs_group::RULE,
    &image_pull::RULE,
    &init_stuck::RULE,
    &liveness_kills::RULE,
    &lost::RULE,
    &missing_reference::RULE,
    &not_ready::RULE,
    &oom_killed::RULE,
    &rejected::RULE,
    &restarting::RULE,
    &sandbox::RULE,
    &terminating::RULE,
    &unauthorized::RULE,
    &unschedulable::RULE,
    &volume::RULE,
];
