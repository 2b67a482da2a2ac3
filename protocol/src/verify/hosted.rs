//! May a provider without a node release a stored response? It sees the ledger through another agency's node, which it
//! does not trust: so it believes a header that the validators signed, and what hangs on it.

use super::{Invalid, ProvenBlock, fail, verify_block};
use crate::cbor::{self, Bytes};
use crate::codes::Verdict;
use crate::hash::Hash;
use crate::ids::AgreementId;
use crate::node::StoreRoots;
use crate::ops::{LogEntry, log_key};
use crate::receipt::{Path, app_hash};
use crate::terms::Status;
use crate::tree;
use crate::trust::Trust;

/// What the provider itself knows of the response that it stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The provider's own writer, `police/executor`.
    pub writer: String,
    /// Hash of the operation that describes the response.
    pub op_hash: Hash,
    /// The agreement that permitted it.
    pub agreement: AgreementId,
    /// Its version.
    pub version: u64,
    /// Hash of the terms by which it was decided.
    pub terms_hash: Hash,
    /// The highest header that the provider believed before.
    pub seen_height: u64,
}

/// What the hosting node hands over. Nothing in it is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handed {
    /// Header H+1 with its commit, packed ([`super::comet::pack`]).
    pub header: Vec<u8>,
    /// Its validators, packed.
    pub validators: Vec<u8>,
    /// The roots after block H.
    pub roots: StoreRoots,
    /// Global index of the entry.
    pub index: u64,
    /// The entry.
    pub entry: LogEntry,
    /// From the entry to the root of `log`.
    pub log_path: Path,
    /// Value of the agreement's leaf.
    pub agreement: Bytes,
    /// From it to the root of `meta`.
    pub agreement_path: Path,
}

/// Value of an agreement's leaf: `((revision, (status, terms_hash)), ((expires_ms, bounded), (approvals, handles)))`.
type AgreementLeaf = ((u64, (Status, Hash)), ((u64, u64), (Vec<(String, Hash)>, Vec<u64>)));

/// Whether a strict release may leave now, `now_ms` being the provider's own clock and `within_ms` how long after its
/// block a release may leave. Each check that fails denies it: there is no other way to `Ok`.
///
/// A host that keeps newer blocks back cannot gain more than `within_ms`, and never a release that the ledger did not accept
/// in its order: the verdict is inside the entry.
///
/// # Errors
/// The first check that fails: those of [`verify_block`], or `rollback`, `app_hash`, `entry`, `log_path`, `verdict`, `late`,
/// `agreement`. `late` and `agreement` mean that the accepted operation is to be withheld; the others that the host's answer
/// is wrong or old, and that another may be asked.
pub fn may_release(
    trust: &Trust,
    stored: &Stored,
    handed: &Handed,
    now_ms: u64,
    within_ms: u64,
) -> Result<ProvenBlock, Invalid> {
    trust.check().map_err(|e| fail("trust", e.to_string()))?;
    let block = verify_block(&handed.header, &handed.validators, trust)?;
    if block.height < stored.seen_height {
        let sentence = format!("header {} is older than {}, which was seen before", block.height, stored.seen_height);
        return Err(fail("rollback", sentence));
    }
    if block.app_hash != app_hash(&handed.roots) {
        return Err(fail("app_hash", format!("the four roots do not make the app hash in header {}", block.height)));
    }
    let entry = &handed.entry;
    if entry.writer != stored.writer || entry.op_hash != stored.op_hash {
        return Err(fail("entry", "the entry is of another operation"));
    }
    let leaf = tree::value_leaf(&log_key(handed.index), &cbor::encode(entry));
    let root = handed.log_path.root(&leaf).map_err(|e| fail("log_path", e.to_string()))?;
    if root != handed.roots.log || entry.height >= block.height {
        return Err(fail(
            "log_path",
            format!("op:{} with this verdict is not in the log before this header", handed.index),
        ));
    }
    if entry.verdict != Verdict::Accepted {
        return Err(fail("verdict", format!("the ledger said {} with code {}", entry.verdict, entry.code)));
    }
    // A clock far behind the ledger's cannot tell what is late.
    if now_ms.abs_diff(entry.tick_ms) > within_ms {
        return Err(fail("late", format!("the block is more than {within_ms} ms from now: the response is withheld")));
    }
    in_force(stored, handed)?;
    Ok(block)
}

/// The agreement is active at H, with the terms by which the provider decided.
fn in_force(stored: &Stored, handed: &Handed) -> Result<(), Invalid> {
    let key = format!("agreement/{}/{:010}", stored.agreement, stored.version);
    let leaf = tree::value_leaf(key.as_bytes(), &handed.agreement);
    let root = handed.agreement_path.root(&leaf).map_err(|e| fail("agreement", e.to_string()))?;
    if root != handed.roots.meta {
        return Err(fail("agreement", format!("{key} is not so in the state of this header")));
    }
    let bad = |e: cbor::CborError| fail("agreement", e.to_string());
    let ((_, (status, terms_hash)), _): AgreementLeaf = cbor::decode(&handed.agreement).map_err(bad)?;
    if status != Status::Active {
        return Err(fail("agreement", format!("{key} is not active: the response is withheld")));
    }
    if terms_hash != stored.terms_hash {
        return Err(fail("agreement", format!("{key} has other terms than those by which it was decided")));
    }
    Ok(())
}
