//! All commands and flags. Names follow kubectl where kubectl has an equivalent.

use clap::{Parser, Subcommand};

use crate::commands::arguments::AnalyzeArgs;
use crate::commands::ask::AskArgs;
use crate::commands::cache::CacheArgs;
use crate::commands::completions::CompletionsArgs;
use crate::commands::config::ConfigCommandArgs;
use crate::commands::man::ManArgs;
use crate::commands::rules::RulesArgs;
use crate::commands::snapshot::SnapshotArgs;
use crate::commands::trace::TraceArgs;
use crate::exit::{EXIT_CODES, Exit};

/// Finds problems in a Kubernetes cluster and separates root causes from symptoms.
///
/// Read-only: uses get, list, watch and pod logs. Secret values other than TLS certificates are never read.
#[derive(Debug, Parser)]
#[command(name = "kubectl-gpt", version, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Analyze(Box<AnalyzeArgs>),
    Rules(RulesArgs),
    Trace(Box<TraceArgs>),
    Config(ConfigCommandArgs),
    Ask(Box<AskArgs>),
    Cache(CacheArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
    Snapshot(Box<SnapshotArgs>),
}

/// Prints clap's message to the right stream. Help and version are not errors, everything else is invalid usage.
pub fn usage(error: &clap::Error) -> Exit {
    // A closed standard output cannot be reported anywhere.
    let _ = error.print();
    if error.use_stderr() { Exit::Usage } else { Exit::Clean }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn the_definition_is_valid() {
        Cli::command().debug_assert();
    }
}
