mod tunnel_mtu;
mod unused;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&tunnel_mtu::RULE, &unused::RULE];
