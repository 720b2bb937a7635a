//! `kubectl-gpt cache clear`: removes the cached answers of the language model.

use anyhow::Context;
use kubectl_gpt_analyzers::text::words;

use crate::cli::{CacheArgs, CacheCommand};
use crate::exit::{Exit, Failure};
use crate::explain::cache::Cache;

pub fn run(arguments: &CacheArgs) -> Result<Exit, Failure> {
    let CacheCommand::Clear = arguments.command;
    let removed = match Cache::of_user() {
        Some(cache) => cache.clear().context("clearing the cache").map_err(Failure::unreadable)?,
        None => 0,
    };
    eprintln!("{} removed", words::count(removed, "answer"));
    Ok(Exit::Clean)
}
