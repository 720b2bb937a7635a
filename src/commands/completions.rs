//! `kubectl-gpt completions SHELL`: prints a completion script for a shell.

use anyhow::Context;
use clap::Args;
use clap::Command;

use crate::exit::{Exit, Failure};
use crate::terminal;
use crate::terminal::Color;

/// Print a shell completion script.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  source <(kubectl-gpt completions bash)
  kubectl-gpt completions zsh > \"${fpath[1]}/_kubectl-gpt\"
  kubectl-gpt completions fish > ~/.config/fish/completions/kubectl-gpt.fish")]
pub struct CompletionsArgs {
    pub shell: clap_complete::Shell,
}

/// `program` is the whole command line.
pub fn run(arguments: &CompletionsArgs, mut program: Command) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut program, env!("CARGO_PKG_NAME"), &mut script);
    // For a program with a hyphen in its name, the bash script of clap_complete 4.6 sets one label and checks another,
    // so subcommands are not completed.
    let script = String::from_utf8_lossy(&script).replace("kubectl__subcmd__gpt", "kubectl__gpt");
    terminal::write(&script, Color::Never).context("writing the script").map_err(Failure::unreadable)?;
    Ok(Exit::Clean)
}
