//! What makes an answer of the host believed: pure checks against the roots under a header that the validators signed.

use concordat_protocol::cbor::{self, Bytes, Canon};
use concordat_protocol::evidence::MetaList;
use concordat_protocol::hash::{Hash, sha256};
use concordat_protocol::ids::AgreementId;
use concordat_protocol::limits::{HEAD_STALE_MS, RELEASE_WITHIN_MS};
use concordat_protocol::node::{AgreementView, LeafProof, StoreRoots};
use concordat_protocol::ops::{LogEntry, log_key};
use concordat_protocol::receipt::{Path, app_hash};
use concordat_protocol::terms::{Status, Terms};
use concordat_protocol::tree::value_leaf;
use concordat_protocol::trust::Trust;
use concordat_protocol::verify::{Invalid, verify_block};
use std::collections::BTreeMap;

/// What an agreement's leaf holds: `((revision, (status, terms_hash)), ((expires_ms, bounded), (approvals, handles)))`.
type AgreementLeaf = ((u64, (Status, Hash)), ((u64, u64), (Vec<(String, Hash)>, Vec<u64>)));

/// An answer that does not prove itself.
pub(super) fn fail(check: &'static str, sentence: impl Into<String>) -> Invalid {
    Invalid { check, sentence: sentence.into() }
}

/// A header with what the host says hangs under it.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// Header H+1 with its commit, packed.
    pub header: &'a [u8],
    /// Its validators, packed.
    pub validators: &'a [u8],
    /// The four roots after block H.
    pub roots: &'a StoreRoots,
    /// Tick of block H, milliseconds.
    pub tick_ms: u64,
}

/// Height H, if its header and the time it is of are believed. `seen` is the highest header believed before, `now_ms` the
/// own clock.
///
/// # Errors
/// Those of [`verify_block`], or `rollback`, `app_hash`, `time` (header and own clock), `tick` (the block's and the header's).
pub fn believe(trust: &Trust, claim: &Claim<'_>, seen: u64, now_ms: u64) -> Result<u64, Invalid> {
    let block = verify_block(claim.header, claim.validators, trust)?;
    if block.height < seen {
        return Err(fail("rollback", format!("header {} is older than {seen}, which was seen before", block.height)));
    }
    carries(&block.app_hash, claim.roots, block.height)?;
    // The header says when the validators voted for the block before it.
    if block.time_ms > now_ms.saturating_add(RELEASE_WITHIN_MS) || block.time_ms.saturating_add(HEAD_STALE_MS) < now_ms
    {
        let off = i128::from(block.time_ms) - i128::from(now_ms);
        return Err(fail(
            "time",
            format!("header {} is {off} ms off the own clock: newer ones are kept back", block.height),
        ));
    }
    if block.time_ms.abs_diff(claim.tick_ms) > RELEASE_WITHIN_MS {
        return Err(fail("tick", format!("the tick of block {} is not of its header's time", block.height - 1)));
    }
    Ok(block.height - 1)
}

/// The app hash of a header is made of these roots.
pub fn carries(proven: &[u8], roots: &StoreRoots, height: u64) -> Result<(), Invalid> {
    if proven == app_hash(roots) {
        return Ok(());
    }
    Err(fail("app_hash", format!("the four roots do not make the app hash in header {height}")))
}

/// A leaf of a tree under its key.
pub fn leaf(leaf: &LeafProof, key: &[u8], root: &Hash) -> Result<(), Invalid> {
    let name = || String::from_utf8_lossy(key).into_owned();
    if leaf.key.0 != key {
        return Err(fail("leaf", format!("another leaf than {} was handed over", name())));
    }
    let path = Path::of(leaf.index, leaf.size, &leaf.path).map_err(|e| fail("leaf", e.to_string()))?;
    match path.root(&value_leaf(&leaf.key, &leaf.value)) {
        Ok(found) if found == *root => Ok(()),
        _ => Err(fail("leaf", format!("{} is not so in the state of this header", name()))),
    }
}

/// The value of a proven leaf.
pub fn value<T: Canon>(proof: &LeafProof) -> Result<T, Invalid> {
    cbor::decode(&proof.value).map_err(|e| fail("leaf", e.to_string()))
}

/// Keys and values under a prefix: all that there are.
pub type List = Vec<(String, Bytes)>;

/// The complete list under a prefix of `meta`.
pub fn list(body: &MetaList, prefix: &str, root: &Hash) -> Result<List, Invalid> {
    let found = body.list.verify(prefix.as_bytes(), root).map_err(|e| fail("list", format!("{prefix}: {e}")))?;
    if found.len() != body.values.len() {
        return Err(fail("list", format!("{prefix}: not every leaf has its value")));
    }
    let pair = |(leaf, value): (&concordat_protocol::tree::SortedLeaf, &Bytes)| {
        let key = String::from_utf8(leaf.key.0.clone()).map_err(|e| fail("list", e.to_string()))?;
        if leaf.value_hash != sha256(&[value]) {
            return Err(fail("list", format!("{key} has another value in the state of this header")));
        }
        Ok((key, value.clone()))
    };
    found.iter().zip(&body.values).map(pair).collect()
}

/// Entries of one writer's or all writers' operations stand in the log, each in its block.
pub fn entries(asked: &[(u64, LogEntry)], proofs: &[LeafProof], root: &Hash) -> Result<(), Invalid> {
    if asked.len() != proofs.len() {
        return Err(fail("log_path", format!("{} proofs for {} entries", proofs.len(), asked.len())));
    }
    for ((index, entry), proof) in asked.iter().zip(proofs) {
        let bad = |_| fail("log_path", format!("op:{index} with this verdict is not in the log"));
        leaf(proof, &log_key(*index), root).map_err(bad)?;
        if proof.value.0 != cbor::encode(entry) {
            return Err(fail("log_path", format!("op:{index} is another in the log than in the frame")));
        }
    }
    Ok(())
}

/// An entry of a frame belongs to that frame.
pub fn in_block(entries: &[(u64, LogEntry)], height: u64, tick_ms: u64) -> Result<(), Invalid> {
    let strange = entries.iter().find(|(_, e)| e.height != height || e.tick_ms != tick_ms);
    strange.map_or(Ok(()), |(index, e)| {
        Err(fail("frame", format!("op:{index} is of block {}, the frame of block {height}", e.height)))
    })
}

/// The last entry of a log under this root stands at `index`: nothing is on its path's right.
pub fn last_entry(proof: &LeafProof, index: u64, root: &Hash) -> Result<(), Invalid> {
    leaf(proof, &log_key(index), root)?;
    let path = Path::of(proof.index, proof.size, &proof.path).map_err(|e| fail("leaf", e.to_string()))?;
    let left = path.hashes.len() == path.sides.count_ones() as usize;
    if left { Ok(()) } else { Err(fail("log_size", format!("the log does not end with op:{index}"))) }
}

/// The key of an agreement version's leaf.
pub fn agreement_key(agreement: &AgreementId, version: u64) -> String {
    format!("agreement/{agreement}/{version:010}")
}

/// All agreement versions are here, and each is as the state has it: status, terms, handles, the approvals that it rests on.
pub fn agreements(views: &[AgreementView], list: &List) -> Result<(), Invalid> {
    let mut leaves: BTreeMap<&str, &Bytes> = list.iter().map(|(k, v)| (k.as_str(), v)).collect();
    for view in views {
        let key = agreement_key(&view.agreement, view.version);
        let leaf = leaves.remove(key.as_str());
        let leaf = leaf.ok_or_else(|| fail("agreement", format!("{key} is not in the state of this header")))?;
        agreement(view, leaf).map_err(|rule| fail("agreement", format!("{key}: {rule}")))?;
    }
    match leaves.keys().next() {
        Some(key) => Err(fail("agreement", format!("{key} is in the state of this header and was left out"))),
        None => Ok(()),
    }
}

fn agreement(view: &AgreementView, leaf: &Bytes) -> Result<(), String> {
    let decoded: Result<AgreementLeaf, _> = cbor::decode(leaf);
    let (state, ((expires_ms, bounded), (approvals, handles))) = decoded.map_err(|e| e.to_string())?;
    let (revision, (status, terms_hash)) = state;
    if status != view.status {
        return Err(format!("it is {status} in the state of this header, the host says {}", view.status));
    }
    let terms: Terms = cbor::decode(&view.terms).map_err(|e| e.to_string())?;
    let own = (terms.agreement.clone(), terms.version);
    if terms_hash != view.terms_hash || terms.hash() != terms_hash || own != (view.agreement.clone(), view.version) {
        return Err("its terms are others in the state of this header".into());
    }
    let given = view.approvals.iter().map(|a| (format!("{}/{}", a.agency, a.role), sha256(&[&a.act, &a.signature])));
    let rest = (revision, expires_ms, bounded, handles)
        == (view.revision, view.expires_ms, u64::from(view.bounded_suspended), view.handles.clone());
    if !rest || given.collect::<Vec<_>>() != approvals {
        return Err("its revision, handles or approvals are others in the state of this header".into());
    }
    Ok(())
}

#[cfg(test)]
#[path = "proofs_tests.rs"]
mod tests;
