//! Decisions as they are recorded, and deciding them again.
//!
//! A [`Record`] holds all that a decision was made of: the request and the query document as they were signed, the height and
//! ledger time, and every agreement version that was asked, by the hash of its terms and of its policy rows. [`replay`] holds
//! a record against what the ledger has of the operation, decides the request again with the evaluator of this release, and
//! names the first term in which the two differ. What the store of records cannot change unseen is what the ledger commits
//! to: who asked what, for what purpose, when, under which clause, under which rows, and how many rows were released.

mod record;

pub use record::{Asked, InForce, Record, Told};

use crate::decide::{QueryDocument, decide};
use crate::holding::DatasetSpec;
use crate::writing::{WriteAsk, decide_write};
use concordat_policies::ask::Grant;
use concordat_policies::compile::Compiled;
use concordat_policies::duty::Capabilities;
use concordat_policies::evaluate::{AgreementSet, Evaluator};
use concordat_protocol::cbor;
use concordat_protocol::codes;
use concordat_protocol::hash::sha256;
use concordat_protocol::ids::{AgencyId, AgreementId};
use concordat_protocol::leaves::{Redacted, commitment as leaf};
use concordat_protocol::ops::{LogEntry, Op, Recorded};
use concordat_protocol::session::{Denied, Request};
use std::sync::Arc;

/// Milliseconds of a UTC day.
const DAY_MS: u64 = 86_400_000;

/// A clause as the auditor's own node has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnLedger {
    /// The agreement.
    pub agreement: AgreementId,
    /// Its version.
    pub version: u64,
    /// Hash of its terms, hex.
    pub terms_hash: String,
    /// Whether its dates were renewed: then older terms had another hash.
    pub renewed: bool,
    /// The clause.
    pub clause: String,
    /// Its handle.
    pub handle: u64,
}

/// What a record is held against.
#[derive(Debug, Clone, Copy)]
pub struct Against<'a> {
    /// The entry of the own node's log.
    pub entry: &'a LogEntry,
    /// The operation's canonical bytes.
    pub op: &'a [u8],
    /// The opened leaves of its commitment, canonical.
    pub openings: &'a [u8],
    /// Clauses on the ledger.
    pub ledger: &'a [OnLedger],
    /// Documents that the auditor has.
    pub documents: &'a [Compiled],
    /// The dataset's key and fields; none where it is not held.
    pub spec: Option<&'a DatasetSpec>,
}

/// The first term in which a record and its replay differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Stable name of the term.
    pub term: &'static str,
    /// As recorded.
    pub recorded: String,
    /// As found on the ledger, in the documents or by deciding again.
    pub found: String,
}

fn differ<T>(term: &'static str, recorded: impl Into<String>, found: impl Into<String>) -> Result<T, Difference> {
    Err(Difference { term, recorded: recorded.into(), found: found.into() })
}

fn same(term: &'static str, recorded: &str, found: &str) -> Result<(), Difference> {
    if recorded == found { Ok(()) } else { differ(term, recorded, found) }
}

/// What deciding again comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outcome {
    permitted: bool,
    clause: String,
    rows_hash: String,
    code: u16,
    reason: String,
    missing: String,
}

/// Decides a recorded request again. `Ok` if ledger, documents and evaluator say what the record says.
///
/// # Errors
/// The first term that differs.
pub fn replay(record: &Record, x: &Against<'_>) -> Result<(), Difference> {
    let (op, openings) = evidence(x)?;
    let Some(recorded) = op.recorded() else {
        return differ("operation", "a query, a write, an override or a denial", "an operation of another kind");
    };
    let request = request(record, x, &recorded, &openings)?;
    // A denial's commitment has no rows hash: nothing was released under any.
    if record.denied.is_none() {
        // What is recorded of a write is one: its intent.
        let wrote = QueryDocument::read(record.query.as_bytes()).is_ok_and(|d| WriteAsk::member(&d.query).is_some());
        if wrote != matches!(op, Op::Intent { .. }) {
            let word = |write: bool| if write { "a write" } else { "a query" };
            return differ("operation", word(wrote), word(!wrote));
        }
        same("clause", &format!("{}/{}", agreement(record), record.clause), text(&openings, leaf::CLAUSE))?;
        let opened = openings.get(leaf::ROWS_HASH).map(hex::encode).unwrap_or_default();
        same("rows_hash", record.rows_hash.as_deref().unwrap_or_default(), &opened)?;
        let count = openings.get(leaf::COUNT).and_then(|c| c.try_into().ok()).map(u64::from_be_bytes);
        same("rows", &shown(record.rows), &shown(count))?;
        handle(record, x, recorded.handle)?;
    }
    let documents = documents(record, x)?;
    let again = decide_again(record, &request, documents, x.spec)?;
    compare(record, &again)
}

fn shown(n: Option<u64>) -> String {
    n.map_or_else(|| "none".to_owned(), |n| n.to_string())
}

fn agreement(record: &Record) -> String {
    record.agreement.as_ref().map(ToString::to_string).unwrap_or_default()
}

fn text<'a>(openings: &'a Redacted, name: &str) -> &'a str {
    openings.get(name).and_then(|v| core::str::from_utf8(v).ok()).unwrap_or_default()
}

/// The operation and its opened commitment, if they are those of the ledger's entry.
fn evidence(x: &Against<'_>) -> Result<(Op, Redacted), Difference> {
    let op: Op = match cbor::decode(x.op) {
        Ok(op) => op,
        Err(e) => return differ("operation", "an operation", e.to_string()),
    };
    same("operation", &hex::encode(op.hash()), &hex::encode(x.entry.op_hash))?;
    let commitment = op.recorded().map(|r| *r.commitment).unwrap_or_default();
    let openings: Redacted = match cbor::decode(x.openings) {
        Ok(openings) => openings,
        Err(e) => return differ("commitment", "opened leaves", e.to_string()),
    };
    match openings.verify(&commitment) {
        Ok(()) => Ok((op, openings)),
        Err(e) => differ("commitment", hex::encode(commitment), e.to_string()),
    }
}

/// The request, if it is the one that the operation commits to.
fn request(
    record: &Record,
    x: &Against<'_>,
    recorded: &Recorded<'_>,
    openings: &Redacted,
) -> Result<Request, Difference> {
    let bytes = hex::decode(&record.request).unwrap_or_default();
    let opened = openings.get(leaf::REQUEST_HASH).map(hex::encode).unwrap_or_default();
    same("request", &hex::encode(sha256(&[&bytes])), &opened)?;
    let request: Request = match cbor::decode(&bytes) {
        Ok(request) => request,
        Err(e) => return differ("request", "a request", e.to_string()),
    };
    same("query", &hex::encode(sha256(&[record.query.as_bytes()])), &hex::encode(request.query_hash))?;
    same("consumer", &record.consumer, text(openings, leaf::CONSUMER))?;
    same("purpose", &request.purpose, text(openings, leaf::PURPOSE))?;
    same("case", &request.case, text(openings, leaf::CASE))?;
    let place = |session: u64, n: u64| format!("session {session}, number {n}");
    same("place", &place(request.session, request.n), &place(recorded.session, recorded.n))?;
    // It was decided before it was on the ledger, on the day that the operation names.
    if record.height >= x.entry.height || record.tick_ms >= x.entry.tick_ms {
        return differ(
            "height",
            format!("{} at {} ms", record.height, record.tick_ms),
            format!("before {}", x.entry.height),
        );
    }
    same("day", &(record.tick_ms / DAY_MS).to_string(), &recorded.day.to_string())?;
    Ok(request)
}

/// The clause's handle on the ledger says which version's it is.
fn handle(record: &Record, x: &Against<'_>, handle: u64) -> Result<(), Difference> {
    let named = |agreement: &str, version: u64, clause: &str| format!("{agreement} version {version} clause {clause}");
    let found = x.ledger.iter().find(|c| c.handle == handle);
    let found = found.map_or_else(|| "no clause".to_owned(), |c| named(c.agreement.as_str(), c.version, &c.clause));
    same("handle", &named(&agreement(record), record.version.unwrap_or_default(), &record.clause), &found)
}

/// The documents of the versions that were asked.
fn documents<'a>(record: &Record, x: &Against<'a>) -> Result<Vec<&'a Compiled>, Difference> {
    let mut found = Vec::with_capacity(record.in_force.len());
    for version in &record.in_force {
        let name = format!("{} version {}", version.agreement, version.version);
        let of = |c: &&OnLedger| c.agreement == version.agreement && c.version == version.version;
        match x.ledger.iter().find(of) {
            None => return differ("terms", format!("{name} with terms {}", version.terms_hash), "not on the ledger"),
            Some(c) if c.terms_hash != version.terms_hash && !c.renewed => {
                return differ("terms", format!("{name} with terms {}", version.terms_hash), c.terms_hash.clone());
            }
            Some(_) => {}
        }
        let hash = |c: &Compiled| hex::encode(c.terms_hash());
        let own = x.documents.iter().find(|c| hash(c) == version.terms_hash);
        let Some(own) = own else {
            let of = |c: &&Compiled| c.document.agreement == version.agreement && c.document.version == version.version;
            let there = x.documents.iter().find(of).map_or_else(|| "no document of it here".to_owned(), hash);
            return differ("document", format!("{name} with terms {}", version.terms_hash), there);
        };
        same("rows_hash", &version.rows_hash, &hex::encode(own.terms.rows_hash))?;
        found.push(own);
    }
    Ok(found)
}

fn decide_again(
    record: &Record,
    request: &Request,
    documents: Vec<&Compiled>,
    spec: Option<&DatasetSpec>,
) -> Result<Outcome, Difference> {
    let consumer = match AgencyId::new(record.consumer.clone()) {
        Ok(consumer) => consumer,
        Err(e) => return differ("consumer", &record.consumer, e.to_string()),
    };
    let denied = |d: Denied| Outcome {
        permitted: false,
        clause: d.clause,
        rows_hash: String::new(),
        code: d.code,
        reason: d.reason,
        missing: d.missing,
    };
    let Some(spec) = spec else {
        return Ok(denied(crate::decide::denied(codes::UNKNOWN_DATASET, "unknown-dataset", "")));
    };
    let mut evaluators = Vec::with_capacity(documents.len());
    for document in documents {
        match Evaluator::new(document.clone(), Capabilities::default()) {
            Ok(evaluator) => evaluators.push(Arc::new(evaluator)),
            Err(e) => return differ("document", document.document.agreement.to_string(), e.to_string()),
        }
    }
    let set = AgreementSet::new(request.dataset.clone(), consumer.clone(), evaluators);
    let document = match QueryDocument::read(record.query.as_bytes()) {
        Ok(document) => document,
        Err(d) => return Ok(denied(d)),
    };
    Ok(match granted(request, &consumer, &document, &set, spec, record.tick_ms) {
        Err(d) => denied(d),
        Ok(grant) => {
            let clause = &grant.clause;
            Outcome {
                permitted: true,
                clause: format!("{} version {} clause {}", clause.agreement, clause.version, clause.clause),
                rows_hash: hex::encode(grant.rows_hash),
                code: 0,
                reason: String::new(),
                missing: String::new(),
            }
        }
    })
}

/// What permits a query or a write, as the executor decides it before it looks at records.
#[allow(clippy::result_large_err, reason = "a denial is as usual an outcome as a grant")]
fn granted(
    request: &Request,
    consumer: &AgencyId,
    document: &QueryDocument,
    set: &AgreementSet,
    spec: &DatasetSpec,
    tick_ms: u64,
) -> Result<Grant, Denied> {
    if WriteAsk::member(&document.query).is_none() {
        return decide(request, consumer, document, set, &spec.fields, tick_ms).map(|permitted| permitted.grant);
    }
    let ask = WriteAsk::read(&document.query, spec)?;
    decide_write(request, consumer, document, &ask, set, spec, tick_ms).map(|permitted| permitted.grant)
}

/// Decision, clause, rows hash, code, reason, missing term: in this order.
fn compare(record: &Record, again: &Outcome) -> Result<(), Difference> {
    let permitted = record.denied.is_none() || record.beside.is_some();
    let word =
        |permitted: bool, reason: &str| if permitted { "permitted".to_owned() } else { format!("denied: {reason}") };
    let recorded = record.denied.as_deref().unwrap_or_default();
    if permitted != again.permitted {
        return differ("decision", word(permitted, recorded), word(again.permitted, &again.reason));
    }
    if record.beside.is_some() {
        return Ok(());
    }
    if permitted {
        let version = record.version.unwrap_or_default();
        same("clause", &format!("{} version {version} clause {}", agreement(record), record.clause), &again.clause)?;
        return same("rows_hash", record.rows_hash.as_deref().unwrap_or_default(), &again.rows_hash);
    }
    same("reason", recorded, &again.reason)?;
    same("code", &record.code.unwrap_or_default().to_string(), &again.code.to_string())?;
    same("clause", &record.clause, &again.clause)?;
    same("missing", record.missing.as_deref().unwrap_or_default(), &again.missing)
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
