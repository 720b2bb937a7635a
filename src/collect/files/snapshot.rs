//! Snapshots: everything that `analyze` reads, in a single file.
//!
//! A zstd-compressed tar archive:
//!
//! | entry | content |
//! |---|---|
//! | `snapshot.json` | format, time, and coverage of each kind |
//! | `objects/KIND.GROUP.json` | a v1 List of whole objects |
//! | `metadata/KIND.GROUP.json` | a v1 List of objects that were read as metadata only |
//! | `places.json` | file and lines of objects from manifests |
//! | `logs/NAMESPACE/POD/CONTAINER.log` | last lines of a crashed container; `.previous.log` for the previous run |
//!
//! Entries are sorted and have no timestamps, so that the output is reproducible.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use anyhow::{Context, Result, anyhow, bail};
use kubectl_gpt_analyzers::snapshot::Broken;
use kubectl_gpt_analyzers::snapshot::decode::{Content, list_page};
use kubectl_gpt_analyzers::{Cluster, Extent, Gap, GroupKind, Kind, Origin};
use serde::{Deserialize, Serialize};

use super::super::recorder::{Identity, Recorded};
use super::super::redact::scrub;
use super::Reader;
use super::kept::Kept;
use super::source_map::SourceMap;
use super::text::{Text, utf8};
use super::tree::Tree;
use crate::whole_file::{self, Readers};

const HEADER: &str = "snapshot.json";
const PLACES: &str = "places.json";
const FORMAT: &str = "kubectl-gpt.io/snapshot";
/// Incremented when older versions would misread a snapshot.
const VERSION: u32 = 1;
/// zstd's own default.
const LEVEL: i32 = 3;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    format: String,
    version: u32,
    /// The program that wrote it.
    tool: String,
    /// The reference time for ages.
    time: String,
    origin: Whence,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    server_version: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    kinds: BTreeMap<String, Covered>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    custom: Vec<CustomKind>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    broken: Vec<BrokenObject>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unread_secrets: Vec<UnreadSecret>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Whence {
    Cluster,
    Extract,
    Manifests,
}

/// The serialized form of [`Extent`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Covered {
    NotRequested,
    Everything,
    NotServed,
    Namespaces(BTreeSet<String>),
    Partly { namespaces: BTreeSet<String>, gap: Gap },
    Failed(Gap),
}

#[derive(Debug, Serialize, Deserialize)]
struct CustomKind {
    group: String,
    kind: String,
    read: Covered,
}

#[derive(Debug, Serialize, Deserialize)]
struct BrokenObject {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    name: String,
    message: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct UnreadSecret {
    namespace: String,
    name: String,
    gap: Gap,
}

impl From<&Extent> for Covered {
    fn from(extent: &Extent) -> Covered {
        match extent.clone() {
            Extent::NotRequested => Covered::NotRequested,
            Extent::Everything => Covered::Everything,
            Extent::NotServed => Covered::NotServed,
            Extent::Namespaces(namespaces) => Covered::Namespaces(namespaces),
            Extent::Partly(namespaces, gap) => Covered::Partly { namespaces, gap },
            Extent::Failed(gap) => Covered::Failed(gap),
        }
    }
}

impl From<Covered> for Extent {
    fn from(covered: Covered) -> Extent {
        match covered {
            Covered::NotRequested => Extent::NotRequested,
            Covered::Everything => Extent::Everything,
            Covered::NotServed => Extent::NotServed,
            Covered::Namespaces(namespaces) => Extent::Namespaces(namespaces),
            Covered::Partly { namespaces, gap } => Extent::Partly(namespaces, gap),
            Covered::Failed(gap) => Extent::Failed(gap),
        }
    }
}

impl Header {
    fn new(cluster: &Cluster, notes: &[String]) -> Header {
        let coverage = cluster.coverage();
        let custom = coverage.custom().iter().map(|(GroupKind { group, kind }, extent)| CustomKind {
            group: group.clone(),
            kind: kind.clone(),
            read: extent.into(),
        });
        let broken = coverage.broken.iter().map(|broken| BrokenObject {
            kind: broken.kind.map(|kind| kind.to_string()),
            name: broken.name.clone(),
            message: broken.message.clone(),
        });
        let unread = cluster.unread_secrets().iter().map(|((namespace, name), gap)| UnreadSecret {
            namespace: namespace.clone(),
            name: name.clone(),
            gap: gap.clone(),
        });
        Header {
            format: FORMAT.to_string(),
            version: VERSION,
            tool: format!("kubectl-gpt {}", env!("CARGO_PKG_VERSION")),
            time: cluster.now().to_string(),
            origin: match cluster.origin() {
                Origin::Cluster => Whence::Cluster,
                Origin::Extract => Whence::Extract,
                Origin::Manifests => Whence::Manifests,
            },
            server_version: cluster.server_version().map(str::to_string),
            notes: notes.to_vec(),
            kinds: Kind::ALL.iter().map(|kind| (kind.to_string(), coverage.extent(*kind).into())).collect(),
            custom: custom.collect(),
            broken: broken.collect(),
            unread_secrets: unread.collect(),
        }
    }
}

/// Writes a snapshot of a cluster from its recorded objects.
///
/// # Errors
/// When `out` cannot be written.
pub fn write(
    out: impl Write,
    cluster: &Cluster,
    objects: &BTreeMap<Identity, Recorded>,
    source_map: &SourceMap,
    notes: &[String],
) -> Result<()> {
    let mut entries: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    entries.insert(HEADER.to_string(), serde_json::to_vec_pretty(&Header::new(cluster, notes))?);
    if let Some(kept) = kept(objects, source_map)? {
        entries.insert(PLACES.to_string(), kept.into());
    }
    for (path, items) in lists(objects) {
        entries.insert(path, format!(r#"{{"apiVersion":"v1","kind":"List","items":[{}]}}"#, items.join(",\n")).into());
    }
    for ((namespace, pod, container), log) in cluster.logs() {
        let ending = if log.previous { "previous.log" } else { "log" };
        let path = format!("logs/{}/{}/{}.{ending}", plain(namespace), plain(pod), plain(container));
        entries.insert(path, scrub(&log.lines.join("\n")).into());
    }
    let mut archive = tar::Builder::new(zstd::Encoder::new(out, LEVEL)?);
    for (path, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        archive.append_data(&mut header, path, content.as_slice())?;
    }
    archive.into_inner()?.finish()?.flush()?;
    Ok(())
}

/// One object per line, in order; `None` if none comes from a manifest.
fn kept(objects: &BTreeMap<Identity, Recorded>, source_map: &SourceMap) -> Result<Option<String>> {
    let known = objects.iter().filter_map(|(object, recorded)| Some((object, recorded, source_map.of(object)?)));
    let lines = known.map(|(object, recorded, place)| serde_json::to_string(&Kept::new(object, &recorded.json, place)));
    let lines: Vec<String> = lines.collect::<Result<_, _>>()?;
    Ok((!lines.is_empty()).then(|| format!("[{}]", lines.join(",\n"))))
}

/// Groups the objects by archive entry.
fn lists(objects: &BTreeMap<Identity, Recorded>) -> BTreeMap<String, Vec<&str>> {
    let mut lists: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (identity, recorded) in objects {
        let folder = if recorded.metadata_only { "metadata" } else { "objects" };
        let group = if identity.group.is_empty() { String::new() } else { format!(".{}", plain(&identity.group)) };
        let path = format!("{folder}/{}{group}.json", plain(&identity.kind));
        lists.entry(path).or_default().push(&recorded.json);
    }
    lists
}

/// Sanitizes a name for use in a path.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '_' }).collect()
}

/// The directory of a snapshot inside a directory or archive, with a trailing `/`; empty for the root.
pub(super) fn root(tree: &Tree) -> Option<String> {
    let root = tree.paths().find_map(|path| path.strip_suffix(HEADER).filter(|r| r.is_empty() || r.ends_with('/')))?;
    let bytes = tree.read(&format!("{root}{HEADER}")).ok()?;
    let head: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    (head["format"] == FORMAT).then(|| root.to_string())
}

pub(super) fn read(reader: &mut Reader, tree: &Tree, root: &str) -> Result<()> {
    let header = header(tree, root)?;
    let kept = read_places(tree, root)?;
    for folder in ["objects/", "metadata/"] {
        let folder = format!("{root}{folder}");
        for file in tree.below(&folder) {
            let path = format!("{folder}{file}");
            let (name, bytes) = (tree.display(&path), tree.read(&path)?);
            if folder.ends_with("metadata/") {
                read_metadata(reader, file, &bytes, &name)?;
            } else {
                reader.list_in_snapshot(&Text::new(&name, ""), utf8(&bytes, &name)?, &kept)?;
            }
        }
    }
    let logs = format!("{root}logs/");
    for file in tree.below(&logs).filter(|file| file.ends_with(".log")) {
        let parts: Vec<&str> = file.split('/').collect();
        let ([namespace, pod, name], Some(text)) = (parts.as_slice(), tree.read_log(&format!("{logs}{file}"))) else {
            continue;
        };
        let stem = name.trim_end_matches(".log");
        let (container, previous) = stem.strip_suffix(".previous").map_or((stem, false), |stem| (stem, true));
        reader.log(namespace, pod, container, &text, previous);
    }
    take_over(reader, header)
}

fn header(tree: &Tree, root: &str) -> Result<Header> {
    let name = tree.display(&format!("{root}{HEADER}"));
    let bytes = tree.read(&format!("{root}{HEADER}"))?;
    let head: serde_json::Value = serde_json::from_slice(&bytes).with_context(|| format!("reading {name}"))?;
    if head["version"].as_u64().is_none_or(|version| version > u64::from(VERSION)) {
        let tool = head["tool"].as_str().unwrap_or("a newer kubectl-gpt");
        bail!("reading {name}: written by {tool} in a newer format; update kubectl-gpt");
    }
    serde_json::from_value(head).with_context(|| format!("reading {name}: snapshot is corrupted"))
}

/// Sorted; empty if no object comes from a manifest, or if the snapshot predates source locations.
fn read_places(tree: &Tree, root: &str) -> Result<Vec<Kept>> {
    let path = format!("{root}{PLACES}");
    if !tree.paths().any(|known| known == path) {
        return Ok(Vec::new());
    }
    let broken = || format!("reading {}: snapshot is corrupted", tree.display(&path));
    let mut kept: Vec<Kept> = serde_json::from_slice(&tree.read(&path)?).with_context(broken)?;
    kept.sort_by(|a, b| a.object.cmp(&b.object));
    Ok(kept)
}

/// Reads objects that were listed as metadata only: the rest is unknown, which differs from empty.
fn read_metadata(reader: &mut Reader, file: &str, bytes: &[u8], name: &str) -> Result<()> {
    let stem = file.strip_suffix(".json").unwrap_or(file);
    let (kind, group) = stem.split_once('.').unwrap_or((stem, ""));
    let known = Kind::ALL.iter().find(|known| known.api().kind == kind && known.api().group == group);
    let Some(kind) = known else { bail!("reading {name}: unknown kind {stem}") };
    let page = list_page(*kind, bytes, Content::MetadataOnly).with_context(|| format!("reading {name}"))?;
    reader.objects += page.batch.len();
    reader.builder.add(page.batch);
    page.broken.into_iter().for_each(|broken| reader.builder.add_broken(broken));
    if let Some(recorder) = &reader.options.recorder {
        recorder.page(&kind.api_version(), kind.api().kind, bytes, Content::MetadataOnly);
    }
    Ok(())
}

fn take_over(reader: &mut Reader, header: Header) -> Result<()> {
    for (name, covered) in header.kinds {
        if let Some(kind) = Kind::ALL.iter().find(|kind| kind.to_string() == name) {
            reader.declare(*kind, covered.into());
        }
    }
    for CustomKind { group, kind, read } in header.custom {
        reader.builder.cover_custom(GroupKind { group, kind }, read.into());
    }
    for BrokenObject { kind, name, message } in header.broken {
        let kind = kind.and_then(|kind| Kind::ALL.iter().copied().find(|known| known.to_string() == kind));
        reader.builder.add_broken(Broken { kind, name, message });
    }
    for UnreadSecret { namespace, name, gap } in header.unread_secrets {
        reader.builder.unread_secret(&namespace, &name, gap);
    }
    if let Some(version) = &header.server_version {
        reader.builder.server_version(version);
    }
    reader.notes.extend(header.notes);
    let time = header.time.parse().map_err(|error| anyhow!("invalid snapshot time {:?}: {error}", header.time))?;
    reader.now = reader.now.max(Some(time));
    reader.origin = Some(match header.origin {
        Whence::Cluster => Origin::Cluster,
        Whence::Extract => Origin::Extract,
        Whence::Manifests => Origin::Manifests,
    });
    Ok(())
}

/// Writes a snapshot to a file atomically, readable only by its owner; `-` is standard output.
///
/// # Errors
/// When it cannot be written.
pub fn write_file(
    path: &std::path::Path,
    cluster: &Cluster,
    objects: &BTreeMap<Identity, Recorded>,
    source_map: &SourceMap,
    notes: &[String],
) -> Result<()> {
    if path.as_os_str() == "-" {
        return write(io::stdout().lock(), cluster, objects, source_map, notes).context("writing the snapshot");
    }
    whole_file::write(path, Readers::Owner, |out| write(out, cluster, objects, source_map, notes))
        .with_context(|| format!("writing {}", path.display()))
}
