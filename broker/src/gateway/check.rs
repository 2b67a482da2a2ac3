//! What a consumer checks of a released response before one byte goes to an application (PROTOCOL 4 and 5).
//!
//! Pure: the key and the log entry come from this agency's own node. Every check has a name; the first that fails is
//! reported, and nothing of the response is handed on.

use concordat_protocol::acts::KeyRole;
use concordat_protocol::cbor::{self, Bytes};
use concordat_protocol::codes::Verdict;
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::keys::{Signature, Statement, Suite};
use concordat_protocol::leaves::{Redacted, commitment as leaf};
use concordat_protocol::node::{AgreementView, KeyView};
use concordat_protocol::ops::{LogEntry, Op};
use concordat_protocol::seal::SealReceiver;
use concordat_protocol::session::{Content, Release, Released, Request, Written};
use concordat_protocol::terms::Terms;
use thiserror::Error;

/// The check that failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{check}: {sentence}")]
pub struct ProofError {
    /// Stable name of the check.
    pub check: &'static str,
    /// What is wrong.
    pub sentence: String,
}

impl ProofError {
    /// Stable name of the error: the check's.
    pub fn code(&self) -> &'static str {
        self.check
    }
}

fn fail<T>(check: &'static str, sentence: impl Into<String>) -> Result<T, ProofError> {
    Err(ProofError { check, sentence: sentence.into() })
}

/// What was asked, and what this agency's own node says.
#[derive(Clone, Copy)]
pub struct Expected<'a> {
    /// The chain.
    pub chain: &'a str,
    /// This agency.
    pub consumer: &'a AgencyId,
    /// What was asked.
    pub request: &'a Request,
    /// The key that the response names, as the own node has it.
    pub key: Option<&'a KeyView>,
    /// The log entry that the ticket names, as the own node has it.
    pub entry: Option<&'a LogEntry>,
    /// Agreements as the own node has them.
    pub agreements: &'a [AgreementView],
}

/// What was proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The operation.
    pub op: Op,
    /// The opened leaves.
    pub openings: Redacted,
    /// The agreement that covers it.
    pub agreement: String,
    /// The clause in it.
    pub clause: String,
    /// Root of the content.
    pub content_root: Hash,
    /// How many rows the operation records.
    pub count: u64,
}

/// The release signature in its typed form: an executor's key is Ed25519 and its signature travels as 64 bytes; other
/// suites travel as canonical [`Signature`] bytes.
pub fn release_signature(bytes: &Bytes) -> Option<Signature> {
    if bytes.0.len() == 64 {
        return Some(Signature { suite: Suite::Ed25519, ed25519: bytes.clone(), pq: Bytes::default() });
    }
    cbor::decode(bytes).ok()
}

/// Checks all but the sealed content.
pub fn check(x: &Expected<'_>, r: &Released) -> Result<Checked, ProofError> {
    check_with(x, r, entry, false)
}

/// Checks all but the sealed content and the entry on the ledger, which is not there yet.
pub fn check_unrecorded(x: &Expected<'_>, r: &Released) -> Result<Checked, ProofError> {
    check_with(x, r, |_, _| Ok(()), false)
}

/// Checks a write: its intent as a release is checked, and the outcome that says it was applied.
pub fn check_written(x: &Expected<'_>, w: &Written, outcome: Option<&LogEntry>) -> Result<Checked, ProofError> {
    let checked = check_with(x, &w.intent, entry, true)?;
    let op: Op = match cbor::decode(&w.outcome) {
        Ok(op) => op,
        Err(e) => return fail("outcome", format!("the outcome does not decode: {e}")),
    };
    let Op::Outcome { reference, commitment } = &op else { return fail("outcome", "it is no outcome of a write") };
    if *reference != w.intent.ticket.log_index {
        return fail("outcome", format!("it is the outcome of op:{reference}"));
    }
    let provider = |e: &&LogEntry| e.writer.split('/').next() == Some(x.request.provider.as_str());
    let Some(found) = outcome.filter(|e| e.op_hash == op.hash() && e.height == w.outcome_height).filter(provider)
    else {
        return fail("outcome", format!("op:{} of the own node is another operation", w.outcome_index));
    };
    if found.verdict != Verdict::Accepted {
        return fail("outcome", format!("the ledger did not accept op:{}, code {}", w.outcome_index, found.code));
    }
    let opened: Redacted = match cbor::decode(&w.outcome_openings) {
        Ok(o) => o,
        Err(e) => return fail("outcome", format!("its openings do not decode: {e}")),
    };
    if let Err(e) = opened.verify(commitment) {
        return fail("outcome", e.to_string());
    }
    if opened.get("result") != Some(b"applied") {
        return fail("outcome", "the outcome does not say that the write was applied");
    }
    Ok(checked)
}

type Check = fn(&Expected<'_>, &Released) -> Result<(), ProofError>;

fn check_with(x: &Expected<'_>, r: &Released, entry: Check, write: bool) -> Result<Checked, ProofError> {
    let op = operation(x, r, write)?;
    let openings = openings(x, r, &op)?;
    let content_root = hash_leaf(&openings, leaf::CONTENT_ROOT)?;
    release(x, r, content_root)?;
    entry(x, r)?;
    let (agreement, clause) = clause(x, r, &op, &openings)?;
    let count = openings.get(leaf::COUNT).and_then(|c| c.try_into().ok()).map(u64::from_be_bytes);
    let Some(count) = count else { return fail("count", "the count is not opened") };
    Ok(Checked { op, openings, agreement, clause, content_root, count })
}

fn operation(x: &Expected<'_>, r: &Released, write: bool) -> Result<Op, ProofError> {
    if r.ticket.chain != x.chain {
        return fail("ticket", format!("the ticket is of chain {}", r.ticket.chain));
    }
    let op: Op = match cbor::decode(&r.op) {
        Ok(op) => op,
        Err(e) => return fail("op_hash", format!("the operation does not decode: {e}")),
    };
    if op.hash() != r.ticket.op_hash {
        return fail("op_hash", "the operation is not the one that the ticket names");
    }
    let fits =
        if write { matches!(op, Op::Intent { .. }) } else { matches!(op, Op::Query { .. } | Op::BreakGlass { .. }) };
    if !fits {
        return fail("operation", "this kind of operation releases nothing, or is no answer to what was asked");
    }
    let place = op.recorded().map(|f| (f.session, f.n));
    if place != Some((x.request.session, x.request.n)) {
        return fail("operation", "the operation records another request of another session or number");
    }
    Ok(op)
}

fn openings(x: &Expected<'_>, r: &Released, op: &Op) -> Result<Redacted, ProofError> {
    let opened: Redacted = match cbor::decode(&r.openings) {
        Ok(o) => o,
        Err(e) => return fail("commitment", format!("the openings do not decode: {e}")),
    };
    let Some(fields) = op.recorded() else { return fail("commitment", "the operation has no commitment") };
    if let Err(e) = opened.verify(fields.commitment) {
        return fail("commitment", e.to_string());
    }
    let request_hash = x.request.hash();
    let wanted: [(&'static str, &[u8]); 4] = [
        (leaf::CONSUMER, x.consumer.as_str().as_bytes()),
        (leaf::PURPOSE, x.request.purpose.as_bytes()),
        (leaf::CASE, x.request.case.as_bytes()),
        (leaf::REQUEST_HASH, &request_hash),
    ];
    for (name, want) in wanted {
        if opened.get(name) != Some(want) {
            return fail("request", format!("the operation commits to another {name} than was asked with"));
        }
    }
    Ok(opened)
}

fn hash_leaf(opened: &Redacted, name: &'static str) -> Result<Hash, ProofError> {
    match opened.get(name).and_then(|v| v.try_into().ok()) {
        Some(hash) => Ok(hash),
        None => fail("content_root", format!("the leaf {name} is not opened")),
    }
}

fn release(x: &Expected<'_>, r: &Released, content_root: Hash) -> Result<(), ProofError> {
    let Some(key) = x.key.filter(|k| k.key.key_id() == r.release_key) else {
        return fail("release_key", format!("key {} is not on the ledger", r.release_key));
    };
    if key.role != KeyRole::Release || key.agency != x.request.provider {
        return fail("release_key", format!("the key is a {} key of {}", key.role, key.agency));
    }
    if key.revoked_ms != 0 {
        return fail("release_key", format!("the key was revoked at {} ms", key.revoked_ms));
    }
    let release = Release { request_hash: x.request.hash(), op_hash: r.ticket.op_hash, content_root };
    let Some(signature) = release_signature(&r.release_signature) else {
        return fail("release_signature", "the signature does not decode");
    };
    if let Err(e) = key.key.verify_full(Statement::Release, x.chain, &cbor::encode(&release), &signature) {
        return fail("release_signature", e.to_string());
    }
    Ok(())
}

fn entry(x: &Expected<'_>, r: &Released) -> Result<(), ProofError> {
    let name = r.ticket.log_index;
    let Some(entry) = x.entry else {
        return fail("ticket", format!("op:{name} is not in the log of this agency's own node"));
    };
    if entry.op_hash != r.ticket.op_hash || entry.height != r.ticket.height {
        return fail("ticket", format!("op:{name} of the own node is another operation"));
    }
    if entry.verdict != Verdict::Accepted {
        return fail("verdict", format!("the ledger did not accept op:{name}: {}, code {}", entry.verdict, entry.code));
    }
    if entry.writer.split('/').next() != Some(x.request.provider.as_str()) {
        return fail("ticket", format!("op:{name} was written by {}", entry.writer));
    }
    Ok(())
}

/// The clause leaf names `agreement/clause`; the ledger's handle of the operation has to be that clause's.
fn clause(x: &Expected<'_>, r: &Released, op: &Op, opened: &Redacted) -> Result<(String, String), ProofError> {
    let named = opened.get(leaf::CLAUSE).and_then(|c| core::str::from_utf8(c).ok()).unwrap_or_default();
    if named != r.clause {
        return fail("clause", "the response names another clause than the operation");
    }
    let asked = &x.request.clause;
    let same = asked.is_empty() || asked == named || named.rsplit('/').next() == Some(asked);
    if !same {
        return fail("clause", format!("{asked} was asked for, the operation rests on {named}"));
    }
    let handle = op.recorded().map_or(0, |f| f.handle);
    let covers = x.agreements.iter().find_map(|a| Some((a, a.handles.iter().position(|h| *h == handle)?)));
    let Some((view, at)) = covers else {
        return fail("clause", format!("handle {handle} is of no agreement on the ledger"));
    };
    let terms: Terms = match cbor::decode(&view.terms) {
        Ok(t) => t,
        Err(e) => return fail("clause", e.to_string()),
    };
    let id = terms.clauses.get(at).map_or("", |c| c.id.as_str());
    let parties = terms.assigner == x.request.provider
        && terms.dataset == x.request.dataset
        && terms.assignee.as_ref().is_none_or(|a| a == x.consumer);
    if !parties || named.rsplit('/').next() != Some(id) || format!("{}/{id}", terms.agreement) != named && named != id {
        return fail("clause", format!("handle {handle} is {}/{id}, the operation rests on {named}", terms.agreement));
    }
    Ok((terms.agreement.to_string(), id.to_owned()))
}

/// An override is recorded as one, with the justification that was given; nothing else is recorded as an override.
pub fn overridden(checked: &Checked, justification: Option<&str>) -> Result<(), ProofError> {
    match (matches!(checked.op, Op::BreakGlass { .. }), justification) {
        (false, None) => Ok(()),
        (true, Some(why)) if checked.openings.get(leaf::JUSTIFICATION) == Some(why.as_bytes()) => Ok(()),
        (true, Some(_)) => fail("justification", "the operation commits to another justification than was given"),
        (true, None) => fail("operation", "an ordinary request was recorded as an override"),
        (false, Some(_)) => fail("operation", "an override was recorded as an ordinary request"),
    }
}

/// Opens the sealed content and checks it against what the operation commits to.
pub fn open(x: &Expected<'_>, r: &Released, checked: &Checked, receiver: &SealReceiver) -> Result<Content, ProofError> {
    let plain = match receiver.open(x.request.n, &x.request.hash(), &r.sealed) {
        Ok(plain) => plain,
        Err(e) => return fail("seal", e.to_string()),
    };
    let content: Content = match cbor::decode(&plain) {
        Ok(content) => content,
        Err(e) => return fail("content_root", format!("the content does not decode: {e}")),
    };
    if content.root() != checked.content_root {
        return fail("content_root", "the content is not what the operation commits to");
    }
    if content.rows.len() as u64 != checked.count {
        return fail("count", format!("{} rows, the operation records {}", content.rows.len(), checked.count));
    }
    Ok(content)
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
