//! A stand-in for CometBFT in one process that drives an application and holds it to the ABCI 2.0 contract.
//!
//! Every breach is a panic that names the rule: calls come in CometBFT's order, each transaction has one result, a
//! proposal keeps its size and is accepted by its own proposer, nothing shows before Commit, a replay gives the same
//! app hash and results.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use tendermint_abci::Application;
use tendermint_proto::v0_38::abci::{
    CheckTxType, ExecTxResult, RequestCheckTx, RequestFinalizeBlock, RequestInfo, RequestInitChain,
    RequestPrepareProposal, RequestProcessProposal, RequestQuery, ResponseCheckTx, ResponseInfo, ResponseQuery,
    ValidatorUpdate, response_process_proposal::ProposalStatus,
};

/// A decided block and what came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Decided {
    /// Its height.
    pub height: i64,
    /// Its transactions in order.
    pub txs: Vec<Bytes>,
    /// One result a transaction.
    pub results: Vec<ExecTxResult>,
    /// The app hash after it.
    pub app_hash: Bytes,
    /// What it changes of the validators.
    pub validator_updates: Vec<ValidatorUpdate>,
}

/// The driver: a mempool and the chain so far.
pub struct Mock<A> {
    /// The application that is driven.
    pub app: A,
    /// The block size that PrepareProposal may fill.
    pub max_tx_bytes: i64,
    /// Transactions that CheckTx accepted and no block holds.
    pub mempool: Vec<Bytes>,
    /// The chain.
    pub blocks: Vec<Decided>,
    genesis: RequestInitChain,
    genesis_hash: Bytes,
    finalized: Option<Decided>,
}

impl<A: Application> Mock<A> {
    /// Starts a chain: Info must show an empty application, then InitChain.
    pub fn new(app: A, chain_id: &str, app_state: &str) -> Self {
        let genesis = RequestInitChain {
            chain_id: chain_id.into(),
            app_state_bytes: Bytes::from(app_state.to_owned()),
            initial_height: 1,
            ..Default::default()
        };
        let mut mock = Self {
            app,
            max_tx_bytes: 1_000_000,
            mempool: vec![],
            blocks: vec![],
            genesis,
            genesis_hash: Bytes::new(),
            finalized: None,
        };
        let info = mock.info();
        assert_eq!(info.last_block_height, 0, "a new application must report height 0");
        mock.genesis_hash = mock.app.init_chain(mock.genesis.clone()).app_hash;
        assert_eq!(mock.genesis_hash.len(), 32, "InitChain must give the app hash");
        mock
    }

    /// The application's Info.
    pub fn info(&self) -> ResponseInfo {
        self.app.info(RequestInfo::default())
    }

    /// Height of the newest committed block.
    pub fn height(&self) -> i64 {
        self.blocks.last().map_or(0, |b| b.height)
    }

    /// The app hash of the newest committed block.
    pub fn app_hash(&self) -> Bytes {
        self.blocks.last().map_or_else(|| self.genesis_hash.clone(), |b| b.app_hash.clone())
    }

    /// Offers a transaction to the mempool, as a client does.
    pub fn check(&mut self, tx: impl Into<Bytes>) -> ResponseCheckTx {
        let tx = tx.into();
        let answer = self.app.check_tx(RequestCheckTx { tx: tx.clone(), r#type: CheckTxType::New as i32 });
        if answer.code == 0 && !self.mempool.contains(&tx) {
            self.mempool.push(tx);
        }
        answer
    }

    /// Offers a transaction that must be accepted.
    pub fn submit(&mut self, tx: impl Into<Bytes>) {
        let answer = self.check(tx);
        assert_eq!(answer.code, 0, "CheckTx refused: {}", answer.log);
    }

    /// A proposal of this node for the next height.
    pub fn propose(&self) -> Vec<Bytes> {
        let request = RequestPrepareProposal {
            max_tx_bytes: self.max_tx_bytes,
            txs: self.mempool.clone(),
            height: self.height() + 1,
            ..Default::default()
        };
        let txs = self.app.prepare_proposal(request).txs;
        let size: usize = txs.iter().map(|tx| 1 + varint_len(tx.len()) + tx.len()).sum();
        assert!(size as i64 <= self.max_tx_bytes, "proposal of {size} bytes over max_tx_bytes {}", self.max_tx_bytes);
        txs
    }

    /// Whether this node accepts a proposal; asked twice, as after a round change, it must answer the same.
    pub fn accepts(&self, txs: &[Bytes]) -> bool {
        let ask = || {
            let request = RequestProcessProposal { txs: txs.to_vec(), height: self.height() + 1, ..Default::default() };
            self.app.process_proposal(request).status
        };
        let status = ask();
        assert_eq!(status, ask(), "ProcessProposal must answer the same when asked again");
        status == ProposalStatus::Accept as i32
    }

    /// FinalizeBlock, without Commit: nothing may show yet.
    pub fn finalize(&mut self, txs: Vec<Bytes>) -> Decided {
        let height = self.height() + 1;
        let before = self.info();
        let decided = self.run(height, txs.clone());
        assert_eq!(self.run(height, txs), decided, "the same block must give the same results when it comes again");
        assert_eq!(self.info(), before, "nothing may show before Commit");
        self.finalized = Some(decided.clone());
        decided
    }

    fn run(&self, height: i64, txs: Vec<Bytes>) -> Decided {
        let request = RequestFinalizeBlock { txs: txs.clone(), height, ..Default::default() };
        let answer = self.app.finalize_block(request);
        assert_eq!(answer.tx_results.len(), txs.len(), "one result a transaction");
        assert_eq!(answer.app_hash.len(), 32, "FinalizeBlock must set the app hash");
        let (results, app_hash, validator_updates) = (answer.tx_results, answer.app_hash, answer.validator_updates);
        Decided { height, txs, results, app_hash, validator_updates }
    }

    /// Commit of the finalized block.
    pub fn commit(&mut self) -> Decided {
        let decided = self.finalized.take().expect("FinalizeBlock comes before Commit");
        assert_eq!(self.app.commit().retain_height, 0, "nothing may be pruned yet");
        let info = self.info();
        assert_eq!(info.last_block_height, decided.height, "Commit must show the new height");
        assert_eq!(info.last_block_app_hash, decided.app_hash, "Commit must show the new app hash");
        self.mempool.retain(|tx| !decided.txs.contains(tx));
        self.blocks.push(decided.clone());
        decided
    }

    /// One round: propose, accept, finalize, commit.
    pub fn block(&mut self) -> Decided {
        let txs = self.propose();
        assert!(self.accepts(&txs), "a proposer must accept its own proposal");
        self.decide(txs)
    }

    /// A block that the other validators decided.
    pub fn decide(&mut self, txs: Vec<Bytes>) -> Decided {
        self.finalize(txs);
        self.commit()
    }

    /// The handshake after a restart: the application may be one block behind, and is brought up by replay.
    pub fn restart(&mut self, app: A) {
        self.app = app;
        let last = self.info().last_block_height;
        if let Some(decided) = self.finalized.take() {
            self.blocks.push(decided);
        }
        assert!(last + 1 >= self.height(), "the application lost committed height {last}");
        if last == 0 {
            let hash = self.app.init_chain(self.genesis.clone()).app_hash;
            assert_eq!(hash, self.genesis_hash, "InitChain must give the same app hash again");
        }
        for block in self.blocks.clone().into_iter().filter(|b| b.height > last) {
            assert_eq!(self.run(block.height, block.txs.clone()), block, "replay must give the same results");
            self.app.commit();
            self.mempool.retain(|tx| !block.txs.contains(tx));
        }
        if self.height() > 0 {
            assert_eq!(self.info().last_block_app_hash, self.app_hash());
        }
        self.mempool.clear();
    }

    /// Replays the whole chain into an empty application and compares every app hash and result.
    pub fn replay_into(&self, app: A) {
        let mut other =
            Self::new(app, &self.genesis.chain_id, std::str::from_utf8(&self.genesis.app_state_bytes).unwrap());
        for block in &self.blocks {
            assert_eq!(&other.decide(block.txs.clone()), block);
        }
    }

    /// A query at the newest provable height.
    pub fn query(&self, path: &str, data: impl Into<Bytes>, prove: bool) -> ResponseQuery {
        self.app.query(RequestQuery { path: path.into(), data: data.into(), height: 0, prove })
    }
}

/// Bytes of a protobuf varint.
pub fn varint_len(n: usize) -> usize {
    let bits = usize::BITS - (n | 1).leading_zeros();
    (bits as usize).div_ceil(7)
}
