//! Keys of indexes. Hashes may collide: every hit must be compared with the actual values.

use std::hash::{DefaultHasher, Hash, Hasher};

pub(crate) fn hash(parts: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}
