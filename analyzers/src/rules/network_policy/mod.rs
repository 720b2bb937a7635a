mod dns_blocked;
mod selects_nothing;
mod service_port;

use crate::rule::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&dns_blocked::RULE, &selects_nothing::RULE, &service_port::RULE];
