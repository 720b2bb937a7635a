//! References to objects.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

use crate::snapshot::kind::Kind;
use crate::text::safe;

/// A reference to an object, whether it exists or not.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    pub api_version: Cow<'static, str>,
    pub kind: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub name: String,
}

impl ObjectRef {
    /// `namespace` is empty for cluster-scoped objects.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> ObjectRef {
        ObjectRef {
            api_version: kind.api_version().into(),
            kind: kind.api().kind.into(),
            namespace: (!namespace.is_empty()).then(|| namespace.to_string()),
            name: name.to_string(),
        }
    }

    pub fn is(&self, kind: Kind) -> bool {
        self.kind == kind.api().kind
            && self.api_version.split_once('/').map_or("", |(group, _)| group) == kind.api().group
    }

    /// Whether both refer to the same object. The API version is not part of its identity.
    pub fn same_as(&self, other: &ObjectRef) -> bool {
        self.kind == other.kind
            && self.name == other.name
            && self.namespace() == other.namespace()
            && self.group() == other.group()
    }

    /// The API group; empty for the core group.
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// The namespace; empty for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }
}

impl ObjectRef {
    /// Kind and name: `Deployment cart`.
    pub fn title(&self) -> String {
        format!("{} {}", safe(&self.kind), safe(&self.name))
    }

    /// As a kubectl argument: `deployment/cart`.
    pub fn target(&self) -> String {
        format!("{}/{}", self.kind.to_lowercase(), self.name)
    }
}

/// `Deployment shop/cart`, `Node worker-1`.
impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {}/{}", safe(&self.kind), safe(namespace), safe(&self.name)),
            None => write!(f, "{} {}", safe(&self.kind), safe(&self.name)),
        }
    }
}
