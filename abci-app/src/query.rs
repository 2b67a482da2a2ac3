//! What the node answers: its own agency's questions, and stock proofs over `abci_query`.

mod evidence;

use bytes::Bytes;
use concordat_protocol::cbor;
use concordat_protocol::codes;
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::{AgencyId, WriterId};
use concordat_protocol::limits::LOG_RANGE_MAX;
use concordat_protocol::node::{DatasetView, Frame, HeadView, NodeReply, NodeRequest, WriterView};
use concordat_protocol::tree::value_leaf;
use prost::Message;
use tendermint_proto::v0_38::abci::{RequestQuery, ResponseQuery};
use tendermint_proto::v0_38::crypto::{Proof, ProofOp, ProofOps, ValueOp};

use self::evidence::{At, checkpoints, leaves, meta_list, named, proofs, prove, prove_run, state_leaves};
use crate::app::App;
use crate::state::trees::{app_hash, heads_value, meta_value, store_path};
use crate::state::{APP_VERSION, State};
use crate::store::StoreError;

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
        NodeRequest::Proofs { height, indexes } => {
            NodeReply::Proofs { body: proofs(app, &committed, *height, indexes)? }
        }
        NodeRequest::Subscription { provider, subscription } => {
            let row = t.subscriptions.get(&(provider.clone(), *subscription));
            NodeReply::Subscription { last_sub_seq: row.map_or(0, |s| s.last_sub_seq) }
        }
        NodeRequest::Runs {} => NodeReply::Runs { size: state.head.runs.size, end_index: state.head.runs.end_index() },
        NodeRequest::Run { number, tag, height } => {
            NodeReply::Run { body: prove_run(app, &committed, *number, tag, *height)? }
        }
        NodeRequest::Checkpoints { from_height } => checkpoints(app, *from_height)?,
        NodeRequest::Named { agency, from } => named(app, &committed, agency, *from)?,
        NodeRequest::Leaves { height, keys, sessions } => {
            NodeReply::Leaves { body: leaves(app, &committed, *height, keys, sessions)? }
        }
        NodeRequest::MetaList { height, prefix } => {
            NodeReply::MetaList { body: meta_list(app, &committed, *height, prefix)? }
        }
        NodeRequest::StateLeaves { height, meta, heads } => {
            NodeReply::StateLeaves { body: state_leaves(app, &committed, *height, meta, heads)? }
        }
        NodeRequest::Epochs {} => NodeReply::Epochs { body: state.epoch_views() },
        NodeRequest::Reviews {} => NodeReply::Reviews { body: state.reviews() },
        NodeRequest::RoleMaps { agency } => NodeReply::RoleMaps { body: state.role_maps(agency) },
        NodeRequest::Disputes {} => NodeReply::Disputes { body: state.disputes() },
        NodeRequest::Params {} => NodeReply::Params { body: t.params.iter().map(|(k, v)| (k.clone(), *v)).collect() },
        NodeRequest::Agencies {} => {
            let members = t.agencies.iter().filter(|(_, row)| row.removed_ms == 0);
            NodeReply::Agencies { body: members.map(|(id, _)| id.clone()).collect::<Vec<AgencyId>>() }
        }
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
