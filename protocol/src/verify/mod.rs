//! The offline verifier: a receipt, `trust.json`, and nothing else. Pure Rust without clock, files or network.
//!
//! [`verify`] makes every check in order and names the first one that fails. What it passes on was proven: the entry
//! stands in the log with this verdict, a header signed by more than 2/3 of the validators carries the log, the opened
//! leaves belong to the operation, and both parties signed their halves.

use crate::cbor;
use crate::codes::{self, Verdict};
use crate::ids::AgencyId;
use crate::ops::Op;
use crate::receipt::{Receipt, app_hash};
use crate::session::Content;
use crate::trust::{Epoch, Trust};
use serde_json::{Value, json};
use std::collections::BTreeMap;

mod access;
pub mod comet;
mod entry;
mod evidence;
mod finality;
pub mod hosted;
pub mod report;
mod subject;

pub use access::{Access, AccessState, VerifiedAccess, verify_access};
use subject::Subject;

/// A receipt that must not be believed: the first check that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("INVALID at {check}: {sentence}")]
pub struct Invalid {
    /// Stable name of the check.
    pub check: &'static str,
    /// What is wrong.
    pub sentence: String,
}

impl Invalid {
    /// Stable name of the error: the check's.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.check
    }
}

fn fail(check: &'static str, sentence: impl Into<String>) -> Invalid {
    Invalid { check, sentence: sentence.into() }
}

/// How far a receipt's proof goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// A checkpoint covers it, cosigned by more than 2/3 of the validator agencies.
    Final,
    /// Proven by the validators' commit alone.
    Provisional,
}

impl Status {
    /// The word people see.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Final => "final",
            Self::Provisional => "provisional",
        }
    }
}

/// A check that passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Its stable name.
    pub name: &'static str,
    /// What it established.
    pub sentence: String,
}

/// What a receipt proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Final or provisional.
    pub status: Status,
    /// Whether the release key counts as compromised since before the entry.
    pub contested: bool,
    /// Global index: `op:<index>`.
    pub index: u64,
    /// Height of the entry's block.
    pub height: u64,
    /// Tick of that block, milliseconds.
    pub tick_ms: u64,
    /// Height of the state the proofs lead to. What was declared later (a key compromised) does not show.
    pub proof_height: u64,
    /// Kind of the operation or act.
    pub kind: String,
    /// Who wrote it: a writer, or `act:<agency>`.
    pub writer: String,
    /// What the ledger said. Only `Accepted` may be shown as accepted.
    pub verdict: Verdict,
    /// Why, from [`crate::codes`].
    pub code: u16,
    /// The agency that answers for the operation.
    pub provider: AgencyId,
    /// The agency that asked, where the receipt shows it.
    pub consumer: Option<AgencyId>,
    /// Number of (agreement version, clause), where there is one.
    pub handle: Option<u64>,
    /// The agreement, where it is opened.
    pub agreement: Option<String>,
    /// The clause, where it is opened.
    pub clause: Option<String>,
    /// Whether the executor's release is part of the receipt.
    pub released: bool,
    /// Opened leaves as text.
    pub opened: BTreeMap<String, String>,
    /// Agencies that cosigned, where the receipt is final.
    pub cosigners: Vec<AgencyId>,
    /// Parties of the operation that did not cosign, where the receipt is final: they did not confirm it themselves.
    pub not_countersigned: Vec<AgencyId>,
    /// Every check made.
    pub checks: Vec<Check>,
}

impl Verified {
    /// Whether the ledger accepted the operation.
    #[must_use]
    pub fn accepted(&self) -> bool {
        self.verdict == Verdict::Accepted
    }

    /// JSON for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "valid": true,
            "status": self.status.word(),
            "contested": self.contested,
            "operation": format!("op:{}", self.index),
            "height": self.height,
            "tick_ms": self.tick_ms,
            "proof_height": self.proof_height,
            "kind": self.kind,
            "writer": self.writer,
            "verdict": self.verdict.word(),
            "code": self.code,
            "code_text": codes::text(self.code),
            "provider": self.provider,
            "consumer": self.consumer,
            "handle": self.handle,
            "agreement": self.agreement,
            "clause": self.clause,
            "released": self.released,
            "opened": self.opened,
            "cosigners": self.cosigners,
            "not_countersigned": self.not_countersigned,
            "checks": self.checks.iter().map(|c| json!({"name": c.name, "sentence": c.sentence})).collect::<Vec<_>>(),
        })
    }
}

/// Collects the checks that passed.
#[derive(Default)]
struct Passed(Vec<Check>);

impl Passed {
    fn add(&mut self, name: &'static str, sentence: impl Into<String>) {
        self.0.push(Check { name, sentence: sentence.into() });
    }
}

/// Verifies a receipt against `trust.json`, and the released content too where it is given.
///
/// # Errors
/// The first check that fails, by name, with a sentence.
pub fn verify(receipt: &[u8], trust: &Trust, content: Option<&Content>) -> Result<Verified, Invalid> {
    let mut passed = Passed::default();
    let r = Receipt::from_bytes(receipt).map_err(|e| fail("decode", e.to_string()))?;
    if r.version != crate::receipt::RECEIPT_VERSION {
        return Err(fail("decode", format!("version {} is not known here; use a newer build", r.version)));
    }
    passed.add("decode", format!("{} bytes in their one canonical encoding", receipt.len()));
    trust.check().map_err(|e| fail("trust", e.to_string()))?;
    let last = trust.epochs.last().map_or(0, |e| e.n);
    passed.add(
        "trust",
        format!("trust.json holds together from genesis to epoch {last}, fingerprint {}", trust.fingerprint()),
    );
    let (height, epoch) = block(&r, trust, &mut passed)?;
    log(&r, height, &mut passed)?;
    let subject = Subject::read(&r)?;
    passed.add("op_hash", format!("the {} shown is the one in the log", subject.kind()));
    let op = subject.op();
    evidence::openings(&r, op, &mut passed)?;
    let halves = evidence::halves(&r, op, &subject, &mut passed)?;
    evidence::content(&r, content, &mut passed)?;
    let cosigners = finality::check(&r, height, epoch, &mut passed)?;
    let contested = halves.contested;
    if contested {
        passed.add(
            "contested",
            "the release key is declared compromised since before this entry: what it signed is contested",
        );
    }
    passed.add("verdict", verdict_sentence(&r));
    Ok(Verified { proof_height: height.saturating_sub(1), ..result(&r, &subject, contested, cosigners, passed) })
}

/// What a header proves once its validators and commit are verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenBlock {
    /// The header's height.
    pub height: u64,
    /// App hash: of the state after the block before.
    pub app_hash: Vec<u8>,
    /// The header's time, milliseconds since 1970: the median of what the validators said when they voted for the block before.
    pub time_ms: u64,
    /// Number of the epoch whose validators signed.
    pub epoch: u64,
    /// How many of them signed.
    pub votes: usize,
}

/// Verifies a header with its commit and validators alone (of [`comet::pack`]): what a node without a validator needs
/// before it believes an app hash. The caller has made sure of `trust` by [`Trust::check`].
///
/// # Errors
/// The first check that fails: `header`, `chain`, `validators` or `commit`.
pub fn verify_block(header: &[u8], validators: &[u8], trust: &Trust) -> Result<ProvenBlock, Invalid> {
    let block = comet::Block::read(header, validators)?;
    if block.chain() != trust.chain {
        return Err(fail("chain", format!("the header is of chain {}, trust.json of {}", block.chain(), trust.chain)));
    }
    let height = block.height();
    let epoch = trust.epoch_at(height);
    let epoch = epoch.ok_or_else(|| fail("validators", format!("trust.json has no epoch for height {height}")))?;
    block.check_validators(epoch)?;
    let votes = block.check_commit()?;
    let (app_hash, time_ms) = (block.app_hash().to_vec(), block.time_ms());
    Ok(ProvenBlock { height, app_hash, time_ms, epoch: epoch.n, votes })
}

/// Chain, header, validators, commit and app hash. Gives the header's height and its epoch.
fn block<'t>(r: &Receipt, trust: &'t Trust, passed: &mut Passed) -> Result<(u64, &'t Epoch), Invalid> {
    if r.chain != trust.chain {
        return Err(fail("chain", format!("the receipt is of chain {}, trust.json of {}", r.chain, trust.chain)));
    }
    let ProvenBlock { height, app_hash: proven, epoch: n, votes, .. } = verify_block(&r.header, &r.validators, trust)?;
    passed.add("chain", format!("receipt, header and trust.json are of chain {}", trust.chain));
    passed.add("validators", format!("the validators are those of epoch {n} in trust.json"));
    passed.add("commit", format!("{votes} validators with more than 2/3 of the power signed header {height}"));
    if proven != app_hash(&r.roots) {
        return Err(fail("app_hash", format!("the four roots do not make the app hash in header {height}")));
    }
    passed.add("app_hash", format!("the four roots make the app hash in header {height}"));
    let epoch = trust.epoch_at(height).ok_or_else(|| fail("validators", "trust.json has no epoch for this height"))?;
    Ok((height, epoch))
}

/// The entry stands in the log, before the header.
fn log(r: &Receipt, height: u64, passed: &mut Passed) -> Result<(), Invalid> {
    let root = r.log_path.root(&r.log_leaf()).map_err(|e| fail("log_path", e.to_string()))?;
    if root != r.roots.log {
        return Err(fail("log_path", format!("op:{} with this verdict is not in the log", r.index)));
    }
    if r.entry.height >= height {
        return Err(fail("log_path", "the header is not later than the entry"));
    }
    passed
        .add("log_path", format!("op:{} stands in the log, {} at height {}", r.index, r.entry.verdict, r.entry.height));
    Ok(())
}

fn verdict_sentence(r: &Receipt) -> String {
    let why = codes::text(r.entry.code);
    match (r.entry.verdict, r.release.is_some()) {
        (Verdict::Accepted, _) => format!("the ledger accepted op:{}", r.index),
        (v, false) => format!("the ledger did not accept op:{}: {v}, code {} ({why})", r.index, r.entry.code),
        (v, true) => {
            format!(
                "the ledger did not accept op:{}: {v}, code {} ({why}); yet the provider released data",
                r.index, r.entry.code
            )
        }
    }
}

fn result(r: &Receipt, subject: &Subject, contested: bool, cosigners: Vec<AgencyId>, passed: Passed) -> Verified {
    let opened: BTreeMap<String, String> = r
        .openings
        .iter()
        .flat_map(|o| o.opened())
        .map(|(name, value)| (name.to_owned(), crate::receipt::leaf_text(name, value)))
        .collect();
    let named = opened.get(crate::leaves::commitment::CLAUSE).filter(|c| !c.is_empty());
    let (agreement, clause) = match named.map(|c| c.split_once('/').ok_or(c)) {
        Some(Ok((agreement, clause))) => (Some(agreement.to_owned()), Some(clause.to_owned())),
        Some(Err(clause)) => (None, Some(clause.clone())),
        None => (None, r.request.as_ref().map(|p| p.request.clause.clone()).filter(|c| !c.is_empty())),
    };
    let handle = match subject.op() {
        Some(Op::Deliver { handle, .. }) => Some(*handle),
        op => op.and_then(Op::recorded).map(|f| f.handle),
    };
    let consumer = evidence::consumer(r);
    Verified {
        not_countersigned: finality::not_countersigned(r, subject.agency(), consumer.as_ref(), &cosigners),
        status: if r.checkpoint.is_some() { Status::Final } else { Status::Provisional },
        contested,
        index: r.index,
        height: r.entry.height,
        tick_ms: r.entry.tick_ms,
        proof_height: 0,
        kind: subject.kind(),
        writer: r.entry.writer.clone(),
        verdict: r.entry.verdict,
        code: r.entry.code,
        provider: subject.agency().clone(),
        consumer,
        handle: handle.filter(|h| *h > 0),
        agreement,
        clause,
        released: r.release.is_some(),
        opened,
        cosigners,
        checks: passed.0,
    }
}

/// Canonical bytes, for checks that compare what was signed.
fn bytes<T: cbor::Canon>(v: &T) -> Vec<u8> {
    cbor::encode(v)
}
