//! What is recorded and what is released: operations with their salted commitments, sealed content, signatures.

use crate::holding::Rows;
use crate::step::{Mode, Prepared};
use crate::subjects::Marked;
use concordat_policies::ask::Grant;
use concordat_policies::duty::Duty;
use concordat_protocol::cbor::{self, Bytes};
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::keys::{SigningKey, Statement};
use concordat_protocol::leaves::{COMMITMENT_NAMES, LeafSet, commitment as leaf};
use concordat_protocol::ops::{Op, Tags};
use concordat_protocol::session::{Content, Denied, Release, Released, Request, Ticket};
use concordat_protocol::terms::{Effect, Evidence};
use std::collections::BTreeMap;
use thiserror::Error;
use zeroize::Zeroizing;

/// Milliseconds of a UTC day.
pub(crate) const DAY_MS: u64 = 86_400_000;

/// Why an answer could not be made.
#[derive(Debug, Error)]
pub enum AnswerError {
    /// The leaves do not fit.
    #[error("commitment: {0}")]
    Leaves(String),
    /// A row is no canonical JSON.
    #[error("row {0}: {1}")]
    Row(usize, String),
    /// Signing, sealing or randomness failed.
    #[error("cryptographic library: {0}")]
    Library(String),
}

/// Who asked what, when.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The request.
    pub request: &'a Request,
    /// Its hash.
    pub request_hash: &'a Hash,
    /// The consumer.
    pub consumer: &'a AgencyId,
    /// The person's pseudonym.
    pub actor: &'a str,
    /// Ledger time, milliseconds.
    pub tick_ms: u64,
    /// Why the person overrode; nothing for an ordinary request.
    pub justification: Option<&'a str>,
}

/// 32 random bytes from the operating system.
pub fn random32() -> Result<[u8; 32], AnswerError> {
    let mut out = [0; 32];
    getrandom::fill(&mut out).map_err(|e| AnswerError::Library(e.to_string()))?;
    Ok(out)
}

pub(crate) fn leaves(facts: &Facts<'_>, more: &[(&str, Vec<u8>)], secret: &[u8; 32]) -> Result<LeafSet, AnswerError> {
    let mut fields: BTreeMap<String, Vec<u8>> = COMMITMENT_NAMES.iter().map(|n| ((*n).to_owned(), vec![])).collect();
    let base = [
        (leaf::CONSUMER, facts.consumer.as_str().as_bytes().to_vec()),
        (leaf::ACTOR, facts.actor.as_bytes().to_vec()),
        (leaf::PURPOSE, facts.request.purpose.as_bytes().to_vec()),
        (leaf::CASE, facts.request.case.as_bytes().to_vec()),
        (leaf::REQUEST_HASH, facts.request_hash.to_vec()),
    ];
    for (name, value) in base.iter().chain(more) {
        fields.insert((*name).to_owned(), value.clone());
    }
    LeafSet::new(secret, fields).map_err(|e| AnswerError::Leaves(e.to_string()))
}

pub(crate) fn evidence_word(evidence: &Evidence) -> &'static str {
    match evidence {
        Evidence::None {} => "none",
        Evidence::Strict {} => "strict",
        Evidence::Bounded { .. } => "bounded",
    }
}

/// A disclosure: operation, response, and what the provider keeps to open it later.
pub struct Disclosure {
    /// What the step needs.
    pub prepared: Prepared,
    /// The response, its ticket still empty.
    pub released: Released,
    /// The commitment's secret, kept by the provider: destroying it forgets the person.
    pub secret: Zeroizing<[u8; 32]>,
    /// The plain content, which the shell seals to the consumer before anything is stored.
    pub content: Content,
    /// Tick before which the subject is told no more than that there was an access; 0 where it is told at once.
    pub open_by_ms: u64,
}

/// The tick by which an access under a grant is opened to its subject, milliseconds; none where it is open at once.
pub fn open_by(duties: &[Duty], tick_ms: u64) -> Option<u64> {
    let sealed = |d: &Duty| match d {
        Duty::SealAccess { for_ms } => Some(*for_ms),
        _ => None,
    };
    duties.iter().filter_map(sealed).max().map(|ms| tick_ms.saturating_add(ms))
}

/// Makes the operation and the signed response of a permitted query. The content is not sealed yet.
pub fn disclose(
    facts: &Facts<'_>,
    grant: &Grant,
    handle: u64,
    rows: &Rows,
    marked: &Marked,
    key: &SigningKey,
) -> Result<Disclosure, AnswerError> {
    let jcs = |(i, r): (usize, &crate::holding::Row)| {
        serde_json_canonicalizer::to_vec(&r.doc).map(Bytes).map_err(|e| AnswerError::Row(i, e.to_string()))
    };
    let rows = rows.rows.iter().enumerate().map(jcs).collect::<Result<Vec<_>, _>>()?;
    let content = Content { secret: random32()?, rows };
    let content_root = content.root();
    let clause = format!("{}/{}", grant.clause.agreement, grant.clause.clause);
    let secret = Zeroizing::new(random32()?);
    let open_by = open_by(&grant.duties, facts.tick_ms);
    let more = [
        (leaf::OPEN_BY, open_by.map(|ms| ms.to_be_bytes().to_vec()).unwrap_or_default()),
        (leaf::CLAUSE, clause.clone().into_bytes()),
        (leaf::ROWS_HASH, grant.rows_hash.to_vec()),
        (leaf::COUNT, (content.rows.len() as u64).to_be_bytes().to_vec()),
        (leaf::CONTENT_ROOT, content_root.to_vec()),
        (leaf::EVIDENCE, evidence_word(&grant.evidence).as_bytes().to_vec()),
    ];
    let overrides = grant.effect == Effect::BreakGlass;
    let why = facts.justification.filter(|_| overrides).map(|text| (leaf::JUSTIFICATION, text.as_bytes().to_vec()));
    let more: Vec<(&str, Vec<u8>)> = more.into_iter().chain(why).collect();
    let set = leaves(facts, &more, &secret)?;
    let (session, n, day) = (facts.request.session, facts.request.n, facts.tick_ms / DAY_MS);
    let (tags, commitment) = (marked.tags.clone(), set.root());
    let op = match grant.effect {
        Effect::BreakGlass => Op::BreakGlass { handle, session, n, day, tags, commitment },
        _ => Op::Query { handle, session, n, day, tags, commitment },
    };
    let op_hash = op.hash();
    let release = Release { request_hash: *facts.request_hash, op_hash, content_root };
    let signature = key
        .try_sign(Statement::Release, &facts.request.chain, &cbor::encode(&release))
        .map_err(|e| AnswerError::Library(e.to_string()))?;
    let released = Released {
        ticket: Ticket { chain: facts.request.chain.clone(), log_index: 0, height: 0, op_hash },
        op: cbor::encode(&op).into(),
        openings: cbor::encode(&set.redact(|_| true)).into(),
        release_signature: signature.ed25519,
        release_key: key.key_id(),
        clause,
        encapsulation: Bytes::default(),
        sealed: Bytes::default(),
    };
    let prepared = Prepared { op, op_hash, handle, denied: None, mode: Mode::Strict };
    Ok(Disclosure { prepared, released, secret, content, open_by_ms: open_by.unwrap_or_default() })
}

/// A denial: operation, and what the provider keeps to open it later.
pub struct Denial {
    /// What the step needs.
    pub prepared: Prepared,
    /// The commitment's secret.
    pub secret: Zeroizing<[u8; 32]>,
    /// All leaves of the commitment, canonical.
    pub openings: Vec<u8>,
}

/// Makes the operation that records a denial.
pub fn deny(facts: &Facts<'_>, denied: Denied, handle: u64, marked: &Marked) -> Result<Denial, AnswerError> {
    let secret = Zeroizing::new(random32()?);
    let more = [
        (leaf::CLAUSE, denied.clause.clone().into_bytes()),
        (leaf::COUNT, 1u64.to_be_bytes().to_vec()),
        (leaf::EVIDENCE, b"strict".to_vec()),
    ];
    let set = leaves(facts, &more, &secret)?;
    let commitment = set.root();
    let (session, n, day) = (facts.request.session, facts.request.n, facts.tick_ms / DAY_MS);
    let op = Op::Deny { handle, session, n, day, tags: marked.tags.clone(), commitment };
    let prepared = Prepared { op_hash: op.hash(), op, handle, denied: Some(denied), mode: Mode::Strict };
    Ok(Denial { prepared, secret, openings: cbor::encode(&set.redact(|_| true)) })
}

/// The operation that counts denials of one session and reason which got no entry of their own (`n` is 0).
pub fn deny_count(session: u64, reason: &str, count: u64, tick_ms: u64) -> Result<Op, AnswerError> {
    let fields = BTreeMap::from([
        ("reason".to_owned(), reason.as_bytes().to_vec()),
        (leaf::COUNT.to_owned(), count.to_be_bytes().to_vec()),
    ]);
    let set = LeafSet::new(&random32()?, fields).map_err(|e| AnswerError::Leaves(e.to_string()))?;
    Ok(Op::Deny { handle: 0, session, n: 0, day: tick_ms / DAY_MS, tags: Tags::none(), commitment: set.root() })
}

/// The operation that says an accepted one was never released. `reason` is a stable word.
pub fn withheld(reference: u64, reason: &str) -> Result<Op, AnswerError> {
    let fields = BTreeMap::from([("reason".to_owned(), reason.as_bytes().to_vec())]);
    let set = LeafSet::new(&random32()?, fields).map_err(|e| AnswerError::Leaves(e.to_string()))?;
    Ok(Op::Withheld { reference, commitment: set.root() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use concordat_protocol::hash::sha256;
    use concordat_protocol::ids::DatasetId;
    use concordat_protocol::keys::KeyId;
    use concordat_protocol::leaves::Redacted;

    fn request() -> Request {
        Request {
            chain: "c".into(),
            session: 3,
            n: 9,
            provider: AgencyId::new("police").unwrap(),
            dataset: DatasetId::new("ds:police/stops@1").unwrap(),
            clause: String::new(),
            purpose: "purp:pending-case".into(),
            case: "26-CR-1042".into(),
            query_hash: [0; 32],
            kem_key_id: KeyId([0; 16]),
            not_after_ms: 0,
        }
    }

    #[test]
    fn a_denial_commits_to_who_asked_without_showing_it() {
        let (request, consumer) = (request(), AgencyId::new("court").unwrap());
        let facts = Facts {
            request: &request,
            request_hash: &request.hash(),
            consumer: &consumer,
            actor: "p-7",
            tick_ms: 2 * DAY_MS,
            justification: None,
        };
        let refusal = crate::decide::denied(407, "purpose", "no");
        let nobody = Marked::nobody();
        let Denial { prepared, secret, openings } = deny(&facts, refusal.clone(), 0, &nobody).unwrap();
        let again = deny(&facts, refusal, 0, &nobody).unwrap().prepared;
        let recorded = prepared.op.recorded().unwrap();
        assert_eq!((recorded.session, recorded.n, recorded.day), (3, 9, 2));
        assert_ne!(prepared.op_hash, again.op_hash, "every commitment has its own salt");
        let more =
            [(leaf::CLAUSE, vec![]), (leaf::COUNT, 1u64.to_be_bytes().to_vec()), (leaf::EVIDENCE, b"strict".to_vec())];
        let opened = leaves(&facts, &more, &secret).unwrap().redact(|name| name == leaf::ACTOR);
        let opened: Redacted = cbor::decode(&cbor::encode(&opened)).unwrap();
        opened.verify(recorded.commitment).unwrap();
        assert_eq!(opened.get(leaf::ACTOR), Some(&b"p-7"[..]));
        assert!(opened.get(leaf::CASE).is_none());
        let all: Redacted = cbor::decode(&openings).unwrap();
        all.verify(recorded.commitment).unwrap();
        assert_eq!(all.get(leaf::CASE), Some(&b"26-CR-1042"[..]));
    }

    #[test]
    fn content_roots_are_salted_even_when_empty() {
        let empty = |b: u8| Content { secret: [b; 32], rows: vec![] }.root();
        assert_ne!(empty(1), empty(2));
        assert_ne!(empty(1), sha256(&[]));
        let one = Content { secret: [1; 32], rows: vec![Bytes(b"{}".to_vec())] };
        assert_ne!(one.root(), empty(1));
    }
}
