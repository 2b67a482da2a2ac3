//! What the node answers: its own agency's questions, and stock proofs over `abci_query`.

use bytes::Bytes;
use concordat_protocol::cbor;
use concordat_protocol::codes;
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::{AgencyId, WriterId};
use concordat_protocol::keys::KeyId;
use concordat_protocol::limits::LOG_RANGE_MAX;
use concordat_protocol::node::{
    DatasetView, EntryProof, Frame, HeadView, LeafProof, NodeReply, NodeRequest, WriterView, key_leaf_key,
    session_leaf_key,
};
use concordat_protocol::ops::{Tag, log_key};
use concordat_protocol::runs::{RunProof, run_key};
use concordat_protocol::tree::{SortedProof, inclusion_path_from, value_leaf};
use prost::Message;
use tendermint_proto::v0_38::abci::{RequestQuery, ResponseQuery};
use tendermint_proto::v0_38::crypto::{Proof, ProofOp, ProofOps, ValueOp};

use crate::app::{App, Committed};
use crate::state::trees::{Undo, app_hash, heads_value, meta_value, store_path};
use crate::state::{APP_VERSION, State};
use crate::store::{HeightRow, Reader, StoreError};
use crate::tiles::Subtrees;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// There is no proof yet; the next block brings one.
    #[error("{0}: ask again after the next block")]
    NotYet(String),
    /// The question is not understood.
    #[error("{0}")]
    Malformed(String),
}

impl QueryError {
    /// Code of the registry.
    pub fn code(&self) -> u16 {
        match self {
            Self::Store(_) | Self::NotYet(_) => codes::BUSY,
            Self::NotFound(_) => codes::UNKNOWN_REF,
            Self::Malformed(_) => codes::BAD_VALUE,
        }
    }
}

/// Answers an `abci_query`: `/node` with a [`NodeRequest`], or `/store/<name>/key`.
pub fn answer(app: &App, request: &RequestQuery) -> ResponseQuery {
    let answered = match request.path.as_str() {
        "/node" => cbor::decode(&request.data)
            .map_err(|e| QueryError::Malformed(e.to_string()))
            .map(|question| node_answer(app, &question)),
        path => match path.strip_prefix("/store/").and_then(|p| p.strip_suffix("/key")) {
            Some(store) => stored(app, store, request),
            None => Err(QueryError::Malformed(format!("unknown path {path}: use /node or /store/<name>/key"))),
        },
    };
    answered.unwrap_or_else(|e| ResponseQuery {
        code: e.code().into(),
        log: e.to_string(),
        codespace: "concordat".into(),
        key: request.data.clone(),
        ..Default::default()
    })
}

fn node_answer(app: &App, question: &NodeRequest) -> ResponseQuery {
    let height = app.committed().state.head.height as i64;
    ResponseQuery { value: Bytes::from(cbor::encode(&ask(app, question))), height, ..Default::default() }
}

/// A value with the proof that stock `cometbft light` checks. Height 0 with a proof means the newest height whose app
/// hash stands in a header, the last but one.
fn stored(app: &App, store: &str, request: &RequestQuery) -> Result<ResponseQuery, QueryError> {
    let key = &request.data[..];
    if !request.prove && request.height == 0 {
        let committed = app.committed();
        let value = newest_value(app, &committed.state, store, key)?;
        let height = committed.state.head.height as i64;
        return Ok(ResponseQuery { key: request.data.clone(), value: value.into(), height, ..Default::default() });
    }
    let height = u64::try_from(request.height).map_err(|_| QueryError::Malformed("negative height".into()))?;
    let committed = app.committed();
    let reader = app.inner.store.reader()?;
    let at = At::new(&committed, &reader, height)?;
    let leaf = match store {
        "log" => at.log_proof(log_index(key)?)?,
        "meta" => at.meta_proof(key)?.ok_or_else(|| missing(store))?,
        "heads" => at.heads_proof(key)?.ok_or_else(|| missing(store))?,
        "runs" => at.run_proof(log_index(key)?)?,
        _ => return Err(missing(store)),
    };
    let (root, index, path) = store_path(&at.row.roots, store).ok_or_else(|| missing(store))?;
    let first = value_op(&leaf.key, &leaf.value, leaf.index, leaf.size, &leaf.path);
    let second = value_op(store.as_bytes(), &root, index as u64, 4, &path);
    Ok(ResponseQuery {
        key: request.data.clone(),
        value: Bytes::from(leaf.value.0),
        index: i64::try_from(leaf.index).unwrap_or_default(),
        height: at.height as i64,
        proof_ops: Some(ProofOps { ops: vec![first, second] }),
        ..Default::default()
    })
}

fn missing(store: &str) -> QueryError {
    QueryError::NotFound(format!("store {store} has no such key"))
}

fn log_index(key: &[u8]) -> Result<u64, QueryError> {
    key.try_into().map(u64::from_be_bytes).map_err(|_| {
        QueryError::Malformed(format!("a log key is the index as 8 bytes, big-endian; {} bytes given", key.len()))
    })
}

fn newest_value(app: &App, state: &State, store: &str, key: &[u8]) -> Result<Vec<u8>, QueryError> {
    let value = match store {
        "log" => app.inner.store.reader()?.entries(log_index(key)?, 1)?.first().map(cbor::encode),
        "meta" => meta_value(&state.tables, key),
        "heads" => heads_value(&state.tables, key).map(|(_, value)| value),
        "runs" => app.inner.store.reader()?.run(log_index(key)?)?.as_ref().map(cbor::encode),
        _ => None,
    };
    value.ok_or_else(|| missing(store))
}

fn value_op(key: &[u8], value: &[u8], index: u64, total: u64, path: &[Hash]) -> ProofOp {
    let proof = Proof {
        total: i64::try_from(total).unwrap_or_default(),
        index: i64::try_from(index).unwrap_or_default(),
        leaf_hash: value_leaf(key, value).to_vec(),
        aunts: path.iter().map(|h| h.to_vec()).collect(),
    };
    let op = ValueOp { key: key.to_vec(), proof: Some(proof) };
    ProofOp { r#type: "simple:v".into(), key: key.to_vec(), data: op.encode_to_vec() }
}

/// The trees at a height whose app hash stands in a header.
struct At<'a> {
    height: u64,
    row: HeightRow,
    committed: &'a Committed,
    reader: &'a Reader<'a>,
}

impl<'a> At<'a> {
    fn new(committed: &'a Committed, reader: &'a Reader<'a>, height: u64) -> Result<Self, QueryError> {
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

    fn meta_proof(&self, key: &[u8]) -> Result<Option<LeafProof>, QueryError> {
        let state = &self.committed.state;
        let undo = self.undo(&self.row.roots.meta, &state.trees.meta.root())?;
        Ok(state.trees.meta_proof(&state.tables, &undo, key))
    }

    fn heads_proof(&self, key: &[u8]) -> Result<Option<LeafProof>, QueryError> {
        let state = &self.committed.state;
        let undo = self.undo(&self.row.roots.heads, &state.trees.heads.root())?;
        Ok(state.trees.heads_proof(&state.tables, &undo, key))
    }

    fn run_proof(&self, number: u64) -> Result<LeafProof, QueryError> {
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

    fn log_proof(&self, index: u64) -> Result<LeafProof, QueryError> {
        let size = self.row.log_size;
        if index >= size {
            let reason = format!("op:{index} is not in the log of height {}, which has {size} entries", self.height);
            let later = index < self.committed.state.log.size();
            return Err(if later { QueryError::NotYet(reason) } else { QueryError::NotFound(reason) });
        }
        let entry = self.reader.entries(index, 1)?;
        let entry = entry.first().ok_or_else(|| QueryError::NotFound(format!("op:{index} is not kept")))?;
        let path = inclusion_path_from(&Subtrees(self.reader), index, size)
            .map_err(|e| QueryError::NotFound(e.to_string()))?;
        let (key, value) = (log_key(index).to_vec().into(), cbor::encode(entry).into());
        Ok(LeafProof { key, value, index, size, path })
    }
}

/// Answers a question of the agency's own processes.
pub fn ask(app: &App, question: &NodeRequest) -> NodeReply {
    try_ask(app, question).unwrap_or_else(|e| NodeReply::Error { code: e.code(), detail: e.to_string() })
}

fn try_ask(app: &App, question: &NodeRequest) -> Result<NodeReply, QueryError> {
    let committed = app.committed();
    let state = &committed.state;
    let t = &state.tables;
    Ok(match question {
        NodeRequest::Subscribe { .. } => {
            return Err(QueryError::Malformed("subscriptions are served on the node's socket only".into()));
        }
        NodeRequest::Head {} => NodeReply::Head { body: head(state) },
        NodeRequest::Writer { writer } => NodeReply::Writer { body: writer_view(state, writer) },
        NodeRequest::Session { session } => {
            NodeReply::Session { body: t.sessions.get(session).map(|s| s.view(*session)) }
        }
        NodeRequest::SessionByKey { key } => {
            let number = t.session_keys.get(key);
            NodeReply::Session { body: number.and_then(|n| t.sessions.get(n).map(|s| s.view(*n))) }
        }
        NodeRequest::Keys { agency } => {
            NodeReply::Keys { body: state.keys_of(agency).map(|(_, key)| key.clone()).collect() }
        }
        NodeRequest::Key { key_id } => NodeReply::Keys { body: t.keys.get(key_id).cloned().into_iter().collect() },
        NodeRequest::Datasets {} => NodeReply::Datasets { body: datasets(state) },
        NodeRequest::Agreements {} => {
            NodeReply::Agreements { body: t.agreements.values().map(|row| row.view.clone()).collect() }
        }
        NodeRequest::Counters { key_id } => {
            let (urgent, other) = t.counters.get(key_id).map_or((0, 0), |c| (c.urgent, c.other));
            NodeReply::Counters { urgent, other }
        }
        NodeRequest::Log { from, count } => {
            if *count > LOG_RANGE_MAX {
                return Err(QueryError::Malformed(format!("count {count} is over {LOG_RANGE_MAX}: ask in parts")));
            }
            NodeReply::Log { from: *from, entries: app.inner.store.reader()?.entries(*from, *count)? }
        }
        NodeRequest::Proof { index, height, keys, session } => {
            NodeReply::Proof { body: prove(app, &committed, *index, *height, keys, *session)? }
        }
        NodeRequest::Subscription { provider, subscription } => {
            let row = t.subscriptions.get(&(provider.clone(), *subscription));
            NodeReply::Subscription { last_sub_seq: row.map_or(0, |s| s.last_sub_seq) }
        }
        NodeRequest::Runs {} => NodeReply::Runs { size: state.head.runs.size, end_index: state.head.runs.end_index() },
        NodeRequest::Run { number, tag, height } => {
            NodeReply::Run { body: prove_run(app, &committed, *number, tag, *height)? }
        }
        NodeRequest::Checkpoints { .. }
        | NodeRequest::Named { .. }
        | NodeRequest::Epochs {}
        | NodeRequest::Disputes {}
        | NodeRequest::Leaves { .. } => return Err(QueryError::Malformed("not served yet".into())),
        NodeRequest::Params {} => NodeReply::Params { body: t.params.iter().map(|(k, v)| (k.clone(), *v)).collect() },
        NodeRequest::Agencies {} => NodeReply::Agencies { body: t.agencies.keys().cloned().collect::<Vec<AgencyId>>() },
    })
}

fn head(state: &State) -> HeadView {
    HeadView {
        chain: state.head.chain.clone(),
        height: state.head.height,
        tick_ms: state.head.tick_ms,
        app_hash: state.app_hash(),
        log_size: state.log.size(),
        meta_rev: state.head.meta_rev,
        app_version: APP_VERSION,
    }
}

fn writer_view(state: &State, writer: &WriterId) -> Option<WriterView> {
    let row = state.tables.writers.get(writer)?;
    let key = state.tables.keys.get(&row.key_id)?;
    Some(WriterView {
        writer: writer.clone(),
        key: key.key.ed25519.0.as_slice().try_into().unwrap_or_default(),
        incarnation: row.incarnation,
        last_seq: row.last_seq,
        last_hash: row.last_hash,
    })
}

fn datasets(state: &State) -> Vec<DatasetView> {
    let head = |number: u64| state.tables.dataset_heads.get(&number).map_or(0, |d| d.head);
    let view = |(id, row): (&concordat_protocol::ids::DatasetId, &crate::state::rows::DatasetRow)| DatasetView {
        id: id.clone(),
        number: row.number,
        schema_hash: row.schema_hash,
        head: head(row.number),
    };
    state.tables.datasets.iter().map(view).collect()
}

/// A log entry with what a receipt needs beside it, all at one height.
fn prove(
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
    let mut proven = Vec::with_capacity(keys.len());
    for id in keys {
        let leaf = at.meta_proof(&key_leaf_key(id))?;
        proven.push(leaf.ok_or_else(|| QueryError::NotFound(format!("key {id} is not registered")))?);
    }
    let session = if session == 0 { None } else { at.heads_proof(&session_leaf_key(session))? };
    Ok(EntryProof { height: at.height, roots: at.row.roots.clone(), entry, keys: proven, session })
}

/// Everything that a run holds under a tag.
fn prove_run(app: &App, committed: &Committed, number: u64, tag: &Tag, height: u64) -> Result<RunProof, QueryError> {
    let reader = app.inner.store.reader()?;
    let at = At::new(committed, &reader, height)?;
    let run = at.run_proof(number)?;
    let list = SortedProof::prove(&reader.run_leaves(number)?, tag).map_err(|e| QueryError::NotFound(e.to_string()))?;
    Ok(RunProof { height: at.height, roots: at.row.roots.clone(), run, list })
}

/// A frame of an earlier block, from the store.
///
/// # Errors
/// The store failed, or the height is not kept.
pub fn stored_frame(app: &App, height: u64) -> Result<Frame, QueryError> {
    let reader = app.inner.store.reader()?;
    let gone = || QueryError::NotFound(format!("height {height} is not kept"));
    let row = reader.height(height)?.ok_or_else(gone)?;
    let first = match height.checked_sub(1) {
        Some(before) => reader.height(before)?.map_or(0, |r| r.log_size),
        None => 0,
    };
    let entries = reader.entries(first, row.log_size - first)?;
    let entries = entries.into_iter().enumerate().map(|(i, e)| (first + i as u64, e)).collect();
    Ok(Frame { height, tick_ms: row.tick_ms, app_hash: app_hash(&row.roots), meta_rev: row.meta_rev, entries })
}
