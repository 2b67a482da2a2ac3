//! The trees of the state under the app hash, and what undoes a block's change to them.

use std::collections::BTreeMap;

use concordat_protocol::cbor::{self, Bytes, Canon, CborError, Dec, Enc};
use concordat_protocol::hash::Hash;
use concordat_protocol::node::{LeafProof, StoreRoots, key_leaf_key, session_leaf_key};
use concordat_protocol::tree::{AdjacentProof, SortedLeaf, SortedProof, inclusion_path, root, value_leaf};

#[path = "leaf_values.rs"]
mod leaf_values;

pub use leaf_values::{heads_value, meta_value};

use super::apply::Applied;
use super::rows::{Head, heads_key, meta_key};
use super::slots::{NodeChanges, SlotTree, SlotUndo};
use super::{Leaves, TableChanges, Tables, View, rows};

/// Names of the four stores, sorted: the simple map's order.
pub const STORES: [&str; 4] = ["heads", "log", "meta", "runs"];

/// The leaf hash of a slot that nothing uses.
fn free_leaf() -> Hash {
    value_leaf(b"free", b"free")
}

fn store_leaves(roots: &StoreRoots) -> Vec<Hash> {
    let values = [&roots.heads, &roots.log, &roots.meta, &roots.runs];
    STORES.iter().zip(values).map(|(name, value)| value_leaf(name.as_bytes(), value)).collect()
}

/// The app hash: CometBFT's simple map over the four roots.
pub fn app_hash(roots: &StoreRoots) -> Hash {
    root(&store_leaves(roots))
}

/// The root of a store and its path in the simple map.
pub fn store_path(roots: &StoreRoots, store: &str) -> Option<(Hash, usize, Vec<Hash>)> {
    let index = STORES.iter().position(|name| *name == store)?;
    let value = [roots.heads, roots.log, roots.meta, roots.runs][index];
    Some((value, index, inclusion_path(&store_leaves(roots), index)?))
}

/// The meta tree: leaf hashes by key, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetaTree {
    leaves: Leaves<Hash>,
    root: Option<Hash>,
}

impl MetaTree {
    /// The root.
    pub fn root(&self) -> Hash {
        self.root.unwrap_or_else(|| root(&[]))
    }

    /// The root after changes of leaves.
    fn preview(&self, changes: &Leaves<Option<Vec<u8>>>) -> Hash {
        if changes.is_empty() { self.root() } else { root(&self.with(changes).values().copied().collect::<Vec<_>>()) }
    }

    /// The leaves after changes.
    fn with(&self, changes: &Leaves<Option<Vec<u8>>>) -> Leaves<Hash> {
        let mut leaves = self.leaves.clone();
        for (key, value) in changes {
            match value {
                Some(value) => leaves.insert(key.clone(), value_leaf(key, value)),
                None => leaves.remove(key),
            };
        }
        leaves
    }
}

/// A changed leaf of the heads tree: its slot and value.
pub type HeadsLeaf = (u64, Vec<u8>);

/// The leaves of both trees that a block changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeafChanges {
    /// Meta leaves by key; `None` removes.
    pub meta: Leaves<Option<Vec<u8>>>,
    /// Heads leaves by key; `None`: the slot is free now.
    pub heads: Leaves<Option<HeadsLeaf>>,
    /// Nodes of the heads tree.
    pub nodes: NodeChanges,
    /// Root of the meta tree after the block.
    pub meta_root: Hash,
    /// Root of the heads tree after the block.
    pub heads_root: Hash,
}

/// What the trees held before a block, where the block changed it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Undo {
    /// Height of the block.
    pub height: u64,
    meta: Leaves<Option<Vec<u8>>>,
    heads: Leaves<Option<HeadsLeaf>>,
    slots: SlotUndo,
}

impl Undo {
    /// Leaves and nodes that it holds.
    pub fn weight(&self) -> usize {
        self.meta.len() + self.heads.len() + self.slots.nodes.len()
    }
}

impl Canon for Undo {
    fn put(&self, e: &mut Enc) {
        let bytes = |b: &Vec<u8>| Bytes(b.clone());
        let meta: Vec<_> = self.meta.iter().map(|(k, v)| (bytes(k), v.as_ref().map(bytes))).collect();
        let slot = |(slot, value): &HeadsLeaf| (*slot, bytes(value));
        let heads: Vec<_> = self.heads.iter().map(|(k, v)| (bytes(k), v.as_ref().map(slot))).collect();
        let nodes: Vec<_> = self.slots.nodes.iter().map(|(at, hash)| (*at, *hash)).collect();
        ((self.height, self.slots.len), (meta, (heads, nodes))).put(e);
    }

    fn get(d: &mut Dec<'_>) -> Result<Self, CborError> {
        type Meta = Vec<(Bytes, Option<Bytes>)>;
        type Heads = Vec<(Bytes, Option<(u64, Bytes)>)>;
        type Nodes = Vec<((u8, u64), Hash)>;
        let ((height, len), (meta, (heads, nodes))) = <((u64, u64), (Meta, (Heads, Nodes)))>::get(d)?;
        Ok(Self {
            height,
            meta: meta.into_iter().map(|(k, v)| (k.0, v.map(|v| v.0))).collect(),
            heads: heads.into_iter().map(|(k, v)| (k.0, v.map(|(slot, v)| (slot, v.0)))).collect(),
            slots: SlotUndo { len, nodes: nodes.into_iter().collect() },
        })
    }
}

/// The meta and heads trees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trees {
    /// Agencies, keys, datasets, agreements, parameters.
    pub meta: MetaTree,
    /// Writers, sessions, quotas, dataset heads, subscriptions.
    pub heads: SlotTree,
}

impl Trees {
    /// Builds both trees from all rows.
    pub fn build(head: &Head, tables: &Tables) -> Self {
        let mut slots = vec![free_leaf(); usize::try_from(head.slots).unwrap_or_default()];
        let everything = as_changes(tables);
        for (key, leaf) in heads_leaves(&everything) {
            if let Some((slot, value)) = leaf
                && let Some(place) = slots.get_mut(slot as usize)
            {
                *place = value_leaf(&key, &value);
            }
        }
        let meta = MetaTree::default().with(&meta_leaves(&everything));
        let root = root(&meta.values().copied().collect::<Vec<_>>());
        Self { meta: MetaTree { leaves: meta, root: Some(root) }, heads: SlotTree::from_leaves(slots) }
    }

    /// What a block's changes of rows do to both trees, beside them.
    pub fn preview(&self, changes: &TableChanges, freed: &[u64]) -> LeafChanges {
        let (meta, heads) = (meta_leaves(changes), heads_leaves(changes));
        let mut slots: BTreeMap<u64, Hash> = freed.iter().map(|slot| (*slot, free_leaf())).collect();
        slots.extend(
            heads.iter().filter_map(|(key, leaf)| leaf.as_ref().map(|(slot, value)| (*slot, value_leaf(key, value)))),
        );
        let meta_root = self.meta.preview(&meta);
        let (heads_root, nodes) = self.heads.preview(&slots);
        LeafChanges { meta, heads, nodes, meta_root, heads_root }
    }

    /// What undoes a block's changes; `before` are the tables without them.
    pub fn undo(&self, before: &Tables, applied: &Applied) -> Undo {
        let leaves = &applied.leaves;
        let meta = leaves.meta.keys().map(|key| (key.clone(), meta_value(before, key))).collect();
        let heads = leaves.heads.keys().map(|key| (key.clone(), heads_value(before, key))).collect();
        Undo { height: applied.head.height, meta, heads, slots: self.heads.undo(&leaves.nodes) }
    }

    /// Takes a block's changes in.
    pub fn merge(&mut self, leaves: LeafChanges) {
        if !leaves.meta.is_empty() {
            self.meta.leaves = self.meta.with(&leaves.meta);
        }
        self.meta.root = Some(leaves.meta_root);
        self.heads.merge(leaves.nodes);
    }

    /// The leaf of a meta key as it was before `undo` (newest block first), with its path.
    pub fn meta_proof(&self, tables: &Tables, undo: &[&Undo], key: &[u8]) -> Option<LeafProof> {
        let value = meta_then(tables, undo, key)?;
        let leaves = self.meta_leaves_then(undo);
        let index = leaves.keys().position(|k| k == key)?;
        let hashes: Vec<Hash> = leaves.into_values().collect();
        let path = inclusion_path(&hashes, index)?;
        Some(LeafProof {
            key: key.to_vec().into(),
            value: value.into(),
            index: index as u64,
            size: hashes.len() as u64,
            path,
        })
    }

    /// The leaf hashes of the meta tree as they were before `undo` (newest block first).
    fn meta_leaves_then(&self, undo: &[&Undo]) -> Leaves<Hash> {
        let mut tree = self.meta.clone();
        for u in undo.iter().filter(|u| !u.meta.is_empty()) {
            tree.leaves = tree.with(&u.meta);
        }
        tree.leaves
    }

    /// All meta leaves under a prefix as they were before `undo` (newest block first): their values, and the proof that
    /// there are no others.
    pub fn meta_list(&self, tables: &Tables, undo: &[&Undo], prefix: &[u8]) -> Option<(Vec<Bytes>, SortedProof)> {
        let leaves = self.meta_leaves_then(undo);
        let keys: Vec<&Vec<u8>> = leaves.keys().collect();
        let first = keys.partition_point(|k| k.as_slice() < prefix);
        let count = keys.iter().skip(first).take_while(|k| k.starts_with(prefix)).count();
        let (from, to) = (first.saturating_sub(1), keys.len().min(first + count + 1));
        let value = |key: &Vec<u8>| meta_then(tables, undo, key);
        let leaf = |at: usize| keys.get(at).and_then(|k| Some(SortedLeaf::new(k, &value(k)?)));
        let values: Vec<Bytes> =
            keys.iter().skip(first).take(count).map(|k| value(k).map(Bytes)).collect::<Option<_>>()?;
        let found: Vec<SortedLeaf> = (first..first + count).map(leaf).collect::<Option<_>>()?;
        let hashes: Vec<Hash> = leaves.values().copied().collect();
        let size = hashes.len() as u64;
        let adjacent = AdjacentProof::prove_from(hashes.as_slice(), from as u64, (to - from) as u64, size).ok()?;
        let before = first.checked_sub(1).and_then(leaf);
        Some((values, SortedProof { before, found, after: leaf(first + count), adjacent }))
    }

    /// The leaf of a heads key as it was before `undo` (newest block first), with its path.
    pub fn heads_proof(&self, tables: &Tables, undo: &[&Undo], key: &[u8]) -> Option<LeafProof> {
        let old = undo.iter().rev().find_map(|u| u.heads.get(key));
        let (slot, value) = old.cloned().unwrap_or_else(|| heads_value(tables, key))?;
        let slots: Vec<&SlotUndo> = undo.iter().map(|u| &u.slots).collect();
        let size = slots.last().map_or(self.heads.len(), |u| u.len);
        let path = self.heads.path_before(&slots, slot)?;
        Some(LeafProof { key: key.to_vec().into(), value: value.into(), index: slot, size, path })
    }
}

/// The value of a meta leaf as it was before `undo` (newest block first).
fn meta_then(tables: &Tables, undo: &[&Undo], key: &[u8]) -> Option<Vec<u8>> {
    let old = undo.iter().rev().find_map(|u| u.meta.get(key));
    old.cloned().unwrap_or_else(|| meta_value(tables, key))
}

fn as_changes(tables: &Tables) -> TableChanges {
    let empty = Tables::default();
    let mut view = View::new(&empty);
    macro_rules! copy { ($($t:ident),*) => { $(for (k, v) in &tables.$t { view.$t.put(k.clone(), v.clone()); })* } }
    copy!(agencies, keys, datasets, agreements, params, equivocations);
    copy!(epochs, root_pending, ballots, upgrades, disputes, double_promises, role_maps);
    copy!(writers, sessions, quotas, dataset_heads, subscriptions);
    view.into_changes()
}

fn meta_leaves(c: &TableChanges) -> Leaves<Option<Vec<u8>>> {
    let mut out = Leaves::new();
    for (k, v) in &c.agencies {
        out.insert(meta_key::agency(k), v.as_ref().map(cbor::encode));
    }
    for (k, v) in &c.keys {
        out.insert(key_leaf_key(k), v.as_ref().map(cbor::encode));
    }
    for (k, v) in &c.datasets {
        out.insert(meta_key::dataset(k), v.as_ref().map(cbor::encode));
    }
    for ((id, version), v) in &c.agreements {
        out.insert(meta_key::agreement(id, *version), v.as_ref().map(|v| rows::agreement_leaf(&v.view)));
    }
    for (k, v) in &c.params {
        out.insert(meta_key::param(k), v.as_ref().map(cbor::encode));
    }
    for ((writer, incarnation), v) in &c.equivocations {
        out.insert(meta_key::equivocation(writer, *incarnation), v.as_ref().map(cbor::encode));
    }
    governance_leaves(c, &mut out);
    out
}

/// Leaves of what all agencies decide together, and of what they accuse one another of.
fn governance_leaves(c: &TableChanges, out: &mut Leaves<Option<Vec<u8>>>) {
    for (n, v) in &c.epochs {
        out.insert(meta_key::epoch(*n), v.as_ref().map(|row| cbor::encode(&row.body)));
    }
    for (k, v) in &c.root_pending {
        out.insert(meta_key::root_pending(k), v.as_ref().map(cbor::encode));
    }
    for (k, v) in &c.ballots {
        out.insert(meta_key::ballot(k), v.as_ref().map(cbor::encode));
    }
    for (k, v) in &c.upgrades {
        out.insert(meta_key::upgrade(*k), v.as_ref().map(cbor::encode));
    }
    for (k, v) in &c.disputes {
        out.insert(meta_key::dispute(*k), v.as_ref().map(cbor::encode));
    }
    for (k, v) in &c.role_maps {
        out.insert(meta_key::role_map(k), v.as_ref().map(cbor::encode));
    }
    for ((sub, sub_seq), v) in &c.double_promises {
        out.insert(meta_key::double_promise(sub, *sub_seq), v.as_ref().map(cbor::encode));
    }
}

fn writer_leaf(v: &rows::WriterRow) -> HeadsLeaf {
    (v.slot, cbor::encode(&((v.key_id, v.incarnation), (v.last_seq, v.last_hash))))
}

fn heads_leaves(c: &TableChanges) -> Leaves<Option<HeadsLeaf>> {
    let mut out = Leaves::new();
    for (k, v) in &c.writers {
        out.insert(heads_key::writer(k), v.as_ref().map(writer_leaf));
    }
    for (k, v) in &c.sessions {
        out.insert(session_leaf_key(*k), v.as_ref().map(|v| (v.slot, cbor::encode(&v.leaf()))));
    }
    for (k, v) in &c.quotas {
        out.insert(heads_key::quota(k), v.as_ref().map(|v| (v.slot, cbor::encode(&(v.period, v.used)))));
    }
    for (k, v) in &c.dataset_heads {
        out.insert(heads_key::dataset(*k), v.as_ref().map(|v| (v.slot, cbor::encode(&v.head))));
    }
    for (k, v) in &c.subscriptions {
        out.insert(heads_key::subscription(k), v.as_ref().map(|v| (v.slot, cbor::encode(&v.last_sub_seq))));
    }
    out
}
