//! Keeps whole objects as they were read; built-in rules decode only part of each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kubectl_gpt_analyzers::snapshot::decode::Content;
use kubectl_gpt_analyzers::snapshot::{RawObject, RawObjects};
use kubectl_gpt_analyzers::{GroupKind, ObjectRef};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::redact::redact;

/// Keeps objects; clones share the same storage. A later version of an object replaces an earlier one.
#[derive(Clone, Debug)]
pub struct Recorder {
    keep: Arc<Keep>,
    objects: Arc<Mutex<Objects>>,
}

#[derive(Debug, Default)]
struct Objects {
    live: BTreeMap<Identity, Recorded>,
    /// From manifests that are not applied; these may be dropped later.
    unapplied: BTreeMap<Identity, Recorded>,
}

#[derive(Debug)]
enum Keep {
    /// All objects, without secret values.
    Redacted,
    /// Only these objects and objects of these kinds, unchanged.
    Only { objects: BTreeSet<Identity>, kinds: BTreeSet<GroupKind> },
    /// All objects, unchanged.
    Whole,
}

/// Identifies an object, independent of its API version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    pub group: String,
    pub kind: String,
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    pub name: String,
}

/// An object as it was read.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub json: String,
    /// Whether only its metadata was requested.
    pub metadata_only: bool,
}

impl From<&ObjectRef> for Identity {
    fn from(object: &ObjectRef) -> Identity {
        Identity {
            group: object.group().to_string(),
            kind: object.kind.to_string(),
            namespace: object.namespace().to_string(),
            name: object.name.clone(),
        }
    }
}

impl Identity {
    pub fn group_kind(&self) -> GroupKind {
        GroupKind { group: self.group.clone(), kind: self.kind.clone() }
    }
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    items: Option<Vec<Box<RawValue>>>,
}

impl Recorder {
    /// For a snapshot: without values of Secrets and other credentials.
    pub fn redacting() -> Recorder {
        Recorder::new(Keep::Redacted)
    }

    /// Keeps only these objects and objects of these kinds.
    pub fn only(objects: BTreeSet<Identity>, kinds: BTreeSet<GroupKind>) -> Recorder {
        Recorder::new(Keep::Only { objects, kinds })
    }

    /// Whether it needs whole objects of a kind, beyond what is read anyway.
    pub(super) fn wants(&self, kind: &GroupKind) -> bool {
        matches!(&*self.keep, Keep::Only { kinds, .. } if kinds.contains(kind))
    }

    /// Whether any object of a kind might be kept; most large lists are not needed.
    fn may_keep(&self, group: &str, kind: &str) -> bool {
        let Keep::Only { objects, kinds } = &*self.keep else { return true };
        kinds.iter().any(|wanted| wanted.group == group && wanted.kind == kind)
            || objects.iter().any(|wanted| wanted.group == group && wanted.kind == kind)
    }

    /// The kinds for which [`Recorder::wants`] is true.
    pub(super) fn wanted(&self) -> BTreeSet<GroupKind> {
        match &*self.keep {
            Keep::Only { kinds, .. } => kinds.clone(),
            Keep::Redacted | Keep::Whole => BTreeSet::new(),
        }
    }

    /// The objects kept so far of the wanted kinds, for custom rules.
    pub fn raw(&self) -> RawObjects {
        let (kinds, objects) = (self.wanted(), self.objects());
        let recorded = objects.live.iter().chain(&objects.unapplied);
        let wanted = recorded.filter(|(identity, _)| kinds.contains(&identity.group_kind()));
        let mut raw = RawObjects::default();
        for object in wanted.filter_map(|(_, recorded)| RawObject::new(serde_json::from_str(&recorded.json).ok()?)) {
            raw.add(object);
        }
        raw
    }

    pub fn whole() -> Recorder {
        Recorder::new(Keep::Whole)
    }

    fn new(keep: Keep) -> Recorder {
        Recorder { keep: Arc::new(keep), objects: Arc::default() }
    }

    /// Takes the kept objects, in order.
    pub fn take(&self) -> BTreeMap<Identity, Recorded> {
        let Objects { mut live, unapplied } = std::mem::take(&mut *self.objects());
        live.extend(unapplied);
        live
    }

    /// Drops manifests that are not applied.
    pub(super) fn drop_unapplied(&self) {
        self.objects().unapplied.clear();
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops the objects of a list that is restarted: deleted objects must not remain.
    pub(super) fn forget(&self, group: &str, kind: &str, namespace: Option<&str>) {
        self.retain(group, kind, namespace, |_| false);
    }

    /// Drops the objects of a kind, in all namespaces or in one, for which `keep` is false.
    pub(super) fn retain(&self, group: &str, kind: &str, namespace: Option<&str>, keep: impl Fn(&Identity) -> bool) {
        let is_of = |identity: &Identity| {
            identity.group == group
                && identity.kind == kind
                && namespace.is_none_or(|namespace| identity.namespace == namespace)
        };
        self.objects().live.retain(|identity, _| !is_of(identity) || keep(identity));
    }

    /// Keeps one page of a list of one kind; decoding errors are reported by the decoder.
    pub(super) fn page(&self, api_version: &str, kind: &str, body: &[u8], content: Content) {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        if !self.may_keep(group, kind) {
            return;
        }
        let Ok(list) = serde_json::from_slice::<List>(body) else { return };
        for item in list.items.into_iter().flatten() {
            self.item(api_version, kind, item.get(), content);
        }
    }

    /// Keeps one object of a list or a watch, which may lack apiVersion and kind.
    pub(super) fn item(&self, api_version: &str, kind: &str, json: &str, content: Content) {
        let Ok(mut object) = serde_json::from_str::<Map<String, Value>>(json) else { return };
        object.insert("apiVersion".to_string(), api_version.into());
        object.insert("kind".to_string(), kind.into());
        let metadata = |field: &str| object.get("metadata").and_then(|m| m[field].as_str()).unwrap_or_default();
        let identity = Identity {
            group: api_version.split_once('/').map_or("", |(group, _)| group).to_string(),
            kind: kind.to_string(),
            namespace: metadata("namespace").to_string(),
            name: metadata("name").to_string(),
        };
        self.keep(identity, object, content == Content::MetadataOnly, true);
    }

    /// Keeps a whole object in its resolved namespace; `is_live` if it comes from a cluster.
    pub(super) fn object(&self, called: &ObjectRef, json: &str, is_live: bool) {
        let Ok(mut object) = serde_json::from_str::<Map<String, Value>>(json) else { return };
        if let (Some(namespace), Some(Value::Object(metadata))) = (&called.namespace, object.get_mut("metadata")) {
            metadata.insert("namespace".to_string(), namespace.as_str().into());
        }
        self.keep(Identity::from(called), object, false, is_live);
    }

    fn keep(&self, identity: Identity, mut object: Map<String, Value>, metadata_only: bool, is_live: bool) {
        match &*self.keep {
            // No rule reads Normal events, and they are not requested from a cluster.
            Keep::Redacted if identity.kind == "Event" && object.get("type").is_some_and(|t| t == "Normal") => return,
            Keep::Redacted => redact(&mut object),
            Keep::Only { objects, kinds }
                if !objects.contains(&identity) && !kinds.contains(&identity.group_kind()) =>
            {
                return;
            }
            Keep::Only { .. } | Keep::Whole => {}
        }
        let recorded = Recorded { json: Value::Object(object).to_string(), metadata_only };
        let mut objects = self.objects();
        let of_its_kind = if is_live { &mut objects.live } else { &mut objects.unapplied };
        of_its_kind.insert(identity, recorded);
    }
}

#[cfg(test)]
mod tests {
    use kubectl_gpt_analyzers::snapshot::decode::Content;

    use super::Recorder;

    #[test]
    fn a_restarted_list_replaces_earlier_pages() {
        let recorder = Recorder::redacting();
        let page = |names: &[&str]| {
            let items = names.iter().map(|n| serde_json::json!({"metadata": {"name": n, "namespace": "shop"}}));
            let body = serde_json::json!({"items": items.collect::<Vec<_>>()}).to_string();
            recorder.page("v1", "Pod", body.as_bytes(), Content::Whole);
        };
        page(&["a", "b"]);
        recorder.forget("", "Pod", Some("other"));
        recorder.forget("", "Node", None);
        recorder.forget("", "Pod", Some("shop"));
        page(&["b"]);
        let kept: Vec<String> = recorder.take().into_keys().map(|identity| identity.name).collect();
        assert_eq!(kept, ["b"]);
    }
}
