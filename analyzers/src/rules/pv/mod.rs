mod failed;
mod nfs_service;
mod node_affinity;
mod released;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[&failed::RULE, &nfs_service::RULE, &node_affinity::RULE, &released::RULE];
