//! Entries of the log with a proof of each, all under one header.

use super::listing::{ListError, Listing};
use crate::ledger::LedgerError;
use concordat_protocol::cbor;
use concordat_protocol::codes::Verdict;
use concordat_protocol::hash::Hash;
use concordat_protocol::node::StoreRoots;
use concordat_protocol::ops::{LogEntry, Op, log_key};
use concordat_protocol::receipt::{CheckpointPart, Path, app_hash};
use concordat_protocol::tree::{TreeError, value_leaf};
use std::collections::BTreeSet;

/// Proven entries.
#[derive(Debug, Clone)]
pub struct Proven {
    /// Height of the state that they are proven in.
    pub height: u64,
    /// Its roots.
    pub roots: StoreRoots,
    /// Its app hash, which the header of the next height carries.
    pub app_hash: Hash,
    /// That header with its votes, packed as for a receipt.
    pub header: Vec<u8>,
    /// The validators that voted.
    pub validators: Vec<u8>,
    /// Who cosigned the state; none where no final checkpoint is of it.
    pub checkpoint: Option<CheckpointPart>,
    /// The entries, by index.
    pub entries: Vec<(u64, LogEntry)>,
    /// Their canonical bytes with their paths to the log's root.
    pub paths: Vec<(u64, Vec<u8>, Path)>,
}

impl Listing {
    /// These entries of the log, as they are proven at the newest height that covers them. Those that no header covers yet
    /// are left out.
    pub async fn proven(&self, indexes: &BTreeSet<u64>) -> Result<Proven, ListError> {
        // A final checkpoint, where it covers them all; else the newest header.
        let at = match self.checkpoint().await? {
            Some(at) if indexes.last().is_none_or(|last| *last < at.log_size) => at,
            _ => self.newest().await?,
        };
        let covered = indexes.iter().copied().filter(|i| *i < at.log_size).collect();
        let logged = self.logged(&covered, at.height).await?;
        let (mut entries, mut paths) = (Vec::with_capacity(logged.len()), Vec::with_capacity(logged.len()));
        for (index, entry, path) in logged {
            let bytes = cbor::encode(&entry);
            let bad = |e| ListError::Proof(index, e);
            let root = path.root(&value_leaf(&log_key(index), &bytes)).map_err(bad)?;
            if root != at.roots.log {
                return Err(bad(TreeError::Order("the path does not lead to the log's root")));
            }
            paths.push((index, bytes, path));
            entries.push((index, entry));
        }
        let app_hash = app_hash(&at.roots);
        let (header, validators) = (at.header, at.validators);
        let checkpoint = at.checkpoint;
        Ok(Proven { height: at.height, roots: at.roots, app_hash, header, validators, checkpoint, entries, paths })
    }

    /// The operation of an entry that the ledger refused; none of another.
    pub async fn refused(&self, index: u64) -> Result<Option<Op>, ListError> {
        let found = self.node.log(index, 1).await?;
        let Some(entry) = found.first().filter(|e| e.verdict == Verdict::Refused) else { return Ok(None) };
        Ok(cbor::decode(&self.body(index, entry).await?).ok())
    }

    pub(super) async fn newest(&self) -> Result<State, ListError> {
        let first = self.node.proof(0, 0, vec![], 0).await?;
        let (header, validators) = self.header(first.height, &first.roots).await?;
        let log_size = first.entry.size;
        if log_size == 0 {
            return Err(LedgerError::Protocol("the log is empty".into()).into());
        }
        Ok(State { height: first.height, roots: first.roots, log_size, header, validators, checkpoint: None })
    }
}

/// A state that entries are proven in.
pub(super) struct State {
    pub(super) height: u64,
    pub(super) roots: StoreRoots,
    pub(super) log_size: u64,
    pub(super) header: Vec<u8>,
    pub(super) validators: Vec<u8>,
    pub(super) checkpoint: Option<CheckpointPart>,
}
