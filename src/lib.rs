//! kubectl-gpt finds problems in a Kubernetes cluster, separates root causes from symptoms, and gates pipelines.
//!
//! This crate does all input and output; the analysis itself is in `kubectl-gpt-analyzers`.

pub mod cli;
pub mod collect;
pub mod commands;
pub mod config;
pub mod cryptography;
pub mod duration;
pub mod exit;
pub mod explain;
pub mod gate;
pub mod glob;
pub mod interrupt;
pub mod load;
pub mod output;
pub mod problems;
pub mod progress;
pub mod report;
pub mod retry;
pub mod scope;
pub mod terminal;
pub mod user_rules;
pub mod whole_file;

use std::ffi::OsString;

use clap::{CommandFactory, Parser};

use crate::cli::{Cli, Command};
use crate::exit::Exit;

/// Runs the program with these arguments, including the program name as the first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return cli::usage(&error),
    };
    let outcome = match &cli.command {
        Command::Analyze(arguments) => commands::analyze::run(arguments),
        Command::Rules(arguments) => commands::rules::run(arguments),
        Command::Trace(arguments) => commands::trace::run(arguments),
        Command::Config(arguments) => commands::config::run(arguments),
        Command::Ask(arguments) => commands::ask::run(arguments),
        Command::Cache(arguments) => commands::cache::run(arguments),
        Command::Completions(arguments) => commands::completions::run(arguments, Cli::command()),
        Command::Man(arguments) => commands::man::run(arguments, Cli::command()),
        Command::Snapshot(arguments) => commands::snapshot::run(arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {}", terminal::plain(&error.to_string()));
        error.exit
    })
}
