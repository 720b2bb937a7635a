mod evicted;
mod image_pull;
mod lost;
mod missing_reference;
mod rejected;
mod sandbox;
mod terminating;
mod unschedulable;
mod volume;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[
    &evicted::RULE,
    &image_pull::RULE,
    &lost::RULE,
    &missing_reference::RULE,
    &rejected::RULE,
    &sandbox::RULE,
    &terminating::RULE,
    &unschedulable::RULE,
    &volume::RULE,
];
