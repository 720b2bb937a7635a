//! The objects of one kind, in order.

use std::ops::Range;

use crate::kind::Object;

/// The objects of one kind, sorted by namespace and name.
#[derive(Debug)]
pub struct Table<T> {
    rows: Vec<T>,
}

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table { rows: Vec::new() }
    }
}

impl<T: Object> Table<T> {
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.rows.iter()
    }

    pub fn all(&self) -> &[T] {
        &self.rows
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<&T> {
        Some(&self.rows[self.position(namespace, name)?])
    }

    pub(crate) fn position(&self, namespace: &str, name: &str) -> Option<usize> {
        self.rows.binary_search_by(|row| (row.namespace(), row.name()).cmp(&(namespace, name))).ok()
    }

    /// The rows of one namespace, as a range of indexes.
    pub fn range(&self, namespace: &str) -> Range<usize> {
        let start = self.rows.partition_point(|row| row.namespace() < namespace);
        let end = start + self.rows[start..].partition_point(|row| row.namespace() == namespace);
        start..end
    }

    pub(crate) fn iter_mut(&mut self) -> std::slice::IterMut<'_, T> {
        self.rows.iter_mut()
    }

    pub(crate) fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        self.rows.retain(keep);
    }

    pub(crate) fn extend(&mut self, mut rows: Vec<T>) {
        if self.rows.is_empty() {
            self.rows = rows;
        } else {
            self.rows.append(&mut rows);
        }
    }

    pub(crate) fn append(&mut self, other: Table<T>) {
        self.extend(other.rows);
    }

    /// Sorts; of an object that came twice (it moved between two pages, or two files hold it) the last one counts.
    pub(crate) fn sort(&mut self) {
        fn key<T: Object>(row: &T) -> (&str, &str) {
            (row.namespace(), row.name())
        }
        // As an API server gives them, more often than not; sorting takes half as much memory again.
        if !self.rows.is_sorted_by(|a, b| key(a) <= key(b)) {
            self.rows.sort_by(|a, b| key(a).cmp(&key(b)));
        }
        self.rows.dedup_by(|later, earlier| {
            let same = (later.namespace(), later.name()) == (earlier.namespace(), earlier.name());
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
        self.rows.shrink_to_fit();
    }
}
