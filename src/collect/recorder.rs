//! Keeps objects as they were read: rules decode only a part of each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kubectl_gpt_analyzers::snapshot::decode::Content;
use kubectl_gpt_analyzers::snapshot::{RawObject, RawObjects};
use kubectl_gpt_analyzers::{GroupKind, ObjectRef};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::redact::redact;

/// Keeps objects; its clones keep them in the same place. A later version of an object replaces an earlier one.
#[derive(Clone, Debug)]
pub struct Recorder {
    keep: Arc<Keep>,
    objects: Arc<Mutex<Objects>>,
}

#[derive(Debug, Default)]
struct Objects {
    live: BTreeMap<Identity, Recorded>,
    /// Of manifests that nobody applied yet; they may be left out in the end.
    unapplied: BTreeMap<Identity, Recorded>,
}

#[derive(Debug)]
enum Keep {
    /// Every object, without what is secret.
    Redacted,
    /// Only these objects and those of these kinds, as they are.
    Only { objects: BTreeSet<Identity>, kinds: BTreeSet<GroupKind> },
    /// Every object, as it is.
    Whole,
}

/// One object, whatever its version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    pub group: String,
    pub kind: String,
    /// Empty for objects of cluster scope.
    pub namespace: String,
    pub name: String,
}

/// An object as it was read.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub json: String,
    /// Whether only its metadata was asked for.
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
    /// For a snapshot: without the values of Secrets and the like.
    pub fn redacting() -> Recorder {
        Recorder::new(Keep::Redacted)
    }

    /// Of everything that is read, only these objects and those of these kinds.
    pub fn only(objects: BTreeSet<Identity>, kinds: BTreeSet<GroupKind>) -> Recorder {
        Recorder::new(Keep::Only { objects, kinds })
    }

    /// Whether it is for the objects of a kind as a whole, and not for what is read of them anyway.
    pub(super) fn wants(&self, kind: &GroupKind) -> bool {
        matches!(&*self.keep, Keep::Only { kinds, .. } if kinds.contains(kind))
    }

    /// Whether any object of a kind could be kept: most lists are large, and of no interest.
    fn may_keep(&self, group: &str, kind: &str) -> bool {
        let Keep::Only { objects, kinds } = &*self.keep else { return true };
        kinds.iter().any(|wanted| wanted.group == group && wanted.kind == kind)
            || objects.iter().any(|wanted| wanted.group == group && wanted.kind == kind)
    }

    /// The kinds of which [`Recorder::wants`] is true.
    pub(super) fn wanted(&self) -> BTreeSet<GroupKind> {
        match &*self.keep {
            Keep::Only { kinds, .. } => kinds.clone(),
            Keep::Redacted | Keep::Whole => BTreeSet::new(),
        }
    }

    /// What was kept so far of the kinds that it wants, for the rules that users write.
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

    /// What was kept, in order.
    pub fn take(&self) -> BTreeMap<Identity, Recorded> {
        let Objects { mut live, unapplied } = std::mem::take(&mut *self.objects());
        live.extend(unapplied);
        live
    }

    /// Forgets manifests that nobody applied yet.
    pub(super) fn drop_unapplied(&self) {
        self.objects().unapplied.clear();
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a list that is begun again: what is gone by then must not stay.
    pub(super) fn forget(&self, group: &str, kind: &str, namespace: Option<&str>) {
        self.retain(group, kind, namespace, |_| false);
    }

    /// Forgets the objects of a kind, in all namespaces or in one, that are not to be kept.
    pub(super) fn retain(&self, group: &str, kind: &str, namespace: Option<&str>, keep: impl Fn(&Identity) -> bool) {
        let is_of = |identity: &Identity| {
            identity.group == group
                && identity.kind == kind
                && namespace.is_none_or(|namespace| identity.namespace == namespace)
        };
        self.objects().live.retain(|identity, _| !is_of(identity) || keep(identity));
    }

    /// One page of a list of one kind; what cannot be understood is told by whoever decodes it.
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

    /// One object of a list or a stream, which need not say what it is.
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

    /// A whole object, in the namespace that it was taken for; `is_live` if it comes from a cluster.
    pub(super) fn object(&self, called: &ObjectRef, json: &str, is_live: bool) {
        let Ok(mut object) = serde_json::from_str::<Map<String, Value>>(json) else { return };
        if let (Some(namespace), Some(Value::Object(metadata))) = (&called.namespace, object.get_mut("metadata")) {
            metadata.insert("namespace".to_string(), namespace.as_str().into());
        }
        self.keep(Identity::from(called), object, false, is_live);
    }

    fn keep(&self, identity: Identity, mut object: Map<String, Value>, metadata_only: bool, is_live: bool) {
        match &*self.keep {
            // No rule reads these, and a cluster is not even asked for them.
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
    fn a_list_that_is_begun_again_leaves_nothing_behind() {
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
