//! JSON and YAML: single or multiple documents, objects and lists.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use kubectl_gpt_analyzers::ObjectRef;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::kept::Kept;
use super::source_map::{Document, Place};
use super::{Reader, helm};

/// The source of a text.
#[derive(Clone, Debug)]
pub(super) struct Text {
    /// For messages: the path, or `standard input`.
    pub name: String,
    /// For findings: the path, or `-`.
    pub file: String,
    /// Whether it was found in a directory, which may contain other files.
    pub in_folder: bool,
}

impl Text {
    pub fn new(name: &str, file: &str) -> Text {
        Text { name: name.to_string(), file: file.to_string(), in_folder: false }
    }
}

/// A v1 List, or a list of one kind.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline<'a> {
    #[serde(default)]
    api_version: Option<String>,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default, borrow)]
    items: Option<Vec<&'a RawValue>>,
    #[serde(default)]
    metadata: Option<OutlineMeta>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct OutlineMeta {
    name: Option<serde_json::Value>,
}

/// One document of a text, stored only when the location of an object in it is needed.
struct Part<'a> {
    text: &'a Text,
    source: &'a str,
    /// The line at which it starts in the file, from 1.
    first_line: usize,
    document: OnceCell<Arc<Document>>,
}

impl<'a> Part<'a> {
    fn new(text: &'a Text, source: &'a str, first_line: usize) -> Part<'a> {
        Part { text, source, first_line, document: OnceCell::new() }
    }

    fn place(&self, item: Option<usize>) -> Place {
        let document = self.document.get_or_init(|| Arc::new(self.document()));
        Place { document: Arc::clone(document), item }
    }

    /// Lines of standard input are not useful, but `helm template` states the template of each document.
    fn document(&self) -> Document {
        match helm::source(self.source).filter(|_| self.text.file == "-") {
            Some(template) => Document::new(template.to_string(), None, self.source),
            None => Document::new(self.text.file.clone(), Some(self.first_line), self.source),
        }
    }
}

/// Decodes UTF-8.
///
/// # Errors
/// When the bytes are not UTF-8.
pub(super) fn utf8<'a>(bytes: &'a [u8], name: &str) -> Result<&'a str> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        anyhow!(
            "reading {name}: not a text file (invalid UTF-8 at byte {at}); expected Kubernetes objects in JSON or YAML"
        )
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

impl Reader {
    /// Reads objects in JSON or YAML.
    pub(super) fn text(&mut self, text: &Text, content: &str) -> Result<()> {
        match content.trim_start().chars().next() {
            None => Ok(()),
            Some('{' | '[') if !starts_with_template(content) => self.json(text, content),
            Some(_) => self.yaml(text, content),
        }
    }

    /// Reads one or more concatenated JSON documents.
    fn json(&mut self, text: &Text, content: &str) -> Result<()> {
        let mut documents = serde_json::Deserializer::from_str(content).into_iter::<&RawValue>();
        let (mut start, mut line) = (0, 1);
        while let Some(document) = documents.next() {
            let document = document.map_err(|error| not_json(&text.name, &error))?.get();
            let end = documents.byte_offset();
            let begin = end - document.len();
            line += content[start..begin].matches('\n').count();
            start = begin;
            self.document(document, &Part::new(text, document, line))?;
        }
        Ok(())
    }

    /// Reads YAML documents separated by `---`; an invalid one is recorded, the others are read.
    fn yaml(&mut self, text: &Text, content: &str) -> Result<()> {
        let mut problems = Vec::new();
        let mut read = 0;
        for (line, document) in yaml_documents(content) {
            match serde_saphyr::from_str::<serde_json::Value>(document) {
                Ok(serde_json::Value::Null) => {}
                Ok(value @ (serde_json::Value::Object(_) | serde_json::Value::Array(_))) => {
                    if helm::is_template(&value) {
                        return Err(unrendered(&text.name, line, document));
                    }
                    read += 1;
                    self.document(&value.to_string(), &Part::new(text, document, line))?;
                }
                Ok(_) | Err(_) if document.contains("{{") => return Err(unrendered(&text.name, line, document)),
                Ok(_) => problems.push((line, "plain text, not an object".to_string())),
                Err(error) => problems.push((line, first_line(&error))),
            }
        }
        if read == 0 && !problems.is_empty() {
            let (name, (line, problem)) = (&text.name, &problems[0]);
            bail!("reading {name}: expected Kubernetes objects in JSON or YAML: document at line {line}: {problem}");
        }
        for (line, message) in problems {
            self.broken(format!("document at line {line} of {}", text.name), message);
        }
        Ok(())
    }

    fn document(&mut self, json: &str, part: &Part) -> Result<()> {
        if is_foreign(json, part.text) {
            return Ok(());
        }
        let not_json = |error| not_json(&part.text.name, &error);
        if json.starts_with('[') {
            let items: Vec<&RawValue> = serde_json::from_str(json).map_err(not_json)?;
            self.items(items, None, part);
            return Ok(());
        }
        let outline: Outline = serde_json::from_str(json).map_err(not_json)?;
        let kind = outline.kind.unwrap_or_default();
        let is_named = outline.metadata.is_some_and(|metadata| metadata.name.is_some());
        match outline.items {
            Some(items) if kind == "List" || kind.is_empty() => {
                self.lists += 1;
                self.items(items, None, part);
            }
            // A response of the API, such as a PodList, whose items have no apiVersion and kind.
            items if kind.ends_with("List") && !is_named => {
                self.lists += 1;
                let api_version = outline.api_version.unwrap_or_default();
                self.items(items.unwrap_or_default(), Some((&api_version, kind.trim_end_matches("List"))), part);
            }
            _ => self.object(json, 0, part.text, |_| Some(part.place(None))),
        }
        Ok(())
    }

    fn items(&mut self, items: Vec<&RawValue>, of: Option<(&str, &str)>, part: &Part) {
        for (n, item) in items.into_iter().enumerate() {
            let place = |_: &ObjectRef| Some(part.place(Some(n)));
            match of {
                None => self.object(item.get(), n, part.text, place),
                Some((api_version, kind)) => {
                    self.object(&with_type(item.get(), api_version, kind), n, part.text, place)
                }
            }
        }
    }

    /// Reads a v1 List of a snapshot, with the source locations stored next to it.
    pub(super) fn list_in_snapshot(&mut self, text: &Text, content: &str, kept: &[Kept]) -> Result<()> {
        let outline: Outline = serde_json::from_str(content).map_err(|error| not_json(&text.name, &error))?;
        self.lists += 1;
        for (n, item) in outline.items.unwrap_or_default().into_iter().enumerate() {
            let place = |object: &ObjectRef| {
                let found = kept.binary_search_by(|kept| kept.object.cmp(&object.into())).ok()?;
                Some(kept[found].place(item.get()))
            };
            self.object(item.get(), n, text, place);
        }
        Ok(())
    }

    /// Reads objects of one kind, which is determined by the layout: an object, an array or a list.
    pub(super) fn list_of(&mut self, api_version: &str, kind: &str, content: &str, name: &str) -> Result<()> {
        let text = Text::new(name, name);
        let mut documents: Vec<Cow<str>> = Vec::new();
        match content.trim_start().chars().next() {
            None => return Ok(()),
            Some('{' | '[') => documents.push(content.into()),
            Some(_) => {
                for (line, document) in yaml_documents(content) {
                    match serde_saphyr::from_str::<serde_json::Value>(document) {
                        Ok(value) => documents.push(value.to_string().into()),
                        Err(error) => self.broken(format!("document at line {line} of {name}"), first_line(&error)),
                    }
                }
            }
        }
        self.lists += 1;
        for json in documents {
            let malformed = |error| not_json(name, &error);
            let items: Vec<&RawValue> = if json.trim_start().starts_with('[') {
                serde_json::from_str(&json).map_err(malformed)?
            } else if json.trim() == "null" {
                Vec::new()
            } else {
                let outline: Outline = serde_json::from_str(&json).map_err(malformed)?;
                let is_named = outline.metadata.is_some_and(|metadata| metadata.name.is_some());
                match outline.items {
                    None if is_named => vec![serde_json::from_str(&json).map_err(malformed)?],
                    items => items.unwrap_or_default(),
                }
            };
            for (n, item) in items.into_iter().enumerate() {
                self.object(&with_type(item.get(), api_version, kind), n, &text, |_| None);
            }
        }
        Ok(())
    }
}

// Whether a file in a directory is not a Kubernetes object: values of a chart, a kustomization, output of other tools.
fn is_foreign(json: &str, text: &Text) -> bool {
    let Ok(outline) = serde_json::from_str::<Outline>(json) else { return false };
    let api_version = outline.api_version.unwrap_or_default();
    let untyped = api_version.is_empty() && outline.kind.is_none() && outline.items.is_none();
    api_version.starts_with("kustomize.config.k8s.io/") || (text.in_folder && untyped)
}

/// `{{ if … }}` at the start is not JSON.
fn starts_with_template(content: &str) -> bool {
    content.trim_start().starts_with("{{")
}

fn unrendered(name: &str, first_line: usize, document: &str) -> anyhow::Error {
    let line = document.lines().position(|line| line.contains("{{")).unwrap_or_default() + first_line;
    anyhow!(
        "reading {name}: line {line} contains a template action ({{{{ … }}}}); render the template first: helm template \
         CHART | kubectl-gpt analyze -f -"
    )
}

/// Splits a YAML stream into documents, each with its first line, starting at 1. `---` at the start of a line is always
/// a separator: text in a block scalar is indented (YAML 1.2, 9.1.2).
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

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Typed<'a> {
    #[serde(default, borrow)]
    api_version: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    kind: Option<Cow<'a, str>>,
}

/// Adds the apiVersion and kind of a typed list to an item.
fn with_type<'a>(json: &'a str, api_version: &str, kind: &str) -> Cow<'a, str> {
    let Ok(typed) = serde_json::from_str::<Typed>(json) else { return json.into() };
    let is_given = |field: &Option<Cow<str>>| field.as_ref().is_some_and(|text| !text.is_empty());
    if is_given(&typed.api_version) && is_given(&typed.kind) {
        return json.into();
    }
    let Ok(mut object) = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(json) else {
        return json.into();
    };
    object.insert("apiVersion".to_string(), api_version.into());
    object.insert("kind".to_string(), kind.into());
    serde_json::Value::Object(object).to_string().into()
}

fn not_json(name: &str, error: &serde_json::Error) -> anyhow::Error {
    let what = if error.is_eof() { "unexpected end of JSON, the file is truncated" } else { "invalid JSON" };
    anyhow!("reading {name}: {what}: {error}")
}

/// The first line of the parser's message, without the source excerpt.
fn first_line(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_string()
}
