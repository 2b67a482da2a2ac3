//! The ABCI application: the shell around the pure state.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use concordat_protocol::codes;
use concordat_protocol::limits::TICK_ALARM_MS;
use concordat_protocol::node::Frame;
use tendermint_abci::Application;
use tendermint_proto::v0_38::abci::{
    CheckTxType, ExecTxResult, RequestCheckTx, RequestFinalizeBlock, RequestInfo, RequestInitChain,
    RequestPrepareProposal, RequestProcessProposal, RequestQuery, ResponseCheckTx, ResponseCommit,
    ResponseFinalizeBlock, ResponseInfo, ResponseInitChain, ResponsePrepareProposal, ResponseProcessProposal,
    ResponseQuery, ValidatorUpdate, response_process_proposal::ProposalStatus,
};
use tendermint_proto::v0_38::crypto::{PublicKey, public_key::Sum};

use crate::clock::Clock;
use crate::frames::Frames;
use crate::pool::{MempoolLimits, Pool, TxCache};
use crate::proposal;
use crate::state::acts::may_sign;
use crate::state::apply::{Applied, Block, apply};
use crate::state::checkpoints;
use crate::state::genesis::Genesis;
use crate::state::history::History;
use crate::state::trees::Undo;
use crate::state::{APP_VERSION, State, TableChanges, Tables, epochs};
use crate::store::{Store, StoreError};
use crate::tx::{BatchTx, Content, Parsed};

/// Blocks back for which proofs of state rows are answered at least.
const UNDO_BLOCKS: usize = 32;
/// And at most: so far back they are answered at the newest two checkpoints.
const UNDO_BLOCKS_MAX: usize = 512;
/// Leaves and nodes that the undos beyond [`UNDO_BLOCKS`] may hold together: some 50 MB.
const UNDO_WEIGHT_MAX: usize = 500_000;

/// The committed state with what earlier heights need.
pub(crate) struct Committed {
    pub(crate) state: State,
    /// Undoes of the newest blocks, newest first.
    pub(crate) undo: VecDeque<Undo>,
    /// Genesis, until it is stored together with the first block.
    genesis: Option<Applied>,
}

struct Pending {
    applied: Applied,
    txs: Vec<Arc<Parsed>>,
}

/// The application. Clones share one state.
#[derive(Clone)]
pub struct App {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) committed: RwLock<Committed>,
    pub(crate) frames: Frames,
    clock: Box<dyn Clock>,
    limits: MempoolLimits,
    pending: Mutex<Option<Pending>>,
    pool: Mutex<Pool>,
    cache: Mutex<TxCache>,
}

/// A lock is poisoned only by a panic, and a panic stops the process: what is behind it is still whole in tests.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl App {
    /// An application on a store.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn new(store: Store, clock: impl Clock, limits: MempoolLimits) -> Result<Self, StoreError> {
        let (state, undo) = match store.load()? {
            Some(loaded) => loaded,
            None => (State::empty(), VecDeque::new()),
        };
        let frames = Frames::new(state.head.height);
        let committed = Committed { state, undo, genesis: None };
        let inner = Inner {
            store,
            committed: RwLock::new(committed),
            frames,
            clock: Box::new(clock),
            limits,
            pending: Mutex::new(None),
            pool: Mutex::default(),
            cache: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Height of the newest committed block.
    pub fn height(&self) -> u64 {
        self.committed().state.head.height
    }

    pub(crate) fn committed(&self) -> RwLockReadGuard<'_, Committed> {
        self.inner.committed.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a transaction, or finds it read already.
    fn read_tx(&self, bytes: &Bytes) -> Arc<Parsed> {
        let hash = concordat_protocol::hash::sha256(&[bytes]);
        if let Some(known) = lock(&self.inner.cache).get(&hash) {
            return known;
        }
        let tx = Parsed::read(bytes.clone());
        lock(&self.inner.cache).put(&tx);
        tx
    }

    fn read_all(&self, txs: &[Bytes]) -> Vec<Arc<Parsed>> {
        txs.iter().map(|tx| self.read_tx(tx)).collect()
    }

    fn check(&self, bytes: &Bytes) -> Result<(), u16> {
        if bytes.len() > concordat_protocol::limits::TX_BYTES_MAX {
            return Err(codes::TOO_LARGE);
        }
        let tx = self.read_tx(bytes);
        let committed = self.committed();
        let state = &committed.state;
        proposal::admissible(state, &tx)?;
        let now = self.inner.clock.monotonic_ms();
        match &tx.content {
            Content::Act(a) => {
                let key = state.tables.keys.get(&a.act.key_id).ok_or(codes::UNKNOWN_KEY)?;
                may_sign(key, &state.head.chain, &a.act)?;
                lock(&self.inner.pool).add_act(state, &tx, a, now)
            }
            Content::Batch(b) => {
                self.check_sequence(state, b)?;
                let agencies = state.tables.agencies.len();
                lock(&self.inner.pool).add_batch(&tx, b, self.inner.limits, agencies, now)
            }
            Content::Cosign(c) => {
                checkpoints::check(state, &tx, c)?;
                lock(&self.inner.pool).add_cosign(&tx, c, now)
            }
            Content::Tick(_) | Content::Bad(_) => Err(codes::UNKNOWN_KIND),
        }
    }

    /// What can be said of a batch before its turn: wrong incarnation, taken numbers. A first conflict is let in, so
    /// that the ledger stores it.
    fn check_sequence(&self, state: &State, b: &BatchTx) -> Result<(), u16> {
        let batch = &b.batch;
        let row = state.tables.writers.get(&batch.writer).ok_or(codes::UNKNOWN_WRITER)?;
        if state.tables.keys.get(&row.key_id).is_none_or(|k| k.revoked_ms != 0) {
            return Err(codes::KEY_REVOKED);
        }
        if batch.ops.is_empty() || batch.first_seq == 0 {
            return Err(codes::BAD_VALUE);
        }
        if batch.incarnation != row.incarnation {
            return Err(if batch.incarnation < row.incarnation { codes::STALE } else { codes::GAP });
        }
        if batch.first_seq > row.last_seq {
            return Ok(());
        }
        let at = (batch.writer.clone(), (batch.incarnation, batch.first_seq));
        let known = self.inner.store.reader().ok().and_then(|r| r.batch(&at));
        if known == Some(b.hash) {
            return Err(codes::STALE);
        }
        let stored = state.tables.equivocations.contains_key(&(batch.writer.clone(), batch.incarnation));
        if stored { Err(codes::CONFLICT) } else { Ok(()) }
    }

    fn alarm_on_skew(&self, tick_ms: u64) {
        let now = self.inner.clock.now_ms();
        if tick_ms.abs_diff(now) > TICK_ALARM_MS {
            tracing::warn!(tick_ms, now_ms = now, "ledger time and this machine's clock differ: check the clock");
        }
    }
}

/// What CometBFT must be told of a block's change of validators.
fn validator_updates(before: &Tables, changes: &TableChanges) -> Vec<ValidatorUpdate> {
    let update = |(key, power): ([u8; 32], i64)| ValidatorUpdate {
        pub_key: Some(PublicKey { sum: Some(Sum::Ed25519(key.to_vec())) }),
        power,
    };
    epochs::validator_changes(before, changes).into_iter().map(update).collect()
}

/// How many undos of the newest blocks stay when a block adds its own: those that lead back to the last checkpoint but
/// one, so that sessions can be proven there.
pub(crate) fn undos_kept(undos: &VecDeque<Undo>, new: &Undo, checkpoint: u64) -> usize {
    let mut weight = 0;
    let needed = |(i, undo): &(usize, &Undo)| {
        weight += undo.weight();
        *i < UNDO_BLOCKS || *i < UNDO_BLOCKS_MAX && undo.height > checkpoint && weight <= UNDO_WEIGHT_MAX
    };
    std::iter::once(new).chain(undos).enumerate().take_while(needed).count()
}

/// The frame of a block; its entries are taken out.
fn frame_of(applied: &mut Applied) -> Frame {
    let entries = std::mem::take(&mut applied.entries);
    Frame {
        height: applied.head.height,
        tick_ms: applied.head.tick_ms,
        app_hash: applied.app_hash,
        meta_rev: applied.head.meta_rev,
        entries: (applied.first_index..).zip(entries).collect(),
    }
}

impl Application for App {
    fn info(&self, _: RequestInfo) -> ResponseInfo {
        let committed = self.committed();
        let height = committed.state.head.height;
        let hash = if height == 0 { Bytes::new() } else { Bytes::copy_from_slice(&committed.state.app_hash()) };
        ResponseInfo {
            data: "concordat".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            app_version: APP_VERSION,
            last_block_height: height as i64,
            last_block_app_hash: hash,
        }
    }

    fn init_chain(&self, request: RequestInitChain) -> ResponseInitChain {
        let validators: Vec<(Vec<u8>, i64)> = request
            .validators
            .iter()
            .filter_map(|v| match v.pub_key.as_ref().and_then(|k| k.sum.as_ref()) {
                Some(Sum::Ed25519(key)) => Some((key.clone(), v.power)),
                _ => None,
            })
            .collect();
        let applied = Genesis::parse(&request.app_state_bytes).and_then(|genesis| {
            if !validators.is_empty() {
                genesis.check_validators(&validators)?;
            }
            genesis.apply(&request.chain_id)
        });
        let applied = applied.unwrap_or_else(|e| panic!("{e}"));
        let app_hash = Bytes::copy_from_slice(&applied.app_hash);
        let mut state = State::empty();
        state.merge(applied.clone());
        let mut committed = self.inner.committed.write().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(
            committed.state.head.height, 0,
            "InitChain on a chain that has begun: the data folders do not match"
        );
        *committed = Committed { state, undo: VecDeque::new(), genesis: Some(applied) };
        ResponseInitChain { app_hash, ..Default::default() }
    }

    fn check_tx(&self, request: RequestCheckTx) -> ResponseCheckTx {
        if request.r#type == CheckTxType::Recheck as i32 {
            return ResponseCheckTx::default();
        }
        match self.check(&request.tx) {
            Ok(()) => ResponseCheckTx::default(),
            Err(code) => ResponseCheckTx {
                code: code.into(),
                log: codes::text(code).into(),
                codespace: "concordat".into(),
                ..Default::default()
            },
        }
    }

    fn prepare_proposal(&self, request: RequestPrepareProposal) -> ResponsePrepareProposal {
        let mut waiting = self.read_all(&request.txs);
        let committed = self.committed();
        let mut pool = lock(&self.inner.pool);
        waiting.extend(pool.acts().cloned());
        let monotonic = self.inner.clock.monotonic_ms();
        let max_bytes = usize::try_from(request.max_tx_bytes).unwrap_or_default();
        let height = u64::try_from(request.height).unwrap_or_default();
        let now = self.inner.clock.now_ms();
        let overdue = |hash: &_| pool.overdue(hash, monotonic);
        let txs = proposal::prepare(&committed.state, waiting, now, max_bytes, height, overdue);
        ResponsePrepareProposal { txs }
    }

    fn process_proposal(&self, request: RequestProcessProposal) -> ResponseProcessProposal {
        let txs = self.read_all(&request.txs);
        let checked = proposal::check(&self.committed().state, &txs, self.inner.clock.now_ms());
        let status = match checked {
            Ok(()) => ProposalStatus::Accept,
            Err(reason) => {
                tracing::warn!(height = request.height, reason, "proposal rejected");
                ProposalStatus::Reject
            }
        };
        ResponseProcessProposal { status: status as i32 }
    }

    fn finalize_block(&self, request: RequestFinalizeBlock) -> ResponseFinalizeBlock {
        let txs = self.read_all(&request.txs);
        let applied = {
            let committed = self.committed();
            let height = u64::try_from(request.height).unwrap_or_default();
            assert!(height > committed.state.head.height, "block {height} comes after {}", committed.state.head.height);
            if let Some(version) = committed.state.needs_version(height) {
                panic!(
                    "from height {height} on the agencies run version {version} of the application, this is {APP_VERSION}: install the newer concordat, the data folder stays"
                );
            }
            let reader = self.inner.store.reader().unwrap_or_else(|e| panic!("{e}"));
            apply(&committed.state, &reader, &Block { height, txs: &txs })
        };
        let tx_results = applied
            .results
            .iter()
            .map(|r| ExecTxResult {
                code: r.code.into(),
                data: Bytes::copy_from_slice(&r.data),
                log: if r.code == 0 { String::new() } else { codes::text(r.code).into() },
                codespace: if r.code == 0 { String::new() } else { "concordat".into() },
                ..Default::default()
            })
            .collect();
        let app_hash = Bytes::copy_from_slice(&applied.app_hash);
        let validator_updates = validator_updates(&self.committed().state.tables, &applied.changes);
        *lock(&self.inner.pending) = Some(Pending { applied, txs });
        ResponseFinalizeBlock { tx_results, app_hash, validator_updates, ..Default::default() }
    }

    fn commit(&self) -> ResponseCommit {
        let Some(Pending { mut applied, txs }) = lock(&self.inner.pending).take() else {
            panic!("Commit without FinalizeBlock");
        };
        let (undo, kept) = {
            let committed = self.committed();
            let undo = committed.state.undo(&applied);
            let kept = undos_kept(&committed.undo, &undo, applied.head.checkpoints.last_but_one());
            let blocks: Vec<&Applied> = committed.genesis.iter().chain([&applied]).collect();
            if let Err(e) = self.inner.store.commit(&blocks, &undo, kept) {
                tracing::error!(error = %e, height = applied.head.height, "cannot store the block; nothing of it is kept");
                panic!("{e}");
            }
            (undo, kept)
        };
        let frame = frame_of(&mut applied);
        let tick_ms = frame.tick_ms;
        let mut committed = self.inner.committed.write().unwrap_or_else(PoisonError::into_inner);
        committed.genesis = None;
        committed.state.merge(applied);
        committed.undo.push_front(undo);
        committed.undo.truncate(kept);
        lock(&self.inner.pool).committed(&committed.state, &txs, self.inner.clock.monotonic_ms());
        drop(committed);
        self.inner.frames.publish(frame);
        lock(&self.inner.cache).forget(&txs);
        self.alarm_on_skew(tick_ms);
        ResponseCommit { retain_height: 0 }
    }

    fn query(&self, request: RequestQuery) -> ResponseQuery {
        crate::query::answer(self, &request)
    }
}
