//! Every command and flag, with kubectl's names where kubectl has one.

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
  0  everything was evaluated; no finding at or above --fail-on
  1  findings at or above --fail-on
  2  wrong usage or configuration
  3  nothing at or above --fail-on, but something could not be evaluated
  4  no cluster reached, or the input could not be read";

/// Finds what is wrong in a Kubernetes cluster and tells causes from consequences.
///
/// It only reads: get, list and logs. Secret values stay unread.
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

/// Look at a cluster, or at files, and report what is wrong.
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

    /// What to print.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    #[command(flatten)]
    pub files: OutputArgs,
    #[command(flatten)]
    pub watch: WatchArgs,
    /// Colors; `auto` follows NO_COLOR, CLICOLOR_FORCE and whether standard output is a terminal.
    #[arg(long, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
    /// Do not fetch the last log lines of crashed containers.
    #[arg(long, overrides_with = "logs")]
    pub no_logs: bool,
    /// Fetch the last log lines of crashed containers, one pod a workload (the default).
    #[arg(long)]
    pub logs: bool,
}

/// What is reported, and what makes a pipeline fail.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Gate")]
pub struct ThresholdArgs {
    /// Report nothing less severe (default info).
    #[arg(long, value_enum, value_name = "SEVERITY")]
    pub min_severity: Option<Level>,
    /// The severity from which on findings make the exit code 1 (default error).
    #[arg(long, value_enum, value_name = "SEVERITY")]
    pub fail_on: Option<FailOn>,
    /// Exit with 0 instead of 3 if something could not be evaluated.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub allow_partial: Option<bool>,
}

/// What is known already.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Gate")]
pub struct BaselineArgs {
    /// Findings of this file do not count: only what is new makes the exit code 1.
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
    /// Write what is found to this file, for --baseline.
    #[arg(long, value_name = "FILE", conflicts_with = "watch")]
    pub write_baseline: Option<PathBuf>,
    /// List also what is ignored or in the baseline, with the reason.
    #[arg(long)]
    pub show_ignored: bool,
}

/// Where settings are kept.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Settings")]
pub struct ConfigArgs {
    /// The configuration file, instead of kubectl-gpt.yaml in the working directory or else in the user's
    /// configuration folder.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Ask a language model about this cluster's findings and objects. It may look things up, each of which is shown on
/// standard error; it can only read, never the data of a Secret, and everything that it is sent is masked.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl-gpt ask 'why is checkout slow?'
  kubectl-gpt ask -f cluster.json --provider ollama --model llama3.1 'what should I repair first?'

Exit codes: 0 answered, 2 wrong usage or configuration, 4 no cluster reached, unreadable input, or no answer")]
pub struct AskArgs {
    /// The question, in any language.
    pub question: String,
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// Files instead of a cluster, as for analyze (repeatable).
    #[arg(short, long, value_name = "PATH")]
    pub filename: Vec<PathBuf>,
    /// Only this namespace, which is also meant where none is named (repeatable).
    #[arg(short, long, value_name = "NAME", value_delimiter = ',')]
    pub namespace: Vec<String>,
    #[command(flatten)]
    pub config: ConfigArgs,
    #[command(flatten)]
    pub model: ModelArgs,
    /// Print what would be sent first, and send nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Colors; `auto` follows NO_COLOR, CLICOLOR_FORCE and whether standard output is a terminal.
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

/// Answers of the language model that are kept for later runs.
#[derive(Debug, Args)]
pub struct CacheArgs {
    #[command(subcommand)]
    pub command: CacheCommand,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub enum CacheCommand {
    /// Remove all of them.
    Clear,
}

/// Show the settings in force, each with where it is from: a flag, the configuration file, or the default.
#[derive(Debug, Args)]
pub struct ConfigCommandArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    #[command(flatten)]
    pub rules: RuleArgs,
    #[command(flatten)]
    pub thresholds: ThresholdArgs,
    /// As for analyze.
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    pub crds: Vec<String>,
}

/// How to reach the cluster: kubectl's flags with kubectl's meaning.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub struct ConnectionArgs {
    /// The kubeconfig file, instead of KUBECONFIG or ~/.kube/config.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig to use.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// The cluster of the kubeconfig to use.
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// The user of the kubeconfig to use.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// The user to impersonate.
    #[arg(long = "as", value_name = "NAME")]
    pub as_user: Option<String>,
    /// A group to impersonate (repeatable).
    #[arg(long = "as-group", value_name = "NAME", requires = "as_user")]
    pub as_groups: Vec<String>,
    /// How long one request may take: 30s, 1m, or a number of seconds (default 30s).
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub request_timeout: Option<Duration>,
    /// How much to tell on standard error about the talk with the API server: 1 warnings, 6 each request, 8 everything.
    #[arg(short = 'v', long = "v", value_name = "LEVEL", num_args = 0..=1, default_value_t = 0, default_missing_value = "6")]
    pub verbosity: u8,
}

/// What to look at.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Scope")]
pub struct InputArgs {
    /// Files instead of a cluster: manifests, `kubectl get -o json|yaml`, a snapshot, a `kubectl cluster-info dump`, a
    /// Troubleshoot support bundle, an OpenShift must-gather; a file, a folder, an archive, or `-` for standard input
    /// (repeatable).
    #[arg(short, long, value_name = "PATH")]
    pub filename: Vec<PathBuf>,
    /// Look at the manifests of --filename as if they were applied to the cluster: what they name is looked up there,
    /// and what they break there is told.
    #[arg(long, requires = "filename")]
    pub with_cluster: bool,
    /// Only this namespace (repeatable).
    #[arg(short, long, value_name = "NAME", value_delimiter = ',')]
    pub namespace: Vec<String>,
    /// All namespaces; the default, but without falling back to one namespace where that is forbidden.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,
    /// Which custom resources to read from a cluster: `all` (the default), `none`, or API groups such as
    /// `*.example.com` (repeatable).
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    pub crds: Vec<String>,
    /// Only findings about objects with these labels.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
}

/// Which rules to run.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Rules")]
pub struct RuleArgs {
    /// Only these rules; `*` stands for any characters, as in `service/*` (repeatable).
    #[arg(long = "rule", value_name = "ID", value_delimiter = ',')]
    pub rules: Vec<String>,
    /// Not these rules (repeatable).
    #[arg(long = "skip-rule", value_name = "ID", value_delimiter = ',')]
    pub skip_rules: Vec<String>,
    /// `strict` adds rules of good practice to those that find what is broken. A rule that --rule names in full runs under
    /// any profile (default: default).
    #[arg(long, value_enum)]
    pub profile: Option<Profile>,
    /// Rules of your own beside the built-in ones: a folder with YAML files, or one such file (repeatable).
    #[arg(long = "rules", value_name = "DIR")]
    pub folders: Vec<PathBuf>,
}

/// Which language model, and what it may cost.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Language model")]
pub struct ModelArgs {
    /// A preset of URL and key; the key is read from its variable, such as OPENAI_API_KEY.
    #[arg(long, value_enum, value_name = "NAME", hide_possible_values = false)]
    pub provider: Option<Provider>,
    /// Any server of the OpenAI chat protocol, up to and with the version, instead of OPENAI_BASE_URL.
    #[arg(long, value_name = "URL")]
    pub base_url: Option<String>,
    /// The model, as its server calls it.
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// The language of the answers, such as German (default: English).
    #[arg(long, value_name = "LANGUAGE")]
    pub language: Option<String>,
    /// How long one answer may be, in tokens (default 1500).
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: Option<u32>,
    /// How many requests one run may send, repetitions too (default 20).
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_requests: Option<u32>,
    /// How long one answer may take (default 2m).
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub model_timeout: Option<Duration>,
    /// Send names, addresses and log lines as they are. Only for a model that may know them.
    #[arg(long, conflicts_with = "mask")]
    pub no_mask: bool,
    /// Mask them even for a model on this machine.
    #[arg(long)]
    pub mask: bool,
    /// Do not use answers from earlier runs, and keep none.
    #[arg(long)]
    pub no_cache: bool,
    /// Talk plain http to a server on another machine.
    #[arg(long)]
    pub allow_http: bool,
    /// A folder with templates of your own, as in the project's prompts folder.
    #[arg(long, value_name = "FOLDER")]
    pub prompts: Option<PathBuf>,
}

/// Explanations by a language model.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Language model")]
pub struct ExplainArgs {
    /// Let a language model explain each root cause in plain words. What it is sent is masked.
    #[arg(long)]
    pub explain: bool,
    /// Print what --explain would send, instead of the report, and send nothing.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub model: ModelArgs,
}

/// Walk one connection: DNS, Service, endpoints, readiness, policies, ports; say where it stops and by which object.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl-gpt trace deploy/front svc/back:80
  kubectl-gpt trace -n shop pod/web-0 db.data.svc.cluster.local:5432
  kubectl-gpt trace ingress/shop
  kubectl-gpt trace internet svc/front

Exit codes: 0 open, 1 closed, 2 wrong usage, 3 undecided, 4 no cluster reached or unreadable input")]
pub struct TraceArgs {
    /// Where it starts: pod/NAME, deploy/NAME or another workload, ingress/NAME, or `internet`.
    pub from: String,
    /// Where it goes: svc/NAME[:PORT], pod/NAME[:PORT], a workload, or a host's name[:PORT]; may be left out for an
    /// Ingress, which names its backends.
    pub to: Option<String>,
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// Files instead of a cluster, as for analyze (repeatable).
    #[arg(short, long, value_name = "PATH")]
    pub filename: Vec<PathBuf>,
    /// The namespace of FROM and TO where they name none.
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// What to print.
    #[arg(short, long, value_enum, default_value_t = RulesFormat::Table)]
    pub output: RulesFormat,
    /// Colors; `auto` follows NO_COLOR, CLICOLOR_FORCE and whether standard output is a terminal.
    #[arg(long, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
}

impl TraceArgs {
    /// The whole cluster: a policy of any namespace may decide.
    pub fn input(&self) -> InputArgs {
        let crds = kubectl_gpt_analyzers::kubernetes::network::netpol::FOREIGN_GROUPS
            .iter()
            .map(ToString::to_string)
            .collect();
        InputArgs { filename: self.filename.clone(), crds, ..InputArgs::default() }
    }
}

/// Record what analyze would read as one file, for later, for a colleague, for a bug report.
///
/// Values of Secrets and ConfigMaps are left out, and so are values under telling names (DB_PASSWORD, --api-token).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl-gpt snapshot -o monday.tar.zst
  kubectl-gpt snapshot -n shop -o shop.tar.zst
  kubectl-gpt snapshot -f support-bundle.tar.gz -o small.tar.zst
  kubectl-gpt analyze -f monday.tar.zst

Exit codes: 0 written, 2 wrong usage, 4 no cluster reached or unreadable input")]
pub struct SnapshotArgs {
    /// The file to write, readable for its owner only; `-` for standard output.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// Files instead of a cluster, as for analyze (repeatable).
    #[arg(short, long, value_name = "PATH", conflicts_with = "namespace")]
    pub filename: Vec<PathBuf>,
    /// Only this namespace, and the kinds that have none (repeatable).
    #[arg(short, long, value_name = "NAME", value_delimiter = ',')]
    pub namespace: Vec<String>,
    /// All namespaces; the default, but without falling back to one namespace where that is forbidden.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,
    /// Which custom resources to read from a cluster: `all`, `none`, or API groups such as `*.example.com` (repeatable).
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

/// List the rules, or show one rule's documentation.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, disable_help_subcommand = true)]
pub struct RulesArgs {
    #[command(subcommand)]
    pub command: Option<RulesCommand>,
    /// The rule to explain.
    pub id: Option<String>,
    #[command(flatten)]
    pub rules: RuleArgs,
    /// Print the smallest ClusterRole with which the rules can read everything they need.
    #[arg(long, conflicts_with_all = ["id", "output"])]
    pub rbac: bool,
    /// With --rbac: what `analyze --watch` needs.
    #[arg(long, requires = "rbac")]
    pub watch: bool,
    /// With --rbac: the API groups of custom resources, as for analyze.
    #[arg(long, value_name = "GROUP", value_delimiter = ',', default_values_t = vec!["all".to_string()])]
    pub crds: Vec<String>,
    /// What to print.
    #[arg(short, long, value_enum, default_value_t = RulesOutput::Table)]
    pub output: RulesOutput,
    #[command(flatten)]
    pub config: ConfigArgs,
}

#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// Run the tests in files with rules of your own.
    ///
    /// Exit codes: 0 all pass, 1 one fails, 2 a file is wrong.
    Test {
        /// Folders with YAML files, or such files.
        #[arg(required = true, value_name = "DIR")]
        paths: Vec<PathBuf>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RulesOutput {
    Table,
    /// Also what each rule reads, and what all of them together ask the API server for.
    Wide,
    Json,
}

/// Print a script that makes a shell complete commands, flags and their values.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  source <(kubectl-gpt completions bash)
  kubectl-gpt completions zsh > \"${fpath[1]}/_kubectl-gpt\"
  kubectl-gpt completions fish > ~/.config/fish/completions/kubectl-gpt.fish")]
pub struct CompletionsArgs {
    pub shell: clap_complete::Shell,
}

/// Print the manual, or that of one command, as a page for man.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  kubectl-gpt man analyze > ~/.local/share/man/man1/kubectl-gpt-analyze.1")]
pub struct ManArgs {
    /// The command to explain.
    pub command: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: root causes first, what follows from them beneath.
    Table,
    /// One line a finding, with all columns.
    Wide,
    /// For programs; described by docs/findings.schema.json.
    Json,
    /// The same as JSON.
    Yaml,
    /// For pull requests and chats.
    Markdown,
    /// One page that needs nothing but a browser.
    Html,
    /// SARIF 2.1.0, for code scanning and editors.
    Sarif,
    /// JUnit XML: a suite a rule, a failure for each finding that --fail-on fails on.
    Junit,
    /// Annotations of a GitHub Actions run.
    Github,
    /// Metrics, for node_exporter's textfile collector or a push gateway.
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
    /// What is wrong.
    Default,
    /// Also what is good practice.
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
    /// As it is typed: `sarif`.
    pub fn word(&self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_string()).unwrap_or_default()
    }
}

impl FailOn {
    /// The least severity that fails, if any does.
    pub fn threshold(self) -> Option<Severity> {
        match self {
            FailOn::Error => Some(Severity::Error),
            FailOn::Warning => Some(Severity::Warning),
            FailOn::Info => Some(Severity::Info),
            FailOn::Never => None,
        }
    }
}

/// Prints clap's message where it belongs. Help and version are no errors, everything else is wrong usage.
pub fn usage(error: &clap::Error) -> Exit {
    // Nothing can be done about a standard output that is gone.
    let _ = error.print();
    if error.use_stderr() { Exit::Usage } else { Exit::Clean }
}

/// A duration as kubectl takes it: `30s`, `1m30s`, `500ms`, or a plain number of seconds. Zero means no limit.
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
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_as_kubectl_takes_them() {
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for wrong in ["", "-1s", "soon", "5 parsecs"] {
            assert!(duration(wrong).unwrap_err().contains("expected a duration"), "{wrong}");
        }
    }
}
