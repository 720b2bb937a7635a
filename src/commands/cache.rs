//! `kubectl-gpt cache clear`: removes the cached answers of the language model.

use anyhow::Context;
use clap::{Args, Subcommand};
use kubectl_gpt_analyzers::text::words;

use crate::exit::{Exit, Failure};
use crate::explain::cache::Cache;

/// Manage cached answers of the language model.
#[derive(Debug, Args)]
pub struct CacheArgs {
    #[command(subcommand)]
    pub command: CacheCommand,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub enum CacheCommand {
    /// Remove all cached answers.
    Clear,
}

pub fn run(arguments: &CacheArgs) -> Result<Exit, Failure> {
    let CacheCommand::Clear = arguments.command;
    let removed = match Cache::of_user() {
        Some(cache) => cache.clear().context("clearing the cache").map_err(Failure::unreadable)?,
        None => 0,
    };
    eprintln!("{} removed", words::count(removed, "answer"));
    Ok(Exit::Clean)
}
