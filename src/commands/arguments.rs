//! The flags of `analyze`, which its parts share.

use clap::Args;

use crate::config::{ConfigArgs, RuleArgs, ThresholdArgs};
use crate::explain::provider::ModelArgs;
use crate::gate::BaselineArgs;
use crate::load::{ConnectionArgs, InputArgs};
use crate::output::OutputArgs;
use crate::report::Format;
use crate::terminal::Color;

/// Analyze a cluster or files and report problems.
#[derive(Debug, Args)]
#[command(after_help = crate::exit::EXIT_CODES)]
pub struct AnalyzeArgs {
    #[command(flatten)]
    pub connection: ConnectionArgs,
    #[command(flatten)]
    pub input: InputArgs,
    #[command(flatten)]
    pub rules: RuleArgs,
    #[command(flatten)]
    pub thresholds: ThresholdArgs,
    #[command(flatten)]
    pub baseline: BaselineArgs,
    #[command(flatten)]
    pub config: ConfigArgs,
    #[command(flatten)]
    pub explain: ExplainArgs,

    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    #[command(flatten)]
    pub files: OutputArgs,
    #[command(flatten)]
    pub watch: WatchArgs,
    /// When to use colors; `auto` honors NO_COLOR, CLICOLOR_FORCE and whether standard output is a terminal.
    #[arg(long, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
    /// Do not fetch the last log lines of crashed containers.
    #[arg(long, overrides_with = "logs")]
    pub no_logs: bool,
    /// Fetch the last log lines of crashed containers, from one pod per workload (default).
    #[arg(long)]
    pub logs: bool,
}

#[derive(Clone, Debug, Default, Args)]
pub struct WatchArgs {
    /// Keep running and report new and resolved findings until Ctrl-C; the exit code reflects the last state.
    #[arg(long, conflicts_with = "filename")]
    pub watch: bool,
}

/// Explanations by a language model.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Language model")]
pub struct ExplainArgs {
    /// Let a language model explain each root cause. Data is masked before it is sent.
    #[arg(long)]
    pub explain: bool,
    /// Print the requests of --explain instead of the report, without sending them.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub model: ModelArgs,
}
