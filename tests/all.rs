//! All tests that need no cluster, in one binary.
#![allow(clippy::unwrap_used)]

mod api_server;
mod ask;
mod bad_input;
mod cli;
mod config;
mod credentials;
mod custom;
mod docs;
mod expectations;
mod explain;
mod faults;
mod forbidden;
mod formats;
mod gate;
mod inputs;
#[cfg(unix)]
mod interrupt;
mod language;
mod layers;
mod live;
mod live_cli;
mod manual;
mod merged;
mod model_server;
mod packages;
mod privacy;
mod program;
mod pull_request;
mod scenarios;
mod schema;
mod strict;
mod user_rules;
#[cfg(unix)]
mod watch;
