//! Questions to the agency's own node: u32 big-endian length and canonical CBOR over a Unix socket.

use super::LedgerError;
use concordat_protocol::acts::KeyRole;
use concordat_protocol::cbor;
use concordat_protocol::evidence::{CheckpointView, DisputeView, EpochView, LeavesProof, LogProofs, NamedOp};
use concordat_protocol::ids::{AgencyId, WriterId};
use concordat_protocol::keys::KeyId;
use concordat_protocol::limits::NODE_FRAME_BYTES_MAX;
use concordat_protocol::node::{
    AgreementView, DatasetView, EntryProof, HeadView, KeyView, NodeReply, NodeRequest, ReviewDue, RoleMapView,
    SessionView, WriterView,
};
use concordat_protocol::ops::LogEntry;
use concordat_protocol::runs::RunProof;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

/// A connection to `node.sock`, opened when first needed and again after it broke. Cheap to clone.
#[derive(Debug, Clone)]
pub struct NodeClient {
    path: Arc<PathBuf>,
    stream: Arc<Mutex<Option<UnixStream>>>,
}

/// Opens the socket.
pub(super) async fn connect(path: &Path) -> Result<UnixStream, LedgerError> {
    UnixStream::connect(path).await.map_err(|source| down(path, source))
}

fn down(path: &Path, source: std::io::Error) -> LedgerError {
    LedgerError::NodeDown { path: path.display().to_string(), source }
}

/// Writes one request.
pub(super) async fn send(stream: &mut UnixStream, path: &Path, request: &NodeRequest) -> Result<(), LedgerError> {
    let body = cbor::encode(request);
    let mut message = (body.len() as u32).to_be_bytes().to_vec();
    message.extend_from_slice(&body);
    stream.write_all(&message).await.map_err(|e| down(path, e))
}

/// Reads one reply.
pub(super) async fn receive(stream: &mut UnixStream, path: &Path) -> Result<NodeReply, LedgerError> {
    let len = stream.read_u32().await.map_err(|e| down(path, e))? as usize;
    if len > NODE_FRAME_BYTES_MAX {
        return Err(LedgerError::Protocol(format!(
            "a message of {len} bytes, at most {NODE_FRAME_BYTES_MAX} are allowed"
        )));
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await.map_err(|e| down(path, e))?;
    cbor::decode(&body).map_err(|e| LedgerError::Protocol(e.to_string()))
}

macro_rules! question {
    ($(#[$m:meta])* $name:ident ( $($arg:ident : $t:ty),* ) -> $out:ty, $request:expr, $reply:pat => $value:expr) => {
        $(#[$m])*
        pub async fn $name(&self $(, $arg: $t)*) -> Result<$out, LedgerError> {
            match self.ask(&$request).await? {
                $reply => Ok($value),
                other => Err(unexpected(&other)),
            }
        }
    };
}

fn unexpected(reply: &NodeReply) -> LedgerError {
    match reply {
        NodeReply::Error { code, detail } => LedgerError::Refused { code: *code, text: detail.clone() },
        other => LedgerError::Protocol(format!("unexpected reply {}", other.kind_name())),
    }
}

impl NodeClient {
    /// A client of the node whose socket lies at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: Arc::new(path.into()), stream: Arc::new(Mutex::new(None)) }
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks one question. A broken connection is opened again once: a question changes nothing, so asking twice is safe.
    pub async fn ask(&self, request: &NodeRequest) -> Result<NodeReply, LedgerError> {
        let mut slot = self.stream.lock().await;
        if let Some(mut stream) = slot.take()
            && let Ok(reply) = round(&mut stream, &self.path, request).await
        {
            *slot = Some(stream);
            return Ok(reply);
        }
        let mut stream = connect(&self.path).await?;
        let reply = round(&mut stream, &self.path, request).await?;
        *slot = Some(stream);
        Ok(reply)
    }

    question!(
        /// The newest committed height.
        head() -> HeadView, NodeRequest::Head {}, NodeReply::Head { body } => body);
    question!(
        /// Where a writer stands.
        writer(writer: &WriterId) -> Option<WriterView>,
        NodeRequest::Writer { writer: writer.clone() }, NodeReply::Writer { body } => body);
    question!(
        /// A session by its number.
        session(session: u64) -> Option<SessionView>, NodeRequest::Session { session }, NodeReply::Session { body } => body);
    question!(
        /// A session by its public key.
        session_by_key(key: [u8; 32]) -> Option<SessionView>,
        NodeRequest::SessionByKey { key }, NodeReply::Session { body } => body);
    question!(
        /// All keys of an agency.
        keys(agency: &AgencyId) -> Vec<KeyView>,
        NodeRequest::Keys { agency: agency.clone() }, NodeReply::Keys { body } => body);
    question!(
        /// One key, as a list of at most one.
        key(key_id: KeyId) -> Option<KeyView>, NodeRequest::Key { key_id }, NodeReply::Keys { body } => body.into_iter().next());
    question!(
        /// All datasets.
        datasets() -> Vec<DatasetView>, NodeRequest::Datasets {}, NodeReply::Datasets { body } => body);
    question!(
        /// All agreement versions.
        agreements() -> Vec<AgreementView>, NodeRequest::Agreements {}, NodeReply::Agreements { body } => body);
    question!(
        /// Counters of a key: (urgent, other).
        counters(key_id: KeyId) -> (u64, u64),
        NodeRequest::Counters { key_id }, NodeReply::Counters { urgent, other } => (urgent, other));
    question!(
        /// Log entries from an index on.
        log(from: u64, count: u64) -> Vec<LogEntry>,
        NodeRequest::Log { from, count }, NodeReply::Log { entries, .. } => entries);
    question!(
        /// Proof of an entry; height 0 asks for the newest that a header already covers.
        proof(index: u64, height: u64, keys: Vec<KeyId>, session: u64) -> EntryProof,
        NodeRequest::Proof { index, height, keys, session }, NodeReply::Proof { body } => body);
    question!(
        /// Proofs of at most 1,024 entries at one height, in the order they were asked for.
        proofs(height: u64, indexes: Vec<u64>) -> LogProofs,
        NodeRequest::Proofs { height, indexes }, NodeReply::Proofs { body } => body);
    question!(
        /// Last anchored sub_seq of a subscription.
        subscription(provider: &AgencyId, subscription: u64) -> u64,
        NodeRequest::Subscription { provider: provider.clone(), subscription },
        NodeReply::Subscription { last_sub_seq } => last_sub_seq);
    question!(
        /// Subject runs in state, and the first log index that they do not cover.
        runs() -> (u64, u64), NodeRequest::Runs {}, NodeReply::Runs { size, end_index } => (size, end_index));
    question!(
        /// What a run holds under a tag, proven at a height.
        run(number: u64, tag: [u8; 16], height: u64) -> RunProof,
        NodeRequest::Run { number, tag, height }, NodeReply::Run { body } => body);
    question!(
        /// Parameters by name.
        params() -> Vec<(String, u64)>, NodeRequest::Params {}, NodeReply::Params { body } => body);
    question!(
        /// Agencies of the network.
        agencies() -> Vec<AgencyId>, NodeRequest::Agencies {}, NodeReply::Agencies { body } => body);
    question!(
        /// Checkpoints from a height on, oldest first; from height 0 the newest alone.
        checkpoints(from_height: u64) -> Vec<CheckpointView>,
        NodeRequest::Checkpoints { from_height }, NodeReply::Checkpoints { body } => body);
    question!(
        /// Operations that name sessions of an agency from a log index on, and the first index not looked at.
        named(agency: &AgencyId, from: u64) -> (u64, Vec<NamedOp>),
        NodeRequest::Named { agency: agency.clone(), from }, NodeReply::Named { end, body } => (end, body));
    question!(
        /// All epochs, from 0.
        epochs() -> Vec<EpochView>, NodeRequest::Epochs {}, NodeReply::Epochs { body } => body);
    question!(
        /// All disputes.
        disputes() -> Vec<DisputeView>, NodeRequest::Disputes {}, NodeReply::Disputes { body } => body);
    question!(
        /// All role maps of an agency, by number.
        role_maps(agency: &AgencyId) -> Vec<RoleMapView>,
        NodeRequest::RoleMaps { agency: agency.clone() }, NodeReply::RoleMaps { body } => body);
    question!(
        /// All reviews that are due, overdue ones included.
        reviews() -> Vec<ReviewDue>, NodeRequest::Reviews {}, NodeReply::Reviews { body } => body);
    question!(
        /// Leaves of keys and sessions at a height.
        leaves(height: u64, keys: Vec<KeyId>, sessions: Vec<u64>) -> LeavesProof,
        NodeRequest::Leaves { height, keys, sessions }, NodeReply::Leaves { body } => body);

    /// The newest unrevoked key of an agency with this role and, where given, label.
    pub async fn active_key(
        &self,
        agency: &AgencyId,
        role: KeyRole,
        label: Option<&str>,
    ) -> Result<Option<KeyView>, LedgerError> {
        let keys = self.keys(agency).await?;
        let fits = |k: &KeyView| k.role == role && k.revoked_ms == 0 && label.is_none_or(|l| k.label == l);
        Ok(keys.into_iter().rfind(fits))
    }
}

async fn round(stream: &mut UnixStream, path: &Path, request: &NodeRequest) -> Result<NodeReply, LedgerError> {
    send(stream, path, request).await?;
    receive(stream, path).await
}
