//! The snapshot that a command looks at: of a cluster, or of files.

use std::collections::BTreeSet;

use anyhow::anyhow;
use kubectl_gpt_analyzers::logs::logs_wanted;
use kubectl_gpt_analyzers::{Builder, Cluster, Extent, Kind, Lookup, Now, Origin, Reason, model};

use crate::cli::{ConnectionArgs, InputArgs};
use crate::collect::{ConnectOptions, Connection, Crds, connect, custom, files, live, logs};
use crate::exit::Failure;
use crate::interrupt::Interrupt;
use crate::progress::ProgressLine;
use crate::report::Source;
use crate::terminal;

/// A snapshot and where it comes from.
pub struct Loaded {
    pub cluster: Cluster,
    pub source: Source,
    /// The namespace that is meant where none is named: `-n`, else the context's.
    pub namespace: String,
}

/// What is to be read.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub kinds: BTreeSet<Kind>,
    /// Whether any rule reads custom resources; which ones, `--crds` says.
    pub custom: bool,
    /// The last lines of what crashed.
    pub logs: bool,
}

/// Reads the files that are named, or else the cluster.
///
/// # Errors
/// When there is nothing to look at: wrong configuration, no answer, a file that cannot be read, a namespace that does
/// not exist. What can be read only in part is in the snapshot's coverage instead.
pub fn load(connection: &ConnectionArgs, input: &InputArgs, wanted: &Wanted) -> Result<Loaded, Failure> {
    let crds = Crds::parse(&input.crds).map_err(|error| Failure::usage(anyhow!(error)))?;
    if !input.filename.is_empty() {
        return from_files(input);
    }
    terminal::verbosity(connection.verbosity);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::unreadable)?;
    runtime.block_on(async {
        let line = ProgressLine::new(connection.verbosity > 0);
        line.say("asking the API server what it serves");
        let connection = connect(&options(connection)).await.map_err(|error| match error.is_config() {
            true => Failure::usage(error),
            false => Failure::unreadable(error),
        })?;
        from_cluster(&connection, input, wanted, &crds, &line).await
    })
}

fn from_files(input: &InputArgs) -> Result<Loaded, Failure> {
    let read = files::read(&input.filename).map_err(Failure::unreadable)?;
    let cluster = read.builder.build(Now::NewestInData, read.origin);
    for namespace in &input.namespace {
        let known = match cluster.get::<model::Namespace>("", namespace) {
            Lookup::Found(_) => true,
            Lookup::Missing => false,
            Lookup::Unknown => Kind::ALL.iter().any(|kind| cluster.objects().namespaces(*kind).contains(namespace)),
        };
        if !known {
            return Err(Failure::unreadable(anyhow!("there is no namespace {namespace} in the input")));
        }
    }
    let files = input.filename.iter().map(|path| path.display().to_string()).collect();
    let source = Source { notes: read.notes, ..Source::files(files, &cluster) };
    let namespace = input.namespace.first().cloned().unwrap_or_else(|| "default".to_string());
    Ok(Loaded { cluster, source, namespace })
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
    if wanted.custom {
        line.say("reading custom resources");
        notes.extend(custom::collect(connection, crds, &scope, &mut builder).await);
    }
    notes.extend(how_to_permit(&builder));
    let mut cluster = builder.build(Now::At(jiff::Timestamp::now()), Origin::Cluster);
    if wanted.logs {
        line.say("reading the last lines of crashed containers");
        let (fetched, refused) = logs::fetch(connection, &logs_wanted(&cluster)).await;
        notes.extend(refused);
        for (of, log) in fetched {
            cluster.add_log(&of.namespace, &of.pod, &of.container, log);
        }
    }
    let source = Source::cluster(connection.context().map(str::to_string), notes, &cluster);
    let namespace = input.namespace.first().cloned().unwrap_or_else(|| connection.namespace().to_string());
    Ok(Loaded { cluster, source, namespace })
}

/// The built-in role `view` has no Nodes, PersistentVolumes, Secrets, webhooks and the like.
pub(crate) fn how_to_permit(builder: &Builder) -> Option<String> {
    let coverage = builder.coverage();
    let kinds = Kind::ALL.iter().filter_map(|kind| coverage.gap(*kind));
    let custom = coverage.custom().values().filter_map(Extent::gap);
    let forbidden = kinds.chain(custom).any(|gap| gap.reason == Reason::Forbidden);
    forbidden
        .then(|| "some kinds are forbidden; `kubectl-gpt rules --rbac` prints the ClusterRole that permits them".into())
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
