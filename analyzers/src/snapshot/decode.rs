//! Decodes JSON into objects of the model.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::snapshot::coverage::Broken;
use crate::snapshot::kind::Kind;
use crate::snapshot::model::CustomResource;
use crate::snapshot::model::shared::sharing;
use crate::snapshot::object_ref::ObjectRef;
use crate::snapshot::objects::{Batch, Decoder, Object};

/// One page of a list.
#[derive(Debug)]
pub struct Page {
    pub batch: Batch,
    /// The token for the next page; empty on the last one.
    pub continue_token: String,
    pub resource_version: String,
    /// Items that could not be decoded.
    pub broken: Vec<Broken>,
}

/// Whether full objects or only their metadata were requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    Whole,
    MetadataOnly,
}

/// A response body that is not a list.
#[derive(Debug, thiserror::Error)]
#[error("cannot decode the list of {kind}: {source}")]
pub struct DecodeError {
    pub kind: Kind,
    pub source: serde_json::Error,
}

#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
struct List<T> {
    #[serde(default, deserialize_with = "null_as_default")]
    metadata: ListMeta,
    // A body without `items` is not a list: an error page, a truncated response, another API.
    #[serde(deserialize_with = "null_as_default")]
    items: Vec<T>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ListMeta {
    #[serde(rename = "continue", deserialize_with = "null_as_default")]
    continue_token: String,
    #[serde(deserialize_with = "null_as_default")]
    resource_version: String,
}

fn null_as_default<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

/// Reads one page of a list of one kind. Items that cannot be decoded are recorded in [`Page::broken`].
///
/// # Errors
/// If the body is not JSON, or not a list.
pub fn list_page(kind: Kind, body: &[u8], content: Content) -> Result<Page, DecodeError> {
    // Everything is parsed from text: parsers for bytes as well would make the binary half as large again.
    let decoded = text(body).and_then(|text| sharing(|| Batch::decode(kind, PageOf { kind, text, content })));
    let (batch, (metadata, broken)) = decoded.map_err(|source| DecodeError { kind, source })?;
    Ok(Page { batch, continue_token: metadata.continue_token, resource_version: metadata.resource_version, broken })
}

fn text(body: &[u8]) -> Result<&str, serde_json::Error> {
    str::from_utf8(body).map_err(serde::de::Error::custom)
}

/// One page of a list of a kind that has no type in the model, and the number of items that could not be decoded. Items
/// need not repeat the list's `apiVersion` and `kind`.
///
/// # Errors
/// If the body is not JSON, or not a list.
pub fn custom_page(
    api_version: &str,
    kind: &str,
    body: &[u8],
) -> Result<(Vec<CustomResource>, usize), serde_json::Error> {
    let list: List<Box<RawValue>> = serde_json::from_str(text(body)?)?;
    let mut broken = 0;
    let mut items = Vec::with_capacity(list.items.len());
    for item in list.items {
        match serde_json::from_str::<CustomResource>(item.get()) {
            Ok(item) if !item.metadata.name.is_empty() => {
                items.push(CustomResource { api_version: api_version.to_string(), kind: kind.to_string(), ..item });
            }
            _ => broken += 1,
        }
    }
    Ok((items, broken))
}

/// The token for the next page. API servers write the metadata before the items, so it is found without parsing the
/// items, and the next page can be requested while this one is decoded. `None` for a body that is not a list.
pub fn continue_token(body: &[u8]) -> Option<String> {
    struct UpToMetadata<'a>(&'a mut Option<ListMeta>);
    impl<'de> Visitor<'de> for UpToMetadata<'_> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                if key == "metadata" {
                    *self.0 = Some(map.next_value::<Option<ListMeta>>()?.unwrap_or_default());
                    return Ok(());
                }
                map.next_value::<IgnoredAny>()?;
            }
            *self.0 = Some(ListMeta::default());
            Ok(())
        }
    }
    let mut metadata = None;
    // Stopping early is an error for the parser ("trailing characters") that can be ignored.
    let _ = serde_json::Deserializer::from_slice(body).deserialize_map(UpToMetadata(&mut metadata));
    metadata.map(|m| m.continue_token)
}

struct PageOf<'a> {
    kind: Kind,
    text: &'a str,
    content: Content,
}

impl Decoder for PageOf<'_> {
    type Rest = (ListMeta, Vec<Broken>);
    type Error = serde_json::Error;

    fn decode<T: Object>(self) -> Result<(Vec<T>, Self::Rest), serde_json::Error> {
        let (metadata, mut items, mut broken) = match serde_json::from_str::<List<T>>(self.text) {
            Ok(list) => (list.metadata, list.items, Vec::new()),
            Err(_) => self.one_by_one::<T>()?,
        };
        items.retain(|item| {
            let named = !item.name().is_empty();
            if !named {
                let message = "no metadata.name".to_string();
                broken.push(Broken { kind: Some(self.kind), name: format!("unnamed {}", self.kind), message });
            }
            named
        });
        if self.content == Content::Whole {
            items.iter_mut().for_each(Object::read_whole);
        }
        Ok((items, (metadata, broken)))
    }
}

impl PageOf<'_> {
    /// Decodes items individually, for a page with an item that cannot be decoded.
    fn one_by_one<T: Object>(&self) -> Result<(ListMeta, Vec<T>, Vec<Broken>), serde_json::Error> {
        let list: List<Box<RawValue>> = serde_json::from_str(self.text)?;
        let (mut items, mut broken) = (Vec::with_capacity(list.items.len()), Vec::new());
        for (n, item) in list.items.iter().enumerate() {
            match serde_json::from_str::<T>(item.get()) {
                Ok(item) => items.push(item),
                Err(error) => broken.push(Broken {
                    kind: Some(self.kind),
                    name: name_of(item.get()).unwrap_or_else(|| format!("item {n} of the {} list", self.kind)),
                    message: error.to_string(),
                }),
            }
        }
        Ok((list.metadata, items, broken))
    }
}

/// A decoded object of any kind.
#[derive(Debug)]
pub enum Decoded {
    /// A kind that has a type in the model.
    Known(Batch),
    /// Any other kind.
    Custom(Box<CustomResource>),
}

impl Decoded {
    /// Whether it comes from a cluster, not from a manifest.
    pub fn is_live(&self) -> bool {
        match self {
            Decoded::Known(batch) => batch.any_live(),
            Decoded::Custom(custom) => custom.metadata.is_live(),
        }
    }

    /// A reference to the object.
    pub fn reference(&self) -> Option<ObjectRef> {
        match self {
            Decoded::Known(batch) => batch.references().into_iter().next(),
            Decoded::Custom(custom) => Some(custom.reference()),
        }
    }
}

/// Reads one object of the kind that its `apiVersion` and `kind` state. A namespaced object without a namespace gets
/// `default`, as with kubectl.
///
/// # Errors
/// If the object cannot be decoded. The error names the object, as far as possible.
pub fn object(json: &str) -> Result<Decoded, Broken> {
    object_in(json, "default")
}

/// Like [`object`], with another default namespace: the one of `kubectl apply -n`.
///
/// # Errors
/// Like [`object`].
pub fn object_in(json: &str, namespace: &str) -> Result<Decoded, Broken> {
    let broken = |kind, message: String| Broken { kind, name: name_of(json).unwrap_or_default(), message };
    let head: Head = serde_json::from_str(json).map_err(|error| broken(None, error.to_string()))?;
    if head.api_version.is_empty() || head.kind.is_empty() {
        return Err(broken(None, "not a Kubernetes object: no apiVersion and kind".to_string()));
    }
    if head.metadata.name.is_empty() {
        return Err(broken(Kind::from_api(&head.api_version, &head.kind), "no metadata.name".to_string()));
    }
    match Kind::from_api(&head.api_version, &head.kind) {
        Some(kind) => match Batch::decode(kind, One { json, namespace }) {
            Ok((batch, ())) => Ok(Decoded::Known(batch)),
            Err(error) => Err(broken(Some(kind), error.to_string())),
        },
        None => match serde_json::from_str(json) {
            Ok(custom) => Ok(Decoded::Custom(Box::new(custom))),
            Err(error) => Err(broken(None, error.to_string())),
        },
    }
}

struct One<'a> {
    json: &'a str,
    /// The namespace of an object without one.
    namespace: &'a str,
}

impl Decoder for One<'_> {
    type Rest = ();
    type Error = serde_json::Error;

    fn decode<T: Object>(self) -> Result<(Vec<T>, ()), serde_json::Error> {
        let mut object: T = serde_json::from_str(self.json)?;
        if T::KIND.api().namespaced && object.namespace().is_empty() {
            object.set_namespace(self.namespace);
        }
        object.read_whole();
        Ok((vec![object], ()))
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Head {
    #[serde(deserialize_with = "null_as_default")]
    api_version: String,
    #[serde(deserialize_with = "null_as_default")]
    kind: String,
    #[serde(deserialize_with = "null_as_default")]
    metadata: HeadMeta,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct HeadMeta {
    #[serde(deserialize_with = "null_as_default")]
    name: String,
    #[serde(deserialize_with = "null_as_default")]
    namespace: String,
}

/// `Pod shop/cart-0`, for an object whose kind and name can be read.
fn name_of(json: &str) -> Option<String> {
    let head: Head = serde_json::from_str(json).ok()?;
    let kind = if head.kind.is_empty() { "object" } else { &head.kind };
    match (head.metadata.namespace.as_str(), head.metadata.name.as_str()) {
        ("", "") => None,
        ("", name) => Some(format!("{kind} {name}")),
        (namespace, name) => Some(format!("{kind} {namespace}/{name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::continue_token;

    #[test]
    fn finds_the_continue_token_anywhere() {
        let token = |body: &str| continue_token(body.as_bytes());
        assert_eq!(token(r#"{"kind":"PodList","metadata":{"continue":"abc"},"items":[{"cut"#).as_deref(), Some("abc"));
        assert_eq!(
            token(r#"{"items":[{"metadata":{"continue":"no"}}],"metadata":{"continue":"x"}}"#).as_deref(),
            Some("x")
        );
        assert_eq!(token(r#"{"metadata":{"resourceVersion":"7"},"items":[]}"#).as_deref(), Some(""));
        assert_eq!(token(r#"{"metadata":null,"items":[]}"#).as_deref(), Some(""));
        assert_eq!(token("<html>"), None);
        assert_eq!(token("[1]"), None);
    }
}
