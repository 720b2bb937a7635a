mod image_pull;
mod missing_reference;
mod unschedulable;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&image_pull::RULE, &missing_reference::RULE, &unschedulable::RULE];
