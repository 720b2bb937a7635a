//! The sorted objects of one kind.

use std::ops::Range;

/// A row of a table, with its sort key.
pub trait Row {
    /// Namespace (empty for objects of cluster scope) and name.
    fn key(&self) -> (&str, &str);
}

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

impl<T: Row> Table<T> {
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
        self.rows.binary_search_by(|row| row.key().cmp(&(namespace, name))).ok()
    }

    /// The rows of one namespace, as a range of indexes.
    pub fn range(&self, namespace: &str) -> Range<usize> {
        let start = self.rows.partition_point(|row| row.key().0 < namespace);
        let end = start + self.rows[start..].partition_point(|row| row.key().0 == namespace);
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

    /// Sorts the rows. Of duplicate objects (on two pages of a list, or in two files) the last one is kept.
    pub(crate) fn sort(&mut self) {
        fn key<T: Row>(row: &T) -> (&str, &str) {
            row.key()
        }
        // API servers mostly return objects in this order.
        if !self.rows.is_sorted_by(|a, b| key(a) <= key(b)) {
            let keys: Vec<(&str, &str)> = self.rows.iter().map(key).collect();
            let mut places = target_indexes(&keys);
            for row in 0..self.rows.len() {
                while places[row] != row {
                    let place = places[row];
                    self.rows.swap(row, place);
                    places.swap(row, place);
                }
            }
        }
        self.rows.dedup_by(|later, earlier| {
            let same = later.key() == earlier.key();
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
        self.rows.shrink_to_fit();
    }
}

/// The target index of each row. Rows are large and of many types: sorting keys instead of rows is compiled once for
/// all types and needs no second copy of the rows.
fn target_indexes(keys: &[(&str, &str)]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by_key(|row| keys[*row]);
    let mut places = vec![0; keys.len()];
    for (place, row) in order.into_iter().enumerate() {
        places[row] = place;
    }
    places
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Row, Table};
    use crate::snapshot::Object;
    use crate::snapshot::model::Pod;

    fn pod(namespace: &str, name: &str, uid: usize) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.namespace = namespace.into();
        pod.metadata.name = name.to_string();
        pod.metadata.uid = uid.to_string().as_str().into();
        pod
    }

    proptest! {
        #[test]
        fn sorted_by_namespace_and_name_keeping_the_last_of_duplicates(names in prop::collection::vec("[ab]{0,2}/[a-c-]{1,3}", 0..40)) {
            let names: Vec<(&str, &str)> = names.iter().filter_map(|name| name.split_once('/')).collect();
            let mut table = Table::default();
            table.extend(names.iter().enumerate().map(|(n, (namespace, name))| pod(namespace, name, n)).collect());
            table.sort();
            let last: std::collections::BTreeMap<_, _> = names.iter().enumerate().map(|(n, name)| (*name, n)).collect();
            let found: Vec<_> = table.iter().map(|pod| (pod.key(), pod.uid().to_string())).collect();
            let wanted: Vec<_> = last.into_iter().map(|(name, n)| (name, n.to_string())).collect();
            prop_assert_eq!(found, wanted);
        }
    }
}
