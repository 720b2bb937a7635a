//! `kubectl-gpt completions SHELL`: prints a completion script for a shell.

use anyhow::Context;
use clap::CommandFactory;

use crate::cli::{Cli, Color, CompletionsArgs};
use crate::exit::{Exit, Failure};
use crate::terminal;

pub fn run(arguments: &CompletionsArgs) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), env!("CARGO_PKG_NAME"), &mut script);
    // For a program with a hyphen in its name, the bash script of clap_complete 4.6 sets one label and checks another,
    // so subcommands are not completed.
    let script = String::from_utf8_lossy(&script).replace("kubectl__subcmd__gpt", "kubectl__gpt");
    terminal::write(&script, Color::Never).context("writing the script").map_err(Failure::unreadable)?;
    Ok(Exit::Clean)
}
