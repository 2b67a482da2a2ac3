//! One operation of an access list: where it stands, what it is, whether it is about the subject, what is shown of it.

use super::access::{Access, AccessState, Named};
use super::subject::commitment;
use super::{Invalid, fail};
use crate::access::{AccessEntry, AccessList, bulk_leaf, subject_tag};
use crate::cbor;
use crate::hash::{Hash, sha256};
use crate::ids::WriterId;
use crate::leaves::{Redacted, commitment as names};
use crate::ops::{Op, Tag, Tags, log_key};
use crate::receipt::leaf_text;
use crate::runs::BULK_TAG;
use crate::tree;

/// Checks one entry against what the runs say of it.
pub(super) fn check(l: &AccessList, shown: &AccessEntry, named: &Named, height: u64) -> Result<Access, Invalid> {
    stands(l, shown, height)?;
    let (op, writer) = operation(shown, named)?;
    // Tags are public once they are on the ledger: another agency can repeat them, but only the dataset's owner
    // records who was given its data.
    let foreign = writer.agency() != l.dataset.owner();
    let found = subject(l, shown, &op, named, foreign)?;
    let shows = openings(shown, &op)?;
    let state = match found {
        Found::Yes => shows,
        Found::Maybe => AccessState::Maybe,
        Found::No => AccessState::NotIncluded,
    };
    let opened = shown.openings.iter().flat_map(Redacted::opened);
    Ok(Access {
        index: shown.index,
        tick_ms: shown.entry.tick_ms,
        kind: op.kind_word(),
        writer: shown.entry.writer.clone(),
        verdict: shown.entry.verdict,
        code: shown.entry.code,
        state,
        opened: opened.map(|(name, value)| (name.to_owned(), leaf_text(name, value))).collect(),
        sentence: shown.sentence.clone(),
    })
}

/// The entry stands in the log, before the header.
fn stands(l: &AccessList, shown: &AccessEntry, height: u64) -> Result<(), Invalid> {
    let leaf = tree::value_leaf(&log_key(shown.index), &cbor::encode(&shown.entry));
    let root = shown.log_path.root(&leaf).map_err(|e| fail("entry", format!("op:{}: {e}", shown.index)))?;
    if root != l.roots.log {
        return Err(fail("entry", format!("op:{} with this verdict is not in the log", shown.index)));
    }
    if shown.entry.height >= height {
        return Err(fail("entry", format!("the header is not later than op:{}", shown.index)));
    }
    Ok(())
}

/// The operation is the log's and the runs', and carries the tags it was found under.
fn operation(shown: &AccessEntry, named: &Named) -> Result<(Op, WriterId), Invalid> {
    let bad = |rule: String| fail("op_hash", format!("op:{}: {rule}", shown.index));
    let op: Op = cbor::decode(&shown.op).map_err(|e| bad(format!("the operation does not decode: {e}")))?;
    let writer = WriterId::new(shown.entry.writer.clone()).map_err(|e| bad(e.to_string()))?;
    if op.hash() != shown.entry.op_hash {
        return Err(bad("the operation shown is not the one in the log".into()));
    }
    let value_hash: Hash = sha256(&[&shown.entry.op_hash]);
    if named.value_hashes.iter().any(|h| *h != value_hash) {
        return Err(bad("the runs hold another operation under this index".into()));
    }
    let carries = |tag: &Tag| match op.tags() {
        Some(Tags::List(tags)) => tags.contains(tag),
        Some(Tags::Bulk { .. }) => *tag == BULK_TAG,
        None => false,
    };
    if named.tags.iter().all(carries) {
        Ok((op, writer))
    } else {
        Err(bad("the operation does not carry the tag it was found under".into()))
    }
}

/// Whether an operation is about the subject.
enum Found {
    Yes,
    Maybe,
    No,
}

fn subject(l: &AccessList, shown: &AccessEntry, op: &Op, named: &Named, foreign: bool) -> Result<Found, Invalid> {
    let bad = |rule: String| fail("bulk", format!("op:{}: {rule}", shown.index));
    let day = match op {
        Op::Deliver { day, .. } => Some(*day),
        other => other.recorded().map(|r| r.day),
    };
    let (Some(tags), Some(day)) = (op.tags(), day) else { return Ok(Found::No) };
    let tag = subject_tag(&l.subject_key, &l.dataset, day);
    match (tags, &shown.bulk) {
        (Tags::List(_), Some(_)) => Err(bad("its tags are all in it: there is nothing to prove".into())),
        _ if foreign && shown.bulk.is_some() => Err(bad("another agency wrote it: there is nothing to prove".into())),
        _ if foreign => Ok(Found::No),
        // Found under a tag of the subject's, or an operation whose list holds the bulk tag itself.
        (Tags::List(_), None) => Ok(if named.tags.iter().any(|t| *t != BULK_TAG) { Found::Yes } else { Found::No }),
        (Tags::Bulk { .. }, None) => Ok(Found::Maybe),
        (Tags::Bulk { count, root }, Some(proof)) => {
            if proof.adjacent.size != *count {
                return Err(bad("the proof is over another number of tags than the operation has".into()));
            }
            let found = proof.verify(&tag, root).map_err(|e| bad(e.to_string()))?;
            match found {
                [] => Ok(Found::No),
                [leaf] if *leaf == bulk_leaf(&tag) => Ok(Found::Yes),
                _ => Err(bad("what was found is not the subject's tag".into())),
            }
        }
    }
}

/// What is opened belongs to the operation, and is either who, why and on what ground, or the date of that.
fn openings(shown: &AccessEntry, op: &Op) -> Result<AccessState, Invalid> {
    let bad = |rule: String| fail("commitment", format!("op:{}: {rule}", shown.index));
    let Some(openings) = &shown.openings else { return Ok(AccessState::Erased) };
    let root = commitment(op).ok_or_else(|| bad("this kind of operation has no commitment to open".into()))?;
    openings.verify(root).map_err(|e| bad(e.to_string()))?;
    if [names::CONSUMER, names::CLAUSE, names::PURPOSE].iter().all(|name| openings.get(name).is_some()) {
        return Ok(AccessState::Open);
    }
    let opened: Vec<(&str, &[u8])> = openings.opened().collect();
    match opened.as_slice() {
        [(names::OPEN_BY, value)] => {
            let date = <[u8; 8]>::try_from(*value).map_err(|_| bad("it commits to no date of opening".into()))?;
            Ok(AccessState::Sealed { open_by_ms: u64::from_be_bytes(date) })
        }
        _ => Err(bad("it must open consumer, clause and purpose, or the date when it opens alone".into())),
    }
}
