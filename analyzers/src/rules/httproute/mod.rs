mod backend;
mod parent;
mod reference_grant;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&backend::RULE, &parent::RULE, &reference_grant::RULE];
