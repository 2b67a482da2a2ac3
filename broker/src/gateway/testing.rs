//! A consumer and a provider with everything both sides need, for tests. The provider's half is the executor's own code.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::check::Expected;
use concordat_executor::answer::{Facts, disclose};
use concordat_executor::holding::{PageEnd, Row, Rows};
use concordat_executor::policies::ask::{ClauseRef, Grant};
use concordat_executor::subjects::Marked;
use concordat_protocol::acts::KeyRole;
use concordat_protocol::cbor;
use concordat_protocol::codes::Verdict;
use concordat_protocol::ids::{AgencyId, AgreementId, DatasetId};
use concordat_protocol::keys::{KemKey, SigningKey, Suite};
use concordat_protocol::node::{AgreementView, KeyView};
use concordat_protocol::ops::LogEntry;
use concordat_protocol::seal::SealSender;
use concordat_protocol::session::{Content, Released, Request};
use concordat_protocol::terms::{ClauseTerms, Effect, Evidence, Status, Terms, purpose_hash};

pub const CHAIN: &str = "city";
pub const HANDLE: u64 = 7;

pub fn agency(name: &str) -> AgencyId {
    AgencyId::new(name).unwrap()
}

pub fn stops() -> DatasetId {
    DatasetId::new("ds:police/stops@1").unwrap()
}

/// Court asks police.
pub struct Pair {
    pub release: SigningKey,
    pub kem: KemKey,
    pub agreements: Vec<AgreementView>,
}

impl Pair {
    pub fn new() -> Self {
        let clause = ClauseTerms {
            id: "C1".into(),
            effect: Effect::Permit,
            actions: 1,
            purpose: purpose_hash("purp:pending-case"),
            evidence: Evidence::Strict {},
            from_ms: 0,
            until_ms: u64::MAX >> 1,
            quota: None,
            review_ms: 0,
        };
        let terms = Terms {
            agreement: AgreementId::new("AGR-2026-0142").unwrap(),
            version: 1,
            assigner: agency("police"),
            assignee: Some(agency("court")),
            dataset: stops(),
            assigner_roles: vec!["legal".into()],
            assignee_roles: vec!["legal".into()],
            clauses: vec![clause],
            yaml_hash: [1; 32],
            rows_hash: [2; 32],
            text_hash: [3; 32],
            paper_hashes: vec![],
            compiler_version: 1,
        };
        let view = AgreementView {
            agreement: terms.agreement.clone(),
            version: 1,
            revision: 2,
            status: Status::Active,
            terms_hash: terms.hash(),
            terms: cbor::encode(&terms).into(),
            expires_ms: 0,
            approvals: vec![],
            handles: vec![HANDLE],
            bounded_suspended: 0,
        };
        Self {
            release: SigningKey::generate(Suite::Ed25519).unwrap(),
            kem: KemKey::generate().unwrap(),
            agreements: vec![view],
        }
    }

    pub fn key_view(&self) -> KeyView {
        KeyView {
            agency: agency("police"),
            role: KeyRole::Release,
            label: "executor".into(),
            key: self.release.public().clone(),
            revoked_ms: 0,
            compromised_since_ms: 0,
        }
    }

    pub fn request(&self, session: u64, n: u64) -> Request {
        Request {
            chain: CHAIN.into(),
            session,
            n,
            provider: agency("police"),
            dataset: stops(),
            clause: "C1".into(),
            purpose: "purp:pending-case".into(),
            case: "26-CR-1042".into(),
            query_hash: [5; 32],
            kem_key_id: self.kem.public().key_id(),
            not_after_ms: 1_000_000,
        }
    }

    /// What the executor makes: the response with its ticket still open, and the plain content.
    pub fn disclosed(&self, request: &Request, rows: &[serde_json::Value]) -> (Released, Content) {
        let grant = Grant {
            clause: ClauseRef {
                agreement: AgreementId::new("AGR-2026-0142").unwrap(),
                version: 1,
                clause: "C1".into(),
                text: "Clerks may look up stops.".into(),
            },
            index: 0,
            effect: Effect::Permit,
            evidence: Evidence::Strict {},
            duties: vec![],
            until_ms: u64::MAX >> 1,
            terms_hash: [1; 32],
            rows_hash: [2; 32],
        };
        let rows = Rows { rows: rows.iter().map(row).collect(), end: PageEnd::Complete, scanned: None };
        let hash = request.hash();
        let consumer = agency("court");
        let facts = Facts {
            request,
            request_hash: &hash,
            consumer: &consumer,
            actor: "psn:1",
            tick_ms: 90_000_000,
            justification: None,
        };
        let made = disclose(&facts, &grant, HANDLE, &rows, &Marked::nobody(), &self.release).unwrap();
        (made.released, made.content)
    }

    /// Seals the content and fills the ticket in.
    pub fn seal(
        &self,
        sender: &mut SealSender,
        request: &Request,
        mut r: Released,
        content: &Content,
        at: (u64, u64),
    ) -> Released {
        r.encapsulation = sender.encapsulation().to_vec().into();
        r.sealed = sender.seal(request.n, &request.hash(), &cbor::encode(content)).unwrap().into();
        (r.ticket.log_index, r.ticket.height) = at;
        r
    }

    pub fn sender(&self, session: u64) -> SealSender {
        SealSender::new(self.kem.public(), CHAIN, &format!("session/{session}"), 0).unwrap()
    }

    pub fn entry(&self, r: &Released) -> LogEntry {
        LogEntry {
            height: r.ticket.height,
            tick_ms: 90_000_000,
            writer: "police/executor".into(),
            incarnation: 1,
            seq: 1,
            op_hash: r.ticket.op_hash,
            verdict: Verdict::Accepted,
            code: 0,
        }
    }

    pub fn expected<'a>(
        &'a self,
        consumer: &'a AgencyId,
        request: &'a Request,
        key: &'a KeyView,
        entry: &'a LogEntry,
    ) -> Expected<'a> {
        Expected { chain: CHAIN, consumer, request, key: Some(key), entry: Some(entry), agreements: &self.agreements }
    }
}

fn row(doc: &serde_json::Value) -> Row {
    Row { key: String::new(), doc: doc.as_object().unwrap().clone() }
}
