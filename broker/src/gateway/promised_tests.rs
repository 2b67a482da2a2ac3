#![allow(clippy::unwrap_used, clippy::expect_used)]
use super::*;
use crate::gateway::check::overridden;
use crate::gateway::testing::{CHAIN, HANDLE, Pair, agency};
use concordat_executor::answer::{Facts, disclose};
use concordat_executor::holding::{PageEnd, Rows};
use concordat_executor::policies::ask::{ClauseRef, Grant};
use concordat_executor::subjects::Marked;
use concordat_protocol::ids::{AgencyId, AgreementId};
use concordat_protocol::node::{AgreementView, KeyView};
use concordat_protocol::session::Request;

const NOW: u64 = 90_000_000;
const LAG: u64 = 600_000;

/// A whole, true override, and what the own node says of it.
struct Case {
    pair: Pair,
    consumer: AgencyId,
    request: Request,
    key: KeyView,
    agreements: Vec<AgreementView>,
    said: ReleasePromise,
    promised: Promised,
}

impl Case {
    fn new() -> Self {
        let pair = Pair::new();
        let request = pair.request(70, 3);
        let mut agreements = pair.agreements.clone();
        let mut terms: Terms = cbor::decode(&agreements[0].terms).unwrap();
        terms.clauses[0].effect = Effect::BreakGlass;
        terms.clauses[0].evidence = Evidence::Bounded { max_lag_ms: LAG };
        agreements[0].terms = cbor::encode(&terms).into();
        let clause = ClauseRef {
            agreement: AgreementId::new("AGR-2026-0142").unwrap(),
            version: 1,
            clause: "C1".into(),
            text: String::new(),
        };
        let grant = Grant {
            clause,
            index: 0,
            effect: Effect::BreakGlass,
            evidence: Evidence::Bounded { max_lag_ms: LAG },
            duties: vec![],
            until_ms: u64::MAX >> 1,
            terms_hash: [1; 32],
            rows_hash: [2; 32],
        };
        let (consumer, hash) = (agency("court"), request.hash());
        let facts = Facts {
            request: &request,
            request_hash: &hash,
            consumer: &consumer,
            actor: "psn:1",
            tick_ms: NOW,
            justification: Some("danger to life"),
        };
        let rows = Rows { rows: vec![], end: PageEnd::Complete, scanned: None };
        let made = disclose(&facts, &grant, HANDLE, &rows, &Marked::nobody(), &pair.release).unwrap();
        let said = ReleasePromise {
            chain: CHAIN.into(),
            provider: agency("police"),
            session: 70,
            n: 3,
            handle: HANDLE,
            request_hash: hash,
            op_hash: made.prepared.op_hash,
            delivered_ms: NOW,
            max_lag_ms: LAG,
        };
        let released = pair.seal(&mut pair.sender(70), &request, made.released, &made.content, (0, 0));
        let key = pair.key_view();
        let promised = Promised { released, promise: vec![].into(), promise_signature: vec![].into() };
        let mut case = Self { pair, consumer, request, key, agreements, said, promised };
        case.sign();
        case
    }

    /// The executor's own signature over whatever it promises.
    fn sign(&mut self) {
        let bytes = cbor::encode(&self.said);
        self.promised.promise_signature = self.pair.release.sign(Statement::Promise, CHAIN, &bytes).ed25519;
        self.promised.promise = bytes.into();
    }

    fn run(&self) -> Result<Checked, ProofError> {
        let x = Expected {
            chain: CHAIN,
            consumer: &self.consumer,
            request: &self.request,
            key: Some(&self.key),
            entry: None,
            agreements: &self.agreements,
        };
        check_promised(&x, &self.promised, NOW + 1_000).map(|(checked, _)| checked)
    }
}

#[test]
fn a_true_promise_holds_and_shows_the_justification() {
    let checked = Case::new().run().unwrap();
    assert_eq!(overridden(&checked, Some("danger to life")), Ok(()));
    assert_eq!(overridden(&checked, Some("boredom")).unwrap_err().check, "justification");
    assert_eq!(overridden(&checked, None).unwrap_err().check, "operation", "nobody asked for an override");
}

#[test]
fn nothing_is_handed_on_under_a_promise_that_could_not_be_shown_to_the_ledger() {
    type Forge = fn(&mut Case);
    let signed: Vec<(&str, Forge)> = vec![
        ("another operation", |c| c.said.op_hash[0] ^= 1),
        ("another request", |c| c.said.request_hash[0] ^= 1),
        ("another number", |c| c.said.n = 4),
        ("another session", |c| c.said.session = 71),
        ("another clause", |c| c.said.handle = 8),
        ("another provider", |c| c.said.provider = agency("grid")),
        ("more time than agreed", |c| c.said.max_lag_ms = LAG + 1),
        ("a release that is still to come", |c| c.said.delivered_ms = NOW + 1_000 + HEAD_STALE_MS + 1),
    ];
    for (what, forge) in signed {
        let mut case = Case::new();
        forge(&mut case);
        case.sign();
        assert_eq!(case.run().unwrap_err().check, "promise", "{what}");
    }
    let others: Vec<(&str, Forge)> = vec![
        ("not signed", |c| c.promised.promise_signature.0[5] ^= 1),
        ("a signature that the ledger does not take", |c| c.promised.promise_signature.0.push(0)),
        ("changed after it was signed", |c| c.promised.promise.0.push(0)),
        ("suspended bounded evidence", |c| c.agreements[0].bounded_suspended = 1),
        ("a suspended agreement", |c| c.agreements[0].status = Status::Suspended),
        ("a clause that is strict", |c| {
            let mut terms: Terms = cbor::decode(&c.agreements[0].terms).unwrap();
            terms.clauses[0].evidence = Evidence::Strict {};
            c.agreements[0].terms = cbor::encode(&terms).into();
        }),
    ];
    for (what, forge) in others {
        let mut case = Case::new();
        forge(&mut case);
        assert_eq!(case.run().unwrap_err().check, "promise", "{what}");
    }
    let mut case = Case::new();
    case.promised.released.release_signature.0[0] ^= 1;
    assert_eq!(case.run().unwrap_err().check, "release_signature", "all else of a release is checked too");
}
