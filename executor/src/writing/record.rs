//! What of a write stands on the ledger: its intent and its outcome, with their salted commitments.

use super::Planned;
use crate::answer::{AnswerError, DAY_MS, Disclosure, Facts, evidence_word, leaves, open_by, random32};
use crate::holding::digest;
use crate::step::{Mode, Prepared};
use crate::subjects::Marked;
use concordat_policies::ask::Grant;
use concordat_protocol::cbor::{self, Bytes};
use concordat_protocol::hash::Hash;
use concordat_protocol::keys::{SigningKey, Statement};
use concordat_protocol::leaves::{LeafSet, commitment as leaf};
use concordat_protocol::ops::Op;
use concordat_protocol::session::{Content, Release, Released, Ticket};
use serde_json::json;
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// Makes the intent of a write, and the answer that says what was done, for when it is. The consumer is not shown the
/// hashes of the whole record: from them it could guess fields that its clause does not open.
///
/// # Errors
/// The leaves do not fit, or the library failed.
pub fn intend(
    facts: &Facts<'_>,
    grant: &Grant,
    handle: u64,
    planned: &Planned,
    said: &serde_json::Value,
    marked: &Marked,
    key: &SigningKey,
) -> Result<(Disclosure, Vec<u8>), AnswerError> {
    let row = serde_json_canonicalizer::to_vec(said).map_err(|e| AnswerError::Row(0, e.to_string()))?;
    let content = Content { secret: random32()?, rows: vec![Bytes(row)] };
    let content_root = content.root();
    let clause = format!("{}/{}", grant.clause.agreement, grant.clause.clause);
    let secret = Zeroizing::new(random32()?);
    let open_by = open_by(&grant.duties, facts.tick_ms);
    let hash = |doc: &Option<String>| doc.as_deref().map(|d| digest(d).to_vec()).unwrap_or_default();
    let more = [
        (leaf::OPEN_BY, open_by.map(|ms| ms.to_be_bytes().to_vec()).unwrap_or_default()),
        (leaf::CLAUSE, clause.clone().into_bytes()),
        (leaf::ROWS_HASH, grant.rows_hash.to_vec()),
        (leaf::COUNT, 1u64.to_be_bytes().to_vec()),
        (leaf::CONTENT_ROOT, content_root.to_vec()),
        (leaf::EVIDENCE, evidence_word(&grant.evidence).as_bytes().to_vec()),
        (leaf::BEFORE, hash(&planned.before)),
        (leaf::AFTER, hash(&planned.after)),
    ];
    let set = leaves(facts, &more, &secret)?;
    let (session, n, day) = (facts.request.session, facts.request.n, facts.tick_ms / DAY_MS);
    let op = Op::Intent { handle, session, n, day, tags: marked.tags.clone(), commitment: set.root() };
    let op_hash = op.hash();
    let release = Release { request_hash: *facts.request_hash, op_hash, content_root };
    let signature = key
        .try_sign(Statement::Release, &facts.request.chain, &cbor::encode(&release))
        .map_err(|e| AnswerError::Library(e.to_string()))?;
    let shown = set.redact(|name| name != leaf::BEFORE && name != leaf::AFTER);
    let released = Released {
        ticket: Ticket { chain: facts.request.chain.clone(), log_index: 0, height: 0, op_hash },
        op: cbor::encode(&op).into(),
        openings: cbor::encode(&shown).into(),
        release_signature: signature.ed25519,
        release_key: key.key_id(),
        clause,
        encapsulation: Bytes::default(),
        sealed: Bytes::default(),
    };
    let prepared = Prepared { op, op_hash, handle, denied: None, mode: Mode::Write };
    let open_by_ms = open_by.unwrap_or_default();
    Ok((Disclosure { prepared, released, secret, content, open_by_ms }, cbor::encode(&set.redact(|_| true))))
}

/// What was done, as the consumer reads it: action, key, and the versions before and now as they are shown to it.
#[must_use]
pub fn said(action: &str, key: &str, before: Option<String>, version: Option<String>) -> serde_json::Value {
    json!({"action": action, "key": key, "before": before, "version": version})
}

/// An outcome with what opens it.
#[derive(Debug, Clone)]
pub struct Concluded {
    /// The operation.
    pub op: Op,
    /// All leaves of its commitment, canonical.
    pub openings: Vec<u8>,
    /// Its leaves as the consumer is shown them: what became of the intent, not the hash of the record.
    pub shown: Vec<u8>,
}

/// Makes the outcome of an intent: applied, or failed for the reason of a code. `after` is the record's content as stores
/// keep it, hashed; none where there is none.
///
/// # Errors
/// No randomness.
pub fn conclude(reference: u64, applied: bool, code: u16, after: Option<Hash>) -> Result<Concluded, AnswerError> {
    let result = if applied { "applied" } else { "failed" };
    let fields = BTreeMap::from([
        ("result".to_owned(), result.as_bytes().to_vec()),
        ("reason".to_owned(), if applied { vec![] } else { code.to_be_bytes().to_vec() }),
        (leaf::AFTER.to_owned(), after.filter(|_| applied).map(|h| h.to_vec()).unwrap_or_default()),
    ]);
    let set = LeafSet::new(&random32()?, fields).map_err(|e| AnswerError::Leaves(e.to_string()))?;
    let op = Op::Outcome { reference, commitment: set.root() };
    let openings = cbor::encode(&set.redact(|_| true));
    let shown = cbor::encode(&set.redact(|name| name != leaf::AFTER));
    Ok(Concluded { op, openings, shown })
}
