//! The snapshot that rules check: its kinds and their model, decoding, coverage, and indexes and lookups over all
//! objects.

mod cluster;
mod coverage;
pub mod decode;
mod derived;
mod json;
mod kind;
pub mod model;
mod object_json;
mod object_ref;
mod objects;
mod owner;
mod quantity;
mod raw;
mod selector;
mod table;
mod workload;

pub use cluster::{Builder, Cluster, ContainerLog, Lookup, Now, Origin};
pub use coverage::{Broken, Coverage, Extent, Gap, GroupKind, NotEvaluated, Reason};
pub use kind::{Api, Kind};
pub use object_ref::ObjectRef;
pub use objects::{Batch, KindVisitor, Object, Objects};
pub use owner::PodGroup;
pub(crate) use owner::share_spec;
pub use quantity::Amount;
pub use raw::{KindName, RawObject, RawObjects};
pub use selector::Selector;
pub(crate) use selector::{LabelIndex, SelectorIndex};
pub use table::{Row, Table};
pub use workload::Workload;
