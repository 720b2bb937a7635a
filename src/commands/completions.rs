//! `kubectl-gpt completions SHELL`: what makes a shell complete commands, flags and their values.

use anyhow::Context;
use clap::CommandFactory;

use crate::cli::{Cli, Color, CompletionsArgs};
use crate::exit::{Exit, Failure};
use crate::terminal;

pub fn run(arguments: &CompletionsArgs) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), env!("CARGO_PKG_NAME"), &mut script);
    // For a program with a hyphen in its name clap_complete 4.6 asks for one label and sets another in bash's script,
    // which then completes no subcommand.
    let script = String::from_utf8_lossy(&script).replace("kubectl__subcmd__gpt", "kubectl__gpt");
    terminal::write(&script, Color::Never).context("writing the script").map_err(Failure::unreadable)?;
    Ok(Exit::Clean)
}
