//! The verifier of access lists: who looked at a person's records, all of it, offline.
//!
//! A receipt proves that something happened; a list also proves that nothing else did. So every run between its first
//! and its last one has to be there, each with a complete answer for every day whose tag it may hold, and the entries
//! shown have to be exactly the ones that these answers name.

use super::{Check, Invalid, Passed, Status, entry, fail, finality, verify_block};
use crate::access::{ACCESS_DECODE_MAX, ACCESS_VERSION, AccessList, RunPart, days_of, subject_tag};
use crate::cbor;
use crate::codes::{self, Verdict};
use crate::hash::{Hash, sha256};
use crate::ids::{AgencyId, DatasetId};
use crate::ops::Tag;
use crate::receipt::app_hash;
use crate::runs::{BULK_TAG, run_key};
use crate::tree;
use crate::trust::{Epoch, Trust};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What the list shows of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessState {
    /// Who, under which clause, for what.
    Open,
    /// That it was, and when the rest opens.
    Sealed {
        /// The date to which the operation commits, milliseconds since 1970.
        open_by_ms: u64,
    },
    /// The provider shows nothing of it but that it was: keys and salts are gone.
    Erased,
    /// Its subjects travel as bulk, and the list has no proof whether this one is among them.
    Maybe,
    /// It stands under a tag that the search covers, and is not about this subject.
    NotIncluded,
}

impl AccessState {
    /// The word people see.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Sealed { .. } => "sealed",
            Self::Erased => "erased",
            Self::Maybe => "maybe",
            Self::NotIncluded => "not-included",
        }
    }
}

/// An operation of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Global index: `op:<index>`.
    pub index: u64,
    /// Tick of its block, milliseconds.
    pub tick_ms: u64,
    /// Kind of the operation.
    pub kind: String,
    /// Who wrote it.
    pub writer: String,
    /// What the ledger said.
    pub verdict: Verdict,
    /// Why, from [`crate::codes`].
    pub code: u16,
    /// What the list shows of it.
    pub state: AccessState,
    /// Opened leaves as text: consumer, clause, purpose ...
    pub opened: BTreeMap<String, String>,
    /// The clause's sentence: the provider's word, not proven.
    pub sentence: String,
}

impl Access {
    fn leaf(&self, name: &str) -> Option<&str> {
        self.opened.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// The agency that asked, where it is opened.
    #[must_use]
    pub fn consumer(&self) -> Option<&str> {
        self.leaf(crate::leaves::commitment::CONSUMER)
    }

    /// The clause that decided, where it is opened: `AGR-2026-0142/C1`.
    #[must_use]
    pub fn clause(&self) -> Option<&str> {
        self.leaf(crate::leaves::commitment::CLAUSE)
    }

    /// The purpose, where it is opened.
    #[must_use]
    pub fn purpose(&self) -> Option<&str> {
        self.leaf(crate::leaves::commitment::PURPOSE)
    }

    fn to_json(&self) -> Value {
        let open_by = match self.state {
            AccessState::Sealed { open_by_ms } => Some(open_by_ms),
            _ => None,
        };
        json!({
            "operation": format!("op:{}", self.index),
            "tick_ms": self.tick_ms,
            "kind": self.kind,
            "writer": self.writer,
            "verdict": self.verdict.word(),
            "code": self.code,
            "code_text": codes::text(self.code),
            "state": self.state.word(),
            "open_by_ms": open_by,
            "consumer": self.consumer(),
            "clause": self.clause(),
            "purpose": self.purpose(),
            "opened": self.opened,
            "sentence": self.sentence,
        })
    }
}

/// What an access list proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedAccess {
    /// Final or provisional.
    pub status: Status,
    /// The dataset.
    pub dataset: DatasetId,
    /// The subject's key, which no signature covers: the person compares it with the one they hold.
    pub subject_key: [u8; 32],
    /// Number of the list's first run. 0: the list covers the log from its beginning.
    pub first_run: u64,
    /// First log index covered.
    pub from_index: u64,
    /// First log index not covered: the list is complete up to it.
    pub complete_to: u64,
    /// Tick at which the last run closed, milliseconds.
    pub complete_to_ms: u64,
    /// Whether the last run is the newest one of the state: nothing that could be listed is cut off.
    pub to_newest_run: bool,
    /// Height of the state the proofs lead to.
    pub proof_height: u64,
    /// Every operation that stands under the subject's tags or may include it, by index.
    pub accesses: Vec<Access>,
    /// Agencies that cosigned, where the list is final.
    pub cosigners: Vec<AgencyId>,
    /// Every check made.
    pub checks: Vec<Check>,
}

impl VerifiedAccess {
    /// The operations that are about the subject; those that only may be are not among them.
    pub fn about_the_subject(&self) -> impl Iterator<Item = &Access> {
        self.accesses.iter().filter(|a| !matches!(a.state, AccessState::Maybe | AccessState::NotIncluded))
    }

    /// Short name of the subject's key: eight bytes of its SHA-256, in hex.
    #[must_use]
    pub fn subject(&self) -> String {
        hex::encode(&sha256(&[&self.subject_key])[..8])
    }

    /// JSON for programs. It holds the subject's short name, not its key.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "valid": true,
            "status": self.status.word(),
            "dataset": self.dataset,
            "provider": self.dataset.owner(),
            "subject": self.subject(),
            "first_run": self.first_run,
            "from_index": self.from_index,
            "complete_to": self.complete_to,
            "complete_to_ms": self.complete_to_ms,
            "to_newest_run": self.to_newest_run,
            "proof_height": self.proof_height,
            "accesses": self.accesses.iter().map(Access::to_json).collect::<Vec<_>>(),
            "cosigners": self.cosigners,
            "checks": self.checks.iter().map(|c| json!({"name": c.name, "sentence": c.sentence})).collect::<Vec<_>>(),
        })
    }
}

/// The runs name an operation: under these tags, with these hashes of the value in its leaf there.
#[derive(Default)]
pub(super) struct Named {
    pub(super) tags: BTreeSet<Tag>,
    pub(super) value_hashes: BTreeSet<Hash>,
}

/// Verifies an access list against `trust.json`. No clock: whether a sealed entry's date has come is for the reader.
///
/// # Errors
/// The first check that fails, by name, with a sentence: those of a receipt up to `app_hash`, then `runs`, `tags`,
/// `list`, `entry`, `op_hash`, `bulk`, `commitment`, `checkpoint`.
pub fn verify_access(list: &[u8], trust: &Trust) -> Result<VerifiedAccess, Invalid> {
    let mut passed = Passed::default();
    let l = decode(list)?;
    passed.add("decode", format!("{} bytes in their one canonical encoding", list.len()));
    trust.check().map_err(|e| fail("trust", e.to_string()))?;
    let last = trust.epochs.last().map_or(0, |e| e.n);
    let print = trust.fingerprint();
    passed.add("trust", format!("trust.json holds together from genesis to epoch {last}, fingerprint {print}"));
    let (height, epoch) = block(&l, trust, &mut passed)?;
    let (from_index, complete_to) = runs(&l, &mut passed)?;
    let named = tags(&l, &mut passed)?;
    matches(&l, &named, &mut passed)?;
    let mut accesses = Vec::with_capacity(l.entries.len());
    for (shown, named) in l.entries.iter().zip(named.values()) {
        accesses.push(entry::check(&l, shown, named, height)?);
    }
    entries_passed(&accesses, &mut passed);
    let state = finality::State {
        chain: &l.chain,
        header: height,
        roots: &l.roots,
        end: complete_to,
        part: l.checkpoint.as_ref(),
    };
    let cosigners = finality::of_state(&state, epoch, &mut passed)?;
    Ok(VerifiedAccess {
        status: if l.checkpoint.is_some() { Status::Final } else { Status::Provisional },
        subject_key: l.subject_key,
        first_run: l.runs.first().map_or(0, |r| r.number),
        from_index,
        complete_to,
        complete_to_ms: l.runs.last().map_or(0, |r| r.run.to_ms),
        to_newest_run: l.runs.last().is_some_and(is_newest),
        proof_height: height.saturating_sub(1),
        accesses,
        cosigners,
        checks: passed.0,
        dataset: l.dataset,
    })
}

fn decode(list: &[u8]) -> Result<AccessList, Invalid> {
    if list.len() > ACCESS_DECODE_MAX {
        return Err(fail("decode", format!("{} bytes, at most {ACCESS_DECODE_MAX} are read", list.len())));
    }
    let l: AccessList = cbor::decode(list).map_err(|e| fail("decode", format!("access list: {e}")))?;
    if l.version != ACCESS_VERSION {
        return Err(fail("decode", format!("version {} is not known here; use a newer build", l.version)));
    }
    Ok(l)
}

/// Chain, header, validators, commit and app hash. Gives the header's height and its epoch.
fn block<'t>(l: &AccessList, trust: &'t Trust, passed: &mut Passed) -> Result<(u64, &'t Epoch), Invalid> {
    if l.chain != trust.chain {
        return Err(fail("chain", format!("the list is of chain {}, trust.json of {}", l.chain, trust.chain)));
    }
    let proven = verify_block(&l.header, &l.validators, trust)?;
    let height = proven.height;
    passed.add("chain", format!("list, header and trust.json are of chain {}", trust.chain));
    passed.add("validators", format!("the validators are those of epoch {} in trust.json", proven.epoch));
    let votes = proven.votes;
    passed.add("commit", format!("{votes} validators with more than 2/3 of the power signed header {height}"));
    if proven.app_hash != app_hash(&l.roots) {
        return Err(fail("app_hash", format!("the four roots do not make the app hash in header {height}")));
    }
    passed.add("app_hash", format!("the four roots make the app hash in header {height}"));
    let epoch = trust.epoch_at(height).ok_or_else(|| fail("validators", "trust.json has no epoch for this height"))?;
    Ok((height, epoch))
}

/// Every run stands in the state, and each begins where the one before ends. Gives the log indexes covered.
fn runs(l: &AccessList, passed: &mut Passed) -> Result<(u64, u64), Invalid> {
    let (Some(first), Some(last)) = (l.runs.first(), l.runs.last()) else {
        return Err(fail("runs", "the list has no run: it covers nothing"));
    };
    let mut before: Option<&RunPart> = None;
    for part in &l.runs {
        let leaf = tree::value_leaf(&run_key(part.number), &cbor::encode(&part.run));
        let root = part.path.root(&leaf).map_err(|e| fail("runs", e.to_string()))?;
        if root != l.roots.runs {
            return Err(fail("runs", format!("run {} is not in the state as shown", part.number)));
        }
        if before
            .is_some_and(|b| b.number.checked_add(1) != Some(part.number) || b.run.end_index != part.run.first_index)
        {
            return Err(fail("runs", format!("run {} does not follow the one before it", part.number)));
        }
        before = Some(part);
    }
    let (from, to) = (first.run.first_index, last.run.end_index);
    let since = if first.number == 0 { "from the log's beginning".into() } else { format!("from op:{from}") };
    let newest = if is_newest(last) { ", where the newest run ends" } else { ", where this list was cut" };
    passed.add(
        "runs",
        format!("{} runs follow one another and cover the log {since} up to op:{to}{newest}", l.runs.len()),
    );
    Ok((from, to))
}

/// The last leaf of a tree is the one with everything else to its left. The path itself has been followed.
fn is_newest(part: &RunPart) -> bool {
    part.path.sides == (1 << part.path.hashes.len()) - 1
}

/// Each run shows all it holds under each tag. Gives the operations by index.
fn tags(l: &AccessList, passed: &mut Passed) -> Result<BTreeMap<u64, Named>, Invalid> {
    let mut named: BTreeMap<u64, Named> = BTreeMap::new();
    let mut searched = 0;
    for part in &l.runs {
        let days = days_of(&part.run);
        // One list a day and the bulk tag's; counted first, so that no run makes this loop long.
        let wanted = if days.is_empty() { 1 } else { (days.end() - days.start()).saturating_add(2) };
        if part.lists.len() as u64 != wanted {
            let rule = format!("run {} needs {wanted} lists: one a day and the bulk tag's", part.number);
            return Err(fail("tags", rule));
        }
        let tags = days.map(|day| subject_tag(&l.subject_key, &l.dataset, day)).chain([BULK_TAG]);
        for (tag, list) in tags.zip(&part.lists) {
            let found = part.run.found(&tag, list).map_err(|e| fail("tags", format!("run {}: {e}", part.number)))?;
            for (index, value_hash) in found {
                let op = named.entry(index).or_default();
                op.tags.insert(tag);
                op.value_hashes.insert(value_hash);
            }
            searched += 1;
        }
    }
    passed.add("tags", format!("{searched} complete searches name {} operations", named.len()));
    Ok(named)
}

/// The entries shown are the ones named, no more and no less.
fn matches(l: &AccessList, named: &BTreeMap<u64, Named>, passed: &mut Passed) -> Result<(), Invalid> {
    let shown: Vec<u64> = l.entries.iter().map(|e| e.index).collect();
    if !shown.windows(2).all(|w| matches!(w, [a, b] if a < b)) {
        return Err(fail("list", "entries must be sorted by index, each once"));
    }
    let shown: BTreeSet<u64> = shown.into_iter().collect();
    if let Some(missing) = named.keys().find(|i| !shown.contains(i)) {
        return Err(fail("list", format!("the runs name op:{missing}, the list leaves it out")));
    }
    if let Some(extra) = shown.iter().find(|i| !named.contains_key(i)) {
        return Err(fail("list", format!("the list shows op:{extra}, which no run names")));
    }
    passed.add("list", "the entries shown are exactly the ones that the runs name");
    Ok(())
}

fn entries_passed(accesses: &[Access], passed: &mut Passed) {
    let count = |word: &str| accesses.iter().filter(|a| a.state.word() == word).count();
    passed.add("entry", "every entry stands in the log with its verdict");
    passed.add("op_hash", "every operation shown is the one in the log, and carries the tag it was found under");
    let (maybe, without) = (count("maybe"), count("not-included"));
    passed.add("bulk", format!("{maybe} operations may include the subject, {without} are shown not to"));
    let (open, sealed, erased) = (count("open"), count("sealed"), count("erased"));
    let sentence = match open + sealed + erased {
        0 => "nobody looked: no operation is about the subject".to_owned(),
        _ => format!("{open} entries are open, {sealed} open later, of {erased} nothing is left to show"),
    };
    passed.add("commitment", sentence);
}
