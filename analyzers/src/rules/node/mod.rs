mod cordoned;
mod not_ready;
mod overcommitted;
mod pressure;
mod version_skew;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] =
    &[&cordoned::RULE, &not_ready::RULE, &overcommitted::RULE, &pressure::RULE, &version_skew::RULE];
