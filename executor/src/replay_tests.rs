#![allow(clippy::unwrap_used)]
use super::*;
use crate::answer::{self, Facts};
use crate::holding::{PageEnd, Row, Rows};
use crate::query::{FieldType, Fields};
use crate::subjects::Marked;
use crate::writing::{Planned, intend};
use concordat_policies::compile::compile;
use concordat_policies::template::fill;
use concordat_protocol::codes::Verdict;
use concordat_protocol::ids::DatasetId;
use concordat_protocol::keys::{KeyId, SigningKey, Suite};
use serde_json::{Value, json};

/// 2026-09-21T14:13:20Z.
const NOW: u64 = 1_790_000_000_000;

fn fields() -> Fields {
    let text = ["stop_id", "problem", "race", "precinct", "neighborhood"].map(|n| (n.to_owned(), FieldType::String));
    let rest = [("time".to_owned(), FieldType::Timestamp), ("citation_issued".to_owned(), FieldType::Boolean)];
    Fields::new(text.into_iter().chain(rest).collect()).unwrap()
}

fn spec() -> DatasetSpec {
    DatasetSpec { id: "ds:police/stops@1".into(), key: vec!["stop_id".into()], fields: fields(), indexes: vec![] }
}

fn document(change: (&str, &str)) -> Compiled {
    let template = include_str!("../../cli/demo/agreements/AGR-2026-0142.yaml");
    let yaml = fill(template, &[("from", "2026-01-01T00:00:00Z"), ("until", "2027-01-01T00:00:00Z")]).unwrap();
    compile(&yaml.replacen(change.0, change.1, 1)).unwrap()
}

/// A decision with what the ledger has of it.
struct Made {
    record: Record,
    entry: LogEntry,
    op: Vec<u8>,
    openings: Vec<u8>,
    ledger: Vec<OnLedger>,
    documents: Vec<Compiled>,
    spec: DatasetSpec,
}

impl Made {
    fn replay(&self, record: &Record) -> Result<(), Difference> {
        let x = Against {
            entry: &self.entry,
            op: &self.op,
            openings: &self.openings,
            ledger: &self.ledger,
            documents: &self.documents,
            spec: Some(&self.spec),
        };
        replay(record, &x)
    }
    fn term(&self, change: impl Fn(&mut Record)) -> &'static str {
        let mut forged = self.record.clone();
        change(&mut forged);
        self.replay(&forged).map_or_else(|d| d.term, |()| "same")
    }
}

/// What the executor makes of a clerk's query under the demo's agreement.
fn made(purpose: &str, query: &Value) -> Made {
    made_under(document(("", "")), purpose, query)
}

/// The same under another document.
fn made_under(agreed: Compiled, purpose: &str, query: &Value) -> Made {
    let mut query = query.clone();
    for (name, value) in [
        ("dataset", json!("ds:police/stops@1")),
        ("roles", json!(["clerk"])),
        ("actor", json!("p-1")),
        ("nonce", json!("00".repeat(16))),
    ] {
        query[name] = value;
    }
    let query = query.to_string().into_bytes();
    let (dataset, court) = (DatasetId::new("ds:police/stops@1").unwrap(), AgencyId::new("court").unwrap());
    let request = Request {
        chain: "c".into(),
        session: 3,
        n: 9,
        provider: AgencyId::new("police").unwrap(),
        dataset: dataset.clone(),
        clause: String::new(),
        purpose: purpose.into(),
        case: "26-CR-1042".into(),
        query_hash: sha256(&[&query]),
        kem_key_id: KeyId([0; 16]),
        not_after_ms: 0,
    };
    let evaluator = Arc::new(Evaluator::new(agreed.clone(), Capabilities::default()).unwrap());
    let set = AgreementSet::new(dataset, court.clone(), [evaluator]);
    let asked = Asked { request: &request, query: &query, consumer: &court, height: 57, tick_ms: NOW };
    let record = Record::of(&asked, &set);
    let request_hash = request.hash();
    let facts = Facts {
        request: &request,
        request_hash: &request_hash,
        consumer: &court,
        actor: "p-1",
        tick_ms: NOW,
        justification: None,
    };
    let read = QueryDocument::read(&query).unwrap();
    let key = SigningKey::generate(Suite::Ed25519).unwrap();
    let (record, op, openings) = match granted(&request, &court, &read, &set, &spec(), NOW) {
        Ok(grant) if WriteAsk::member(&read.query).is_some() => {
            let expect = crate::holding::Expect::Absent;
            let planned = Planned { key: "17-1".into(), row: None, before: None, after: None, expect };
            let made = intend(&facts, &grant, 71, &planned, &json!({}), &Marked::nobody(), &key).unwrap();
            (record.permitted(&grant, 1), made.0.prepared.op, made.1)
        }
        Ok(grant) => {
            let doc = json!({"stop_id": "17-1"}).as_object().unwrap().clone();
            let rows = Rows { rows: vec![Row { key: "17-1".into(), doc }], end: PageEnd::Complete, scanned: None };
            let made = answer::disclose(&facts, &grant, 71, &rows, &Marked::nobody(), &key).unwrap();
            (record.permitted(&grant, 1), made.prepared.op, made.released.openings.0)
        }
        Err(denied) => {
            let record = record.denied(&denied);
            let made = answer::deny(&facts, denied, 0, &Marked::nobody()).unwrap();
            (record, made.prepared.op, made.openings)
        }
    };
    let entry = LogEntry {
        height: 58,
        tick_ms: NOW + 900,
        writer: "police/executor".into(),
        incarnation: 1,
        seq: 4,
        op_hash: op.hash(),
        verdict: Verdict::Accepted,
        code: 0,
    };
    let ledger = ["C1", "S1", "X1", "B1"].into_iter().zip(71..).map(|(clause, handle)| OnLedger {
        agreement: agreed.document.agreement.clone(),
        version: 1,
        terms_hash: hex::encode(agreed.terms_hash()),
        renewed: false,
        clause: clause.to_owned(),
        handle,
    });
    let (ledger, op) = (ledger.collect(), cbor::encode(&op));
    Made { record, entry, op, openings, ledger, documents: vec![agreed], spec: spec() }
}

fn a_release() -> Made {
    made("purp:pending-case", &json!({"where": {"stop_id": "17-1"}}))
}

#[test]
fn a_decision_made_again_is_the_same() {
    for (purpose, query) in [
        ("purp:pending-case", json!({"where": {"stop_id": "17-1"}})),
        ("purp:pending-case", json!({"where": {"race": "X"}})),
        ("purp:pending-case", json!({"where": {"and": [{"stop_id": "17-1"}, {"race": "X"}]}})),
        ("purp:curiosity", json!({})),
        ("purp:profiling", json!({})),
    ] {
        let made = made(purpose, &query);
        assert_eq!(made.replay(&made.record), Ok(()), "{purpose} {query}");
        // As it is stored and read again.
        let json = made.record.to_json();
        assert_eq!(serde_json::from_value::<Record>(json).unwrap(), made.record);
    }
}

#[test]
fn a_forged_record_is_told_by_the_first_term_that_is_not_the_ledgers() {
    let made = a_release();
    assert_eq!(made.term(|_| {}), "same");
    assert_eq!(made.term(|r| r.clause = "B1".into()), "clause");
    assert_eq!(made.term(|r| r.version = Some(2)), "handle");
    assert_eq!(made.term(|r| r.rows_hash = Some("00".repeat(32))), "rows_hash");
    assert_eq!(made.term(|r| r.rows = Some(0)), "rows");
    assert_eq!(made.term(|r| r.height = 58), "height");
    assert_eq!(made.term(|r| r.tick_ms -= DAY_MS), "day");
    assert_eq!(made.term(|r| r.consumer = "grid".into()), "consumer");
    assert_eq!(made.term(|r| r.query = r.query.replace("17-1", "17-2")), "query");
    assert_eq!(made.term(|r| r.query = r.query.replace("clerk", "judge")), "query");
    assert_eq!(made.term(|r| r.request = r.request.replace("32362d43522d31303432", "32362d43522d39393939")), "request");
    assert_eq!(made.term(|r| r.in_force[0].terms_hash = "00".repeat(32)), "terms");
    assert_eq!(made.term(|r| r.in_force[0].rows_hash = "00".repeat(32)), "rows_hash");
    assert_eq!(made.term(|r| r.in_force.clear()), "decision");
    // A denial written where there was a release, and the other way round.
    assert_eq!(made.term(|r| r.denied = Some("purpose".into())), "decision");
    let denied = self::made("purp:curiosity", &json!({}));
    assert_eq!(denied.term(|r| r.denied = None), "clause");
    assert_eq!(denied.term(|r| r.denied = Some("role".into())), "reason");
    assert_eq!(denied.term(|r| r.missing = Some("nothing".into())), "missing");
    assert_eq!(denied.term(|r| r.beside = Some("suspended".into())), "decision", "the terms did not permit it");
}

#[test]
fn another_document_than_the_approved_one_is_told() {
    // One word of a sentence: the rows stay the same, the terms do not.
    let mut made = a_release();
    made.documents = vec![document(("Clerks may", "Clerks might"))];
    let said = made.replay(&made.record).unwrap_err();
    assert_eq!(said.term, "document");
    assert_eq!(said.found, hex::encode(made.documents[0].terms_hash()));
    made.documents.clear();
    assert_eq!(made.replay(&made.record).unwrap_err().found, "no document of it here");
    // A provider that decided under a document that nobody approved, and recorded just that.
    let own = document(("stop_id, {time: 24h}", "stop_id, race, {time: 24h}"));
    let mut forged = made.record.clone();
    forged.in_force[0].terms_hash = hex::encode(own.terms_hash());
    forged.in_force[0].rows_hash = hex::encode(own.terms.rows_hash);
    forged.rows_hash = Some(hex::encode(own.terms.rows_hash));
    made.documents = vec![own];
    assert_eq!(made.replay(&forged).unwrap_err().term, "rows_hash", "the ledger commits to the rows");
    forged.rows_hash.clone_from(&made.record.rows_hash);
    assert_eq!(made.replay(&forged).unwrap_err().term, "terms");
}

#[test]
fn another_operation_is_told() {
    let mut made = a_release();
    made.entry.op_hash = [7; 32];
    assert_eq!(made.replay(&made.record).unwrap_err().term, "operation");
    let mut made = a_release();
    made.openings = self::a_release().openings;
    assert_eq!(made.replay(&made.record).unwrap_err().term, "commitment");
}

/// The demo's agreement with a first clause that permits a change after a strong sign-in.
fn after_sign_in() -> Compiled {
    let yaml = std::iter::once(include_str!("../../cli/demo/agreements/AGR-2026-0142.yaml"));
    let filled = yaml.map(|t| fill(t, &[("from", "2026-01-01T00:00:00Z"), ("until", "2027-01-01T00:00:00Z")]).unwrap());
    let text: String = filled.collect();
    let text = text.replacen("actions: [query]", "actions: [query, modify]", 1);
    compile(&text.replacen("  duties:\n", "  duties:\n  - {type: step-up, level: mfa, within: 15m}\n", 1)).unwrap()
}

fn change(patch: &Value) -> Value {
    json!({"write": {"action": "modify", "key": "17-1", "patch": patch, "expect": "*"}})
}

#[test]
fn a_write_decided_again_is_the_same_and_needs_its_sign_in() {
    let signed_in = |at_ms: u64| {
        let mut query = change(&json!({"problem": "x"}));
        query["sign_in"] = json!({"level": "mfa", "at_ms": at_ms});
        query
    };
    let minute = 60_000;
    for (query, reason) in [
        (signed_in(NOW - 14 * minute), None),
        (signed_in(NOW - 16 * minute), Some("step-up")),
        (change(&json!({"problem": "x"})), Some("step-up")),
        (json!({"where": {"stop_id": "17-1"}}), Some("step-up")),
    ] {
        let made = made_under(after_sign_in(), "purp:pending-case", &query);
        assert_eq!(made.record.denied.as_deref(), reason, "{query}");
        assert_eq!(made.replay(&made.record), Ok(()), "{query}");
    }
    // A field that is not open, denied by the executor's own part of the decision.
    let mut closed = change(&json!({"race": "x"}));
    closed["sign_in"] = json!({"level": "mfa", "at_ms": NOW});
    let made = made_under(after_sign_in(), "purp:pending-case", &closed);
    assert_eq!((made.record.denied.as_deref(), made.replay(&made.record)), (Some("fields"), Ok(())));
}

#[test]
fn a_forged_record_of_a_write_is_told() {
    let mut query = change(&json!({"problem": "x"}));
    query["sign_in"] = json!({"level": "mfa", "at_ms": NOW});
    let made = made_under(after_sign_in(), "purp:pending-case", &query);
    assert_eq!(made.term(|r| r.query = r.query.replace("17-1", "17-2")), "query");
    assert_eq!(made.term(|r| r.rows = Some(2)), "rows");
    assert_eq!(made.term(|r| r.denied = Some("conflict".into())), "decision");
    // Denied by the record as it was, though the terms permit it: then the terms must permit it.
    let beside = |r: &mut Record| (r.denied, r.beside) = (Some("conflict".into()), Some("conflict".into()));
    assert_eq!(made.term(beside), "same");
    // A release of rows that is passed off as the intent of a write.
    let release = a_release();
    let mut passed_off = made.record.clone();
    passed_off.request.clone_from(&release.record.request);
    assert_ne!(release.replay(&passed_off), Ok(()));
}
