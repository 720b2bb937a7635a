//! Keys of indexes. Hashes may collide: a hit is always compared with the real thing.

use std::hash::{DefaultHasher, Hash, Hasher};

pub(crate) fn hash(parts: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}
