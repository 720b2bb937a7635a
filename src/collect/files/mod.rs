//! Reads objects from files instead of a cluster: snapshots and other recordings, the output of `kubectl get -o
//! json|yaml`, manifests.
//!
//! | module | input |
//! |---|---|
//! | [`text`] | JSON and YAML: lists, many documents, manifests |
//! | [`manifests`] | directories of manifests; skips charts and kustomize patches |
//! | [`dump`] | `kubectl cluster-info dump` |
//! | [`bundle`] | Troubleshoot support bundles |
//! | [`must_gather`] | OpenShift's `oc adm must-gather` and `oc adm inspect` |
//! | [`snapshot`] | snapshots written by `kubectl-gpt snapshot` |
//! | [`decompressed`], [`archive`], [`tree`] | compressed files, archives and directories |
//! | [`helm`] | what Helm writes into manifests |
//! | [`source_map`], [`kept`] | source locations of manifests, also stored in snapshots |
//!
//! Coverage of files: the layout of a snapshot, a bundle or a dump determines which kinds were read. A List with Nodes
//! and Namespaces is a recording of a whole cluster, so a kind that does not occur has no objects. Any other input is
//! partial: objects of a kind that does not occur are never reported as missing.

mod archive;
mod bundle;
mod decompressed;
mod dump;
mod helm;
mod kept;
mod manifests;
mod must_gather;
pub mod snapshot;
pub mod source_map;
mod text;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kubectl_gpt_analyzers::snapshot::Broken;
use kubectl_gpt_analyzers::snapshot::decode::{Decoded, object_in};
use kubectl_gpt_analyzers::snapshot::model::Timestamp;
use kubectl_gpt_analyzers::text::words;
use kubectl_gpt_analyzers::{Builder, ContainerLog, Extent, Gap, Kind, Now, ObjectRef, Objects, Origin, Reason};

use self::archive::Unpacked;
use self::source_map::{Place, SourceMap};
use self::text::Text;
use self::tree::Tree;
use super::recorder::Recorder;

/// How many lines of a log are kept.
const LOG_LINES: usize = 50;
/// The response of the kubelet if the log has been removed.
const NO_LOG: &str = "unable to retrieve container logs";

/// The content of the files.
#[derive(Debug)]
pub struct Input {
    pub builder: Builder,
    pub origin: Origin,
    /// The time of the recording.
    pub now: Now,
    /// Notes, for example about skipped files.
    pub notes: Vec<String>,
    /// The source locations of manifests.
    pub source_map: SourceMap,
}

/// Options for reading files.
#[derive(Debug, Default)]
pub struct Options {
    /// The namespace of manifests that do not specify one; `default` if not given.
    pub namespace: Option<String>,
    /// Records whole objects.
    pub recorder: Option<Recorder>,
}

/// Reads files and directories of any supported layout.
///
/// # Errors
/// When a file cannot be read or parsed, or when none contains an object. Single objects that cannot be decoded are
/// recorded in the builder instead.
pub fn read(paths: &[PathBuf]) -> Result<Input> {
    read_with(paths, Options::default())
}

/// As [`read`].
///
/// # Errors
/// As [`read`].
pub fn read_with(paths: &[PathBuf], options: Options) -> Result<Input> {
    let mut reader = Reader { options, ..Reader::default() };
    for path in paths {
        if path.as_os_str() == "-" {
            reader.stream(&mut io::stdin().lock(), "standard input", "-")?;
        } else if path.is_dir() {
            reader.tree(&Tree::folder(path)?)?;
        } else {
            let name = path.display().to_string();
            let mut file = fs::File::open(path).with_context(|| format!("reading {name}"))?;
            reader.stream(&mut file, &name, &slashes(path))?;
        }
    }
    reader.finish(paths)
}

/// The path with `/` on all platforms and without `./`, as code hosts expect it.
fn slashes(path: &Path) -> String {
    let path = path.display().to_string();
    let path = if cfg!(windows) { path.replace('\\', "/") } else { path };
    path.strip_prefix("./").map(str::to_string).unwrap_or(path)
}

/// Collects the objects of all files.
#[derive(Default)]
struct Reader {
    options: Options,
    builder: Builder,
    source_map: SourceMap,
    notes: Vec<String>,
    /// The coverage of kinds, as determined by the layout.
    declared: BTreeMap<Kind, Extent>,
    /// Set by a snapshot.
    origin: Option<Origin>,
    now: Option<Timestamp>,
    /// Whether a directory was read that may contain manifests next to a recording.
    in_folder: bool,
    objects: usize,
    lists: usize,
    helm_tests: usize,
    /// Hints for the error if nothing could be read.
    hints: Vec<String>,
}

impl Reader {
    fn stream(&mut self, source: &mut dyn io::Read, name: &str, file: &str) -> Result<()> {
        match archive::unpack(source, name).with_context(|| format!("reading {name}"))? {
            Unpacked::Archive(tree) => self.tree(&tree),
            Unpacked::Text(bytes) => {
                let text = text::utf8(&bytes, name)?;
                if text.trim().is_empty() {
                    bail!("reading {name}: file is empty");
                }
                if dump::is_stream(text) {
                    return dump::read_stream(self, text, name);
                }
                self.text(&Text::new(name, file), text)
            }
        }
    }

    /// Reads a directory or an archive according to its layout.
    fn tree(&mut self, tree: &Tree) -> Result<()> {
        if tree.links > 0 {
            self.notes.push(format!("{}: {} not followed", tree.name, words::count(tree.links, "link")));
        }
        if let Some(root) = snapshot::root(tree) {
            return snapshot::read(self, tree, &root);
        }
        if let Some(root) = bundle::root(tree) {
            return bundle::read(self, tree, &root);
        }
        let roots = must_gather::roots(tree);
        if !roots.is_empty() {
            return must_gather::read(self, tree, &roots);
        }
        if let Some(root) = dump::root(tree) {
            return dump::read(self, tree, &root);
        }
        manifests::read(self, tree)
    }

    /// Adds one object; `n` is its index in a list, for messages.
    fn object(&mut self, json: &str, n: usize, text: &Text, place: impl FnOnce(&ObjectRef) -> Option<Place>) {
        if helm::is_test(json) {
            self.helm_tests += 1;
            return;
        }
        let namespace = self.options.namespace.as_deref().unwrap_or("default");
        let (mut json, mut decoded) = (json, object_in(json, namespace));
        let named = decoded.is_err().then(|| manifests::with_generated_name(json)).flatten();
        if let Some(named) = &named {
            (json, decoded) = (named, object_in(named, namespace));
        }
        match decoded {
            Ok(decoded) => {
                self.objects += 1;
                if let Some(object) = decoded.reference() {
                    if let Some(recorder) = &self.options.recorder {
                        recorder.object(&object, json, decoded.is_live());
                    }
                    if !decoded.is_live()
                        && let Some(place) = place(&object)
                    {
                        self.source_map.add(&object, place);
                    }
                }
                match decoded {
                    Decoded::Known(batch) => self.builder.add(batch),
                    Decoded::Custom(custom) => self.builder.add_custom(*custom),
                }
            }
            Err(broken) if text.in_folder && manifests::is_configuration(json) => drop(broken),
            Err(mut broken) => {
                if broken.name.is_empty() {
                    broken.name = format!("item {} of {}", n + 1, text.name);
                }
                self.builder.add_broken(broken);
            }
        }
    }

    fn broken(&mut self, name: String, message: String) {
        self.builder.add_broken(Broken { kind: None, name, message });
    }

    /// Sets the coverage of a kind; of several inputs, the more complete one counts.
    fn declare(&mut self, kind: Kind, extent: Extent) {
        use Extent::{Everything, Failed, Namespaces, NotRequested, NotServed, Partly};
        let merged = match (self.declared.remove(&kind), extent) {
            (None, extent) => extent,
            (Some(Everything), _) | (_, Everything) => Everything,
            (Some(Namespaces(mut a)), Namespaces(b)) => {
                a.extend(b);
                Namespaces(a)
            }
            (Some(Partly(mut a, gap)), Namespaces(b)) | (Some(Namespaces(b)), Partly(mut a, gap)) => {
                a.extend(b);
                Partly(a, gap)
            }
            (Some(Failed(_) | NotRequested | NotServed), extent) => extent,
            (Some(extent), _) => extent,
        };
        self.declared.insert(kind, merged);
    }

    /// Adds the last lines of a log.
    fn log(&mut self, namespace: &str, pod: &str, container: &str, text: &str, previous: bool) {
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with(NO_LOG)).collect();
        let lines: Vec<String> =
            lines[lines.len().saturating_sub(LOG_LINES)..].iter().map(ToString::to_string).collect();
        if !lines.is_empty() {
            self.builder.add_log(namespace, pod, container, ContainerLog { lines, previous });
        }
    }

    fn finish(mut self, paths: &[PathBuf]) -> Result<Input> {
        let is_empty = self.objects == 0 && self.lists == 0 && self.declared.is_empty();
        let broken = self.builder.coverage().broken.first();
        if let Some(broken) = broken.filter(|_| self.objects == 0) {
            bail!("no Kubernetes objects could be read: {}: {}", broken.name, broken.message);
        }
        if is_empty {
            let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
            let hint = self.hints.first().map(|hint| format!(": {hint}")).unwrap_or_default();
            bail!("no Kubernetes objects found in {}{hint}", names.join(", "));
        }
        self.drop_manifests();
        if self.helm_tests > 0 {
            let tests = words::count(self.helm_tests, "object");
            self.notes.push(format!("skipped {tests} with Helm hooks that an installation does not run"));
        }
        let origin = cover(&mut self.builder, &self.declared);
        let now = self.now.map_or(Now::NewestInData, Now::At);
        let origin = self.origin.unwrap_or(origin);
        Ok(Input { builder: self.builder, origin, now, notes: self.notes, source_map: self.source_map })
    }

    /// A directory may contain manifests next to the recording of the cluster they were applied to.
    fn drop_manifests(&mut self) {
        if !self.in_folder || !is_recording(self.builder.objects()) || !self.builder.objects().any_live() {
            return;
        }
        let dropped = self.builder.drop_unapplied();
        if let Some(recorder) = &self.options.recorder {
            recorder.drop_unapplied();
        }
        if dropped > 0 {
            let dropped = words::count(dropped, "object");
            self.notes.push(format!("skipped {dropped} in manifests next to the recording"));
        }
    }
}

/// Sets the coverage of kinds that the layout does not determine.
fn cover(builder: &mut Builder, declared: &BTreeMap<Kind, Extent>) -> Origin {
    let objects = builder.objects();
    let whole = declared.is_empty() && is_recording(objects);
    let origin = match (whole || !declared.is_empty(), objects.any_live()) {
        (true, _) => Origin::Cluster,
        (false, true) => Origin::Extract,
        (false, false) => Origin::Manifests,
    };
    for kind in Kind::ALL {
        let extent = match declared.get(kind) {
            Some(extent) => extent.clone(),
            None if whole || made_by_controllers(*kind, origin) => Extent::Everything,
            None if origin == Origin::Manifests && WORKLOADS.contains(kind) => workloads(builder.objects()),
            None => partial(*kind, builder.objects()),
        };
        builder.cover(*kind, extent);
    }
    origin
}

fn partial(kind: Kind, objects: &Objects) -> Extent {
    if objects.count(kind) == 0 {
        not_in_input(kind)
    } else if kind.api().namespaced {
        Extent::Namespaces(objects.namespaces(kind))
    } else {
        Extent::Everything
    }
}

/// The workload kinds that users write.
const WORKLOADS: [Kind; 5] =
    [Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet, Kind::ReplicationController, Kind::CronJob];

/// Manifests that include the Deployments of a namespace are assumed to include its StatefulSets too, so that a Service
/// that selects none of them can be reported.
fn workloads(objects: &Objects) -> Extent {
    let namespaces: BTreeSet<String> = WORKLOADS.iter().flat_map(|kind| objects.namespaces(*kind)).collect();
    if namespaces.is_empty() {
        let message = "the input contains no workloads".to_string();
        return Extent::Failed(Gap { reason: Reason::NotInInput, message });
    }
    Extent::Namespaces(namespaces)
}

fn not_in_input(kind: Kind) -> Extent {
    Extent::Failed(Gap { reason: Reason::NotInInput, message: format!("the input contains no {kind}") })
}

/// Whether the objects are a recording of a whole cluster.
fn is_recording(objects: &Objects) -> bool {
    objects.count(Kind::Node) > 0 && objects.count(Kind::Namespace) > 0
}

/// Kinds that are not written in manifests: rules check the templates instead, and their absence has no meaning.
fn made_by_controllers(kind: Kind, origin: Origin) -> bool {
    origin == Origin::Manifests && matches!(kind, Kind::Pod | Kind::ReplicaSet | Kind::Job | Kind::Event)
}
