//! Objects from files instead of a cluster: recordings, the output of `kubectl get -o json|yaml`, manifests.
//!
//! What files cover (the product's contract): a List with Nodes and Namespaces in it is a recording of a whole cluster, so a
//! kind that does not occur has no objects. Any other input is partial: of a kind that does not occur at all nothing is
//! called missing.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use flate2::read::MultiGzDecoder;
use kubectl_gpt_analyzers::coverage::Broken;
use kubectl_gpt_analyzers::decode::{self, Decoded};
use kubectl_gpt_analyzers::{Builder, ContainerLog, Extent, Gap, Kind, Objects, Origin, Reason, words};
use serde::Deserialize;
use serde_json::value::RawValue;

/// The most that one file may hold once it is unpacked, in bytes.
const LARGEST: u64 = 2 << 30;
/// A gzip stream that grows more than this many times, past [`BOMB_FROM`] bytes, is no cluster but a bomb: JSON of
/// Kubernetes objects shrinks ten to forty times.
const BOMB_RATIO: u64 = 200;
const BOMB_FROM: u64 = 64 << 20;
/// How deep folders are followed.
const DEEPEST: usize = 16;

/// What the files hold.
#[derive(Debug)]
pub struct Input {
    pub builder: Builder,
    pub origin: Origin,
    /// For people: what was left out.
    pub notes: Vec<String>,
}

/// Reads files, folders (all `.json`, `.yaml`, `.yml` files in them, gzipped or not, and `logs/POD_CONTAINER.log`) and
/// standard input (`-`).
///
/// # Errors
/// When a file cannot be read or is not JSON or YAML, or when there is no object in any of them. Single objects that
/// cannot be understood are noted in the builder instead.
pub fn read(paths: &[PathBuf]) -> Result<Input> {
    let mut reader = Reader::default();
    for path in paths {
        if path.as_os_str() == "-" {
            reader.read_from(&mut io::stdin().lock(), "standard input", None)?;
        } else {
            reader.in_folder = path.is_dir();
            if reader.in_folder { reader.folder(path, 0)? } else { reader.file(path)? }
        }
    }
    reader.finish(paths)
}

#[derive(Default)]
struct Reader {
    builder: Builder,
    logs: Vec<PathBuf>,
    in_folder: bool,
    objects: usize,
    lists: usize,
}

/// A v1 List, or the list of one kind.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    #[serde(default)]
    api_version: Option<String>,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default, borrow)]
    items: Option<Vec<&'a RawValue>>,
}

impl Reader {
    fn folder(&mut self, folder: &Path, depth: usize) -> Result<()> {
        let reading = || format!("reading the folder {}", folder.display());
        if depth > DEEPEST {
            bail!("{}: folders are nested more than {DEEPEST} deep", reading());
        }
        let entries: io::Result<Vec<_>> = fs::read_dir(folder).with_context(reading)?.collect();
        let mut paths: Vec<PathBuf> = entries.with_context(reading)?.into_iter().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
            if path.is_symlink() && path.is_dir() {
                continue;
            }
            if path.is_dir() {
                self.folder(&path, depth + 1)?;
            } else if name.ends_with(".log") {
                self.logs.push(path);
            } else if is_objects(&name) {
                self.file(&path)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<()> {
        let name = path.display().to_string();
        let mut file = fs::File::open(path).with_context(|| format!("reading {name}"))?;
        let size = file.metadata().ok().map(|metadata| metadata.len());
        self.read_from(&mut file, &name, size)
    }

    fn read_from(&mut self, source: &mut dyn Read, name: &str, size: Option<u64>) -> Result<()> {
        let bytes = unpack(source, size).with_context(|| format!("reading {name}"))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            anyhow!(
                "reading {name}: it is not text (byte {at} is not UTF-8); expected Kubernetes objects in JSON or YAML"
            )
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        match text.trim_start().chars().next() {
            None => bail!("reading {name}: it is empty"),
            Some('{' | '[') => self.json(text, name),
            Some(_) => self.yaml(text, name),
        }
    }

    // A folder may hold other things beside objects: a chart's values, a kustomization, results of other tools.
    fn is_foreign(&self, json: &str) -> bool {
        let Ok(head) = serde_json::from_str::<Document>(json) else { return false };
        let api_version = head.api_version.unwrap_or_default();
        let untyped = api_version.is_empty() && head.kind.is_none() && head.items.is_none();
        api_version.starts_with("kustomize.config.k8s.io/") || (self.in_folder && untyped)
    }

    /// One JSON document, or several one after the other.
    fn json(&mut self, text: &str, name: &str) -> Result<()> {
        for document in serde_json::Deserializer::from_str(text).into_iter::<&RawValue>() {
            let document = document.map_err(|error| not_json(name, &error))?;
            self.document(document.get(), name)?;
        }
        Ok(())
    }

    /// YAML documents between lines of `---`; one that is broken is named, the others count.
    fn yaml(&mut self, text: &str, name: &str) -> Result<()> {
        let mut problems = Vec::new();
        let mut read = 0;
        for (line, document) in yaml_documents(text) {
            match serde_saphyr::from_str::<serde_json::Value>(document) {
                Ok(serde_json::Value::Null) => {}
                Ok(value @ (serde_json::Value::Object(_) | serde_json::Value::Array(_))) => {
                    read += 1;
                    self.document(&value.to_string(), name)?;
                }
                Ok(_) => problems.push((line, "it is a plain text, not an object".to_string())),
                Err(error) => problems.push((line, first_line(&error))),
            }
        }
        if read == 0 && !problems.is_empty() {
            let (line, problem) = &problems[0];
            bail!(
                "reading {name}: it is neither JSON nor YAML of Kubernetes objects: the document at line {line}: {problem}"
            );
        }
        for (line, message) in problems {
            let broken = Broken { kind: None, name: format!("the document at line {line} of {name}"), message };
            self.builder.add_broken(broken);
        }
        Ok(())
    }

    fn document(&mut self, json: &str, name: &str) -> Result<()> {
        if self.is_foreign(json) {
            return Ok(());
        }
        if json.starts_with('[') {
            let items: Vec<&RawValue> = serde_json::from_str(json).map_err(|error| not_json(name, &error))?;
            items.into_iter().enumerate().for_each(|(n, item)| self.object(item.get(), n, name));
            return Ok(());
        }
        let document: Document = serde_json::from_str(json).map_err(|error| not_json(name, &error))?;
        let kind = document.kind.unwrap_or_default();
        match document.items {
            Some(items) if kind == "List" || kind.is_empty() => {
                self.lists += 1;
                items.into_iter().enumerate().for_each(|(n, item)| self.object(item.get(), n, name));
            }
            // The API's own answer: a PodList, whose items do not say what they are.
            Some(items) if kind.ends_with("List") => {
                self.lists += 1;
                let of = kind.trim_end_matches("List");
                let api_version = document.api_version.unwrap_or_default();
                for (n, item) in items.into_iter().enumerate() {
                    self.object(&with_type(item.get(), &api_version, of), n, name);
                }
            }
            _ => self.object(json, 0, name),
        }
        Ok(())
    }

    fn object(&mut self, json: &str, n: usize, name: &str) {
        match decode::object(json) {
            Ok(Decoded::Known(batch)) => {
                self.objects += 1;
                self.builder.add(batch);
            }
            Ok(Decoded::Custom(custom)) => {
                self.objects += 1;
                self.builder.add_custom(*custom);
            }
            Err(mut broken) => {
                if broken.name.is_empty() {
                    broken.name = format!("item {} of {name}", n + 1);
                }
                self.builder.add_broken(broken);
            }
        }
    }

    fn finish(mut self, paths: &[PathBuf]) -> Result<Input> {
        if self.objects == 0 && self.builder.coverage().broken.is_empty() && self.lists == 0 {
            let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
            bail!("no Kubernetes object in {}", names.join(", "));
        }
        if self.objects == 0
            && let Some(broken) = self.builder.coverage().broken.first()
        {
            bail!("no Kubernetes object could be read: {}: {}", broken.name, broken.message);
        }
        let notes = self.leave_out_manifests();
        let origin = cover(&mut self.builder);
        for path in std::mem::take(&mut self.logs) {
            self.log(&path);
        }
        Ok(Input { builder: self.builder, origin, notes })
    }

    /// A folder may hold the manifests beside the recording of the cluster that they were applied to.
    fn leave_out_manifests(&mut self) -> Vec<String> {
        if !self.in_folder || !is_recording(self.builder.objects()) || !self.builder.objects().any_live() {
            return Vec::new();
        }
        match self.builder.drop_unapplied() {
            0 => Vec::new(),
            n => vec![format!("{} in manifests beside the recording left out", words::count(n, "object"))],
        }
    }

    /// `POD_CONTAINER.log`, or `POD_CONTAINER.previous.log` for the run before. A log that cannot be read is only a
    /// log that is not there.
    fn log(&mut self, path: &Path) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_string();
        let Some(stem) = name.strip_suffix(".log") else { return };
        let (stem, previous) = stem.strip_suffix(".previous").map_or((stem, false), |stem| (stem, true));
        let Some((pod, container)) = stem.rsplit_once('_') else { return };
        let Ok(text) = fs::File::open(path).and_then(|file| io::read_to_string(file.take(1 << 20))) else { return };
        let lines: Vec<String> = text.lines().rev().take(50).map(str::to_string).collect();
        let lines: Vec<String> = lines.into_iter().rev().filter(|line| !line.starts_with(NO_LOG)).collect();
        let namespaces = self.builder.objects().namespaces_of_pod(pod);
        if let [namespace] = namespaces.as_slice() {
            let (namespace, log) = (namespace.clone(), ContainerLog { lines, previous });
            self.builder.add_log(&namespace, pod, container, log);
        }
    }
}

/// What the kubelet answers when the log is gone.
const NO_LOG: &str = "unable to retrieve container logs";

/// Says how much of each kind the files hold.
fn cover(builder: &mut Builder) -> Origin {
    let objects = builder.objects();
    let whole = is_recording(objects);
    let origin = match (whole, objects.any_live()) {
        (true, _) => Origin::Cluster,
        (false, true) => Origin::Extract,
        (false, false) => Origin::Manifests,
    };
    for kind in Kind::ALL {
        let count = builder.objects().count(*kind);
        let extent = if whole || made_by_controllers(*kind, origin) {
            Extent::Everything
        } else if count == 0 {
            let message = format!("the input has no {kind}");
            Extent::Failed(Gap { reason: Reason::NotInInput, message })
        } else if kind.api().namespaced {
            let namespaces: BTreeSet<String> = builder.objects().namespaces(*kind);
            Extent::Namespaces(namespaces)
        } else {
            Extent::Everything
        };
        builder.cover(*kind, extent);
    }
    origin
}

/// Whether the objects are those of a whole cluster.
fn is_recording(objects: &Objects) -> bool {
    objects.count(Kind::Node) > 0 && objects.count(Kind::Namespace) > 0
}

/// What nobody writes in a manifest: rules look at the templates instead, and none being there says nothing.
fn made_by_controllers(kind: Kind, origin: Origin) -> bool {
    origin == Origin::Manifests && matches!(kind, Kind::Pod | Kind::ReplicaSet | Kind::Job | Kind::Event)
}

/// Reads all of it, unpacked if it is gzipped.
fn unpack(source: &mut dyn Read, size: Option<u64>) -> Result<Vec<u8>> {
    let mut head = [0u8; 2];
    let mut filled = 0;
    while filled < head.len() {
        match source.read(&mut head[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    let source = io::Cursor::new(head[..filled].to_vec()).chain(source);
    if head[..filled] != [0x1f, 0x8b] {
        return read_up_to(source, LARGEST, size);
    }
    let mut packed = read_up_to(source, LARGEST, size)?;
    packed.shrink_to_fit();
    let most = LARGEST.min((packed.len() as u64).saturating_mul(BOMB_RATIO).max(BOMB_FROM));
    read_up_to(MultiGzDecoder::new(packed.as_slice()), most, None).context("unpacking it")
}

fn read_up_to(source: impl Read, most: u64, size: Option<u64>) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(size.unwrap_or(0).min(most) as usize);
    source.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        bail!("it is larger than {} MiB, more than a recorded cluster can be", most >> 20);
    }
    Ok(bytes)
}

/// The documents of a YAML stream with the line that each starts at, counted from 1. A `---` at the start of a line is a
/// border wherever it stands: text inside a block scalar is indented (YAML 1.2, 9.1.2).
fn yaml_documents(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut first_line, mut offset) = (0, 1, 0);
    for (n, line) in text.split_inclusive('\n').enumerate() {
        let border = line.trim_end() == "---" || line.starts_with("--- ");
        if border {
            documents.push((first_line, &text[start..offset]));
            start = offset;
            first_line = n + 1;
        }
        offset += line.len();
    }
    documents.push((first_line, &text[start..]));
    documents.retain(|(_, document)| document.lines().any(|line| !is_blank(line)));
    documents
}

fn is_blank(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#') || line == "---" || line == "..."
}

/// An item of a typed list, given the type that the list says.
fn with_type(json: &str, api_version: &str, kind: &str) -> String {
    match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(json) {
        Ok(mut object) => {
            object.entry("apiVersion").or_insert_with(|| api_version.into());
            object.entry("kind").or_insert_with(|| kind.into());
            serde_json::Value::Object(object).to_string()
        }
        Err(_) => json.to_string(),
    }
}

fn is_objects(name: &str) -> bool {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    [".json", ".yaml", ".yml"].iter().any(|ending| name.ends_with(ending))
}

fn not_json(name: &str, error: &serde_json::Error) -> anyhow::Error {
    let what =
        if error.is_eof() { "it ends in the middle of the JSON, so part of it is missing" } else { "it is not JSON" };
    anyhow!("reading {name}: {what}: {error}")
}

/// The reader's message without the excerpt of the file that it draws beneath.
fn first_line(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_string()
}
