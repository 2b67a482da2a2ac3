#![allow(clippy::unwrap_used)]
use super::*;
use crate::gateway::check::ProofError;
use concordat_protocol::ids::AgencyId;

fn denied(code: u16, reason: &str) -> Denied {
    Denied {
        code,
        reason: reason.into(),
        detail: "Never for profiling.".into(),
        clause: "AGR-2026-0142/X1".into(),
        clause_text: "Never for profiling.".into(),
        missing: String::new(),
        clauses: vec![],
        operation: Some(5824),
        retry: 0,
    }
}

fn police() -> AgencyId {
    AgencyId::new("police").unwrap()
}

#[test]
fn a_denial_names_clause_sentence_side_and_entry() {
    let e = GatewayError::Denied { provider: police(), denied: Box::new(denied(codes::CLAUSE, "prohibited")), id: 1 };
    let v = serde_json::to_value(Problem::from(e)).unwrap();
    assert_eq!(
        (v["status"].as_u64(), v["code"].as_str(), v["reason"].as_str()),
        (Some(403), Some("denied"), Some("prohibited"))
    );
    assert_eq!(
        (v["clause"].as_str(), v["clause_text"].as_str()),
        (Some("AGR-2026-0142/X1"), Some("Never for profiling."))
    );
    assert_eq!((v["side"].as_str(), v["operation"].as_str()), (Some("provider"), Some("op:5824")));
    assert_eq!((v["retry"].as_bool(), v["ledger_code"].as_u64()), (Some(false), Some(407)));
    assert!(!v["next"].as_str().unwrap().is_empty());
    assert!(v.get("missing").is_none(), "what is empty is left out");
}

#[test]
fn statuses_are_the_documented_ones() {
    let proof = ProofError { check: "seal", sentence: "x".into() };
    let table = [
        (GatewayError::Proof { provider: police(), error: proof }, 502, "proof-invalid", Side::Provider, false),
        (GatewayError::Timeout { provider: police(), ms: 3 }, 504, "provider-timeout", Side::Provider, true),
        (GatewayError::NoProvider(police()), 503, "provider-unavailable", Side::Provider, true),
        (GatewayError::UnknownDataset("ds:a/b@1".into()), 404, "unknown-dataset", Side::Ledger, false),
        (GatewayError::KeyReused, 422, "idempotency-key-reused", Side::Gateway, false),
        (GatewayError::InProgress, 409, "idempotency-in-progress", Side::Gateway, true),
        (GatewayError::StaleLedger(20), 503, "ledger-stale", Side::Ledger, true),
        (GatewayError::Busy(9), 503, "busy", Side::Gateway, true),
    ];
    for (e, status, code, side, retry) in table {
        let p = Problem::from(e);
        assert_eq!((p.status.as_u16(), p.code.as_str(), p.side, p.retry), (status, code, side, retry));
    }
    let of = |code, retry: u8| of_denied(&Denied { retry, ..denied(code, "x") }).status.as_u16();
    assert_eq!((of(codes::SUSPENDED, 0), of(codes::QUOTA, 0), of(codes::BAD_VALUE, 0)), (403, 403, 422));
    assert_eq!((of(0, 1), of(codes::REPLAY, 0), of(codes::BUSY, 1)), (503, 409, 503));
    let refused = |code| Problem::from(LedgerError::Refused { code, text: "t".into() }).status.as_u16();
    assert_eq!((refused(codes::APPROVAL), refused(codes::STALE), refused(codes::BAD_VALUE)), (403, 409, 422));
}
