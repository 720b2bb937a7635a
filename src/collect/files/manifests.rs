//! Directories of manifests: skips files that are not manifests, charts and kustomize patches.

use std::collections::BTreeSet;

use anyhow::Result;
use kubectl_gpt_analyzers::Kind;
use kubectl_gpt_analyzers::text::words;
use serde_json::Value;

use super::Reader;
use super::text::{Text, utf8};
use super::tree::{Tree, is_objects};

/// The file names that kustomize recognizes.
const KUSTOMIZATIONS: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// Reads all `.json`, `.yaml` and `.yml` files of a directory recursively, and `logs/POD_CONTAINER.log`. Skips hidden
/// directories, charts, and files of kustomizations that are not listed as resources: patches are not complete objects.
pub(super) fn read(reader: &mut Reader, tree: &Tree) -> Result<()> {
    reader.in_folder = true;
    let charts = charts(tree);
    let kustomizations = kustomizations(reader, tree)?;
    note_what_is_left_out(reader, tree, &charts, &kustomizations);
    for path in tree.paths().filter(|path| is_objects(path)) {
        let in_chart = charts.iter().any(|chart| path.starts_with(chart.as_str()));
        let is_patch = nearest(&kustomizations, path).is_some_and(|kustomization| !kustomization.lists(path));
        if is_hidden(path) || in_chart || is_patch {
            continue;
        }
        let name = tree.display(path);
        let bytes = tree.read(path)?;
        let text = Text { in_folder: true, ..Text::new(&name, &name) };
        reader.text(&text, utf8(&bytes, &name)?)?;
    }
    for path in tree.paths().filter(|path| path.ends_with(".log")) {
        read_log(reader, tree, path);
    }
    Ok(())
}

/// Whether the path is in a hidden file or directory.
fn is_hidden(path: &str) -> bool {
    path.split('/').any(|part| part.starts_with('.'))
}

/// Directories of Helm charts, with a trailing `/`; empty for the root.
fn charts(tree: &Tree) -> Vec<String> {
    let folders = tree.paths().filter_map(|path| path.strip_suffix("Chart.yaml"));
    let folders = folders.filter(|folder| folder.is_empty() || folder.ends_with('/'));
    folders.filter(|folder| tree.below(&format!("{folder}templates/")).next().is_some()).map(str::to_string).collect()
}

struct Kustomization {
    /// With a trailing `/`; empty for the root.
    folder: String,
    resources: BTreeSet<String>,
    /// Whether the rendered objects differ from the listed resources.
    transforms: bool,
}

impl Kustomization {
    fn lists(&self, path: &str) -> bool {
        self.resources.iter().any(|resource| {
            path == resource || path.strip_prefix(resource.as_str()).is_some_and(|rest| rest.starts_with('/'))
        })
    }
}

fn kustomizations(reader: &mut Reader, tree: &Tree) -> Result<Vec<Kustomization>> {
    const HARMLESS: [&str; 5] = ["apiVersion", "kind", "metadata", "resources", "namespace"];
    let mut found = Vec::new();
    for path in tree.paths().filter(|path| KUSTOMIZATIONS.contains(&path.rsplit('/').next().unwrap_or(path))) {
        let name = tree.display(path);
        let bytes = tree.read(path)?;
        let Ok(Value::Object(fields)) = serde_saphyr::from_str::<Value>(utf8(&bytes, &name)?) else {
            reader.broken(name, "invalid kustomization".to_string());
            continue;
        };
        let folder = path[..path.rfind('/').map_or(0, |at| at + 1)].to_string();
        let resources = fields.get("resources").and_then(Value::as_array).into_iter().flatten();
        let resources = resources.filter_map(|entry| join(&folder, entry.as_str()?)).collect();
        let transforms = fields.keys().any(|field| !HARMLESS.contains(&field.as_str()));
        found.push(Kustomization { folder, resources, transforms });
    }
    Ok(found)
}

/// Resolves a path below the root; `None` for paths outside it and for URLs.
fn join(folder: &str, entry: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in entry.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!entry.contains("://")).then(|| parts.join("/"))
}

/// The kustomization that a file belongs to.
fn nearest<'a>(kustomizations: &'a [Kustomization], path: &str) -> Option<&'a Kustomization> {
    let owners = kustomizations.iter().filter(|kustomization| path.starts_with(&kustomization.folder));
    owners.max_by_key(|kustomization| kustomization.folder.len())
}

fn note_what_is_left_out(reader: &mut Reader, tree: &Tree, charts: &[String], kustomizations: &[Kustomization]) {
    let shown = |folder: &str| match folder.trim_end_matches('/') {
        "" => tree.name.clone(),
        folder => tree.display(folder),
    };
    for chart in charts.iter().filter(|chart| !charts.iter().any(|c| c != *chart && chart.starts_with(c.as_str()))) {
        let chart = shown(chart);
        let hint =
            format!("{chart} is a Helm chart; render it first: helm template {chart} | kubectl-gpt analyze -f -");
        reader.notes.push(format!("skipped: {hint}"));
        reader.hints.push(hint);
    }
    for kustomization in kustomizations.iter().filter(|kustomization| kustomization.transforms) {
        let folder = shown(&kustomization.folder);
        let hint = format!(
            "{folder} is a kustomization; render it first: kubectl kustomize {folder} | kubectl-gpt analyze -f -"
        );
        reader.notes.push(format!("only the listed resources were read: {hint}"));
        reader.hints.push(hint);
    }
    if !tree.hidden.is_empty() {
        let hidden: Vec<String> = tree.hidden.iter().map(|folder| tree.display(folder)).collect();
        reader.notes.push(format!("skipped hidden directories: {}", words::list(&hidden, 3)));
    }
}

/// Reads `POD_CONTAINER.log`, or `POD_CONTAINER.previous.log` for the previous run. Unreadable logs are skipped.
fn read_log(reader: &mut Reader, tree: &Tree, path: &str) {
    let name = path.rsplit('/').next().unwrap_or(path);
    let Some(stem) = name.strip_suffix(".log") else { return };
    let (stem, previous) = stem.strip_suffix(".previous").map_or((stem, false), |stem| (stem, true));
    let Some((pod, container)) = stem.rsplit_once('_') else { return };
    let namespaces = reader.builder.objects().namespaces_of_pod(pod);
    if let ([namespace], Some(text)) = (namespaces.as_slice(), tree.read_log(path)) {
        reader.log(namespace, pod, container, &text, previous);
    }
}

/// An object named by the API server (`generateName`) is identified by the name prefix.
pub(super) fn with_generated_name(json: &str) -> Option<String> {
    if !json.contains("\"generateName\"") {
        return None;
    }
    let mut object: Value = serde_json::from_str(json).ok()?;
    let metadata = object.get_mut("metadata")?.as_object_mut()?;
    let generated = metadata.get("generateName")?.as_str()?.to_string();
    if metadata.contains_key("name") {
        return None;
    }
    metadata.insert("name".to_string(), generated.into());
    Some(object.to_string())
}

/// Whether the object is a configuration file of a tool (kubeconfig, kind, kubeadm, Skaffold): it has no name and no
/// known kind.
pub(super) fn is_configuration(json: &str) -> bool {
    let Ok(object) = serde_json::from_str::<Value>(json) else { return false };
    let text = |field: &str| object[field].as_str().unwrap_or_default().to_string();
    object["metadata"]["name"].is_null()
        && Kind::from_api(&text("apiVersion"), &text("kind")).is_none()
        && !text("kind").is_empty()
}
