//! Files dropped into a folder: the conformance kit on them, and what only files do.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use concordat_adapters::conform::{Change, Kit, Rig, Verdict, battery};
use concordat_adapters::contract::{AdapterError, Batch, Checkpoint, Level, Next, Source};
use concordat_adapters::parse;
use serde_json::Value;

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

struct Folder {
    dir: Arc<tempfile::TempDir>,
    document: String,
    next: u64,
    expected: Vec<String>,
    dead: usize,
    files: u64,
    last: Vec<u8>,
}

impl Folder {
    fn new(document: &str) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        std::fs::create_dir(dir.path().join("in")).unwrap();
        let (document, expected) = (document.to_owned(), Vec::new());
        Self { dir, document, next: 0, expected, dead: 0, files: 0, last: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("in").join(name)
    }

    fn rows(&mut self, count: u64) -> Vec<u8> {
        let mut text = b"id;mw;note\r\n".to_vec();
        for _ in 0..count {
            text.extend_from_slice(format!("{};{},5;caf", self.next, self.next).as_bytes());
            text.extend_from_slice(b"\xe9\r\n");
            self.expected.push(self.next.to_string());
            self.next += 1;
        }
        text
    }

    fn drop(&mut self, bytes: &[u8]) {
        self.files += 1;
        let part = self.path("writing.csv.part");
        std::fs::write(&part, bytes).unwrap();
        std::fs::rename(part, self.path(&format!("f{:04}.csv", self.files))).unwrap();
        self.last = bytes.to_vec();
    }

    fn source(&self) -> Box<dyn Source> {
        parse(&self.document).unwrap().open(self.dir.path()).unwrap()
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.dir.path().join(folder)) else { return vec![] };
        let mut names: Vec<String> = entries
            .map(|e| e.unwrap())
            .filter(|e| e.metadata().unwrap().is_file())
            .map(|e| e.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Rig for Folder {
    fn open(&mut self) -> Result<Box<dyn Source>, AdapterError> {
        parse(&self.document).unwrap().open(self.dir.path())
    }

    fn name(&self, event: &Value) -> String {
        event["data"]["id"].to_string()
    }

    fn expected(&self) -> Vec<String> {
        self.expected.clone()
    }

    fn dead(&self) -> usize {
        self.dead
    }

    fn change(&mut self, change: Change) -> bool {
        match change {
            Change::Rows => {
                let rows = self.rows(9);
                self.drop(&rows);
            }
            Change::Poison => {
                let mut rows = self.rows(3);
                rows.extend_from_slice(b"x;1,5;bad\r\n");
                let more = self.rows(3);
                rows.extend_from_slice(&more[b"id;mw;note\r\n".len()..]);
                self.dead += 1;
                self.drop(&rows);
            }
            Change::HalfWritten => {
                let rows = self.rows(9);
                self.expected.truncate(self.expected.len() - 9);
                std::fs::write(self.path("writing.csv.part"), &rows[..rows.len() / 2]).unwrap();
                self.last = rows;
            }
            Change::Finished => {
                std::fs::write(self.path("writing.csv.part"), &self.last).unwrap();
                std::fs::rename(self.path("writing.csv.part"), self.path("zz.csv")).unwrap();
                self.expected.extend((self.next - 9..self.next).map(|n| n.to_string()));
            }
            Change::Resent => {
                let again = self.last.clone();
                self.drop(&again);
            }
            Change::ChangedHeader => {
                self.rows(4);
                let text = b"id;note;mw\r\n1;x;2\r\n".to_vec();
                self.drop(&text);
            }
            Change::Drift => {
                self.rows(1);
                self.drop(b"id;mw;note;extra\r\n9000;1,5;x;y\r\n");
            }
            Change::Cut => std::fs::rename(self.dir.path().join("in"), self.dir.path().join("away")).unwrap(),
            Change::Restored => std::fs::rename(self.dir.path().join("away"), self.dir.path().join("in")).unwrap(),
            Change::EqualCursor | Change::LateRow | Change::SkewedClock => return false,
        }
        true
    }
}

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

/// Reads to the end of what there is, acknowledging everything.
fn read_all(source: &mut dyn Source, at: &mut Checkpoint) -> Vec<Batch> {
    let mut all = Vec::new();
    let mut quiet = 0;
    while quiet < 2 {
        let batch = source.read(at, 7).unwrap();
        *at = batch.checkpoint.clone();
        source.ack(at).unwrap();
        quiet = if matches!(batch.next, Next::Idle(_)) { quiet + 1 } else { 0 };
        all.push(batch);
    }
    all
}

fn ids(batches: &[Batch]) -> Vec<String> {
    batches.iter().flat_map(|b| &b.records).map(|r| r.data["id"].to_string()).collect()
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
