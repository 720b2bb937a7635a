mod backend_down;
mod backend_port;
mod backend_service;
mod class;
mod conflict;
mod middleware;
mod no_address;
mod tls_secret;

use crate::engine::BuiltIn;

pub(super) const RULES: &[&BuiltIn] = &[
    &backend_down::RULE,
    &backend_port::RULE,
    &backend_service::RULE,
    &class::RULE,
    &conflict::RULE,
    &middleware::RULE,
    &no_address::RULE,
    &tls_secret::RULE,
];
