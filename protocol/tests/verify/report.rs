//! Reports: what they show is what the ledger has, or they are refused.

use crate::looked::{Log, happened, spec};
use crate::world::{Spec, trust};
use concordat_protocol::access::AccessEntry;
use concordat_protocol::cbor::{decode, encode};
use concordat_protocol::codes::Verdict;
use concordat_protocol::leaves::{Redacted, commitment as names};
use concordat_protocol::ops::Op;
use concordat_protocol::receipt::app_hash;
use concordat_protocol::verify::Status;
use concordat_protocol::verify::report::{tally, verify_report};
use serde_json::{Map, Value, json};

fn text(opened: Option<&Redacted>, name: &str) -> String {
    opened.and_then(|o| o.get(name)).map(|v| String::from_utf8_lossy(v).into_owned()).unwrap_or_default()
}

/// An operation and its proof as a report has them.
fn shown(e: &AccessEntry) -> (Value, Value) {
    let op: Op = decode(&e.op).unwrap();
    let opened = e.openings.as_ref().filter(|o| o.get(names::CLAUSE).is_some());
    let clause = text(opened, names::CLAUSE);
    let count = opened.and_then(|o| o.get(names::COUNT)).map(|c| u64::from_be_bytes(c.try_into().unwrap()));
    let (outcome, deliveries) = match &op {
        Op::Deny { .. } => ("denied", None),
        Op::Deliver { count, .. } => ("delivered", Some(*count)),
        _ => ("released", None),
    };
    let operation = json!({
        "operation": format!("op:{}", e.index), "height": e.entry.height, "tick_ms": e.entry.tick_ms,
        "clause": clause.split_once('/').map_or("C1", |(_, c)| c), "outcome": outcome,
        "reason": if outcome == "denied" { "purpose" } else { "" },
        "verdict": e.entry.verdict.word(), "code": e.entry.code, "purpose": text(opened, names::PURPOSE),
        "case": text(opened, names::CASE), "rows": count.filter(|_| outcome == "released"), "deliveries": deliveries,
        "messages": count.filter(|_| outcome == "delivered"),
    });
    let hashes: Vec<String> = e.log_path.hashes.iter().map(hex::encode).collect();
    let proof = json!({
        "operation": operation["operation"], "entry": hex::encode(encode(&e.entry)), "sides": e.log_path.sides,
        "hashes": hashes, "op": hex::encode(&e.op.0), "openings": opened.map(|o| hex::encode(encode(o))),
    });
    (operation, proof)
}

/// A report of everything that happened to Anna.
fn report(spec: &Spec) -> Value {
    let l = Log::new(happened()).list("anna", 0, spec);
    let (operations, entries): (Vec<Value>, Vec<Value>) = l.entries.iter().map(shown).unzip();
    let roots = &l.roots;
    let mut out = Map::from_iter([
        ("agreement".to_owned(), json!("AGR-2026-0142")),
        ("from_ms".to_owned(), json!(0)),
        ("to_ms".to_owned(), json!(u64::MAX)),
    ]);
    out.extend(tally(&operations));
    out.insert("operations".into(), json!(operations));
    let proof = json!({
        "height": spec.height, "app_hash": hex::encode(app_hash(roots)),
        "roots": {"heads": hex::encode(roots.heads), "log": hex::encode(roots.log), "meta": hex::encode(roots.meta),
            "runs": hex::encode(roots.runs)},
        "header": hex::encode(&l.header.0), "validators": hex::encode(&l.validators.0), "entries": entries,
        "checkpoint": l.checkpoint.as_ref().map(|c| hex::encode(encode(c))),
    });
    out.insert("proof".into(), proof);
    Value::Object(out)
}

fn refused(r: &Value) -> &'static str {
    verify_report(r.to_string().as_bytes(), &trust()).expect_err("must be refused").check
}

#[test]
fn a_true_report_is_believed_and_says_how_much_of_it_is_proven() {
    let v = verify_report(report(&spec()).to_string().as_bytes(), &trust()).unwrap();
    assert_eq!((v.status, v.counted, v.opened), (Status::Provisional, 8, 5), "{v:?}");
    assert_eq!(v.agreement, "AGR-2026-0142");
    let cosigned = Spec { cosigners: crate::vectors::all(), ..spec() };
    let v = verify_report(report(&cosigned).to_string().as_bytes(), &trust()).unwrap();
    assert_eq!((v.status, v.cosigners.len()), (Status::Final, 4));
    let few = Spec { cosigners: vec!["court", "grid"], ..spec() };
    assert_eq!(refused(&report(&few)), "checkpoint");
}

#[test]
fn whatever_is_forged_is_found_at_its_own_check() {
    type Forge = fn(&mut Value);
    let cases: [(&str, &str, Forge); 16] = [
        ("counts", "fewer rows in all", |r| r["rows"] = json!(1)),
        ("counts", "no denial", |r| r["clauses"]["C1"]["denied"] = json!(0)),
        ("counts", "feeds left out", |r| r["feeds"] = Value::Null),
        ("commitment", "another purpose", |r| r["operations"][0]["purpose"] = json!("purp:statistics")),
        ("commitment", "another case", |r| r["operations"][0]["case"] = json!("27-CR-9999")),
        ("commitment", "another clause", |r| r["operations"][0]["clause"] = json!("C2")),
        ("commitment", "fewer rows", |r| r["operations"][0]["rows"] = json!(2)),
        ("commitment", "fewer messages", |r| r["operations"][3]["messages"] = json!(1)),
        ("commitment", "of another agreement", |r| r["agreement"] = json!("AGR-2026-0143")),
        ("outcome", "a release that was a denial", |r| r["operations"][7]["outcome"] = json!("released")),
        ("outcome", "a denial that was a release", |r| r["operations"][0]["outcome"] = json!("denied")),
        ("entry", "another verdict", |r| r["operations"][3]["verdict"] = json!(Verdict::Accepted.word())),
        ("entry", "an operation without its proof", |r| drop(r["operations"].as_array_mut().unwrap().remove(0))),
        ("entry", "one operation twice", |r| {
            let (o, p) = (r["operations"][0].clone(), r["proof"]["entries"][0].clone());
            r["operations"].as_array_mut().unwrap().insert(0, o);
            r["proof"]["entries"].as_array_mut().unwrap().insert(0, p);
        }),
        ("span", "another span", |r| r["from_ms"] = r["operations"][1]["tick_ms"].clone()),
        ("op_hash", "another operation's bytes", |r| {
            r["proof"]["entries"][0]["op"] = r["proof"]["entries"][1]["op"].clone()
        }),
    ];
    for (check, what, forge) in cases {
        let mut r = report(&spec());
        forge(&mut r);
        assert_eq!(refused(&r), check, "{what}");
    }
}

/// Forged together, so that operations and counts agree: the entries and the roots still do not.
#[test]
fn an_operation_that_never_happened_is_in_no_log() {
    let mut r = report(&spec());
    let mut proof = r["proof"]["entries"][0].clone();
    let mut operation = r["operations"][0].clone();
    (proof["operation"], operation["operation"]) = (json!("op:13"), json!("op:13"));
    r["operations"].as_array_mut().unwrap().insert(1, operation);
    r["proof"]["entries"].as_array_mut().unwrap().insert(1, proof);
    let counts = tally(r["operations"].as_array().unwrap());
    r.as_object_mut().unwrap().extend(counts);
    assert_eq!(refused(&r), "entry");
    let mut r = report(&spec());
    r["proof"]["roots"]["log"] = json!(hex::encode([7; 32]));
    assert_eq!(refused(&r), "app_hash");
    let header = r["proof"]["header"].as_str().unwrap().to_owned();
    let mut r = report(&spec());
    r["proof"]["header"] = json!(header.replacen(&header[40..44], "0000", 1));
    assert!(["decode", "header", "chain", "commit", "validators"].contains(&refused(&r)), "{}", refused(&r));
}
