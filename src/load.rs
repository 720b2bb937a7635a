//! Loads the snapshot that a command analyzes, from a cluster or from files.

use crate::duration::duration;
use clap::Args;
use std::collections::BTreeSet;
use std::num::NonZero;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::anyhow;
use kubectl_gpt_analyzers::kubernetes::workloads::logs::logs_wanted;
use kubectl_gpt_analyzers::snapshot::model;
use kubectl_gpt_analyzers::{Builder, Cluster, Extent, GroupKind, Kind, Lookup, Now, Origin, Reason};
use tokio::runtime::Runtime;

use crate::collect::files::source_map::SourceMap;
use crate::collect::overlay::Overlay;
use crate::collect::{ConnectOptions, Connection, Crds, Recorder, connect, custom, files, live, logs};
use crate::exit::Failure;
use crate::interrupt::Interrupt;
use crate::progress::ProgressLine;
use crate::report::Source;
use crate::terminal;

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

/// Runs requests and decodes pages. Each decoding thread keeps its own memory, so there are few of them.
///
/// # Errors
/// When threads cannot be created.
pub(crate) fn runtime() -> Result<Runtime, Failure> {
    const DECODING: usize = 4;
    // One more for other blocking work: DNS lookups.
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(DECODING) + 1;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().max_blocking_threads(threads).build().map_err(Failure::unreadable)
}

/// A snapshot and its source.
pub struct Loaded {
    pub cluster: Cluster,
    pub source: Source,
    /// The default namespace: `-n`, else the context's.
    pub namespace: String,
    /// The file and line of each manifest.
    pub source_map: SourceMap,
    /// Manifests to apply on top of the cluster (`--with-cluster`).
    pub overlay: Option<Overlay>,
}

/// What to read.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub kinds: BTreeSet<Kind>,
    /// Whether any rule reads custom resources; `--crds` selects which.
    pub custom: bool,
    /// Whether to read the logs of crashed containers.
    pub logs: bool,
    /// Keeps the objects as they were read, for a snapshot.
    pub recorder: Option<Recorder>,
    /// The kinds that custom rules read as whole objects.
    pub raw: BTreeSet<GroupKind>,
}

impl Wanted {
    pub(crate) fn recorder(&self) -> Option<Recorder> {
        let for_rules = || (!self.raw.is_empty()).then(|| Recorder::only(BTreeSet::new(), self.raw.clone()));
        self.recorder.clone().or_else(for_rules)
    }
}

/// Reads the given files, or the cluster if there are none.
///
/// # Errors
/// When there is nothing to analyze: invalid configuration, an unreachable cluster, an unreadable file, a namespace
/// that does not exist. What could be read only in part is recorded in the coverage of the snapshot instead.
pub fn load(connection: &ConnectionArgs, input: &InputArgs, wanted: &Wanted) -> Result<Loaded, Failure> {
    let crds = Crds::parse(&input.crds).map_err(|error| Failure::usage(anyhow!(error)))?;
    terminal::verbosity(connection.verbosity);
    if !input.filename.is_empty() && !input.with_cluster {
        return from_files(input, wanted);
    }
    let runtime = runtime()?;
    runtime.block_on(async {
        let line = ProgressLine::new(connection.verbosity > 0);
        line.say("discovering APIs");
        let mut connection = connect(&options(connection)).await?;
        if input.with_cluster {
            return manifests_and_cluster(connection, input, wanted, &crds, &line).await;
        }
        connection.recorder = wanted.recorder();
        from_cluster(&connection, input, wanted, &crds, &line).await
    })
}

fn from_files(input: &InputArgs, wanted: &Wanted) -> Result<Loaded, Failure> {
    let recorder = wanted.recorder();
    let options = files::Options { namespace: one_namespace(input), recorder: recorder.clone() };
    let read = files::read_with(&input.filename, options).map_err(Failure::unreadable)?;
    let mut cluster = read.builder.build(read.now, read.origin);
    set_raw(&mut cluster, recorder.as_ref());
    for namespace in &input.namespace {
        let known = match cluster.get::<model::Namespace>("", namespace) {
            Lookup::Found(_) => true,
            Lookup::Missing => false,
            Lookup::Unknown => Kind::ALL.iter().any(|kind| cluster.objects().namespaces(*kind).contains(namespace)),
        };
        if !known {
            return Err(Failure::unreadable(anyhow!("namespace {namespace} not found in the input")));
        }
    }
    let source = Source { notes: read.notes, ..Source::files(names(input), &cluster) };
    let namespace = input.namespace.first().cloned().unwrap_or_else(|| "default".to_string());
    Ok(Loaded { cluster, source, namespace, source_map: read.source_map, overlay: None })
}

/// Adds the objects that custom rules read; objects recorded only for a snapshot stay with the recorder.
pub(crate) fn set_raw(cluster: &mut Cluster, recorder: Option<&Recorder>) {
    if let Some(recorder) = recorder {
        cluster.set_raw(recorder.raw());
    }
}

/// The file arguments.
fn names(input: &InputArgs) -> Vec<String> {
    input.filename.iter().map(|path| path.display().to_string()).collect()
}

/// The namespace of manifests that specify none, as with `kubectl apply -n`.
fn one_namespace(input: &InputArgs) -> Option<String> {
    match input.namespace.as_slice() {
        [namespace] => Some(namespace.clone()),
        _ => None,
    }
}

/// Loads the cluster, and the manifests to apply on top of it.
async fn manifests_and_cluster(
    mut connection: Connection,
    input: &InputArgs,
    wanted: &Wanted,
    crds: &Crds,
    line: &ProgressLine,
) -> Result<Loaded, Failure> {
    let recorder = Recorder::whole();
    let namespace = one_namespace(input).unwrap_or_else(|| connection.namespace().to_string());
    let options = files::Options { namespace: Some(namespace), recorder: Some(recorder.clone()) };
    let read = files::read_with(&input.filename, options).map_err(Failure::unreadable)?;
    if read.origin != Origin::Manifests {
        let message = "--with-cluster needs manifests, but the files contain objects recorded from a cluster";
        return Err(Failure::usage(anyhow!(message)));
    }
    let overlay = Overlay::new(recorder.take(), wanted.raw.clone());
    connection.recorder = Some(overlay.live());
    let mut loaded = from_cluster(&connection, input, wanted, crds, line).await?;
    loaded.cluster = loaded.cluster.with_broken(read.builder.coverage().broken.clone());
    loaded.source.files = names(input);
    loaded.source.notes.extend(read.notes);
    Ok(Loaded { source_map: read.source_map, overlay: Some(overlay), ..loaded })
}

async fn from_cluster(
    connection: &Connection,
    input: &InputArgs,
    wanted: &Wanted,
    crds: &Crds,
    line: &ProgressLine,
) -> Result<Loaded, Failure> {
    let scope = scope(input);
    let tell = |progress| line.tell(progress);
    let collected = live::collect(connection, &wanted.kinds, &scope, &tell).await.map_err(Failure::unreadable)?;
    let (mut notes, mut builder) = (collected.notes, collected.builder);
    if wanted.custom || !wanted.raw.is_empty() {
        line.say("reading custom resources");
        let crds = if wanted.custom { crds } else { &Crds::None };
        notes.extend(custom::collect(connection, crds, &scope, &mut builder).await);
    }
    notes.extend(how_to_permit(&builder));
    let mut cluster = builder.build(Now::At(connection.now()), Origin::Cluster);
    set_raw(&mut cluster, connection.recorder.as_ref());
    if wanted.logs {
        line.say("reading logs of crashed containers");
        let (fetched, refused) = logs::fetch(connection, &logs_wanted(&cluster)).await;
        notes.extend(refused);
        for (of, log) in fetched {
            cluster.add_log(&of.namespace, &of.pod, &of.container, log);
        }
    }
    let source = Source::cluster(connection.context().map(str::to_string), notes, &cluster);
    let namespace = input.namespace.first().cloned().unwrap_or_else(|| connection.namespace().to_string());
    Ok(Loaded { cluster, source, namespace, source_map: SourceMap::default(), overlay: None })
}

/// A note about missing permissions. The built-in role `view`, for example, excludes Nodes, PersistentVolumes, Secrets
/// and webhooks.
pub(crate) fn how_to_permit(builder: &Builder) -> Option<String> {
    let coverage = builder.coverage();
    let kinds = Kind::ALL.iter().filter_map(|kind| coverage.gap(*kind));
    let custom = coverage.custom().values().filter_map(Extent::gap);
    let forbidden = kinds.chain(custom).any(|gap| gap.reason == Reason::Forbidden);
    forbidden
        .then(|| "access to some kinds is forbidden; `kubectl-gpt rules --rbac` prints the required ClusterRole".into())
}

pub(crate) fn options(arguments: &ConnectionArgs) -> ConnectOptions {
    ConnectOptions {
        kubeconfig: arguments.kubeconfig.clone(),
        context: arguments.context.clone(),
        cluster: arguments.cluster.clone(),
        user: arguments.user.clone(),
        as_user: arguments.as_user.clone(),
        as_groups: arguments.as_groups.clone(),
        request_timeout: arguments.request_timeout,
        interrupt: Interrupt::on_ctrl_c(),
    }
}

pub(crate) fn scope(input: &InputArgs) -> live::Scope {
    if input.all_namespaces {
        live::Scope::AllNamespaces
    } else if input.namespace.is_empty() {
        live::Scope::Cluster
    } else {
        live::Scope::Namespaces(input.namespace.iter().cloned().collect())
    }
}
