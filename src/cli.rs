//! All commands and flags. Names follow kubectl where kubectl has an equivalent.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use kubectl_gpt_analyzers::Severity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::commands::watch::WatchArgs;
use crate::exit::Exit;
use crate::explain::provider::Provider;
use crate::output::OutputArgs;

const EXIT_CODES: &str = "\
Exit codes:
  0  all rules evaluated, no findings at or above --fail-on
  1  findings at or above --fail-on
  2  invalid usage or configuration
  3  no findings at or above --fail-on, but some rules could not be evaluated
  4  cluster unreachable, or the input could not be read";

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

/// Analyze a cluster or files and report problems.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
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

/// What is reported, and what fails a pipeline.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Gate")]
pub struct ThresholdArgs {
    /// Minimum severity to report [default: info].
    #[arg(long, value_enum, value_name = "SEVERITY")]
    pub min_severity: Option<Level>,
    /// Exit with code 1 if there are findings of at least this severity [default: error].
    #[arg(long, value_enum, value_name = "SEVERITY")]
    pub fail_on: Option<FailOn>,
    /// Exit with code 0 instead of 3 if some rules could not be evaluated.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub allow_partial: Option<bool>,
}

/// Known findings.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Gate")]
pub struct BaselineArgs {
    /// Ignore findings recorded in this file; only new findings affect the exit code.
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
    /// Write the current findings to this file, for use with --baseline.
    #[arg(long, value_name = "FILE", conflicts_with = "watch")]
    pub write_baseline: Option<PathBuf>,
    /// Also list ignored and baselined findings, with the reason.
    #[arg(long)]
    pub show_ignored: bool,
}

/// The configuration file.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Settings")]
pub struct ConfigArgs {
    /// Path to the configuration file [default: kubectl-gpt.yaml in the working directory, else in the user's
    /// configuration directory].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Ask a language model about the cluster's findings and objects. The model can call read-only tools; each call is
/// logged to standard error. Secret data is never sent, and everything that is sent is masked.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl-gpt ask 'why is checkout slow?'
  kubectl-gpt ask -f cluster.json --provider ollama --model llama3.1 'what should I fix first?'

Exit codes: 0 answered, 2 invalid usage or configuration, 4 cluster unreachable, unreadable input, or no answer")]
pub struct AskArgs {
    /// The question, in any language.
    pub question: String,
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// Read files instead of a cluster, as with analyze (repeatable).
    #[arg(short, long, value_name = "PATH")]
    pub filename: Vec<PathBuf>,
    /// Only this namespace; also the default namespace for tool calls (repeatable).
    #[arg(short, long, value_name = "NAME", value_delimiter = ',')]
    pub namespace: Vec<String>,
    #[command(flatten)]
    pub config: ConfigArgs,
    #[command(flatten)]
    pub model: ModelArgs,
    /// Print the first request without sending it.
    #[arg(long)]
    pub dry_run: bool,
    /// When to use colors; `auto` honors NO_COLOR, CLICOLOR_FORCE and whether standard output is a terminal.
    #[arg(long, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
}

impl AskArgs {
    pub fn input(&self) -> InputArgs {
        InputArgs {
            filename: self.filename.clone(),
            namespace: self.namespace.clone(),
            crds: vec!["all".to_string()],
            ..InputArgs::default()
        }
    }
}

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

/// Show the effective settings and the source of each: a flag, the configuration file, or the default.
#[derive(Debug, Args)]
pub struct ConfigCommandArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    #[command(flatten)]
    pub rules: RuleArgs,
    #[command(flatten)]
    pub thresholds: ThresholdArgs,
    /// As with analyze.
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    pub crds: Vec<String>,
}

/// How to reach the cluster: kubectl's flags with kubectl's semantics.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub struct ConnectionArgs {
    /// Path to the kubeconfig file [default: $KUBECONFIG or ~/.kube/config].
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The kubeconfig context to use.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// The kubeconfig cluster to use.
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// The kubeconfig user to use.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Username to impersonate.
    #[arg(long = "as", value_name = "NAME")]
    pub as_user: Option<String>,
    /// Group to impersonate (repeatable).
    #[arg(long = "as-group", value_name = "NAME", requires = "as_user")]
    pub as_groups: Vec<String>,
    /// Timeout of a single request: 30s, 1m, or a number of seconds; 0 disables it [default: 30s].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub request_timeout: Option<Duration>,
    /// Log verbosity for API requests on standard error: 1 warnings, 6 each request, 8 everything.
    #[arg(short = 'v', long = "v", value_name = "LEVEL", num_args = 0..=1, default_value_t = 0, default_missing_value = "6")]
    pub verbosity: u8,
}

/// The input of a run.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Scope")]
pub struct InputArgs {
    /// Read files instead of a cluster: manifests, `kubectl get -o json|yaml`, a snapshot, a `kubectl cluster-info
    /// dump`, a Troubleshoot support bundle, an OpenShift must-gather. Accepts a file, a directory, an archive, or `-`
    /// for standard input (repeatable).
    #[arg(short, long, value_name = "PATH")]
    pub filename: Vec<PathBuf>,
    /// Analyze the manifests of --filename as if they were applied to the cluster: references are resolved against the
    /// cluster, and problems that the manifests cause there are reported.
    #[arg(long, requires = "filename")]
    pub with_cluster: bool,
    /// Only this namespace (repeatable).
    #[arg(short, long, value_name = "NAME", value_delimiter = ',')]
    pub namespace: Vec<String>,
    /// All namespaces. This is the default, but with this flag there is no fallback to a single namespace if listing is
    /// forbidden.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,
    /// Custom resources to read from the cluster: `all` (default), `none`, or API groups such as `*.example.com`
    /// (repeatable).
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    pub crds: Vec<String>,
    /// Only report findings about objects that match this label selector.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
}

/// Which rules to run.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Rules")]
pub struct RuleArgs {
    /// Only run these rules; `*` matches any characters, as in `service/*` (repeatable).
    #[arg(long = "rule", value_name = "ID", value_delimiter = ',')]
    pub rules: Vec<String>,
    /// Skip these rules (repeatable).
    #[arg(long = "skip-rule", value_name = "ID", value_delimiter = ',')]
    pub skip_rules: Vec<String>,
    /// `strict` adds best-practice rules. A rule named in full by --rule runs in any profile [default: default].
    #[arg(long, value_enum)]
    pub profile: Option<Profile>,
    /// Also run custom rules from a directory of YAML files, or from one file (repeatable).
    #[arg(long = "rules", value_name = "DIR")]
    pub folders: Vec<PathBuf>,
}

/// Which language model to use, and its limits.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Language model")]
pub struct ModelArgs {
    /// Preset of base URL and API key variable, such as OPENAI_API_KEY.
    #[arg(long, value_enum, value_name = "NAME", hide_possible_values = false)]
    pub provider: Option<Provider>,
    /// Base URL of an OpenAI-compatible API, including the version [default: $OPENAI_BASE_URL].
    #[arg(long, value_name = "URL")]
    pub base_url: Option<String>,
    /// Name of the model.
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Language of the answers, such as German [default: English].
    #[arg(long, value_name = "LANGUAGE")]
    pub language: Option<String>,
    /// Maximum tokens per answer [default: 1500].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: Option<u32>,
    /// Maximum requests per run, including retries [default: 20].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_requests: Option<u32>,
    /// Timeout of a single answer [default: 2m].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub model_timeout: Option<Duration>,
    /// Send names, addresses and log lines unmasked. Use only with a model that you trust with them.
    #[arg(long, conflicts_with = "mask")]
    pub no_mask: bool,
    /// Mask names, addresses and log lines even for a local model.
    #[arg(long)]
    pub mask: bool,
    /// Do not read or write cached answers.
    #[arg(long)]
    pub no_cache: bool,
    /// Allow plain HTTP to a remote server.
    #[arg(long)]
    pub allow_http: bool,
    /// Directory with custom prompt templates.
    #[arg(long, value_name = "DIR")]
    pub prompts: Option<PathBuf>,
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

/// Trace a connection through DNS, Service, endpoints, readiness, network policies and ports, and report where it is
/// blocked and by which object.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl-gpt trace deploy/front svc/back:80
  kubectl-gpt trace -n shop pod/web-0 db.data.svc.cluster.local:5432
  kubectl-gpt trace ingress/shop
  kubectl-gpt trace internet svc/front

Exit codes: 0 open, 1 closed, 2 invalid usage, 3 undecided, 4 cluster unreachable or unreadable input")]
pub struct TraceArgs {
    /// Source: pod/NAME, deploy/NAME or another workload, ingress/NAME, or `internet`.
    pub from: String,
    /// Destination: svc/NAME[:PORT], pod/NAME[:PORT], a workload, or HOST[:PORT]. Optional if the source is an Ingress,
    /// which names its backends.
    pub to: Option<String>,
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// Read files instead of a cluster, as with analyze (repeatable).
    #[arg(short, long, value_name = "PATH")]
    pub filename: Vec<PathBuf>,
    /// Namespace of FROM and TO, unless they specify one.
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = RulesFormat::Table)]
    pub output: RulesFormat,
    /// When to use colors; `auto` honors NO_COLOR, CLICOLOR_FORCE and whether standard output is a terminal.
    #[arg(long, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
}

impl TraceArgs {
    /// Reads the whole cluster: policies in any namespace can affect the connection.
    pub fn input(&self) -> InputArgs {
        let crds = kubectl_gpt_analyzers::kubernetes::network::netpol::FOREIGN_GROUPS
            .iter()
            .map(ToString::to_string)
            .collect();
        InputArgs { filename: self.filename.clone(), crds, ..InputArgs::default() }
    }
}

/// Record everything that analyze reads in a single file, for later analysis or a bug report.
///
/// Values of Secrets and ConfigMaps are omitted, as are values whose names suggest credentials (DB_PASSWORD,
/// --api-token).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl-gpt snapshot -o monday.tar.zst
  kubectl-gpt snapshot -n shop -o shop.tar.zst
  kubectl-gpt snapshot -f support-bundle.tar.gz -o small.tar.zst
  kubectl-gpt analyze -f monday.tar.zst

Exit codes: 0 written, 2 invalid usage, 4 cluster unreachable or unreadable input")]
pub struct SnapshotArgs {
    /// File to write, readable only by its owner; `-` for standard output.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// Read files instead of a cluster, as with analyze (repeatable).
    #[arg(short, long, value_name = "PATH", conflicts_with = "namespace")]
    pub filename: Vec<PathBuf>,
    /// Only this namespace and cluster-scoped objects (repeatable).
    #[arg(short, long, value_name = "NAME", value_delimiter = ',')]
    pub namespace: Vec<String>,
    /// All namespaces. This is the default, but with this flag there is no fallback to a single namespace if listing is
    /// forbidden.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,
    /// Custom resources to read from the cluster: `all`, `none`, or API groups such as `*.example.com` (repeatable).
    #[arg(long, value_name = "GROUP", value_delimiter = ',', default_values_t = vec!["all".to_string()])]
    pub crds: Vec<String>,
    /// Do not fetch the last log lines of crashed containers.
    #[arg(long)]
    pub no_logs: bool,
}

impl SnapshotArgs {
    pub fn input(&self) -> InputArgs {
        InputArgs {
            filename: self.filename.clone(),
            namespace: self.namespace.clone(),
            all_namespaces: self.all_namespaces,
            crds: self.crds.clone(),
            ..InputArgs::default()
        }
    }
}

/// List the rules, or show the documentation of one rule.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, disable_help_subcommand = true)]
pub struct RulesArgs {
    #[command(subcommand)]
    pub command: Option<RulesCommand>,
    /// Rule to document.
    pub id: Option<String>,
    #[command(flatten)]
    pub rules: RuleArgs,
    /// Print the minimum ClusterRole that the rules need.
    #[arg(long, conflicts_with_all = ["id", "output"])]
    pub rbac: bool,
    /// With --rbac: include the permissions for `analyze --watch`.
    #[arg(long, requires = "rbac")]
    pub watch: bool,
    /// With --rbac: API groups of custom resources, as with analyze.
    #[arg(long, value_name = "GROUP", value_delimiter = ',', default_values_t = vec!["all".to_string()])]
    pub crds: Vec<String>,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = RulesOutput::Table)]
    pub output: RulesOutput,
    #[command(flatten)]
    pub config: ConfigArgs,
}

#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// Run the tests of custom rules.
    ///
    /// Exit codes: 0 all tests passed, 1 a test failed, 2 invalid rule file.
    Test {
        /// Directories of YAML files, or single files.
        #[arg(required = true, value_name = "DIR")]
        paths: Vec<PathBuf>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RulesOutput {
    Table,
    /// Also the kinds that each rule reads, and all API requests of the rules combined.
    Wide,
    Json,
}

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

/// Print the manual page of the program or of one command.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  kubectl-gpt man analyze > ~/.local/share/man/man1/kubectl-gpt-analyze.1")]
pub struct ManArgs {
    /// Command to document.
    pub command: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Human-readable: root causes first, consequences below them.
    Table,
    /// One line per finding, with all columns.
    Wide,
    /// JSON; the schema is docs/findings.schema.json.
    Json,
    /// YAML with the same schema.
    Yaml,
    /// Markdown for pull requests and chat.
    Markdown,
    /// A single self-contained page.
    Html,
    /// SARIF 2.1.0 for code scanning and editors.
    Sarif,
    /// JUnit XML: one suite per rule, one failure per finding at or above --fail-on.
    Junit,
    /// GitHub Actions annotations.
    Github,
    /// Metrics for node_exporter's textfile collector or a Pushgateway.
    Prometheus,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RulesFormat {
    Table,
    Json,
}

/// Which rules run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Rules that find problems.
    Default,
    /// Also best-practice rules.
    Strict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Info,
    Warning,
    Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FailOn {
    Error,
    Warning,
    Info,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

impl From<Profile> for kubectl_gpt_analyzers::Profile {
    fn from(profile: Profile) -> kubectl_gpt_analyzers::Profile {
        match profile {
            Profile::Default => kubectl_gpt_analyzers::Profile::Default,
            Profile::Strict => kubectl_gpt_analyzers::Profile::Strict,
        }
    }
}

impl From<Level> for Severity {
    fn from(level: Level) -> Severity {
        match level {
            Level::Info => Severity::Info,
            Level::Warning => Severity::Warning,
            Level::Error => Severity::Error,
        }
    }
}

impl Format {
    /// The name of the format on the command line: `sarif`.
    pub fn word(&self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_string()).unwrap_or_default()
    }
}

impl FailOn {
    /// The minimum severity that fails, if any does.
    pub fn threshold(self) -> Option<Severity> {
        match self {
            FailOn::Error => Some(Severity::Error),
            FailOn::Warning => Some(Severity::Warning),
            FailOn::Info => Some(Severity::Info),
            FailOn::Never => None,
        }
    }
}

/// Prints clap's message to the right stream. Help and version are not errors, everything else is invalid usage.
pub fn usage(error: &clap::Error) -> Exit {
    // A closed standard output cannot be reported anywhere.
    let _ = error.print();
    if error.use_stderr() { Exit::Usage } else { Exit::Clean }
}

/// A duration in kubectl's syntax: `30s`, `1m30s`, `500ms`, or a plain number of seconds. Zero means no limit.
fn duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("expected a duration such as 30s or 1m, found {text:?}");
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let span: jiff::SignedDuration = text.parse().map_err(|_| expected())?;
    Duration::try_from(span).map_err(|_| expected())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::CommandFactory;

    use super::{Cli, duration};

    #[test]
    fn the_definition_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_in_kubectl_syntax() {
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for wrong in ["", "-1s", "soon", "5 parsecs"] {
            assert!(duration(wrong).unwrap_err().contains("expected a duration"), "{wrong}");
        }
    }
}
