use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Annotations, Interned, Labels, SharedSlice, Uid, api_types};
use crate::snapshot::object_ref::ObjectRef;

/// A timestamp of the API (RFC 3339, UTC).
pub type Timestamp = jiff::Timestamp;

api_types! {
    /// The part of `metadata` that rules read.
    pub struct Meta {
        pub name: String,
        pub namespace: Interned,
        pub uid: Uid,
        pub generation: i64,
        pub labels: Labels,
        pub annotations: Annotations,
        pub owner_references: SharedSlice<OwnerReference>,
        pub finalizers: SharedSlice<String>,
        pub creation_timestamp: Option<Timestamp>,
        pub deletion_timestamp: Option<Timestamp>,
        pub deletion_grace_period_seconds: Option<i64>,
        #[serde(rename = "managedFields", skip_serializing)]
        pub data_written: DataWritten,
    }

    pub struct OwnerReference {
        pub api_version: String,
        pub kind: String,
        pub name: String,
        pub uid: Uid,
        pub controller: bool,
    }

    /// A condition of any kind. Fields that a kind does not have are empty.
    pub struct Condition {
        #[serde(rename = "type")]
        pub type_: Interned,
        pub status: Interned,
        pub reason: Interned,
        pub message: Interned,
        pub last_transition_time: Option<Timestamp>,
        #[serde(alias = "lastHeartbeatTime")]
        pub last_update_time: Option<Timestamp>,
        pub observed_generation: i64,
    }
}

/// When `data` was last written, according to `managedFields`; only ConfigMaps and Secrets have it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DataWritten(pub Option<Timestamp>);

/// One entry of `managedFields`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ManagedFields {
    time: Option<Timestamp>,
    fields_v1: HasData,
}

/// Whether a set of fields contains `data`.
#[derive(Default)]
struct HasData(bool);

impl<'de> Deserialize<'de> for DataWritten {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<DataWritten, D::Error> {
        let entries = Option::<Vec<ManagedFields>>::deserialize(deserializer)?.unwrap_or_default();
        Ok(DataWritten(entries.into_iter().filter(|entry| entry.fields_v1.0).filter_map(|entry| entry.time).max()))
    }
}

impl<'de> Deserialize<'de> for HasData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<HasData, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = HasData;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a set of fields")
            }

            fn visit_unit<E>(self) -> Result<HasData, E> {
                Ok(HasData(false))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<HasData, A::Error> {
                let mut has_data = false;
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    has_data |= key == "f:data";
                    map.next_value::<IgnoredAny>()?;
                }
                Ok(HasData(has_data))
            }
        }
        deserializer.deserialize_any(Fields)
    }
}

impl Meta {
    /// The owner that controls this object, if any.
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().find(|owner| owner.controller)
    }

    /// Whether the object comes from a cluster, not from a manifest.
    pub fn is_live(&self) -> bool {
        !self.uid.is_empty() || self.creation_timestamp.is_some()
    }
}

impl OwnerReference {
    /// The owner that an object in `namespace` refers to. A Node, the owner of static pods, has no namespace.
    pub fn object(&self, namespace: &str) -> ObjectRef {
        let is_node = self.kind == "Node" && self.api_version == "v1";
        ObjectRef {
            api_version: self.api_version.clone().into(),
            kind: self.kind.clone().into(),
            namespace: (!namespace.is_empty() && !is_node).then(|| namespace.to_string()),
            name: self.name.clone(),
        }
    }
}

impl Condition {
    pub fn is_true(&self) -> bool {
        self.status == "True"
    }

    pub fn is_false(&self) -> bool {
        self.status == "False"
    }
}

/// The condition of a type, if the object has it.
pub fn condition<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}
