//! The objects of all kinds: their common trait, and a table per kind.

use std::borrow::Cow;

use serde::de::DeserializeOwned;

use crate::snapshot::json;
use crate::snapshot::kind::{Kind, for_each_kind};
use crate::snapshot::model::{self, LabelSet, Timestamp};
use crate::snapshot::object_ref::ObjectRef;
use crate::snapshot::table::{Row, Table};

/// An object of the model, slim or k8s-openapi's: what all kinds have in common.
pub trait Object: Row + Sized + DeserializeOwned + Send + Sync + 'static {
    const KIND: Kind;

    fn name(&self) -> &str;
    /// Empty for cluster-scoped objects.
    fn namespace(&self) -> &str;
    fn uid(&self) -> Cow<'_, str>;
    fn labels(&self) -> &dyn LabelSet;
    fn annotation(&self, key: &str) -> Option<&str>;
    fn created(&self) -> Option<Timestamp>;
    /// `deletionTimestamp`: the end of its grace period.
    fn deleted(&self) -> Option<Timestamp>;
    fn finalizers(&self) -> &[String];
    fn controller(&self) -> Option<ObjectRef>;

    /// Sets the namespace of an object from a file that has none.
    fn set_namespace(&mut self, namespace: &str);
    /// Called for every object that was read in full, not as metadata only.
    fn read_whole(&mut self) {}

    /// The table of this kind.
    fn table(objects: &Objects) -> &Table<Self>;
    fn table_mut(objects: &mut Objects) -> &mut Table<Self>;

    fn reference(&self) -> ObjectRef {
        let namespace = (!self.namespace().is_empty()).then(|| self.namespace().to_string());
        ObjectRef::new(Self::KIND, namespace.as_deref().unwrap_or_default(), self.name())
    }

    /// Whether it comes from a cluster, not from a manifest.
    fn is_live(&self) -> bool {
        !self.uid().is_empty() || self.created().is_some()
    }
}

macro_rules! objects {
    ($(
        $kind:ident: $type:ident $flavour:tt, $field:ident,
        $group:literal [$($version:literal)+] $plural:literal [$($short:literal)*] $scope:ident
        $(, $flag:ident $([$($name:literal)+])?)*;
    )*) => {
        /// All objects, one table per kind.
        #[derive(Debug, Default)]
        pub struct Objects {
            $(pub(crate) $field: Table<model::$type>,)*
            pub(crate) custom: Vec<model::CustomResource>,
        }

        impl Objects {
            /// The total number of objects.
            pub fn len(&self) -> usize {
                self.custom.len() $(+ self.$field.len())*
            }

            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// The number of objects of one kind.
            pub fn count(&self, kind: Kind) -> usize {
                match kind {
                    $(Kind::$kind => self.$field.len(),)*
                }
            }

            /// Adds decoded objects.
            pub fn extend(&mut self, batch: Batch) {
                match batch {
                    $(Batch::$kind(items) => self.$field.extend(items),)*
                }
            }

            pub(crate) fn clear(&mut self, kind: Kind) {
                match kind {
                    $(Kind::$kind => self.$field.retain(|_| false),)*
                }
            }

            pub fn append(&mut self, other: Objects) {
                self.custom.extend(other.custom);
                $(self.$field.append(other.$field);)*
            }

            /// One object in the JSON form of the API, as far as the model holds it: without empty fields, and for a
            /// ConfigMap or a Secret with a list of the keys instead of the data.
            pub fn json(&self, kind: Kind, namespace: &str, name: &str) -> Option<serde_json::Value> {
                let json = match kind {
                    $(Kind::$kind => serde_json::to_value(self.$field.get(namespace, name)?),)*
                };
                json::complete(kind, json.ok()?)
            }

            /// Calls `visit` with every object of every kind: kind, namespace, name, UID, labels.
            pub fn each(&self, visit: &mut dyn FnMut(Kind, &str, &str, &str, &dyn LabelSet)) {
                $(for object in self.$field.iter() {
                    visit(Kind::$kind, object.namespace(), object.name(), &object.uid(), object.labels());
                })*
            }

            pub(crate) fn sort(&mut self) {
                $(self.$field.sort();)*
            }

            /// The names of the namespaces that contain objects of a kind.
            pub fn namespaces(&self, kind: Kind) -> std::collections::BTreeSet<String> {
                match kind {
                    $(Kind::$kind => self.$field.iter().map(|o| o.namespace().to_string()).collect(),)*
                }
            }

            /// The namespace of each object of a kind, in order.
            pub(crate) fn namespace_of_each(&self, kind: Kind) -> Box<dyn Iterator<Item = &str> + '_> {
                match kind {
                    $(Kind::$kind => Box::new(self.$field.iter().map(Object::namespace)),)*
                }
            }

            /// The indexes of the objects of a kind in one namespace.
            pub(crate) fn range(&self, kind: Kind, namespace: &str) -> std::ops::Range<usize> {
                match kind {
                    $(Kind::$kind => self.$field.range(namespace),)*
                }
            }

            /// The index of one object among those of its kind.
            pub(crate) fn position(&self, kind: Kind, namespace: &str, name: &str) -> Option<usize> {
                match kind {
                    $(Kind::$kind => self.$field.position(namespace, name),)*
                }
            }

            /// The labels of one object.
            pub(crate) fn labels(&self, kind: Kind, namespace: &str, name: &str) -> Option<&dyn LabelSet> {
                match kind {
                    $(Kind::$kind => self.$field.get(namespace, name).map(Object::labels),)*
                }
            }

            /// The value of an annotation of one object.
            pub(crate) fn annotation(&self, kind: Kind, namespace: &str, name: &str, key: &str) -> Option<&str> {
                match kind {
                    $(Kind::$kind => self.$field.get(namespace, name)?.annotation(key),)*
                }
            }

            /// All objects that have an annotation, with its value.
            pub(crate) fn annotated(&self, key: &str) -> Vec<(ObjectRef, &str)> {
                fn of<'a, T: Object>(table: &'a Table<T>, key: &str, found: &mut Vec<(ObjectRef, &'a str)>) {
                    found.extend(table.iter().filter_map(|o| Some((o.reference(), o.annotation(key)?))));
                }
                let mut found = Vec::new();
                $(of(&self.$field, key, &mut found);)*
                found
            }

            /// The objects without a controller that have an annotation, each with the value.
            pub(crate) fn annotated_by_hand(&self, key: &str) -> Vec<(ObjectRef, &str)> {
                let mut found = Vec::new();
                $(found.extend(self.$field.iter().filter_map(|object| {
                    let value = object.annotation(key)?;
                    object.controller().is_none().then(|| (object.reference(), value))
                }));)*
                found
            }

            /// Whether any object comes from a cluster, not from a manifest.
            pub fn any_live(&self) -> bool {
                self.custom.iter().any(|o| o.metadata.is_live()) $(|| self.$field.iter().any(Object::is_live))*
            }

            /// Drops the objects that come from manifests, and returns their number.
            pub(crate) fn drop_unapplied(&mut self) -> usize {
                let before = self.len();
                self.custom.retain(|o| o.metadata.is_live());
                $(self.$field.retain(Object::is_live);)*
                before - self.len()
            }

            /// The newest creation timestamp of any object.
            pub(crate) fn newest_created(&self) -> Option<Timestamp> {
                let custom = self.custom.iter().filter_map(|o| o.metadata.creation_timestamp).max();
                [custom $(, self.$field.iter().filter_map(Object::created).max())*].into_iter().flatten().max()
            }
        }

        /// Decoded objects of one kind.
        #[derive(Debug)]
        pub enum Batch {
            $($kind(Vec<model::$type>),)*
        }

        impl Batch {
            pub fn len(&self) -> usize {
                match self {
                    $(Batch::$kind(items) => items.len(),)*
                }
            }

            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// Whether any of them comes from a cluster, not from a manifest.
            pub fn any_live(&self) -> bool {
                match self {
                    $(Batch::$kind(items) => items.iter().any(Object::is_live),)*
                }
            }

            /// References to the objects, in order.
            pub fn references(&self) -> Vec<ObjectRef> {
                match self {
                    $(Batch::$kind(items) => items.iter().map(Object::reference).collect(),)*
                }
            }

            pub(crate) fn decode<D: Decoder>(kind: Kind, decoder: D) -> Result<(Batch, D::Rest), D::Error> {
                match kind {
                    $(Kind::$kind => decoder.decode::<model::$type>().map(|(items, rest)| (Batch::$kind(items), rest)),)*
                }
            }
        }

        impl Kind {
            /// Calls a visitor with the type of this kind.
            pub fn visit<V: KindVisitor>(self, visitor: V) -> V::Output {
                match self {
                    $(Kind::$kind => visitor.visit::<model::$type>(),)*
                }
            }
        }

        $(objects!(@object $flavour $kind $type $field);)*
    };

    (@object slim $kind:ident $type:ident $field:ident) => {
        objects!(@row $type);
        impl Object for model::$type {
            objects!(@slim $kind $field);
        }
    };
    (@object data $kind:ident $type:ident $field:ident) => {
        objects!(@row $type);
        impl Object for model::$type {
            objects!(@slim $kind $field);

            fn read_whole(&mut self) {
                model::$type::read_whole(self);
            }
        }
    };
    (@object route $kind:ident $type:ident $field:ident) => {
        objects!(@row $type);
        impl Object for model::$type {
            objects!(@table $kind $field);
            objects!(@meta (0.metadata));
        }
    };
    (@slim $kind:ident $field:ident) => {
        objects!(@table $kind $field);
        objects!(@meta (metadata));
    };
    (@table $kind:ident $field:ident) => {
        const KIND: Kind = Kind::$kind;

        fn table(objects: &Objects) -> &Table<Self> {
            &objects.$field
        }

        fn table_mut(objects: &mut Objects) -> &mut Table<Self> {
            &mut objects.$field
        }
    };
    (@meta ($($path:tt)+)) => {
        fn name(&self) -> &str {
            &self.$($path)+.name
        }

        fn namespace(&self) -> &str {
            &self.$($path)+.namespace
        }

        fn uid(&self) -> Cow<'_, str> {
            self.$($path)+.uid.text()
        }

        fn labels(&self) -> &dyn LabelSet {
            &self.$($path)+.labels
        }

        fn annotation(&self, key: &str) -> Option<&str> {
            self.$($path)+.annotations.get(key)
        }

        fn created(&self) -> Option<Timestamp> {
            self.$($path)+.creation_timestamp
        }

        fn deleted(&self) -> Option<Timestamp> {
            self.$($path)+.deletion_timestamp
        }

        fn finalizers(&self) -> &[String] {
            &self.$($path)+.finalizers
        }

        fn controller(&self) -> Option<ObjectRef> {
            self.$($path)+.controller().map(|owner| owner.object(&self.$($path)+.namespace))
        }

        fn set_namespace(&mut self, namespace: &str) {
            self.$($path)+.namespace = namespace.into();
        }
    };
    (@row $type:ident) => {
        impl Row for model::$type {
            fn key(&self) -> (&str, &str) {
                (self.namespace(), self.name())
            }
        }
    };
    (@object openapi $kind:ident $type:ident $field:ident) => {
        objects!(@row $type);
        impl Object for model::$type {
            objects!(@table $kind $field);

            fn name(&self) -> &str {
                self.metadata.name.as_deref().unwrap_or_default()
            }

            fn namespace(&self) -> &str {
                self.metadata.namespace.as_deref().unwrap_or_default()
            }

            fn uid(&self) -> Cow<'_, str> {
                self.metadata.uid.as_deref().unwrap_or_default().into()
            }

            fn labels(&self) -> &dyn LabelSet {
                &self.metadata.labels
            }

            fn annotation(&self, key: &str) -> Option<&str> {
                self.metadata.annotations.as_ref()?.get(key).map(String::as_str)
            }

            fn created(&self) -> Option<Timestamp> {
                self.metadata.creation_timestamp.as_ref().map(|t| t.0)
            }

            fn deleted(&self) -> Option<Timestamp> {
                self.metadata.deletion_timestamp.as_ref().map(|t| t.0)
            }

            fn finalizers(&self) -> &[String] {
                self.metadata.finalizers.as_deref().unwrap_or_default()
            }

            fn controller(&self) -> Option<ObjectRef> {
                let owner = self.metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true))?;
                Some(ObjectRef {
                    api_version: owner.api_version.clone().into(),
                    kind: owner.kind.clone().into(),
                    namespace: self.metadata.namespace.clone(),
                    name: owner.name.clone(),
                })
            }

            fn set_namespace(&mut self, namespace: &str) {
                self.metadata.namespace = Some(namespace.to_string());
            }

            /// Drops `managedFields`, which is most of an object and not used by any rule.
            fn read_whole(&mut self) {
                self.metadata.managed_fields = None;
            }
        }
    };
}
for_each_kind!(objects);

/// An operation on the type of a kind.
pub trait KindVisitor {
    type Output;
    fn visit<T: Object>(self) -> Self::Output;
}

impl Objects {
    /// The namespaces that contain a pod of this name. Also works on unsorted tables, while objects are still being
    /// read.
    pub fn namespaces_of_pod(&self, name: &str) -> Vec<String> {
        let mut namespaces: Vec<String> = self
            .pods
            .iter()
            .filter(|pod| pod.metadata.name == name)
            .map(|pod| pod.metadata.namespace.to_string())
            .collect();
        namespaces.sort();
        namespaces.dedup();
        namespaces
    }
}

/// Decodes objects of a kind that is known only at run time.
pub(crate) trait Decoder {
    type Rest;
    type Error;
    fn decode<T: Object>(self) -> Result<(Vec<T>, Self::Rest), Self::Error>;
}
