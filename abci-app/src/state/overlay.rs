//! Tables and what a block changes in them.
//!
//! The committed [`Table`] is never touched while a block is computed: changes gather in an [`Overlay`] and are merged
//! at Commit, after they are durable.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::ops::Bound;

/// A committed table, ordered by key.
pub type Table<K, V> = BTreeMap<K, V>;

/// What a block changed in one table; `None` removes the row.
pub type Changes<K, V> = BTreeMap<K, Option<V>>;

/// A table with the changes of the block being computed on top.
#[derive(Debug)]
pub struct Overlay<'a, K, V> {
    base: &'a Table<K, V>,
    changes: Changes<K, V>,
}

impl<'a, K: Ord + Clone, V: Clone> Overlay<'a, K, V> {
    /// An overlay without changes.
    pub fn new(base: &'a Table<K, V>) -> Self {
        Self { base, changes: Changes::new() }
    }

    /// The row of `key` as it stands now.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        match self.changes.get(key) {
            Some(change) => change.as_ref(),
            None => self.base.get(key),
        }
    }

    /// Whether the block wrote any row.
    pub fn is_touched(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Whether `key` has a row.
    pub fn has(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// The row of `key` for changing; it is copied from the committed table the first time.
    pub fn edit(&mut self, key: &K) -> Option<&mut V> {
        if !self.changes.contains_key(key) {
            let row = self.base.get(key)?.clone();
            self.changes.insert(key.clone(), Some(row));
        }
        self.changes.get_mut(key)?.as_mut()
    }

    /// Writes a row.
    pub fn put(&mut self, key: K, row: V) {
        self.changes.insert(key, Some(row));
    }

    /// Removes a row.
    pub fn remove(&mut self, key: K) {
        self.changes.insert(key, None);
    }

    /// All rows in order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let mut base = self.base.iter().filter(|(k, _)| !self.changes.contains_key(*k)).peekable();
        let mut new = self.changes.iter().filter_map(|(k, v)| v.as_ref().map(|v| (k, v))).peekable();
        std::iter::from_fn(move || match (base.peek(), new.peek()) {
            (Some((a, _)), Some((b, _))) if a < b => base.next(),
            (_, Some(_)) => new.next(),
            (_, None) => base.next(),
        })
    }

    /// The rows from `first` to `last`, both included, in no promised order.
    pub fn range(&self, first: K, last: K) -> impl Iterator<Item = (&K, &V)> {
        let bounds = (Bound::Included(first), Bound::Included(last));
        let base = self.base.range(bounds.clone()).filter(|(k, _)| !self.changes.contains_key(*k));
        base.chain(self.changes.range(bounds).filter_map(|(k, v)| v.as_ref().map(|v| (k, v))))
    }

    /// What changed.
    pub fn into_changes(self) -> Changes<K, V> {
        self.changes
    }
}

/// Applies changes to a committed table.
pub fn merge<K: Ord, V>(table: &mut Table<K, V>, changes: Changes<K, V>) {
    for (key, change) in changes {
        match change {
            Some(row) => table.insert(key, row),
            None => table.remove(&key),
        };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn changes_are_seen_before_they_are_merged_and_the_base_is_not_touched() {
        let mut base = Table::from([(1, "a"), (2, "b"), (4, "d")]);
        let mut o = Overlay::new(&base);
        *o.edit(&2).unwrap() = "B";
        o.put(3, "c");
        o.remove(4);
        assert!(o.edit(&4).is_none() && o.edit(&9).is_none());
        assert_eq!(o.iter().collect::<Vec<_>>(), [(&1, &"a"), (&2, &"B"), (&3, &"c")]);
        let changes = o.into_changes();
        assert_eq!(base, Table::from([(1, "a"), (2, "b"), (4, "d")]));
        merge(&mut base, changes);
        assert_eq!(base, Table::from([(1, "a"), (2, "B"), (3, "c")]));
    }
}
