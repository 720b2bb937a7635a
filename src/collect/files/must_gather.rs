//! `oc adm must-gather` and `oc adm inspect`, as a directory or archive.
//!
//! `namespaces/NAMESPACE/GROUP/RESOURCE.yaml` is the complete list of a namespace, `…/GROUP/RESOURCE/NAME.yaml` a
//! single referenced object, and `cluster-scoped-resources/GROUP/RESOURCE/NAME.yaml` a cluster-scoped object. `core` is
//! the core group. Operators determine which namespaces are gathered; it is rarely all of them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use kubectl_gpt_analyzers::{Extent, Kind};

use super::text::{Text, utf8};
use super::tree::{Tree, is_objects};
use super::{Reader, not_in_input};

const NAMESPACES: &str = "namespaces/";
const CLUSTER_SCOPED: &str = "cluster-scoped-resources/";

/// The directories of gathered resources, one per image, with a trailing `/`; empty for the root. Repositories of
/// manifests have a similar layout, but contain no lists.
pub(super) fn roots(tree: &Tree) -> BTreeSet<String> {
    let split = |path: &str, folder: &str| {
        let at = path.find(folder).filter(|at| *at == 0 || path[..*at].ends_with('/'))?;
        Some((path[..at].to_string(), path[at + folder.len()..].to_string()))
    };
    let mut roots = BTreeSet::new();
    for path in tree.paths().filter(|path| is_objects(path)) {
        let found = split(path, CLUSTER_SCOPED).filter(|(_, rest)| is_cluster_scoped(rest));
        let found = found.or_else(|| split(path, NAMESPACES).filter(|(_, rest)| is_list(tree, path, rest)));
        roots.extend(found.map(|(root, _)| root));
    }
    roots
}

/// `core/nodes/worker-1.yaml`.
fn is_cluster_scoped(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    matches!(parts.as_slice(), [group, resource, _] if kind_of(group, resource).is_some())
}

/// `shop/core/pods.yaml`, if it is a list.
fn is_list(tree: &Tree, path: &str, rest: &str) -> bool {
    let parts: Vec<&str> = rest.split('/').collect();
    let [_, group @ ("core" | "apps"), file] = parts.as_slice() else { return false };
    kind_of(group, stem(file)).is_some()
        && tree
            .read(path)
            .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).lines().any(|line| line.starts_with("items:")))
}

pub(super) fn read(reader: &mut Reader, tree: &Tree, roots: &BTreeSet<String>) -> Result<()> {
    let mut gathered = Gathered::default();
    for root in roots {
        gathered.read_cluster_scoped(reader, tree, &format!("{root}{CLUSTER_SCOPED}"))?;
        gathered.read_namespaces(reader, tree, &format!("{root}{NAMESPACES}"))?;
    }
    for kind in Kind::ALL {
        reader.declare(*kind, gathered.extent(*kind));
    }
    Ok(())
}

#[derive(Default)]
struct Gathered {
    /// The namespaces with a complete list, by kind.
    lists: BTreeMap<Kind, BTreeSet<String>>,
    /// Kinds with at least some objects.
    some: BTreeSet<Kind>,
}

impl Gathered {
    fn extent(&self, kind: Kind) -> Extent {
        match self.lists.get(&kind) {
            Some(_) if !kind.api().namespaced => Extent::Everything,
            Some(namespaces) => Extent::Namespaces(namespaces.clone()),
            None if self.some.contains(&kind) && kind.is_gathered_whole() => Extent::Everything,
            // Some objects are present, others may be missing.
            None if self.some.contains(&kind) => Extent::Namespaces(BTreeSet::new()),
            None => not_in_input(kind),
        }
    }

    fn read_cluster_scoped(&mut self, reader: &mut Reader, tree: &Tree, folder: &str) -> Result<()> {
        for file in tree.below(folder).filter(|file| is_objects(file)) {
            let parts: Vec<&str> = file.split('/').collect();
            match parts.as_slice() {
                [group, list] => {
                    if let Some(kind) = kind_of(group, stem(list)) {
                        self.lists.entry(kind).or_default();
                    }
                }
                [group, resource, _] => self.some.extend(kind_of(group, resource)),
                _ => continue,
            }
            self.file(reader, tree, &format!("{folder}{file}"))?;
        }
        Ok(())
    }

    fn read_namespaces(&mut self, reader: &mut Reader, tree: &Tree, folder: &str) -> Result<()> {
        for file in tree.below(folder) {
            let path = format!("{folder}{file}");
            let parts: Vec<&str> = file.split('/').collect();
            match parts.as_slice() {
                [namespace, "pods", pod, container, _, "logs", log] => {
                    let previous = match *log {
                        "current.log" => false,
                        "previous.log" => true,
                        _ => continue,
                    };
                    reader.log(namespace, pod, container, &log_text(tree, &path), previous);
                }
                // The same pods as in the list.
                [_, "pods", ..] => {}
                [namespace, file] if stem(file) == *namespace => {
                    self.some.insert(Kind::Namespace);
                    self.file(reader, tree, &path)?;
                }
                [namespace, group, list] if is_objects(list) => {
                    if let Some(kind) = kind_of(group, stem(list)) {
                        self.lists.entry(kind).or_default().insert(namespace.to_string());
                    }
                    self.file(reader, tree, &path)?;
                }
                [_, group, resource, object] if is_objects(object) => {
                    self.some.extend(kind_of(group, resource));
                    self.file(reader, tree, &path)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn file(&self, reader: &mut Reader, tree: &Tree, path: &str) -> Result<()> {
        let (name, bytes) = (tree.display(path), tree.read(path)?);
        let text = Text { in_folder: true, ..Text::new(&name, &name) };
        reader.text(&text, utf8(&bytes, &name)?)
    }
}

/// Removes the kubelet's timestamp at the start of each line.
fn log_text(tree: &Tree, path: &str) -> String {
    let text = tree.read_log(path).unwrap_or_default();
    let without_time = |line: &str| match line.split_once(' ') {
        Some((time, rest)) if time.parse::<jiff::Timestamp>().is_ok() => rest.to_string(),
        _ => line.to_string(),
    };
    text.lines().map(without_time).collect::<Vec<_>>().join("\n")
}

fn stem(file: &str) -> &str {
    file.strip_suffix(".gz").unwrap_or(file).rsplit_once('.').map_or(file, |(stem, _)| stem)
}

fn kind_of(group: &str, resource: &str) -> Option<Kind> {
    let group = if group == "core" { "" } else { group };
    Kind::ALL.iter().copied().find(|kind| kind.api().group == group && kind.api().plural == resource)
}
