//! The list of who looked at a person's records, with its proof: the runs from the own node, what opens each operation from
//! the own executor, the header from CometBFT.

pub use super::proven::Proven;
use super::proven::State;
use super::replay::BlockOps;
use super::wire::{Ask, OpAsked, OpTold, Told, ask};
use super::{EXECUTOR_SOCKET, serve};
use crate::config::NodeConfig;
use crate::evidence::Shelf;
use crate::ledger::LedgerError;
use crate::ledger::node_client::NodeClient;
use crate::ledger::rpc::CometRpc;
use crate::store::StoreError;
use concordat_protocol::access::{ACCESS_VERSION, AccessEntry, AccessList, RunPart, days_of, subject_tag};
use concordat_protocol::cbor;
use concordat_protocol::ids::DatasetId;
use concordat_protocol::leaves::{Redacted, commitment as leaf};
use concordat_protocol::limits::PROOFS_MAX;
use concordat_protocol::node::{LeafProof, StoreRoots};
use concordat_protocol::ops::{LogEntry, Op, Tag, Tags};
use concordat_protocol::receipt::{CheckpointPart, Path, app_hash};
use concordat_protocol::runs::{BULK_TAG, RunProof, RunView};
use concordat_protocol::tree::TreeError;
use concordat_protocol::verify::comet::CometError;
use std::collections::BTreeSet;
use std::path::PathBuf;
use thiserror::Error;

/// Why there is no list.
#[derive(Debug, Error)]
pub enum ListError {
    /// The executor says why.
    #[error("{detail}")]
    Refused {
        /// Its code.
        code: String,
        /// Its sentence.
        detail: String,
    },
    /// The subject was erased and nothing happened since.
    #[error("this subject was erased at {}: what came before can be shown to nobody any more", when(*erased_ms))]
    Erased {
        /// When.
        erased_ms: u64,
    },
    /// The executor is not there.
    #[error("the data executor of this node does not answer ({0}): see `concordat node status`")]
    Down(std::io::Error),
    /// An answer of another shape.
    #[error("the data executor answered something else: restart it with the same release as the broker")]
    Shape,
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The broker's store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// CometBFT's answer.
    #[error(transparent)]
    Header(#[from] CometError),
    /// The header is of another state.
    #[error("the header at height {0} does not carry the proof of the own node: compare this node with its peers")]
    Mismatch(u64),
    /// The operation's bytes are nowhere.
    #[error("the body of op:{0} is neither in the executor's store nor in this node's blocks")]
    NoBody(u64),
    /// The own node's proof is not one.
    #[error("the own node's proof of run {0} does not verify ({1}): compare this node with its peers")]
    Proof(u64, TreeError),
}

impl ListError {
    /// A stable name of the error.
    pub fn code(&self) -> &str {
        match self {
            Self::Refused { code, .. } => code,
            Self::Erased { .. } => "subject-erased",
            Self::Down(_) => "executor-down",
            Self::Shape => "executor-answer",
            Self::Ledger(e) => e.code(),
            Self::Store(e) => e.code(),
            Self::Header(e) => e.code(),
            Self::Mismatch(_) => "app-hash-mismatch",
            Self::NoBody(_) => "body-pruned",
            Self::Proof(..) => "run-proof",
        }
    }
}

/// A ledger time for people.
fn when(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| format!("{ms} ms"), |t| t.to_string())
}

/// Makes lists. Cheap to clone.
#[derive(Clone)]
pub struct Listing {
    chain: String,
    pub(super) node: NodeClient,
    rpc: CometRpc,
    pub(super) shelf: Shelf,
    socket: PathBuf,
}

/// A list, and what the provider knows beside it.
pub struct Listed {
    /// The subject's id in the provider's stores: for its own log, where no person is named.
    pub id: [u8; 32],
    /// When the subject was erased last, milliseconds; 0 if never.
    pub erased_ms: u64,
    /// The list.
    pub list: AccessList,
    /// Entries that were accepted and never released.
    pub withheld: BTreeSet<u64>,
}

/// What was forgotten.
pub struct Forgotten {
    /// The subject's id in the provider's stores.
    pub id: [u8; 32],
    /// Operations recorded as erased.
    pub operations: Vec<u64>,
    /// Records removed.
    pub records: u64,
}

/// What the runs name: operations by index.
pub(super) type Found = BTreeSet<u64>;

/// An entry of the log: index, entry, path.
pub(super) type Logged = (u64, LogEntry, Path);

fn log_path(proof: &LeafProof) -> Result<Path, TreeError> {
    Path::of(proof.index, proof.size, &proof.path)
}

impl Listing {
    /// Lists from this node. `node` should be a connection of its own.
    pub fn new(cfg: &NodeConfig, node: NodeClient, rpc: CometRpc, shelf: Shelf) -> Self {
        Self { chain: cfg.chain.clone(), node, rpc, shelf, socket: cfg.path(EXECUTOR_SOCKET) }
    }

    async fn ask(&self, question: &Ask) -> Result<Told, ListError> {
        match ask(&self.socket, question).await.map_err(ListError::Down)? {
            Told::Refused { code, detail } => Err(ListError::Refused { code, detail }),
            told => Ok(told),
        }
    }

    /// The list of a subject, over all runs that hold something of `from_ms` (ledger time) or later.
    pub async fn list(&self, dataset: &DatasetId, subject: &str, from_ms: u64) -> Result<Listed, ListError> {
        let question = Ask::Key { dataset: dataset.clone(), subject: subject.to_owned() };
        let Told::Key { id, key, erased_ms } = self.ask(&question).await? else { return Err(ListError::Shape) };
        if key == [0; 32] {
            return Err(ListError::Erased { erased_ms });
        }
        let at = self.at().await?;
        let (runs, found) = self.runs(&at, dataset, &key, from_ms).await?;
        let logged = self.logged(&found, at.height).await?;
        let asked = |(index, entry, _): &Logged| OpAsked { index: *index, op_hash: entry.op_hash };
        let ops = logged.iter().map(asked).collect();
        let details = Ask::Details { dataset: dataset.clone(), subject: subject.to_owned(), ops };
        let Told::Details { body } = self.ask(&details).await? else { return Err(ListError::Shape) };
        if body.len() != found.len() {
            return Err(ListError::Shape);
        }
        let (mut entries, mut withheld) = (Vec::with_capacity(found.len()), BTreeSet::new());
        for (logged, told) in logged.into_iter().zip(body) {
            if told.withheld == 1 {
                withheld.insert(logged.0);
            }
            entries.push(self.entry(logged, told).await?);
        }
        let list = AccessList {
            version: ACCESS_VERSION,
            chain: self.chain.clone(),
            dataset: dataset.clone(),
            subject_key: key,
            roots: at.roots,
            runs,
            entries,
            header: at.header.into(),
            validators: at.validators.into(),
            checkpoint: at.checkpoint,
        };
        Ok(Listed { id, erased_ms, list, withheld })
    }

    /// Every run that is in state at the height, with what it holds under the subject's tags and under the bulk tag.
    async fn runs(
        &self,
        at: &State,
        dataset: &DatasetId,
        key: &[u8; 32],
        from_ms: u64,
    ) -> Result<(Vec<RunPart>, Found), ListError> {
        let (mut parts, mut found) = (Vec::new(), Found::new());
        let (size, _) = self.node.runs().await?;
        for number in 0..size {
            let bulk = match self.node.run(number, BULK_TAG, at.height).await {
                Ok(proof) => proof,
                // It came into state after the height.
                Err(LedgerError::Refused { .. }) => break,
                Err(e) => return Err(e.into()),
            };
            let bad = |e| ListError::Proof(number, e);
            let run = self.check(number, &BULK_TAG, &bulk, at, &mut found)?;
            if run.to_ms < from_ms && parts.is_empty() {
                found.clear();
                continue;
            }
            let path = log_path(&bulk.run).map_err(bad)?;
            let mut lists = Vec::new();
            for day in days_of(&run) {
                let tag = subject_tag(key, dataset, day);
                let proof = self.node.run(number, tag, at.height).await?;
                self.check(number, &tag, &proof, at, &mut found)?;
                lists.push(proof.list);
            }
            lists.push(bulk.list);
            parts.push(RunPart { number, run, path, lists });
        }
        Ok((parts, found))
    }

    fn check(
        &self,
        number: u64,
        tag: &Tag,
        proof: &RunProof,
        at: &State,
        found: &mut Found,
    ) -> Result<RunView, ListError> {
        let bad = |e| ListError::Proof(number, e);
        if proof.height != at.height || proof.roots != at.roots {
            return Err(bad(TreeError::Order("the proof is at another height")));
        }
        let (run, indexes) = proof.verify(number, tag).map_err(bad)?;
        found.extend(indexes);
        Ok(run)
    }

    /// Entries of the log with their paths at a height.
    pub(super) async fn logged(&self, found: &Found, height: u64) -> Result<Vec<Logged>, ListError> {
        let mut logged = Vec::with_capacity(found.len());
        let indexes: Vec<u64> = found.iter().copied().collect();
        for part in indexes.chunks(PROOFS_MAX) {
            let proofs = self.node.proofs(height, part.to_vec()).await?;
            if proofs.entries.iter().map(|p| p.index).ne(part.iter().copied()) {
                return Err(LedgerError::Protocol("proofs of other entries than were asked for".into()).into());
            }
            for proof in proofs.entries {
                let bad = |e: cbor::CborError| LedgerError::Protocol(e.to_string());
                let entry: LogEntry = cbor::decode(&proof.value).map_err(bad)?;
                let path = log_path(&proof).map_err(|e| ListError::Proof(proof.index, e))?;
                logged.push((proof.index, entry, path));
            }
        }
        Ok(logged)
    }

    async fn entry(&self, logged: Logged, told: OpTold) -> Result<AccessEntry, ListError> {
        let (index, entry, log_path) = logged;
        let op = if told.op.is_empty() { self.body(index, &entry).await? } else { told.op.0 };
        let OpTold { openings, bulk, sentence, .. } = told;
        Ok(AccessEntry { index, entry, log_path, op: op.into(), openings, bulk, sentence })
    }

    /// The bytes of an operation that the executor does not know, from the block that holds it.
    pub(super) async fn body(&self, index: u64, entry: &LogEntry) -> Result<Vec<u8>, ListError> {
        let txs = self.rpc.block_txs(entry.height).await?;
        BlockOps::of(&txs).of_entry(entry).map(cbor::encode).ok_or(ListError::NoBody(index))
    }

    /// The newest final checkpoint; before there is one, the newest state that a header covers.
    async fn at(&self) -> Result<State, ListError> {
        match self.checkpoint().await? {
            Some(at) => Ok(at),
            None => self.newest().await,
        }
    }

    /// The state of the newest final checkpoint.
    pub(super) async fn checkpoint(&self) -> Result<Option<State>, ListError> {
        let kept = self.shelf.newest().await?;
        let newest = kept.into_iter().filter(|k| k.last).max_by_key(|k| k.view.checkpoint.height);
        Ok(newest.map(|k| {
            let of = k.view.checkpoint;
            let mut cosignatures = k.view.cosignatures;
            cosignatures.sort_by(|a, b| a.agency.cmp(&b.agency));
            let part = CheckpointPart { tick_ms: of.tick_ms, log_size: of.log_size, cosignatures };
            let (header, validators) = (k.header, k.validators);
            let (height, log_size) = (of.height, of.log_size);
            State { height, roots: of.roots, log_size, header, validators, checkpoint: Some(part) }
        }))
    }

    /// The header that carries the app hash, with its validators, packed for a proof.
    pub(super) async fn header(&self, height: u64, roots: &StoreRoots) -> Result<(Vec<u8>, Vec<u8>), ListError> {
        let height = height + 1;
        let packed = self.rpc.packed::<ListError>(height).await?;
        if packed.app_hash != app_hash(roots) || packed.height != height {
            return Err(ListError::Mismatch(height));
        }
        Ok((packed.header, packed.validators))
    }

    /// Forgets a subject.
    pub async fn erase(&self, dataset: &DatasetId, subject: &str, keep_records: bool) -> Result<Forgotten, ListError> {
        let (dataset, subject) = (dataset.clone(), subject.to_owned());
        match self.ask(&Ask::Erase { dataset, subject, keep_records: keep_records.into() }).await? {
            Told::Erased { id, operations, records } => Ok(Forgotten { id, operations, records }),
            _ => Err(ListError::Shape),
        }
    }
}

/// What an entry of a list means for its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// The subject's record was looked at, or asked for by name.
    Access,
    /// Not about this subject: the proof over its bulk tags says so.
    Other,
    /// Its bulk tags may hold the subject; there is no proof in or out.
    Maybe,
}

/// What an entry means, given the subject's tag on its day.
pub fn meaning(entry: &AccessEntry, tag: &Tag) -> Meaning {
    let op: Option<Op> = cbor::decode(&entry.op).ok();
    let tags = op.as_ref().and_then(tags_of);
    match (tags, &entry.bulk) {
        (Some(Tags::Bulk { root, .. }), Some(proof)) => match proof.verify(tag, root) {
            Ok([]) => Meaning::Other,
            Ok(_) => Meaning::Access,
            Err(_) => Meaning::Maybe,
        },
        (Some(Tags::List(_)), _) => Meaning::Access,
        _ => Meaning::Maybe,
    }
}

fn tags_of(op: &Op) -> Option<&Tags> {
    match op {
        Op::Deliver { tags, .. } => Some(tags),
        other => other.recorded().map(|r| r.tags),
    }
}

/// The day of an entry's tags.
pub fn day(entry: &AccessEntry) -> u64 {
    cbor::decode::<Op>(&entry.op).ok().and_then(|op| serve::day_of(&op)).unwrap_or_default()
}

/// A text leaf of openings.
pub fn text(openings: Option<&Redacted>, name: &str) -> String {
    let value = openings.and_then(|o| o.get(name)).unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}

/// When a sealed entry opens, milliseconds; none where it is open or erased.
pub fn sealed_until(entry: &AccessEntry) -> Option<u64> {
    let openings = entry.openings.as_ref()?;
    if openings.get(leaf::CONSUMER).is_some() { None } else { serve::open_by(openings) }
}
