//! `kubectl-gpt snapshot -o FILE`: records everything that `analyze` reads.

use crate::load::{ConnectionArgs, InputArgs};
use clap::Args;
use std::collections::BTreeSet;
use std::path::PathBuf;

use kubectl_gpt_analyzers::text::words;
use kubectl_gpt_analyzers::{Cluster, Kind, Reason, rules};

use crate::collect::Recorder;
use crate::collect::files::snapshot;
use crate::exit::{Exit, Failure};
use crate::load::{Wanted, load};
use crate::terminal::plain;

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

pub fn run(arguments: &SnapshotArgs) -> Result<Exit, Failure> {
    let recorder = Recorder::redacting();
    let wanted = Wanted {
        kinds: kinds(),
        custom: true,
        logs: !arguments.no_logs,
        recorder: Some(recorder.clone()),
        ..Wanted::default()
    };
    let loaded = load(&arguments.connection, &arguments.input(), &wanted)?;
    let (cluster, notes) = (&loaded.cluster, &loaded.source.notes);
    snapshot::write_file(&arguments.output, cluster, &recorder.take(), &loaded.source_map, notes)
        .map_err(Failure::unreadable)?;
    eprintln!("{}", plain(&summary(arguments, cluster)));
    for note in notes {
        eprintln!("note: {}", plain(note));
    }
    Ok(Exit::Clean)
}

/// The kinds that all rules read, selected or not.
fn kinds() -> BTreeSet<Kind> {
    rules::all().iter().flat_map(|rule| rule.meta().reads()).collect()
}

/// `monday.tar.zst: 253 objects, 3 logs; not read: Node (forbidden)`.
fn summary(arguments: &SnapshotArgs, cluster: &Cluster) -> String {
    let objects = words::count(cluster.objects().len(), "object");
    let logs = words::count(cluster.logs().len(), "log");
    let coverage = cluster.coverage();
    let known = Kind::ALL.iter().filter_map(|kind| Some((kind.to_string(), coverage.gap(*kind)?)));
    let custom = coverage.custom().iter().filter_map(|(kind, extent)| Some((kind.to_string(), extent.gap()?)));
    let gaps = known.chain(custom).filter(|(_, gap)| gap.reason != Reason::NotInInput);
    let gaps: Vec<String> = gaps.map(|(kind, gap)| format!("{kind} ({})", gap.reason)).collect();
    let unread = if gaps.is_empty() { String::new() } else { format!("; not read: {}", words::list(&gaps, 5)) };
    format!("{}: {objects}, {logs}{unread}", arguments.output.display())
}
