//! Source locations of objects and fields, used to report file and line of findings about manifests.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::sync::{Arc, OnceLock};

use granit_parser::{Event, Parser};
use kubectl_gpt_analyzers::{Finding, Location, ObjectRef};

use super::super::recorder::Identity;

/// The source locations of objects from manifests.
#[derive(Debug, Default)]
pub struct SourceMap {
    objects: BTreeMap<Identity, Place>,
}

/// The location of one object: an item of a document, or the whole document.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub document: Arc<Document>,
    pub item: Option<usize>,
}

/// One YAML or JSON document of a file.
#[derive(Debug)]
pub(super) struct Document {
    /// As in [`Location`].
    pub file: String,
    /// The line at which the document starts; `None` if lines are unknown, so that only the file can be reported.
    pub first_line: Option<usize>,
    pub text: String,
    /// The parsed document and its first line.
    tree: OnceLock<Option<(usize, Node)>>,
}

impl Document {
    pub fn new(file: String, first_line: Option<usize>, text: &str) -> Document {
        Document { file, first_line, text: text.to_string(), tree: OnceLock::new() }
    }

    /// A document of one object whose lines are known, counted from the start of the file.
    pub fn parsed(file: String, tree: (usize, Node)) -> Document {
        Document { file, first_line: Some(1), text: String::new(), tree: Some(tree).into() }
    }

    fn tree(&self) -> Option<&(usize, Node)> {
        self.tree.get_or_init(|| Node::parse(&self.text)).as_ref()
    }
}

impl SourceMap {
    pub(super) fn add(&mut self, object: &ObjectRef, place: Place) {
        self.objects.insert(object.into(), place);
    }

    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    pub(super) fn of(&self, object: &Identity) -> Option<&Place> {
        self.objects.get(object)
    }

    /// Sets the location of findings: the line of the field in the first evidence about the object, else the line of
    /// the object. A finding about a missing object gets the location of the first object in its evidence that has one.
    pub fn locate(&self, findings: &mut [Finding]) {
        for finding in findings {
            finding.location = self.location(finding);
        }
    }

    fn location(&self, finding: &Finding) -> Option<Location> {
        let about = |object: &ObjectRef| {
            let of_object = finding.evidence.iter().filter(|e| e.object.as_ref().is_some_and(|o| o.same_as(object)));
            of_object.filter_map(|evidence| evidence.path.clone()).next()
        };
        let evidence = finding.evidence.iter().filter_map(|evidence| evidence.object.as_ref());
        let mut objects = std::iter::once(&finding.object).chain(evidence);
        let (object, place) = objects.find_map(|object| Some((object, self.of(&object.into())?)))?;
        Some(place.location(about(object).as_deref().unwrap_or_default()))
    }
}

impl Place {
    /// The line of the field at this path, or of its deepest existing parent; a path in a pod is also looked up in the
    /// pod template.
    fn location(&self, path: &str) -> Location {
        let file = self.document.file.clone();
        let Some(first_line) = self.document.first_line else { return Location { file, line: 1 } };
        let line = self.object().map_or(1, |(line, object)| {
            const TEMPLATES: [&str; 3] = ["", "spec.template.", "spec.jobTemplate.spec.template."];
            let reached = TEMPLATES.map(|template| {
                let steps = steps(&format!("{template}{path}"));
                let (depth, line) = object.follow(&steps, line);
                // Steps of the template prefix do not count, so that the shorter path wins if neither exists.
                (depth.saturating_sub(template.matches('.').count()), line)
            });
            let deepest = reached.iter().map(|(depth, _)| *depth).max().unwrap_or_default();
            reached.iter().find(|(depth, _)| *depth == deepest).map_or(line, |(_, line)| *line)
        });
        Location { file, line: first_line + line - 1 }
    }

    /// The object and its line in the document.
    pub(super) fn object(&self) -> Option<(usize, &Node)> {
        let (line, root) = self.document.tree()?;
        let Some(n) = self.item else { return Some((*line, root)) };
        let items = match root {
            Node::Map(fields) => fields.iter().find(|field| field.name == "items").map(|field| &field.value)?,
            node => node,
        };
        let Node::List(items) = items else { return None };
        let (line, item) = items.get(n)?;
        Some((item.first_line().unwrap_or(*line), item))
    }
}

/// A parsed document with the lines of its fields, starting at 1.
#[derive(Debug)]
pub(super) enum Node {
    Map(Vec<Field>),
    List(Vec<(usize, Node)>),
    Scalar(String),
}

#[derive(Debug)]
pub(super) struct Field {
    pub name: String,
    pub line: usize,
    pub value: Node,
}

/// One step of a path: a field name, or an index or name in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    Item(String),
}

/// `spec.containers[app].env[A]`, `data[tls.crt]`.
fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix('[') {
            let (item, after) = inside.split_once(']').unwrap_or((inside, ""));
            steps.push(Step::Item(item.to_string()));
            rest = after;
        } else {
            rest = rest.strip_prefix('.').unwrap_or(rest);
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            steps.push(Step::Field(rest[..end].to_string()));
            rest = &rest[end..];
        }
    }
    steps
}

impl Node {
    /// Parses the first document of a text; `None` if the text is invalid. JSON is parsed as YAML.
    fn parse(text: &str) -> Option<(usize, Node)> {
        let options = granit_parser::options! { emit_comments: false };
        let mut events = Parser::new_from_str_with_options(text, options)
            .map_while(|event| event.ok().map(|(event, span)| (event, span.start.line())))
            .peekable();
        while matches!(events.peek()?.0, Event::StreamStart | Event::DocumentStart(..)) {
            events.next();
        }
        let (_, node) = Node::read(&mut events)?;
        Some((node.first_line()?, node))
    }

    fn read<'a>(events: &mut Peekable<impl Iterator<Item = (Event<'a>, usize)>>) -> Option<(usize, Node)> {
        let (event, line) = events.next()?;
        let node = match event {
            Event::Scalar(text, ..) => Node::Scalar(text.into_owned()),
            Event::MappingStart(..) => {
                let mut fields = Vec::new();
                while !matches!(events.peek()?.0, Event::MappingEnd) {
                    let (line, name) = Node::read(events)?;
                    let (_, value) = Node::read(events)?;
                    if let Node::Scalar(name) = name {
                        fields.push(Field { name, line, value });
                    }
                }
                events.next();
                Node::Map(fields)
            }
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                while !matches!(events.peek()?.0, Event::SequenceEnd) {
                    items.push(Node::read(events)?);
                }
                events.next();
                Node::List(items)
            }
            _ => Node::Scalar(String::new()),
        };
        Some((line, node))
    }

    pub fn first_line(&self) -> Option<usize> {
        match self {
            Node::Map(fields) => fields.first().map(|field| field.line),
            Node::List(items) => items.first().map(|(line, _)| *line),
            Node::Scalar(_) => None,
        }
    }

    /// The number of steps that exist, and the line of the last one.
    fn follow(&self, steps: &[Step], line: usize) -> (usize, usize) {
        let found = steps.split_first().and_then(|(step, rest)| Some((self.step(step)?, rest)));
        let Some(((line, node), rest)) = found else { return (0, line) };
        let (depth, line) = node.follow(rest, line);
        (depth + 1, line)
    }

    fn step(&self, step: &Step) -> Option<(usize, &Node)> {
        match (self, step) {
            (Node::Map(fields), Step::Field(name) | Step::Item(name)) => {
                fields.iter().find(|field| field.name == *name).map(|field| (field.line, &field.value))
            }
            (Node::List(items), Step::Item(item)) => {
                let named = || items.iter().position(|(_, node)| node.is_called(item));
                let (line, node) = items.get(item.parse().ok().or_else(named)?)?;
                Some((node.first_line().unwrap_or(*line), node))
            }
            _ => None,
        }
    }

    /// List items are identified by name, or by an equivalent field.
    fn is_called(&self, item: &str) -> bool {
        const NAMES: [&str; 3] = ["name", "type", "key"];
        let Node::Map(fields) = self else { return false };
        let is_name = |field: &Field| NAMES.contains(&field.name.as_str());
        fields.iter().any(|field| is_name(field) && matches!(&field.value, Node::Scalar(text) if text == item))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Document, Place};

    fn line(text: &str, item: Option<usize>, path: &str) -> usize {
        let document = Arc::new(Document::new("f".to_string(), Some(11), text));
        Place { document, item }.location(path).line - 10
    }

    const DEPLOYMENT: &str = "---
# a comment
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  template:
    spec:
      containers:
      - name: side
        image: x
      - image: y
        name: app
        env:
        - name: A
          value: b
  ports: [{name: http}, {name: grpc}]
data:
  tls.crt: x
";

    #[test]
    fn finds_fields() {
        for (path, expected) in [
            ("", 3),
            ("spec.template.spec.containers[app].env[A]", 16),
            ("spec.template.spec.containers[0].image", 12),
            ("spec.ports[grpc]", 18),
            ("data[tls.crt]", 20),
        ] {
            assert_eq!(line(DEPLOYMENT, None, path), expected, "{path}");
        }
    }

    #[test]
    fn pod_paths_are_found_in_the_template() {
        assert_eq!(line(DEPLOYMENT, None, "spec.containers[app].image"), 13);
        assert_eq!(line(DEPLOYMENT, None, "spec.containers[app].env[A].valueFrom"), 16);
    }

    #[test]
    fn missing_paths_give_the_line_of_the_object() {
        assert_eq!(line(DEPLOYMENT, None, "status.readyReplicas"), 3);
        assert_eq!(line("not: [closed", None, "not"), 1);
    }

    #[test]
    fn items_of_lists_in_yaml_and_json() {
        let yaml = "items:\n- kind: A\n  spec: {}\n- kind: B\n  spec: {}\n";
        assert_eq!(line(yaml, Some(1), ""), 4);
        assert_eq!(line(yaml, Some(1), "spec"), 5);
        let json = "{\n\t\"items\": [\n\t\t{\n\t\t\t\"kind\": \"A\\/\\ud83d\\ude00\"\n\t\t},\n\t\t{\n\t\t\t\"kind\": \"B\",\n\t\t\t\"spec\": {}\n\t\t}\n\t]\n}";
        assert_eq!(line(json, Some(1), "spec"), 8);
        assert_eq!(line("[\n{\"a\": 1},\n{\"b\": 1}]", Some(1), "b"), 3);
    }
}
