//! Parts that many objects of one page have in common: the pods of one ReplicaSet hardly differ except in their names.
//!
//! The objects of a large cluster would take several times the memory if each pod had its own copy of the same
//! environment, probes and labels. Parts with the same text are also parsed only once.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, Weak};

use arcstr::ArcStr;
use serde::de::{DeserializeOwned, Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use triomphe::ThinArc;

use super::ResourceList;
use crate::text::hash::hash;

/// A list that objects with an equal list share. It takes one machine word instead of two, because most lists are
/// empty.
pub struct SharedSlice<T>(Option<ThinArc<(), T>>);

/// Resource quantities that objects with equal quantities share.
#[derive(Clone, Default, PartialEq)]
pub struct SharedResourceList(Option<Arc<ResourceList>>);

/// Any other value that objects with an equal value share.
#[derive(Default, PartialEq)]
pub struct Shared<T>(Arc<T>);

/// An interned string: an often repeated value of the API (`Ready`, `True`, `ClusterFirst`), or a name that many
/// objects contain.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interned(ArcStr);

thread_local! {
    /// The parts that were read during [`sharing`], by type and JSON text.
    static READ: RefCell<Option<Read>> = const { RefCell::new(None) };
}

/// Longer texts are rarely equal, and would be kept twice until the page is read.
const MAX_TEXT: usize = 2048;

type Read = HashMap<TypeId, HashMap<Box<str>, Box<dyn Any>>>;

/// Stores equal parts of everything that `decode` reads on this thread only once. Calls must not be nested.
pub(crate) fn sharing<T>(decode: impl FnOnce() -> T) -> T {
    struct Forget;
    impl Drop for Forget {
        fn drop(&mut self) {
            READ.set(None);
        }
    }
    READ.set(Some(Read::new()));
    let _forget = Forget;
    decode()
}

/// Reads a part from its JSON text, or returns the part that was read from the same text before.
pub(super) fn once<'de, D, T>(
    deserializer: D,
    read: impl FnOnce(&'de str) -> Result<T, serde_json::Error>,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Clone + 'static,
{
    known_or_read(<&RawValue>::deserialize(deserializer)?.get(), MAX_TEXT, read)
}

fn known_or_read<'t, T, E>(
    text: &'t str,
    max_text: usize,
    read: impl FnOnce(&'t str) -> Result<T, serde_json::Error>,
) -> Result<T, E>
where
    T: Clone + 'static,
    E: Error,
{
    if text.len() > max_text {
        return read(text).map_err(E::custom);
    }
    let id = TypeId::of::<T>();
    let known = READ.with_borrow(|all| {
        let found = all.as_ref()?.get(&id)?.get(text)?;
        found.downcast_ref::<T>().cloned()
    });
    if let Some(known) = known {
        return Ok(known);
    }
    let value = read(text).map_err(E::custom)?;
    READ.with_borrow_mut(|all| {
        if let Some(all) = all {
            all.entry(id).or_default().insert(text.into(), Box::new(value.clone()));
        }
    });
    Ok(value)
}

/// Like [`once`], for JSON text that was preprocessed. Also searches the pool for an equal part.
pub(super) fn pooled<T, E>(text: &str, pool: &Pool<T>) -> Result<Shared<T>, E>
where
    T: DeserializeOwned + PartialEq + 'static,
    E: Error,
{
    /// Larger specs are unlikely to be shared by many pods.
    const MAX_TEXT: usize = 1 << 16;
    known_or_read(text, MAX_TEXT, |text| Ok(pool.only(text, serde_json::from_str(text)?)))
}

/// Weak references to parts in memory, to share them with equal parts on other pages or of other kinds.
pub(super) struct Pool<T>(Mutex<Pooled<T>>);

struct Pooled<T> {
    /// By the hash of the JSON text.
    parts: BTreeMap<u64, Weak<T>>,
    /// The number of parts at which unused ones are removed.
    limit: usize,
}

impl<T: PartialEq> Pool<T> {
    pub(super) const fn new() -> Pool<T> {
        Pool(Mutex::new(Pooled { parts: BTreeMap::new(), limit: 1024 }))
    }

    /// The value, or an equal one that is in use.
    fn only(&self, text: &str, value: T) -> Shared<T> {
        let Ok(mut pooled) = self.0.lock() else { return value.into() };
        if pooled.parts.len() >= pooled.limit {
            pooled.parts.retain(|_, part| part.strong_count() > 0);
            pooled.limit = 1024.max(2 * pooled.parts.len());
        }
        let known = pooled.parts.entry(hash(&[text])).or_default();
        if let Some(known) = known.upgrade().filter(|known| **known == value) {
            return Shared(known);
        }
        let value = Arc::new(value);
        *known = Arc::downgrade(&value);
        Shared(value)
    }
}

impl Interned {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn once(text: &str) -> Interned {
        /// Longer strings are mostly unique: messages, or files in annotations.
        const MAX_INTERNED: usize = 256;
        let create = || Interned(text.into());
        READ.with_borrow_mut(|all| match all {
            Some(all) if !text.is_empty() && text.len() <= MAX_INTERNED => {
                let words = all.entry(TypeId::of::<Interned>()).or_default();
                if let Some(word) = words.get(text).and_then(|known| known.downcast_ref::<Interned>()) {
                    return word.clone();
                }
                let word = create();
                words.insert(text.into(), Box::new(word.clone()));
                word
            }
            _ => create(),
        })
    }
}

impl Deref for Interned {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq<str> for Interned {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Interned {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl PartialEq<Interned> for String {
    fn eq(&self, other: &Interned) -> bool {
        self == other.as_str()
    }
}

impl PartialEq<Interned> for &str {
    fn eq(&self, other: &Interned) -> bool {
        *self == other.as_str()
    }
}

impl From<&str> for Interned {
    fn from(text: &str) -> Interned {
        Interned(text.into())
    }
}

impl fmt::Display for Interned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl fmt::Debug for Interned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl<'de> Deserialize<'de> for Interned {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Interned, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Interned;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E>(self, text: &str) -> Result<Interned, E> {
                Ok(Interned::once(text))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl<T> Default for SharedSlice<T> {
    fn default() -> SharedSlice<T> {
        SharedSlice(None)
    }
}

impl<T> Clone for SharedSlice<T> {
    fn clone(&self) -> SharedSlice<T> {
        SharedSlice(self.0.clone())
    }
}

impl<T> Deref for SharedSlice<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.0.as_deref().map_or(&[], |list| &list.slice)
    }
}

impl<'a, T> IntoIterator for &'a SharedSlice<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: PartialEq> PartialEq for SharedSlice<T> {
    fn eq(&self, other: &SharedSlice<T>) -> bool {
        **self == **other
    }
}

impl<T: fmt::Debug> fmt::Debug for SharedSlice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T> From<Vec<T>> for SharedSlice<T> {
    fn from(items: Vec<T>) -> SharedSlice<T> {
        SharedSlice((!items.is_empty()).then(|| ThinArc::from_header_and_iter((), items.into_iter())))
    }
}

impl<'de, T: DeserializeOwned + 'static> Deserialize<'de> for SharedSlice<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SharedSlice<T>, D::Error> {
        once(deserializer, |text| Ok(serde_json::from_str::<Vec<T>>(text)?.into()))
    }
}

impl Deref for SharedResourceList {
    type Target = ResourceList;

    fn deref(&self) -> &ResourceList {
        static NONE: ResourceList = BTreeMap::new();
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl<'a> IntoIterator for &'a SharedResourceList {
    type Item = <&'a ResourceList as IntoIterator>::Item;
    type IntoIter = <&'a ResourceList as IntoIterator>::IntoIter;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Debug for SharedResourceList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl From<ResourceList> for SharedResourceList {
    fn from(amounts: ResourceList) -> SharedResourceList {
        SharedResourceList((!amounts.is_empty()).then(|| Arc::new(amounts)))
    }
}

impl<'de> Deserialize<'de> for SharedResourceList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SharedResourceList, D::Error> {
        once(deserializer, |text| Ok(serde_json::from_str::<ResourceList>(text)?.into()))
    }
}

impl<T> From<T> for Shared<T> {
    fn from(value: T) -> Shared<T> {
        Shared(Arc::new(value))
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Shared<T> {
        Shared(self.0.clone())
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<'de, T: DeserializeOwned + 'static> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Shared<T>, D::Error> {
        once(deserializer, |text| Ok(Shared(Arc::new(serde_json::from_str(text)?))))
    }
}

impl Serialize for Interned {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<T: Serialize> Serialize for SharedSlice<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl Serialize for SharedResourceList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl<T: Serialize> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Interned, Pool, SharedSlice, sharing};
    use crate::snapshot::model::{Labels, Pod};

    #[test]
    fn equal_lists_are_kept_once_while_sharing() {
        let body = r#"[["a","b"],["a","b"],["c"],[]]"#;
        let lists: Vec<SharedSlice<String>> = sharing(|| serde_json::from_str(body).unwrap());
        assert_eq!(lists[0].as_ptr(), lists[1].as_ptr());
        assert_eq!(&*lists[2], ["c"]);
        assert!(lists[3].is_empty());
        let lists: Vec<SharedSlice<String>> = serde_json::from_str(body).unwrap();
        assert_eq!(lists[0], lists[1]);
        assert_ne!(lists[0].as_ptr(), lists[1].as_ptr());
    }

    #[test]
    fn a_pool_returns_parts_in_use() {
        let pool = Pool::new();
        let first = pool.only("a", 1);
        assert!(Arc::ptr_eq(&first.0, &pool.only("a", 1).0));
        // A hash collision must not return a different value.
        assert_eq!(*pool.only("a", 2), 2);
        for n in 0..5000 {
            drop(pool.only(&n.to_string(), n));
        }
        assert!(pool.0.lock().unwrap().parts.len() <= 1024);
        assert_eq!(*first, 1);
    }

    #[test]
    fn interned_strings_and_lists_take_one_machine_word() {
        assert_eq!((size_of::<Interned>(), size_of::<SharedSlice<String>>()), (size_of::<usize>(), size_of::<usize>()));
    }

    #[test]
    fn the_same_text_is_read_again_as_another_type() {
        let read =
            |text: &str| serde_json::from_str::<(SharedSlice<String>, SharedSlice<Box<str>>, Labels)>(text).unwrap();
        let (strings, boxes, labels) = sharing(|| read(r#"[["x"],["x"],{"x":"1"}]"#));
        assert_eq!((&*strings[0], &*boxes[0], labels.get("x")), ("x", "x", Some("1")));
    }

    #[test]
    fn errors_and_nulls_are_unchanged() {
        assert!(serde_json::from_str::<SharedSlice<String>>("[1]").is_err());
        let pod: Pod = serde_json::from_str(
            r#"{"metadata":{"labels":null,"ownerReferences":null},"spec":{"tolerations":null,"containers":[{"env":null,"resources":{"limits":null}}]}}"#,
        )
        .unwrap();
        assert!(pod.metadata.labels.is_empty() && pod.spec.tolerations.is_empty());
        assert!(pod.spec.containers[0].env.is_empty() && pod.spec.containers[0].resources.limits.is_empty());
    }
}
