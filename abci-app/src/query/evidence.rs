//! Evidence: proofs at a height, checkpoints with their cosignatures, and the operations that name an agency's sessions.

use concordat_protocol::cbor::{self, Bytes};
use concordat_protocol::evidence::{LeavesProof, LogProofs, MetaList, StateLeaves};
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::keys::KeyId;
use concordat_protocol::limits::{LOG_RANGE_MAX, PROOFS_MAX};
use concordat_protocol::node::{EntryProof, LeafProof, NodeReply, key_leaf_key, session_leaf_key};
use concordat_protocol::ops::{Tag, log_key};
use concordat_protocol::runs::{RunProof, run_key};
use concordat_protocol::tree::{SubtreeSource, inclusion_path_from};

use super::QueryError;
use crate::app::{App, Committed};
use crate::state::trees::Undo;
use crate::store::{HeightRow, Reader};
use crate::tiles::{Kept, Subtrees};

/// The trees at a height whose app hash stands in a header.
pub(super) struct At<'a> {
    pub(super) height: u64,
    pub(super) row: HeightRow,
    committed: &'a Committed,
    reader: &'a Reader<'a>,
}

impl<'a> At<'a> {
    pub(super) fn new(committed: &'a Committed, reader: &'a Reader<'a>, height: u64) -> Result<Self, QueryError> {
        let newest = committed.state.head.height;
        let provable = newest.checked_sub(1).ok_or_else(|| QueryError::NotYet("the chain has no block yet".into()))?;
        let height = if height == 0 { provable } else { height };
        if height > provable {
            return Err(QueryError::NotYet(format!("no header holds the app hash of height {height}")));
        }
        let row = reader.height(height)?;
        let row = row.ok_or_else(|| QueryError::NotFound(format!("height {height} is not kept")))?;
        Ok(Self { height, row, committed, reader })
    }

    /// What takes the newest blocks back to this height; nothing where a tree is the same as now.
    fn undo(&self, then: &Hash, now: &Hash) -> Result<Vec<&'a Undo>, QueryError> {
        if then == now {
            return Ok(Vec::new());
        }
        let newer = self.committed.state.head.height - self.height;
        let kept: Vec<&Undo> = self.committed.undo.iter().take(newer as usize).collect();
        if (kept.len() as u64) < newer {
            let reason = format!("rows of height {} are not kept in memory; use height 0", self.height);
            return Err(QueryError::NotYet(reason));
        }
        Ok(kept)
    }

    pub(super) fn meta_proof(&self, key: &[u8]) -> Result<Option<LeafProof>, QueryError> {
        let state = &self.committed.state;
        let undo = self.undo(&self.row.roots.meta, &state.trees.meta.root())?;
        Ok(state.trees.meta_proof(&state.tables, &undo, key))
    }

    /// The leaves of keys, which must be registered.
    fn keys(&self, keys: &[KeyId]) -> Result<Vec<LeafProof>, QueryError> {
        let proof = |id: &KeyId| {
            let leaf = self.meta_proof(&key_leaf_key(id))?;
            leaf.ok_or_else(|| QueryError::NotFound(format!("key {id} is not registered")))
        };
        keys.iter().map(proof).collect()
    }

    pub(super) fn heads_proof(&self, key: &[u8]) -> Result<Option<LeafProof>, QueryError> {
        let state = &self.committed.state;
        let undo = self.undo(&self.row.roots.heads, &state.trees.heads.root())?;
        Ok(state.trees.heads_proof(&state.tables, &undo, key))
    }

    pub(super) fn run_proof(&self, number: u64) -> Result<LeafProof, QueryError> {
        let size = self.row.runs;
        if number >= size {
            return Err(QueryError::NotYet(format!(
                "run {number} is not in state at height {}, which has {size}",
                self.height
            )));
        }
        let run = self.reader.run(number)?;
        let run = run.ok_or_else(|| QueryError::NotFound(format!("run {number} is not kept")))?;
        let path = inclusion_path_from(&Subtrees(&self.reader.run_tiles()), number, size)
            .map_err(|e| QueryError::NotFound(e.to_string()))?;
        let (key, value) = (run_key(number).to_vec().into(), cbor::encode(&run).into());
        Ok(LeafProof { key, value, index: number, size, path })
    }

    pub(super) fn log_proof(&self, index: u64) -> Result<LeafProof, QueryError> {
        self.log_proof_from(&Subtrees(self.reader), index)
    }

    /// The proof of an entry, its path out of a source of the log's subtrees.
    fn log_proof_from(&self, source: &impl SubtreeSource, index: u64) -> Result<LeafProof, QueryError> {
        let size = self.row.log_size;
        if index >= size {
            let reason = format!("op:{index} is not in the log of height {}, which has {size} entries", self.height);
            let later = index < self.committed.state.log.size();
            return Err(if later { QueryError::NotYet(reason) } else { QueryError::NotFound(reason) });
        }
        let entry = self.reader.entries(index, 1)?;
        let entry = entry.first().ok_or_else(|| QueryError::NotFound(format!("op:{index} is not kept")))?;
        let path = inclusion_path_from(source, index, size).map_err(|e| QueryError::NotFound(e.to_string()))?;
        let (key, value) = (log_key(index).to_vec().into(), cbor::encode(entry).into());
        Ok(LeafProof { key, value, index, size, path })
    }
}

/// A log entry with what a receipt needs beside it, all at one height.
pub(super) fn prove(
    app: &App,
    committed: &Committed,
    index: u64,
    height: u64,
    keys: &[KeyId],
    session: u64,
) -> Result<EntryProof, QueryError> {
    let reader = app.inner.store.reader()?;
    let at = At::new(committed, &reader, height)?;
    let entry = at.log_proof(index)?;
    let keys = at.keys(keys)?;
    let session = if session == 0 { None } else { at.heads_proof(&session_leaf_key(session))? };
    Ok(EntryProof { height: at.height, roots: at.row.roots.clone(), entry, keys, session })
}

/// Log entries at one height.
pub(super) fn proofs(app: &App, committed: &Committed, height: u64, indexes: &[u64]) -> Result<LogProofs, QueryError> {
    if indexes.len() > PROOFS_MAX {
        return Err(QueryError::Malformed(format!("{} entries are over {PROOFS_MAX}: ask in parts", indexes.len())));
    }
    let reader = app.inner.store.reader()?;
    let at = At::new(committed, &reader, height)?;
    let kept = Kept::new(&reader);
    let entries: Result<Vec<LeafProof>, QueryError> = indexes.iter().map(|i| at.log_proof_from(&kept, *i)).collect();
    Ok(LogProofs { height: at.height, roots: at.row.roots.clone(), entries: entries? })
}

/// Everything that a run holds under a tag.
pub(super) fn prove_run(
    app: &App,
    committed: &Committed,
    number: u64,
    tag: &Tag,
    height: u64,
) -> Result<RunProof, QueryError> {
    let reader = app.inner.store.reader()?;
    let at = At::new(committed, &reader, height)?;
    let run = at.run_proof(number)?;
    let count = reader.run(number)?.map_or(0, |run| run.count);
    let list = reader.list(number, count, tag)?;
    Ok(RunProof { height: at.height, roots: at.row.roots.clone(), run, list })
}

/// Leaves of keys and sessions at a height. A session that has no leaf there is left out: its slot was given again, or
/// it was opened later.
pub(super) fn leaves(
    app: &App,
    committed: &Committed,
    height: u64,
    keys: &[KeyId],
    sessions: &[u64],
) -> Result<LeavesProof, QueryError> {
    let asked = keys.len() + sessions.len();
    if asked > PROOFS_MAX {
        return Err(QueryError::Malformed(format!("{asked} leaves are over {PROOFS_MAX}: ask in parts")));
    }
    let reader = app.inner.store.reader()?;
    let at = At::new(committed, &reader, height)?;
    let keys = at.keys(keys)?;
    let sessions: Result<Vec<_>, _> = sessions.iter().map(|s| at.heads_proof(&session_leaf_key(*s))).collect();
    let sessions = sessions?.into_iter().flatten().collect();
    Ok(LeavesProof { height: at.height, roots: at.row.roots.clone(), keys, sessions })
}

/// All leaves of `meta` under a prefix at a height.
pub(super) fn meta_list(app: &App, committed: &Committed, height: u64, prefix: &[u8]) -> Result<MetaList, QueryError> {
    let reader = app.inner.store.reader()?;
    let at = At::new(committed, &reader, height)?;
    let state = &committed.state;
    let undo = at.undo(&at.row.roots.meta, &state.trees.meta.root())?;
    let (values, list) = state
        .trees
        .meta_list(&state.tables, &undo, prefix)
        .ok_or_else(|| QueryError::NotFound(format!("the meta tree of height {} has no such list", at.height)))?;
    Ok(MetaList { height: at.height, roots: at.row.roots.clone(), values, list })
}

/// Leaves of both state trees at a height; keys without one are left out.
pub(super) fn state_leaves(
    app: &App,
    committed: &Committed,
    height: u64,
    meta: &[Bytes],
    heads: &[Bytes],
) -> Result<StateLeaves, QueryError> {
    let asked = meta.len() + heads.len();
    if asked > PROOFS_MAX {
        return Err(QueryError::Malformed(format!("{asked} leaves are over {PROOFS_MAX}: ask in parts")));
    }
    let reader = app.inner.store.reader()?;
    let at = At::new(committed, &reader, height)?;
    let meta: Result<Vec<_>, _> = meta.iter().map(|k| at.meta_proof(k)).collect();
    let heads: Result<Vec<_>, _> = heads.iter().map(|k| at.heads_proof(k)).collect();
    let (meta, heads) = (meta?.into_iter().flatten().collect(), heads?.into_iter().flatten().collect());
    Ok(StateLeaves { height: at.height, roots: at.row.roots.clone(), meta, heads })
}

/// Checkpoints from a height on with who cosigned them; from height 0 the newest alone.
pub(super) fn checkpoints(app: &App, from_height: u64) -> Result<NodeReply, QueryError> {
    Ok(NodeReply::Checkpoints { body: app.inner.store.reader()?.checkpoints(from_height)? })
}

/// Operations that name sessions of an agency. What the store holds beyond the committed log is not shown yet.
pub(super) fn named(app: &App, committed: &Committed, agency: &AgencyId, from: u64) -> Result<NodeReply, QueryError> {
    let state = &committed.state;
    let row = state.tables.agencies.get(agency);
    let row = row.ok_or_else(|| QueryError::NotFound(format!("agency {agency} is not registered")))?;
    let (end, body) = app.inner.store.reader()?.named(row.number, from..state.log.size(), LOG_RANGE_MAX)?;
    Ok(NodeReply::Named { end, body })
}
