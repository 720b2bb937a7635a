//! The source locations of a snapshot's objects in the original manifests: its entry `places.json`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::recorder::Identity;
use super::source_map::{Document, Field, Node, Place};

/// The location of one object.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    #[serde(flatten)]
    pub object: Identity,
    /// As in [`kubectl_gpt_analyzers::Location`].
    file: String,
    /// `None` if the lines are unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lines: Option<Lines>,
}

/// The line of an object or a field, and of nested fields. Values are not stored: they are in the object, without
/// secrets.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Lines {
    Value(u32),
    Map(u32, BTreeMap<String, Lines>),
    List(u32, Vec<Lines>),
}

impl Kept {
    /// The location of an object that is recorded as `json`.
    pub fn new(object: &Identity, json: &str, place: &Place) -> Kept {
        let document = &place.document;
        let lines = document.first_line.map(|first| match (place.object(), serde_json::from_str(json)) {
            (Some((line, node)), Ok(recorded)) => Lines::new(first, line, node, &recorded),
            _ => Lines::Value(narrow(first)),
        });
        Kept { object: object.clone(), file: document.file.clone(), lines }
    }

    /// Restores the location of an object that was recorded as `json`.
    pub fn place(&self, json: &str) -> Place {
        let recorded = serde_json::from_str(json).unwrap_or_default();
        let document = match &self.lines {
            Some(lines) => Document::parsed(self.file.clone(), lines.node(&recorded)),
            None => Document::new(self.file.clone(), None, ""),
        };
        Place { document: Arc::new(document), item: None }
    }
}

impl Lines {
    /// The lines of recorded fields; `first` is the line of the file at which the document starts.
    fn new(first: usize, line: usize, node: &Node, recorded: &Value) -> Lines {
        let here = narrow(first + line - 1);
        match (node, recorded) {
            (Node::Map(fields), Value::Object(known)) => {
                let known = fields.iter().filter_map(|field| Some((field, known.get(&field.name)?)));
                let lines = known
                    .map(|(field, value)| (field.name.clone(), Lines::new(first, field.line, &field.value, value)));
                Lines::Map(here, lines.collect())
            }
            (Node::List(items), Value::Array(known)) => {
                let lines = items
                    .iter()
                    .zip(known)
                    .map(|((line, item), value)| Lines::new(first, item.first_line().unwrap_or(*line), item, value));
                Lines::List(here, lines.collect())
            }
            _ => Lines::Value(here),
        }
    }

    fn node(&self, recorded: &Value) -> (usize, Node) {
        match self {
            Lines::Value(line) => {
                let text = recorded.as_str().map_or_else(|| recorded.to_string(), str::to_string);
                (wide(*line), Node::Scalar(text))
            }
            Lines::Map(line, fields) => {
                let field = |(name, lines): (&String, &Lines)| {
                    let (line, value) = lines.node(&recorded[name.as_str()]);
                    Field { name: name.clone(), line, value }
                };
                let mut fields: Vec<Field> = fields.iter().map(field).collect();
                fields.sort_by_key(|field| field.line);
                (wide(*line), Node::Map(fields))
            }
            Lines::List(line, items) => {
                let items = items.iter().enumerate().map(|(n, lines)| lines.node(&recorded[n]));
                (wide(*line), Node::List(items.collect()))
            }
        }
    }
}

fn narrow(line: usize) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX)
}

fn wide(line: u32) -> usize {
    usize::try_from(line).unwrap_or(usize::MAX).max(1)
}
