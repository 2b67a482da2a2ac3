//! Dead letters once more: by every kind's document as it is now, and to a broker.

use std::collections::BTreeMap;
use std::path::Path;

use concordat_adapters::client::BrokerClient;
use concordat_adapters::contract::{AdapterError, Beside, Checkpoint, Origin, Reject, Row};
use concordat_adapters::dead_letter::{DeadLetter, DeadLetters, Settled, gone, list, mapped, publish, settle};
use concordat_adapters::parse;
use concordat_adapters::status;
use serde_json::{Value, json};

use crate::fake_broker::{Act, FakeBroker, TOKEN};

const NOW: &str = "2026-01-02T00:00:00Z";
const WHO: (&str, &str) = ("ada", NOW);

const DROP: &str = "\
adapter: drop
kind: file-drop
watch: {path: in, glob: '*.csv', ready: {rename_from: .part}}
format: {csv: {delimiter: ';', encoding: windows-1252, decimal: ','}}
into: ds:grid/load@1
map: {id: {type: integer}, mw: {type: TYPE}, note: {}}
key: [id]
";

fn drop_document(mw: &str) -> String {
    DROP.replace("TYPE", mw)
}

/// A folder with one file of three rows, read by a document that takes the decimals for whole numbers.
fn dropped() -> (tempfile::TempDir, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("in")).unwrap();
    let text = b"note;id;mw\n\"caf\xe9;\nbar\";1;1,5\nb;2;7\n\xfc;x;2,5\n";
    std::fs::write(dir.path().join("in/a.csv"), text).unwrap();
    let connector = parse(&drop_document("integer")).unwrap();
    let mut source = connector.open(dir.path()).unwrap();
    let batch = source.read(&Checkpoint::default(), 100).unwrap();
    let good = batch.records.iter().map(|r| r.id.clone()).collect();
    assert_eq!((batch.records.len(), batch.rejects.len()), (1, 2));
    DeadLetters::open(dir.path(), "drop").unwrap().append(&batch.rejects, "ds:grid/load@1", NOW).unwrap();
    (dir, good)
}

fn kept(dir: &Path) -> Vec<DeadLetter> {
    list(&DeadLetters::path(dir, "drop")).unwrap()
}

fn good(row: Row) -> concordat_adapters::contract::Record {
    match row {
        Row::Good(record) => record,
        Row::Bad(reject) => panic!("{}: {}", reject.rule, reject.message),
    }
}

fn bad(row: Row) -> Reject {
    match row {
        Row::Bad(reject) => reject,
        Row::Good(record) => panic!("{:?}", record.data),
    }
}

#[test]
fn a_row_of_a_file_keeps_its_header_its_encoding_and_its_place() {
    let (dir, _) = dropped();
    let letters = kept(dir.path());
    // The document is corrected, and lists its fields in another order than the file.
    let document = drop_document("decimal");
    let mut again = parse(&document).unwrap().again().unwrap();
    let record = good(mapped(&mut again, &letters[0]));
    assert_eq!(Value::Object(record.data.clone()), json!({"id": 1, "mw": "1.5", "note": "café;\nbar"}));
    assert_eq!((record.origin.file.as_str(), record.origin.row, record.origin.line), ("in/a.csv", 1, 2));
    // The id is the one that it would have had.
    std::fs::write(dir.path().join("in/b.csv"), "id;mw;note\n1;9,5;x\n").unwrap();
    std::fs::remove_file(dir.path().join("in/a.csv")).unwrap();
    let read = parse(&document).unwrap().open(dir.path()).unwrap().read(&Checkpoint::default(), 9).unwrap();
    assert_eq!(read.records[0].id, record.id);
    // Still bad: with its place in the file, behind a row of two lines.
    let still = bad(mapped(&mut again, &letters[1]));
    assert_eq!((still.rule.as_str(), still.line, still.column), ("number.syntax", 5, 3));
    // Columns that the document knows nothing of are said, not guessed.
    let other = document.replace("note: {}", "remark: {}");
    let mut again = parse(&other).unwrap().again().unwrap();
    assert_eq!(bad(mapped(&mut again, &letters[0])).rule, "replay.columns");
    // A letter from before headers were kept.
    let old = DeadLetter { beside: None, ..letters[0].clone() };
    let mut again = parse(&document).unwrap().again().unwrap();
    let refused = bad(mapped(&mut again, &old));
    assert!(refused.message.contains("list the columns in `format.csv.columns`"), "{}", refused.message);
    let listed = document.replace("decimal: ','", "decimal: ',', columns: [note, id, mw]");
    let mut again = parse(&listed).unwrap().again().unwrap();
    assert_eq!(good(mapped(&mut again, &old)).data["mw"], "1.5");
    let cut = DeadLetter { truncated: true, ..letters[0].clone() };
    assert_eq!(bad(mapped(&mut again, &cut)).rule, "replay.truncated");
}

#[test]
fn letters_leave_with_a_line_and_a_running_adapter_goes_on() {
    let (dir, _) = dropped();
    let dir = dir.path();
    // An adapter that runs has the file open.
    let mut running = DeadLetters::open(dir, "drop").unwrap();
    let letters = kept(dir);
    let again = bad(mapped(&mut parse(&drop_document("decimal")).unwrap().again().unwrap(), &letters[1]));
    let settled = BTreeMap::from([
        (letters[0].id.clone(), Settled::Replayed),
        (letters[1].id.clone(), Settled::Refused(Box::new(again))),
    ]);
    assert_eq!(settle(dir, "drop", &settled, WHO).unwrap(), 1);
    let left = kept(dir);
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].id.as_str(), left[0].rule.as_str()), (letters[1].id.as_str(), "number.syntax"));
    assert_eq!((left[0].attempts, left[0].tried_at.as_deref(), left[0].at.as_str()), (1, Some(NOW), NOW));
    assert_eq!(left[0].original(), letters[1].original());
    assert_eq!(running.counts().total, 1, "the adapter counts anew");
    // What it refuses now is in the new file; what left may come again, since it may be another row of the same text.
    let reject = Reject {
        origin: Origin::row("in/c.csv", 9),
        line: 9,
        column: 1,
        field: None,
        rule: "csv.quote".into(),
        message: "m".into(),
        raw: b"z".to_vec(),
        truncated: false,
    };
    assert_eq!(running.append(std::slice::from_ref(&reject), "ds:grid/load@1", NOW).unwrap(), 1);
    assert_eq!(kept(dir).len(), 2);
    let rest = kept(dir).into_iter().map(|l| (l.id, Settled::Discarded("a test of the vendor".into()))).collect();
    assert_eq!(settle(dir, "drop", &rest, WHO).unwrap(), 2);
    assert!(kept(dir).is_empty() && running.counts().total == 0);
    let lines = gone(dir, "drop").unwrap();
    let said: Vec<_> = lines.iter().map(|l| (l.what.as_str(), l.by.as_str(), l.reason.as_deref())).collect();
    let why = Some("a test of the vendor");
    assert_eq!(said, [("replayed", "ada", None), ("discarded", "ada", why), ("discarded", "ada", why)]);
    assert_eq!(lines[0].id, letters[0].id);
    let files = ["drop.dead.jsonl", "drop.dead.gone.jsonl"].map(|f| std::fs::read_to_string(dir.join(f)).unwrap());
    assert!(files.iter().all(|f| !f.contains(&letters[1].raw)), "the bytes of what was discarded are deleted");
    assert_eq!(status::status(dir, "drop").unwrap(), None);
    assert_eq!(running.append(&[reject], "ds:grid/load@1", NOW).unwrap(), 1, "the same row again is told again");
}

#[tokio::test]
async fn what_the_broker_took_is_replayed_and_what_it_refuses_stays() {
    let refuse = json!({"errors": [{"line": 1, "code": "schema", "message": "too much"}]}).to_string();
    let broker = FakeBroker::start(move |n, _| match n {
        1 => Act::Say(422, "", refuse.clone()),
        3 => Act::Say(503, "", "{}".to_owned()),
        _ => Act::Serve,
    })
    .await;
    let document = drop_document("decimal").replace("encoding: windows-1252, ", "");
    let mut again = parse(&document).unwrap().again().unwrap();
    let columns = Beside { columns: vec!["id".into(), "mw".into(), "note".into()], ..Beside::default() };
    let mut record = |n: u32| {
        let origin = Origin::row("a.csv", n.into()).with(columns.clone());
        (format!("letter{n}"), good(again(origin, format!("{n};1,5;x\n").as_bytes())))
    };
    let records = vec![record(1), record(2), record(3)];
    let ids: Vec<String> = records.iter().skip(1).map(|(_, r)| r.id.clone()).collect();
    let client = BrokerClient::new(&broker.url, TOKEN).unwrap();
    let settled = publish(&client, "ds:grid/load@1", records).await.unwrap();
    assert!(matches!(&settled["letter1"], Settled::Refused(r) if r.rule == "broker.schema" && r.message == "too much"));
    assert_eq!((&settled["letter2"], &settled["letter3"]), (&Settled::Replayed, &Settled::Replayed));
    assert_eq!(broker.ids(), ids);
    assert_eq!(broker.kept.lock().unwrap().last, 0, "the adapter's own place is not touched");
    let error: AdapterError = publish(&client, "ds:grid/load@1", vec![record(4)]).await.unwrap_err();
    assert_eq!(error.class(), concordat_adapters::contract::ErrorClass::Transient);
}

type Case<'a> = (&'a str, &'a str, Beside, &'a str, Result<Value, &'a str>);

/// One row of each kind, as its source would keep it: the document's part, the place, the bytes, what becomes of them.
#[test]
fn every_kind_maps_its_kept_rows_again() {
    let op = |op: &str| Beside { op: Some(op.into()), ..Beside::default() };
    let fault = Beside { faults: [("p".to_owned(), "it is no number".to_owned())].into(), ..Beside::default() };
    let cells = Beside { cells: Some(r#"{"k": "a", "p": 3}"#.into()), ..Beside::default() };
    let json_map = "map: {k: {from: $.k}, p: {from: $.p, type: decimal}}\n";
    let sql_map = "map: {k: {}, p: {type: decimal}, op: {from: _op}}\nignore: [old]\n";
    let sql = "kind: sql-poll\nconnect: {dsn: env:DSN}\ntable: t\n";
    let http = "kind: http-poll\nconnect: {url: \"https://a.example/x\"}\n";
    let hook = "kind: webhook\nlisten: {address: \"127.0.0.1:1\"}\nauth: {token: env:T}\n";
    let mqtt = "kind: mqtt\nconnect: {url: \"mqtts://a.example\"}\ntopics: [{filter: \"site/+\", qos: 1}]\n";
    let mongo = "kind: mongodb\nconnect: {uri: \"mongodb://a.example\", database: d}\ncollection: c\n";
    let live = "kind: postgres-changes\nconnect: {dsn: env:DSN}\ntable: t\npublication: p\nslot: s\n";
    let drop = "kind: file-drop\nwatch: {path: in, ready: {marker: .ok}}\nformat: {json-lines: {}}\n";
    let file = "kind: file\npath: a.csv\nformat: {csv: {columns: [k, p]}}\n";
    let program = "kind: external\ncommand: [\"true\"]\n";
    let row = r#"{"k": "a", "p": 1.50}"#;
    let sql_row = r#"{"k": "a", "p": "1.50", "old": null}"#;
    let live_row = r#"{"k": "a", "p": "1.50", "old": null, "_op": "delete", "_position": "0/1", "_committed_at": ""}"#;
    let plain = Beside::default;
    let mongo_map = "read: changes\nmap: {k: {from: $.k}, p: {from: $.p, type: decimal}, op: {from: $op}}\n";
    let poll_map = format!("cursor: {{field: k}}\n{json_map}");
    let mqtt_map = "map: {k: {from: \"$topic[1]\"}, p: {from: $.p, type: decimal}}\n";
    let file_map = "map: {k: {}, p: {type: decimal}}\n";
    let soft = format!("{sql}cursor: {{columns: [k]}}\ndeletes: {{soft: old}}\n");
    let diff = format!("{sql}deletes: snapshot-diff\n");
    let soft_row = r#"{"k": "a", "p": "1.50", "old": "1"}"#;
    let plain_row = json!({"k": "a", "p": "1.5"});
    let with = |op: &str| json!({"k": "a", "p": "1.5", "op": op});
    let cases: Vec<Case<'_>> = vec![
        (drop, json_map, plain(), row, Ok(plain_row.clone())),
        (drop, json_map, plain(), "{", Err("json.syntax")),
        (file, file_map, plain(), "a,1.50\n", Ok(plain_row.clone())),
        (file, file_map, plain(), "a,1.50\nb,1\n", Err("replay.rows")),
        (http, json_map, plain(), row, Ok(plain_row.clone())),
        (hook, json_map, plain(), row, Ok(plain_row.clone())),
        (mqtt, mqtt_map, plain(), row, Ok(plain_row.clone())),
        (mongo, &poll_map, plain(), row, Ok(plain_row.clone())),
        (mongo, mongo_map, op("delete"), row, Ok(with("delete"))),
        (mongo, mongo_map, plain(), row, Err("replay.op")),
        (&soft, sql_map, plain(), sql_row, Ok(with("upsert"))),
        (&soft, sql_map, plain(), soft_row, Ok(with("delete"))),
        (&diff, sql_map, op("delete"), sql_row, Ok(with("delete"))),
        (&soft, sql_map, fault.clone(), sql_row, Err("replay.value")),
        (&soft, sql_map, plain(), row, Err("replay.columns")),
        (live, sql_map, plain(), live_row, Ok(with("delete"))),
        (live, sql_map, fault, live_row, Err("replay.value")),
        (program, json_map, plain(), row, Ok(plain_row)),
        (program, json_map, cells, "its own text", Ok(json!({"k": "a", "p": "3"}))),
    ];
    for (kind, map, beside, raw, want) in cases {
        let document = format!("adapter: x\n{kind}into: ds:grid/load@1\n{map}key: [k]\n");
        let connector = parse(&document).map_err(|e| format!("{document}\n{e}")).unwrap();
        let mut again = connector.again().unwrap();
        let found = again(Origin::row("site/a", 1).with(beside), raw.as_bytes());
        match (found, want) {
            (Row::Good(record), Ok(data)) => assert_eq!(Value::Object(record.data), data, "{document}"),
            (Row::Bad(reject), Err(rule)) => assert_eq!(reject.rule, rule, "{document}: {}", reject.message),
            (found, _) => panic!("{document}\n{found:?}"),
        }
    }
}
