mod evicted;
mod image_pull;
mod lost;
mod missing_reference;
mod rejected;
mod terminating;
mod unschedulable;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[
    &evicted::RULE,
    &image_pull::RULE,
    &lost::RULE,
    &missing_reference::RULE,
    &rejected::RULE,
    &terminating::RULE,
    &unschedulable::RULE,
];
