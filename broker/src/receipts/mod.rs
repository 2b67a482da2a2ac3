//! Receipts of operations: proof from the own node, header from CometBFT, and what this agency's store knows.
//!
//! The session's leaf leaves the state when its slot is given again, so the proof of an own query is fetched before its
//! session ends and kept. All else can be proven at any time. A receipt is final once a checkpoint covers its entry that
//! more than 2/3 of the validator agencies cosigned, and provisional before ([`settled`]).

mod settled;

pub use settled::Covering;

use crate::evidence::{EvidenceError, Shelf, TrustKeeper};
use crate::gateway::check::release_signature;
use crate::gateway::erasures::ERASED;
use crate::gateway::records::{Header, QueryRecord, Records};
use crate::gateway::watch::LedgerWatch;
use crate::ledger::LedgerError;
use crate::ledger::node_client::NodeClient;
use crate::ledger::rpc::CometRpc;
use crate::store::StoreError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use concordat_protocol::acts::{Act, act_hash};
use concordat_protocol::cbor;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::keys::KeyId;
use concordat_protocol::node::{EntryProof, StoreRoots};
use concordat_protocol::ops::{Batch, LogEntry, Op, Tx};
use concordat_protocol::receipt::{self, CheckpointPart, Parts, Receipt, ReceiptError, app_hash};
use concordat_protocol::session::{Released, SignedRequest};
use concordat_protocol::verify::comet;
use std::time::{Duration, Instant};
use thiserror::Error;
use tracing::warn;

/// How long to wait for the block after the entry's, whose header carries the proof.
const NEXT_BLOCK: Duration = Duration::from_secs(8);
/// Time for the cosignatures of a block to be taken in.
const AFTER_BLOCK: Duration = Duration::from_millis(200);
/// How often the sweeper looks.
const SWEEP: Duration = Duration::from_millis(500);
/// Proofs fetched in one look.
const SWEEP_AT_ONCE: u32 = 32;
/// With less than this left of its session a query is proven even under load, milliseconds.
const SESSION_LEFT_MS: u64 = 3_600_000;

/// Why there is no receipt.
#[derive(Debug, Error)]
pub enum ReceiptsError {
    /// No such entry.
    #[error("op:{0} is not in the log")]
    Unknown(u64),
    /// The entry is not yet under a header.
    #[error("op:{0} is not under a block's header yet: ask again in a second")]
    NotYet(u64),
    /// Its bytes are in no block that this node still has.
    #[error("the body of op:{0} is not in this node's blocks: it was pruned, ask an agency that archives")]
    NoBody(u64),
    /// Another agency holds what belongs in it.
    #[error("op:{0} rests on a request that this agency did not make: ask the consumer's gateway for the receipt")]
    Elsewhere(u64),
    /// The provider erased it.
    #[error(
        "op:{0} was erased by its provider: this agency deleted its own detail of it; receipts made before still verify"
    )]
    Erased(u64),
    /// The header does not carry the node's proof.
    #[error("the header at height {0} does not carry the proof of the own node: compare this node with its peers")]
    Mismatch(u64),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The parts do not fit.
    #[error("receipt: {0}")]
    Build(#[from] ReceiptError),
    /// CometBFT's answer.
    #[error(transparent)]
    Comet(#[from] comet::CometError),
    /// What is kept of checkpoints.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
}

impl ReceiptsError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "unknown-operation",
            Self::NotYet(_) => "receipt-not-yet",
            Self::NoBody(_) => "body-pruned",
            Self::Elsewhere(_) => "receipt-elsewhere",
            Self::Erased(_) => "receipt-erased",
            Self::Mismatch(_) => "app-hash-mismatch",
            Self::Ledger(e) => e.code(),
            Self::Store(e) => e.code(),
            Self::Build(e) => e.code(),
            Self::Comet(e) => e.code(),
            Self::Evidence(e) => e.code(),
        }
    }
}

/// Makes receipts. Cheap to clone.
#[derive(Clone)]
pub struct Receipts {
    chain: String,
    agency: AgencyId,
    node: NodeClient,
    rpc: CometRpc,
    watch: LedgerWatch,
    records: Records,
    shelf: Shelf,
    trust: TrustKeeper,
}

/// What a query left behind, decoded.
struct Kept {
    id: i64,
    signed: SignedRequest,
    released: Option<Released>,
    session: u64,
}

impl Kept {
    fn read(r: &QueryRecord) -> Result<Self, StoreError> {
        let bad = |e: cbor::CborError| StoreError::Failed(format!("query {} does not decode: {e}", r.id));
        let released = r.released.as_deref().map(cbor::decode).transpose().map_err(bad)?;
        Ok(Self { id: r.id, signed: cbor::decode(&r.signed).map_err(bad)?, released, session: r.session })
    }

    fn keys(&self) -> Vec<KeyId> {
        self.released.iter().map(|r| r.release_key).collect()
    }
}

/// What a receipt is about.
struct Subject {
    index: u64,
    entry: LogEntry,
    /// Canonical operation or act.
    op: Vec<u8>,
    record: Option<QueryRecord>,
    kept: Option<Kept>,
}

impl Subject {
    fn released(&self) -> Option<&Released> {
        self.kept.as_ref().and_then(|k| k.released.as_ref())
    }
}

impl Receipts {
    /// Receipts from this node. `node` should be a connection of its own, so that proofs do not wait behind queries.
    pub fn new(
        (chain, agency): (String, AgencyId),
        node: NodeClient,
        rpc: CometRpc,
        watch: LedgerWatch,
        records: Records,
        (shelf, trust): (Shelf, TrustKeeper),
    ) -> Self {
        Self { chain, agency, node, rpc, watch, records, shelf, trust }
    }

    /// The receipt of an operation or act: final where it can be.
    pub async fn receipt(&self, index: u64) -> Result<Receipt, ReceiptsError> {
        let x = self.subject(index).await?;
        if let Some(made) = self.settled(&x).await? {
            return Ok(made);
        }
        let (proof, header) = self.shown(&x).await?;
        self.build(&x, &proof, &header, None)
    }

    /// The proof that was kept; of the newest state where that says something worse of the release key, as long as the
    /// session still stands in it.
    async fn shown(&self, x: &Subject) -> Result<(EntryProof, Header), ReceiptsError> {
        if self.contested(x).await?
            && let Ok(now) = self.fetch(x.index, &x.entry, x.kept.as_ref()).await
            && now.0.session.is_some()
        {
            return Ok(now);
        }
        self.proof(x.index, &x.entry, x.record.as_ref(), x.kept.as_ref()).await
    }

    /// The receipt, once it is final; as it is when the time is over.
    pub async fn wait_final(&self, index: u64, within: Duration) -> Result<Receipt, ReceiptsError> {
        let end = Instant::now() + within;
        loop {
            let made = self.receipt(index).await;
            let left = end.saturating_duration_since(Instant::now());
            match &made {
                Ok(r) if r.checkpoint.is_none() && !left.is_zero() => {}
                Err(ReceiptsError::NotYet(_)) if !left.is_zero() => {}
                _ => return made,
            }
            let height = self.watch.now().map_or(0, |n| n.height);
            self.watch.reach(height + 1, left.min(NEXT_BLOCK)).await;
            // The cosignatures of that block are taken in a moment later.
            tokio::time::sleep(left.min(AFTER_BLOCK)).await;
        }
    }

    async fn subject(&self, index: u64) -> Result<Subject, ReceiptsError> {
        let entry = self.watch.entry(index).await?.ok_or(ReceiptsError::Unknown(index))?;
        let record = self.records.by_op(index).await?;
        if record.as_ref().is_some_and(|r| r.outcome == ERASED) {
            return Err(ReceiptsError::Erased(index));
        }
        let kept = record.as_ref().map(Kept::read).transpose()?;
        let op = match kept.as_ref().and_then(|k| k.released.as_ref()) {
            Some(released) => released.op.0.clone(),
            None => self.body(index, &entry).await?,
        };
        let is_release = !entry.writer.starts_with("act:")
            && matches!(cbor::decode::<Op>(&op), Ok(Op::Query { .. } | Op::BreakGlass { .. } | Op::Intent { .. }));
        if is_release && kept.as_ref().is_none_or(|k| k.released.is_none()) {
            return Err(ReceiptsError::Elsewhere(index));
        }
        Ok(Subject { index, entry, op, record, kept })
    }

    fn build(
        &self,
        x: &Subject,
        proof: &EntryProof,
        header: &Header,
        checkpoint: Option<&CheckpointPart>,
    ) -> Result<Receipt, ReceiptsError> {
        let released = x.released();
        let signature = released.and_then(|r| release_signature(&r.release_signature)).map(|s| cbor::encode(&s));
        let parts = Parts {
            chain: &self.chain,
            proof,
            op: &x.op,
            openings: released.map(|r| r.openings.0.as_slice()),
            request: x.kept.as_ref().filter(|_| released.is_some()).map(|k| &k.signed),
            release: released.and_then(|r| Some((signature.as_deref()?, r.release_key))),
            header: &header.header,
            validators: &header.validators,
            checkpoint,
        };
        Ok(receipt::build(parts)?)
    }

    async fn proof(
        &self,
        index: u64,
        entry: &LogEntry,
        record: Option<&QueryRecord>,
        kept: Option<&Kept>,
    ) -> Result<(EntryProof, Header), ReceiptsError> {
        if let Some((bytes, height)) = record.and_then(|r| Some((r.proof.as_deref()?, r.proof_height?)))
            && let Some(header) = self.records.header(height).await?
        {
            let bad = |e: cbor::CborError| StoreError::Failed(format!("the proof of op:{index} does not decode: {e}"));
            return Ok((cbor::decode(bytes).map_err(bad)?, header));
        }
        self.fetch(index, entry, kept).await
    }

    /// Asks the node for the proof and CometBFT for the header it leads to, and keeps both for an own query.
    async fn fetch(
        &self,
        index: u64,
        entry: &LogEntry,
        kept: Option<&Kept>,
    ) -> Result<(EntryProof, Header), ReceiptsError> {
        // The proof stands under the header of the block after the entry's.
        if !self.watch.reach(entry.height + 1, NEXT_BLOCK).await {
            return Err(ReceiptsError::NotYet(index));
        }
        let keys = kept.map(Kept::keys).unwrap_or_default();
        let session = kept.filter(|k| k.released.is_some()).map_or(0, |k| k.session);
        let proof = self.node.proof(index, 0, keys, session).await?;
        let header = self.header(&proof).await?;
        if let Some(kept) = kept.filter(|k| k.released.is_some() && proof.session.is_some()) {
            self.records.proven(kept.id, proof.height, cbor::encode(&proof), header.clone()).await?;
        }
        Ok((proof, header))
    }

    async fn header(&self, proof: &EntryProof) -> Result<Header, ReceiptsError> {
        self.header_at(proof.height, &proof.roots).await
    }

    /// The header of the next height, which must carry these roots of the state at `height`.
    pub async fn header_at(&self, height: u64, roots: &StoreRoots) -> Result<Header, ReceiptsError> {
        if let Some(kept) = self.records.header(height).await? {
            return Ok(kept);
        }
        let height = height + 1;
        let packed = self.rpc.packed::<ReceiptsError>(height).await?;
        if packed.app_hash != app_hash(roots) || packed.height != height {
            return Err(ReceiptsError::Mismatch(height));
        }
        Ok(Header { header: packed.header, validators: packed.validators })
    }

    /// The bytes of an operation or act, from the block that holds it.
    pub async fn body(&self, index: u64, entry: &LogEntry) -> Result<Vec<u8>, ReceiptsError> {
        let txs = self.rpc.block_txs(entry.height).await.map_err(|e| match e {
            LedgerError::Protocol(_) => ReceiptsError::NoBody(index),
            other => other.into(),
        })?;
        let found = txs.iter().filter_map(|t| STANDARD.decode(t).ok()).find_map(|tx| body_in(&tx, entry));
        found.ok_or(ReceiptsError::NoBody(index))
    }

    /// Proves own queries in the background: when nothing else is asked, or when their session is about to end.
    pub async fn sweep(self, idle: impl Fn() -> bool) {
        let mut look = tokio::time::interval(SWEEP);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            let Ok(now) = self.watch.fresh() else { continue };
            let before = if idle() { u64::MAX } else { now.tick_ms + SESSION_LEFT_MS };
            if let Err(e) = self.sweep_once(before).await {
                warn!(error = %e, "proofs of own queries not fetched");
                tokio::time::sleep(NEXT_BLOCK).await;
            }
        }
    }

    async fn sweep_once(&self, ends_before_ms: u64) -> Result<(), ReceiptsError> {
        for record in self.records.unproven(ends_before_ms, SWEEP_AT_ONCE).await? {
            let Some(index) = record.op else { continue };
            let Some(entry) = self.watch.entry(index).await? else { continue };
            if self.watch.now().is_none_or(|n| n.height <= entry.height) {
                continue;
            }
            self.fetch(index, &entry, Some(&Kept::read(&record)?)).await?;
        }
        Ok(())
    }
}

/// The operation or act that an entry is about, if this transaction holds it.
fn body_in(tx: &[u8], entry: &LogEntry) -> Option<Vec<u8>> {
    match cbor::decode::<Tx>(tx).ok()? {
        Tx::Batch { body, .. } => {
            let batch: Batch = cbor::decode(&body).ok()?;
            let at = entry.seq.checked_sub(batch.first_seq)?;
            let ours = batch.writer.as_str() == entry.writer && batch.incarnation == entry.incarnation;
            let op = batch.ops.get(usize::try_from(at).ok()?).filter(|op| ours && op.hash() == entry.op_hash)?;
            Some(cbor::encode(op))
        }
        Tx::Act { body, .. } => {
            let act: Act = cbor::decode(&body).ok()?;
            (act_hash(&act) == entry.op_hash).then_some(body.0)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use concordat_protocol::codes::Verdict;
    use concordat_protocol::ids::WriterId;

    #[test]
    fn a_body_is_found_only_under_its_own_writer_number_and_hash() {
        let ops: Vec<Op> = (1..4).map(|i| Op::Publish { dataset: 1, last_seq: i, count: 1, root: [1; 32] }).collect();
        let batch = Batch {
            chain: "c".into(),
            writer: WriterId::new("grid/broker").unwrap(),
            incarnation: 1,
            first_seq: 10,
            prev: [0; 32],
            ops: ops.clone(),
        };
        let tx = cbor::encode(&Tx::Batch { body: cbor::encode(&batch).into(), signature: [0; 64] });
        let entry = |seq, op: &Op| LogEntry {
            height: 3,
            tick_ms: 1,
            writer: "grid/broker".into(),
            incarnation: 1,
            seq,
            op_hash: op.hash(),
            verdict: Verdict::Accepted,
            code: 0,
        };
        assert_eq!(body_in(&tx, &entry(11, &ops[1])), Some(cbor::encode(&ops[1])));
        assert_eq!(body_in(&tx, &entry(10, &ops[1])), None);
        assert_eq!(body_in(&tx, &entry(9, &ops[0])), None);
        assert_eq!(body_in(&tx, &entry(13, &ops[0])), None);
        assert_eq!(body_in(&tx, &LogEntry { writer: "grid/executor".into(), ..entry(11, &ops[1]) }), None);
        assert_eq!(body_in(b"junk", &entry(11, &ops[1])), None);
    }
}
