mod clock;
mod cordoned;
mod devices;
mod not_ready;
mod overcommitted;
mod pod_addresses;
mod pressure;
mod terminating;
mod version_skew;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[
    &clock::RULE,
    &cordoned::RULE,
    &devices::RULE,
    &not_ready::RULE,
    &overcommitted::RULE,
    &pod_addresses::RULE,
    &pressure::RULE,
    &terminating::RULE,
    &version_skew::RULE,
];
