//! Full objects of the API, for user-defined rules.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::snapshot::coverage::GroupKind;
use crate::snapshot::kind::Kind;
use crate::snapshot::model::LAST_APPLIED;
use crate::snapshot::object_ref::ObjectRef;

/// A full object.
#[derive(Clone, Debug)]
pub struct RawObject {
    object: ObjectRef,
    json: Box<str>,
}

impl RawObject {
    /// From the JSON of an object, without what no rule needs (`managedFields`, the last applied configuration) and
    /// what must stay secret: of a Secret only its type and its metadata are kept. `None` for an object without a kind
    /// or a name.
    pub fn new(mut fields: Map<String, Value>) -> Option<RawObject> {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_string();
        let (api_version, kind) = (text(fields.get("apiVersion")), text(fields.get("kind")));
        let metadata = fields.get_mut("metadata")?.as_object_mut()?;
        metadata.remove("managedFields");
        if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
            annotations.remove(LAST_APPLIED);
        }
        let (namespace, name) = (text(metadata.get("namespace")), text(metadata.get("name")));
        if kind.is_empty() || name.is_empty() {
            return None;
        }
        if kind == "Secret" && api_version == "v1" {
            fields.retain(|key, _| matches!(key.as_str(), "apiVersion" | "kind" | "metadata" | "type" | "immutable"));
        }
        let namespace = (!namespace.is_empty()).then_some(namespace);
        let object = ObjectRef { api_version: api_version.into(), kind: kind.into(), namespace, name };
        Some(RawObject { object, json: Value::Object(fields).to_string().into() })
    }

    pub fn reference(&self) -> ObjectRef {
        self.object.clone()
    }

    /// The JSON of the object.
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.json).unwrap_or_default()
    }
}

/// Objects by kind, sorted.
#[derive(Clone, Debug, Default)]
pub struct RawObjects {
    kinds: BTreeMap<GroupKind, BTreeMap<(String, String), RawObject>>,
}

impl RawObjects {
    /// Adds an object; a later one replaces an earlier one of the same name.
    pub fn add(&mut self, object: RawObject) {
        let of = &object.object;
        let group = of.api_version.split_once('/').map_or("", |(group, _)| group);
        let kind = GroupKind { group: group.to_string(), kind: of.kind.to_string() };
        let key = (of.namespace().to_string(), of.name.clone());
        self.kinds.entry(kind).or_default().insert(key, object);
    }

    /// The objects of a kind, by namespace and name.
    pub fn of(&self, kind: &GroupKind) -> impl Iterator<Item = &RawObject> {
        self.kinds.get(kind).into_iter().flat_map(BTreeMap::values)
    }
}

/// A kind that a rule checks: `Pod`, `Deployment.apps`, or with a version `v1/Pod`, `apps/v1/Deployment`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KindName {
    pub group: String,
    /// Only objects in this version; `None` for any version.
    pub version: Option<String>,
    pub kind: String,
}

impl KindName {
    pub fn group_kind(&self) -> GroupKind {
        GroupKind { group: self.group.clone(), kind: self.kind.clone() }
    }

    /// The kind in the model, if it has one.
    pub fn known(&self) -> Option<Kind> {
        let is_meant = |kind: &&Kind| kind.api().group == self.group && kind.api().kind == self.kind;
        Kind::ALL.iter().find(is_meant).copied()
    }

    pub(crate) fn is_in(&self, api_version: &str) -> bool {
        let version = api_version.rsplit('/').next().unwrap_or_default();
        self.version.as_ref().is_none_or(|wanted| wanted == version)
    }
}

impl fmt::Display for KindName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.version, self.group.as_str()) {
            (None, "") => f.write_str(&self.kind),
            (None, group) => write!(f, "{}.{group}", self.kind),
            (Some(version), "") => write!(f, "{version}/{}", self.kind),
            (Some(version), group) => write!(f, "{group}/{version}/{}", self.kind),
        }
    }
}

impl FromStr for KindName {
    type Err = String;

    fn from_str(text: &str) -> Result<KindName, String> {
        let expected = || format!("expected a kind such as Pod, Deployment.apps or apps/v1/Deployment, found {text:?}");
        let (group, version, kind) = match text.split('/').collect::<Vec<_>>()[..] {
            [name] => match name.split_once('.') {
                Some((_, "")) => return Err(expected()),
                Some((kind, group)) => (group, None, kind),
                None => ("", None, name),
            },
            [version, kind] => ("", Some(version), kind),
            [group, version, kind] => (group, Some(version), kind),
            _ => return Err(expected()),
        };
        let is_kind =
            kind.starts_with(|c: char| c.is_ascii_uppercase()) && kind.chars().all(|c| c.is_ascii_alphanumeric());
        let is_label = |text: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c))
        };
        if !is_kind || !(group.is_empty() || is_label(group)) || !version.is_none_or(is_label) {
            return Err(expected());
        }
        Ok(KindName { group: group.to_string(), version: version.map(str::to_string), kind: kind.to_string() })
    }
}
