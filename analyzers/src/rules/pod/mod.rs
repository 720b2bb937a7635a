mod image_pull;
mod missing_reference;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&image_pull::RULE, &missing_reference::RULE];
