mod class;
mod listener;
mod not_programmed;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&class::RULE, &listener::RULE, &not_programmed::RULE];
