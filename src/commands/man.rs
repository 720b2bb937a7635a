//! `kubectl-gpt man [COMMAND]`: prints a manual page.

use anyhow::{Context, anyhow};
use clap::Args;
use clap::Command;
use clap_mangen::Man;

use crate::exit::{Exit, Failure};
use crate::terminal;
use crate::terminal::Color;

/// Print the manual page of the program or of one command.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  kubectl-gpt man analyze > ~/.local/share/man/man1/kubectl-gpt-analyze.1")]
pub struct ManArgs {
    /// Command to document.
    pub command: Option<String>,
}

/// `program` is the whole command line.
pub fn run(arguments: &ManArgs, mut program: Command) -> Result<Exit, Failure> {
    program.build();
    let command = match &arguments.command {
        None => program,
        Some(name) => {
            let known: Vec<String> = program.get_subcommands().map(|c| c.get_name().to_string()).collect();
            let found = program.find_subcommand(name).cloned();
            found.ok_or_else(|| {
                Failure::usage(anyhow!("unknown command {name:?}, expected one of {}", known.join(", ")))
            })?
        }
    };
    // Subcommands have their own pages: kubectl-gpt-analyze(1).
    let name = command.get_display_name().unwrap_or(command.get_name()).replace(' ', "-");
    let mut page = Vec::new();
    Man::new(command).title(name).render(&mut page).context("rendering the manual").map_err(Failure::unreadable)?;
    terminal::write(&String::from_utf8_lossy(&page), Color::Never)
        .context("writing the manual")
        .map_err(Failure::unreadable)?;
    Ok(Exit::Clean)
}
