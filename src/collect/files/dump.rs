//! `kubectl cluster-info dump`: a directory (`--output-directory`), or a single stream on standard output.
//!
//! Contains `nodes.json`, and for each namespace seven lists and the logs of its pods. Nothing is known about other
//! kinds.

use std::collections::BTreeSet;

use anyhow::Result;
use kubectl_gpt_analyzers::{Extent, Kind};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::text::{Text, utf8};
use super::tree::Tree;
use super::{Reader, not_in_input};

/// The lists of a namespace: file name and kind.
const LISTS: [(&str, Kind); 7] = [
    ("events", Kind::Event),
    ("replication-controllers", Kind::ReplicationController),
    ("services", Kind::Service),
    ("daemonsets", Kind::DaemonSet),
    ("deployments", Kind::Deployment),
    ("replicasets", Kind::ReplicaSet),
    ("pods", Kind::Pod),
];
const ENDINGS: [&str; 2] = [".json", ".yaml"];
/// This namespace is dumped only with `--all-namespaces`.
const NEVER_ASKED_FOR: &str = "kube-node-lease";
const START: &str = "==== START logs for container ";
const END: &str = "==== END logs for container ";

/// The directory of a dump inside a directory or archive, with a trailing `/`; empty for the root.
pub(super) fn root(tree: &Tree) -> Option<String> {
    let root = tree.paths().find_map(|path| {
        let root = ENDINGS.iter().find_map(|ending| path.strip_suffix(&format!("nodes{ending}")))?;
        (root.is_empty() || root.ends_with('/')).then_some(root)
    })?;
    (!namespaces(tree, root).is_empty()).then(|| root.to_string())
}

/// The dumped namespaces: each has all lists, even if they are empty.
fn namespaces(tree: &Tree, root: &str) -> BTreeSet<String> {
    let folders: BTreeSet<&str> =
        tree.below(root).filter_map(|path| path.split_once('/')).map(|(folder, _)| folder).collect();
    let has = |folder: &str, list: &str| ENDINGS.iter().any(|e| tree.has(&format!("{root}{folder}/{list}{e}")));
    let is_dumped = |folder: &&str| has(folder, "pods") && has(folder, "replication-controllers");
    folders.into_iter().filter(is_dumped).map(str::to_string).collect()
}

pub(super) fn read(reader: &mut Reader, tree: &Tree, root: &str) -> Result<()> {
    let namespaces = namespaces(tree, root);
    let list = |reader: &mut Reader, stem: &str, kind: Kind| -> Result<()> {
        for ending in ENDINGS {
            let path = format!("{root}{stem}{ending}");
            if tree.has(&path) {
                let (name, bytes) = (tree.display(&path), tree.read(&path)?);
                reader.list_of(&kind.api_version(), kind.api().kind, utf8(&bytes, &name)?, &name)?;
            }
        }
        Ok(())
    };
    list(reader, "nodes", Kind::Node)?;
    for namespace in &namespaces {
        for (stem, kind) in LISTS {
            list(reader, &format!("{namespace}/{stem}"), kind)?;
        }
    }
    for path in tree.below(root).filter(|path| path.ends_with("/logs.txt")) {
        read_logs(reader, &tree.read_log(&format!("{root}{path}")).unwrap_or_default());
    }
    declare(reader, namespaces, |_| true);
    Ok(())
}

fn declare(reader: &mut Reader, namespaces: BTreeSet<String>, is_there: impl Fn(Kind) -> bool) {
    let extent = if namespaces.contains(NEVER_ASKED_FOR) { Extent::Everything } else { Extent::Namespaces(namespaces) };
    for kind in Kind::ALL {
        let extent = match kind {
            Kind::Node => Extent::Everything,
            kind if LISTS.iter().any(|(_, listed)| listed == kind) && is_there(*kind) => extent.clone(),
            kind => not_in_input(*kind),
        };
        reader.declare(*kind, extent);
    }
}

/// Reads container logs of one or more pods, which are delimited by marker lines.
fn read_logs(reader: &mut Reader, text: &str) {
    let mut log: Option<(Mark, Vec<&str>)> = None;
    for line in text.lines() {
        if let Some(mark) = line.strip_prefix(START).and_then(mark) {
            log = Some((mark, Vec::new()));
        } else if line.contains(END) {
            // The last line of a log may lack a newline.
            if let Some((mark, mut lines)) = log.take() {
                lines.extend(line.split(END).next().filter(|rest| !rest.is_empty()));
                lines.retain(|line| {
                    !line.starts_with("Request log error:") && !line.starts_with("Create log request error:")
                });
                reader.log(mark.namespace, mark.pod, mark.container, &lines.join("\n"), false);
            }
        } else if let Some((_, lines)) = &mut log {
            lines.push(line);
        }
    }
}

struct Mark<'a> {
    container: &'a str,
    namespace: &'a str,
    pod: &'a str,
}

/// `app of pod shop/cart-0 ====`.
fn mark(rest: &str) -> Option<Mark<'_>> {
    let (container, pod) = rest.strip_suffix(" ====")?.split_once(" of pod ")?;
    let (namespace, pod) = pod.split_once('/')?;
    Some(Mark { container, namespace, pod })
}

/// Whether a text is a dump from standard output: JSON, and logs delimited by marker lines.
pub(super) fn is_stream(text: &str) -> bool {
    text.trim_start().starts_with('{') && text.contains(&format!("\n{START}"))
        || first_list(text).is_some_and(|kind| kind == "NodeList")
            && text.contains("\"kind\": \"ReplicationControllerList\"")
}

fn first_list(text: &str) -> Option<String> {
    let start = text.trim_start();
    let head = start.lines().take(3).collect::<String>();
    let kind = head.split_once("\"kind\": \"")?.1;
    Some(kind.split('"').next()?.to_string())
}

#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    items: Option<Vec<Item>>,
}

#[derive(Deserialize)]
struct Item {
    metadata: ItemMeta,
}

#[derive(Deserialize)]
struct ItemMeta {
    #[serde(default)]
    namespace: String,
}

/// Reads a stream: `nodes`, then the lists of each namespace, each set beginning with events. Empty lists do not state
/// their namespace; the other lists of the set do.
pub(super) fn read_stream(reader: &mut Reader, text: &str, name: &str) -> Result<()> {
    let (json, logs) = apart(text);
    let (mut namespaces, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    for document in serde_json::Deserializer::from_str(&json).into_iter::<&RawValue>() {
        let document =
            document.map_err(|error| anyhow::anyhow!("reading {name}: incomplete cluster-info dump: {error}"))?.get();
        if let Ok(head) = serde_json::from_str::<Head>(document) {
            kinds.insert(head.kind);
            namespaces.extend(head.items.into_iter().flatten().map(|item| item.metadata.namespace));
        }
        reader.text(&Text::new(name, "-"), document)?;
    }
    read_logs(reader, &logs);
    namespaces.remove("");
    declare(reader, namespaces, |kind| kinds.contains(&format!("{}List", kind.api().kind)));
    Ok(())
}

/// Splits a stream into JSON and logs.
fn apart(text: &str) -> (String, String) {
    let (mut json, mut logs, mut in_log) = (String::new(), String::new(), false);
    for line in text.split_inclusive('\n') {
        in_log |= line.starts_with(START);
        if in_log {
            logs.push_str(line)
        } else {
            json.push_str(line)
        }
        in_log &= !line.contains(END);
    }
    (json, logs)
}
