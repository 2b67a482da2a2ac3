//! Files dropped into a folder: the conformance kit on them, and what only files do.

use std::path::Path;
use std::time::Duration;

use concordat_adapters::conform::{Kit, Rig, Verdict, battery};
use concordat_adapters::contract::{AdapterError, Checkpoint, Level};
use concordat_adapters::parse;
use serde_json::Value;

use crate::drop_rig::{Folder, ids, read_all};

const CSV: &str = "\
adapter: drop
kind: file-drop
watch: {path: in, glob: '*.csv*', ready: {rename_from: .part}}
format: {csv: {delimiter: ';', encoding: windows-1252, decimal: ',', nulls: ['', NA], columns: [id, mw, note]}}
into: ds:conform/it@1
map: {id: {type: integer}, mw: {type: decimal}, note: {}}
key: [id]
after: {move: done, failed: failed}
poll: {every: 10ms}
";

#[tokio::test]
async fn the_conformance_kit_passes() {
    let scratch = tempfile::tempdir().unwrap();
    let make = Box::new(|| {
        let mut rig = Folder::new(CSV);
        for rows in [11, 1, 20, 3] {
            let rows = rig.rows(rows);
            rig.drop(&rows);
        }
        Ok(Box::new(rig) as Box<dyn Rig>)
    });
    let kit = Kit { make, patience: Duration::from_secs(30), scratch: scratch.path().to_owned() };
    for outcome in battery(&kit, |_| {}).await {
        let skipped = ["equal-cursor", "late-row", "clock-skew"].contains(&outcome.check);
        let want = if skipped { Verdict::Skipped } else { Verdict::Passed };
        assert_eq!(outcome.verdict, want, "{}", outcome.check);
    }
}

#[test]
fn files_are_read_in_their_encoding_moved_and_reported() {
    let mut folder = Folder::new(CSV);
    let rows = folder.rows(5);
    folder.drop(&rows);
    folder.drop(&rows);
    folder.drop(b"id;mw\r\n1;2\r\n");
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gz, &folder.rows(200)).unwrap();
    let packed = gz.finish().unwrap();
    folder.expected.truncate(5);
    folder.drop(&packed[..packed.len() - 9]);
    std::fs::write(folder.path("other.txt"), b"not ours").unwrap();
    let mut at = Checkpoint::default();
    let batches = read_all(&mut *folder.source(), &mut at);
    assert_eq!(ids(&batches), folder.expected);
    let note = batches[0].records[0].data["note"].as_str().unwrap();
    assert_eq!((note, &batches[0].records[0].data["mw"]), ("café", &Value::from("0.5")));
    assert_eq!(batches[0].records[0].raw, b"0;0,5;caf\xe9\r\n", "the original bytes");
    let rules: Vec<&str> = batches.iter().flat_map(|b| &b.rejects).map(|r| r.rule.as_str()).collect();
    assert_eq!(rules, ["file.header", "file.truncated"], "no row of a cut file");
    let notes: Vec<&String> = batches.iter().flat_map(|b| &b.notes).collect();
    assert!(notes.len() == 1 && notes[0].contains("same bytes as f0001.csv"), "{notes:?}");
    assert_eq!(folder.names("in"), ["other.txt"]);
    assert_eq!((folder.names("in/done").len(), folder.names("in/failed").len()), (2, 2));
}

#[test]
fn a_restart_without_the_ledger_goes_on_behind_the_last_durable_row() {
    let mut folder = Folder::new(CSV);
    for rows in [3, 10] {
        let rows = folder.rows(rows);
        folder.drop(&rows);
    }
    // Two batches are durable: one file whole, and some rows of the other. Nothing was acknowledged to the source.
    let mut source = folder.source();
    let first = source.read(&Checkpoint::default(), 7).unwrap();
    let second = source.read(&first.checkpoint, 2).unwrap();
    drop(source);
    // The rest of the world went on: a file that sorts first, and the one being read has another name.
    let rows = folder.rows(2);
    std::fs::write(folder.path("a.csv"), rows).unwrap();
    std::fs::rename(folder.path("f0002.csv"), folder.path("renamed.csv")).unwrap();
    let (mut source, mut at) = (folder.source(), second.checkpoint.clone());
    source.ack(&at).unwrap();
    let rest = read_all(&mut *source, &mut at);
    let mut all = ids(&[first, second]);
    all.extend(ids(&rest));
    all.sort_by_key(|id| id.parse::<u64>().unwrap());
    assert_eq!(all, folder.expected);
    assert!(rest.iter().all(|b| b.rejects.is_empty() && b.notes.is_empty()));
    assert_eq!(folder.names("in"), Vec::<String>::new());
}

#[test]
fn rows_that_were_taken_away_are_told() {
    let mut folder = Folder::new(CSV);
    let rows = folder.rows(10);
    folder.drop(&rows);
    let first = folder.source().read(&Checkpoint::default(), 4).unwrap();
    std::fs::remove_file(folder.path("f0001.csv")).unwrap();
    let next = folder.source().read(&first.checkpoint, 4).unwrap();
    assert_eq!(next.rejects.iter().map(|r| r.rule.as_str()).collect::<Vec<_>>(), ["file.gone"]);
}

#[test]
fn a_file_is_whole_when_its_marker_stands_beside_it_or_it_is_quiet() {
    let marked = CSV.replace("{rename_from: .part}", "{marker: .ok}");
    let mut folder = Folder::new(&marked);
    let rows = folder.rows(3);
    folder.drop(&rows);
    let (mut source, mut at) = (folder.source(), Checkpoint::default());
    assert!(ids(&read_all(&mut *source, &mut at)).is_empty());
    std::fs::write(folder.path("f0001.csv.ok"), b"").unwrap();
    assert_eq!(ids(&read_all(&mut *source, &mut at)).len(), 3);
    assert_eq!(folder.names("in"), Vec::<String>::new(), "the marker goes with its file");

    let quiet = CSV.replace("{rename_from: .part}", "{quiet: 1h}");
    let mut folder = Folder::new(&quiet);
    let rows = folder.rows(3);
    folder.drop(&rows);
    assert!(ids(&read_all(&mut *folder.source(), &mut Checkpoint::default())).is_empty(), "written a moment ago");
}

#[test]
fn json_lines_and_two_byte_text_are_read() {
    let json = "\
adapter: drop
kind: file-drop
watch: {path: in, glob: '*.csv', ready: {rename_from: .part}}
format: {json-lines: {}}
into: ds:conform/it@1
map: {id: {type: integer}, mw: {from: $.v.mw, type: decimal}}
key: [id]
poll: {every: 10ms}
";
    let mut folder = Folder::new(json);
    folder
        .drop(b"{\"id\": 1, \"v\": {\"mw\": 1.10}}\n\n{\"id\": 2, \"v\": {\"mw\": \"x\"}}\n{\"id\": 3\n{\"id\": 4}\n");
    let (mut source, mut at) = (folder.source(), Checkpoint::default());
    let batches = read_all(&mut *source, &mut at);
    assert_eq!(ids(&batches), ["1", "4"]);
    assert_eq!(batches[0].records[0].data["mw"], "1.1");
    let bad: Vec<(u64, &str)> = batches.iter().flat_map(|b| &b.rejects).map(|r| (r.line, r.rule.as_str())).collect();
    assert_eq!(bad, [(3, "number.syntax"), (4, "json.syntax")]);
    // It stays where it is, and is not read again.
    assert_eq!(folder.names("in"), ["f0001.csv"]);
    assert!(ids(&read_all(&mut *folder.source(), &mut at)).is_empty());

    let wide = CSV.replace("windows-1252", "utf-16le");
    let mut folder = Folder::new(&wide);
    let mut bytes = b"\xff\xfe".to_vec();
    bytes.extend("id;mw;note\n1;1,5;café \u{1f600}\n2;2;".encode_utf16().flat_map(u16::to_le_bytes));
    bytes.extend_from_slice(b"\x00\xd8"); // half of a pair
    bytes.extend("\n3;3,0;ok\n".encode_utf16().flat_map(u16::to_le_bytes));
    folder.drop(&bytes);
    let batches = read_all(&mut *folder.source(), &mut Checkpoint::default());
    assert_eq!(ids(&batches), ["1", "3"]);
    assert_eq!(batches[0].records[0].data["note"], "café \u{1f600}");
    assert_eq!(batches[0].rejects[0].rule, "text.utf8");
}

#[test]
fn checks_and_drafts_say_what_is_there() {
    let mut folder = Folder::new(CSV);
    let check = |folder: &Folder| parse(&folder.document).unwrap().check(folder.dir.path());
    assert_eq!(check(&folder)[0].level, Level::Warn, "no file yet");
    let rows = folder.rows(30);
    folder.drop(&rows);
    let found = check(&folder);
    assert!(found.iter().all(|f| f.level == Level::Ok), "{found:?}");
    std::fs::write(folder.path("a.csv"), "id;mw;extra\n1;2;3\n").unwrap();
    assert!(check(&folder).iter().any(|f| f.level == Level::Fail && f.sentence.contains("`note` is missing")));
    std::fs::remove_file(folder.path("a.csv")).unwrap();
    let bare = CSV.lines().filter(|l| !l.starts_with("map:") && !l.starts_with("key:"));
    let bare = bare.collect::<Vec<_>>().join("\n").replace(", columns: [id, mw, note]", "") + "\n";
    let drafts = parse(&bare).unwrap().discover(folder.dir.path()).unwrap();
    let types: Vec<(&str, &str)> = drafts.columns.iter().map(|c| (c.name.as_str(), c.kind.name())).collect();
    assert_eq!(types, [("id", "integer"), ("mw", "decimal"), ("note", "string")]);
    assert_eq!(drafts.sampled, 30);
    folder.document = drafts.adapter;
    assert_eq!(ids(&read_all(&mut *folder.source(), &mut Checkpoint::default())), folder.expected, "a draft that runs");
    assert!(
        check(&Folder { document: CSV.replace("path: in", "path: nowhere"), ..Folder::new(CSV) })[0].level
            == Level::Fail
    );
}

#[test]
fn mistakes_in_the_document_are_named() {
    for (from, to, wanted) in [
        ("ready: {rename_from: .part}", "ready: {rename_form: .part}", "did you mean"),
        ("ready: {rename_from: .part}", "ready: {quiet: 1}", "is no period"),
        (", ready: {rename_from: .part}", "", "key `ready` is missing"),
        ("windows-1252", "windows-1", "is no known encoding"),
        ("glob: '*.csv*'", "glob: 'a/*.csv'", "watch.glob"),
        ("move: done", "move: ../done", "after.move"),
        ("format: {csv: {", "format: {json-lines: {}, csv: {", "say one of"),
        ("poll: {every: 10ms}", "poll: {every: often}", "is no period"),
    ] {
        assert!(CSV.contains(from), "{from}");
        let text = CSV.replacen(from, to, 1);
        let opened = parse(&text).map_err(AdapterError::from).and_then(|c| c.open(Path::new("/nonexistent")));
        let error = opened.err().unwrap_or_else(|| panic!("{to} was taken")).to_string();
        assert!(error.contains(wanted), "{to}: {error}");
    }
}
