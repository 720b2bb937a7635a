//! Troubleshoot support bundles (`kubectl support-bundle`), as a directory or archive.
//!
//! `cluster-resources/KIND.json` for cluster-scoped kinds, `cluster-resources/KIND/NAMESPACE.json` for others, and
//! `cluster-resources/KIND-errors.json` for errors. The collector often has access to a few namespaces only.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use kubectl_gpt_analyzers::snapshot::model::Namespace;
use kubectl_gpt_analyzers::{Extent, Gap, GroupKind, Kind, Object, Reason};
use serde_json::Value;

use super::text::{Text, utf8};
use super::tree::{Tree, is_objects};
use super::{Reader, not_in_input};

const RESOURCES: &str = "cluster-resources/";

/// The directory of a bundle inside a directory or archive, with a trailing `/`; empty for the root.
pub(super) fn root(tree: &Tree) -> Option<String> {
    const ONE_OF: [&str; 3] = ["nodes.json", "namespaces.json", "pods/"];
    let is_bundle = |rest: &str| ONE_OF.iter().any(|name| rest.starts_with(name));
    tree.paths().find_map(|path| {
        let at = path.find(RESOURCES).filter(|at| *at == 0 || path[..*at].ends_with('/'))?;
        is_bundle(&path[at + RESOURCES.len()..]).then(|| path[..at].to_string())
    })
}

pub(super) fn read(reader: &mut Reader, tree: &Tree, root: &str) -> Result<()> {
    let bundle = Bundle { tree, root: format!("{root}{RESOURCES}") };
    let whole = bundle.read_namespaces(reader)?;
    let namespaces: BTreeSet<String> =
        Namespace::table(reader.builder.objects()).iter().map(|namespace| namespace.name().to_string()).collect();
    for kind in Kind::ALL.iter().filter(|kind| **kind != Kind::Namespace && !kind.bundle_names().is_empty()) {
        let names = kind.bundle_names();
        let extent = if kind.api().namespaced {
            bundle.read_namespaced(reader, *kind, names, &namespaces, whole)?
        } else {
            bundle.read_cluster_scoped(reader, *kind, names)?
        };
        reader.declare(*kind, extent);
    }
    for kind in Kind::ALL.iter().filter(|kind| kind.bundle_names().is_empty()) {
        let extent = match (kind, reader.declared.get(&Kind::Deployment)) {
            // Bundles do not include ReplicationControllers, which are rarely used. Treating them as unread would
            // disable every rule that needs all workloads.
            (Kind::ReplicationController, Some(extent)) => extent.clone(),
            (kind, _) => not_in_input(*kind),
        };
        reader.declare(*kind, extent);
    }
    bundle.read_custom(reader)?;
    bundle.read_logs(reader);
    if let Some(version) = server_version(tree, root) {
        reader.builder.server_version(&version);
    }
    Ok(())
}

struct Bundle<'a> {
    tree: &'a Tree,
    /// Up to `cluster-resources/`.
    root: String,
}

impl Bundle<'_> {
    fn list(&self, reader: &mut Reader, kind: Kind, path: &str) -> Result<()> {
        let (name, bytes) = (self.tree.display(path), self.tree.read(path)?);
        reader.list_of(&kind.api_version(), kind.api().kind, utf8(&bytes, &name)?, &name)
    }

    /// Whether all namespaces of the cluster are known: a List is the API's response, while an array or a single object
    /// contains selected namespaces (in old versions an array is complete, and then includes kube-system).
    fn read_namespaces(&self, reader: &mut Reader) -> Result<bool> {
        let path = format!("{}namespaces.json", self.root);
        let errors = self.errors("namespaces")?;
        if !self.tree.has(&path) {
            let extent = errors.gap("namespaces").map_or_else(|| not_in_input(Kind::Namespace), Extent::Failed);
            reader.declare(Kind::Namespace, extent);
            return Ok(false);
        }
        self.list(reader, Kind::Namespace, &path)?;
        let bytes = self.tree.read(&path)?;
        let is_list = serde_json::from_slice::<Value>(&bytes).is_ok_and(|value| value["items"].is_array());
        let mut namespaces = Namespace::table(reader.builder.objects()).iter();
        let whole = is_list || namespaces.any(|namespace| namespace.name() == "kube-system");
        let chosen = || {
            let message = "only some namespaces were collected".to_string();
            Extent::Failed(Gap { reason: Reason::NotInInput, message })
        };
        reader.declare(Kind::Namespace, if whole { Extent::Everything } else { chosen() });
        Ok(whole)
    }

    fn read_cluster_scoped(&self, reader: &mut Reader, kind: Kind, names: &[&str]) -> Result<Extent> {
        let mut found = false;
        let mut gap = None;
        for name in names {
            for path in [format!("{}{name}.json", self.root), format!("{}{name}", self.root)] {
                // A failed list is written as an empty file.
                if self.tree.has(&path) && !self.tree.read(&path)?.trim_ascii().is_empty() {
                    self.list(reader, kind, &path)?;
                    found = true;
                }
            }
            gap = gap.or(self.errors(name)?.gap(name));
        }
        if kind == Kind::StorageClass {
            gap = gap.or(self.errors("storage")?.gap("storage classes"));
        }
        Ok(match (found, gap) {
            (_, Some(gap)) => Extent::Failed(gap),
            (true, None) => Extent::Everything,
            (false, None) => not_in_input(kind),
        })
    }

    fn read_namespaced(
        &self,
        reader: &mut Reader,
        kind: Kind,
        names: &[&str],
        namespaces: &BTreeSet<String>,
        whole: bool,
    ) -> Result<Extent> {
        let (mut read, mut gap, mut was_tried) = (BTreeSet::new(), None, false);
        for name in names {
            let folder = format!("{}{name}/", self.root);
            // The directory of pods also contains `pods/logs/`.
            for file in self.tree.below(&folder).filter(|file| is_objects(file) && !file.contains('/')) {
                let Some(namespace) = file.strip_suffix(".json").or(file.strip_suffix(".yaml")) else { continue };
                if namespace.ends_with("-errors") {
                    continue;
                }
                self.list(reader, kind, &format!("{folder}{file}"))?;
                read.insert(namespace.to_string());
            }
            let errors = self.errors(name)?;
            was_tried |= errors.exists;
            gap = gap.or(errors.gap(name));
        }
        let unread = namespaces.difference(&read).next();
        Ok(match (gap, unread) {
            (Some(gap), _) if read.is_empty() => Extent::Failed(gap),
            (Some(gap), _) => Extent::Partly(read, gap),
            (None, _) if read.is_empty() && !(was_tried && namespaces.is_empty()) => not_in_input(kind),
            // The collector silently omits lists that are forbidden.
            (None, Some(namespace)) => {
                let message = format!("the bundle has no list of {kind} in namespace {namespace}");
                Extent::Partly(read, Gap { reason: Reason::Forbidden, message })
            }
            (None, None) if whole => Extent::Everything,
            (None, None) => Extent::Namespaces(read),
        })
    }

    /// `custom-resources/CRD/NAMESPACE.yaml`, `custom-resources/CRD.yaml`: arrays.
    fn read_custom(&self, reader: &mut Reader) -> Result<()> {
        let folder = format!("{}custom-resources/", self.root);
        let files: Vec<&str> = self.tree.below(&folder).filter(|file| is_objects(file)).collect();
        for file in &files {
            if file.ends_with("-errors.json") {
                continue;
            }
            let path = format!("{folder}{file}");
            let (name, bytes) = (self.tree.display(&path), self.tree.read(&path)?);
            reader.text(&Text::new(&name, &name), utf8(&bytes, &name)?)?;
        }
        for (crd, message) in self.errors("custom-resources/custom-resources")?.by_key {
            let (kind, group) = crd.split_once('.').unwrap_or((crd.as_str(), ""));
            let (kind, group) = (kind.to_string(), group.split('/').next().unwrap_or_default().to_string());
            reader.builder.cover_custom(GroupKind { group, kind }, Extent::Failed(gap(&crd, &message)));
        }
        Ok(())
    }

    /// `pods/logs/NAMESPACE/POD/CONTAINER.log`, and `CONTAINER-previous.log` for the run before.
    fn read_logs(&self, reader: &mut Reader) {
        let folder = format!("{}pods/logs/", self.root);
        for file in
            self.tree.below(&folder).filter(|file| file.ends_with(".log") && !file.ends_with("-logs-errors.log"))
        {
            let parts: Vec<&str> = file.split('/').collect();
            let ([namespace, pod, name], Some(text)) =
                (parts.as_slice(), self.tree.read_log(&format!("{folder}{file}")))
            else {
                continue;
            };
            let container = name.trim_end_matches(".log");
            let (container, previous) = match container.strip_suffix("-previous") {
                Some(container) => (container, true),
                None => (container, false),
            };
            reader.log(namespace, pod, container, &text, previous);
        }
    }

    /// `KIND-errors.json`: an object by namespace or an array; `null` or empty if there were no errors.
    fn errors(&self, name: &str) -> Result<Errors> {
        let path = format!("{}{name}-errors.json", self.root);
        if !self.tree.has(&path) {
            return Ok(Errors::default());
        }
        let bytes = self.tree.read(&path)?;
        if bytes.trim_ascii().is_empty() {
            return Ok(Errors { exists: true, by_key: BTreeMap::new() });
        }
        let value: Value =
            serde_json::from_slice(&bytes).with_context(|| format!("reading {}", self.tree.display(&path)))?;
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
        let by_key = match &value {
            Value::Object(errors) => errors.iter().map(|(key, value)| (key.clone(), text(value))).collect(),
            Value::Array(errors) => errors.iter().map(|value| (String::new(), text(value))).collect(),
            Value::Null => BTreeMap::new(),
            other => [(String::new(), text(other))].into(),
        };
        Ok(Errors { exists: true, by_key })
    }
}

/// The errors of the collector for one kind.
#[derive(Default)]
struct Errors {
    exists: bool,
    by_key: BTreeMap<String, String>,
}

impl Errors {
    fn gap(&self, name: &str) -> Option<Gap> {
        self.by_key.iter().next().map(|(key, message)| match key.as_str() {
            "" => gap(name, message),
            namespace => gap(&format!("{name} in namespace {namespace}"), message),
        })
    }
}

/// `collecting pods in namespace shop: forbidden: …`.
fn gap(what: &str, message: &str) -> Gap {
    let reason = match message {
        _ if message.contains("forbidden") || message.contains("nauthorized") => Reason::Forbidden,
        _ if message.contains("imeout") || message.contains("deadline exceeded") => Reason::Timeout,
        _ => Reason::Unavailable,
    };
    Gap { reason, message: format!("collecting {what}: {message}") }
}

/// `cluster-info/cluster_version.json`.
fn server_version(tree: &Tree, root: &str) -> Option<String> {
    let bytes = tree.read(&format!("{root}cluster-info/cluster_version.json")).ok()?;
    let value: Value = serde_json::from_slice(&bytes).ok()?;
    let version = value["info"]["gitVersion"].as_str().or(value["string"].as_str())?;
    Some(version.to_string())
}
