use std::io::Write;
use std::sync::Arc;

use concordat_adapters::contract::{AdapterError, Checkpoint, ErrorClass, Next, Source};
use concordat_adapters::file::{FileSource, RowReader, check};
use concordat_adapters::plan::Plan;

use crate::rows_of;

const YAML: &str = "\
adapter: t
kind: file
path: in.csv
format: {csv: {nulls: ['', NA], columns: [ts, n, name]}}
into: ds:a/t@1
map:
  ts: {type: timestamp, zone: Europe/Berlin, fold: later}
  n: {type: integer}
  name: {type: string, trim: true, required: true}
key: [ts]
time: ts
";

fn folder(bytes: &[u8]) -> (tempfile::TempDir, Arc<Plan>) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("in.csv"), bytes).unwrap();
    (dir, Arc::new(Plan::parse(YAML).unwrap()))
}

fn open_error(bytes: &[u8]) -> AdapterError {
    let (dir, plan) = folder(bytes);
    RowReader::open(dir.path(), plan).err().unwrap()
}

#[test]
fn a_bad_row_is_named_and_the_rest_goes_on() {
    let mut file = b"\xef\xbb\xbfts,n,name\r\n".to_vec();
    file.extend_from_slice(b"2026-01-01T00:00:00,1,good\r\n");
    file.extend_from_slice(b"2026-01-01T00:01:00,1,bad \xff\r\n");
    file.extend_from_slice(b"2026-01-01T00:02:00,1,nul\0\r\n");
    file.extend_from_slice(b"2026-01-01T00:03:00,1\r\n");
    file.extend_from_slice(b"2026-01-01T00:04:00,1,a,b\r\n");
    file.extend_from_slice(b"2026-01-01T00:05:00,9007199254740992,a\r\n");
    file.extend_from_slice(b"2026-01-01T00:06:00,NA,  \r\n");
    file.extend_from_slice(b"2026-03-29T02:30:00,1,a\r\n");
    file.extend_from_slice(b"2026-01-01T00:07:00,1,\"open\r\n");
    file.extend_from_slice(b",1,a\r\n");
    file.extend_from_slice(b"2026-10-25T02:30:00,NA,\"two\r\nlines\"\r\n");
    file.extend_from_slice(b"2026-01-01T00:09:00,2,last");
    let (dir, plan) = folder(&file);
    let (good, bad) = rows_of(dir.path(), &plan);
    let seen: Vec<_> = bad.iter().map(|r| (r.line, r.column, r.field.as_deref(), r.rule.as_str())).collect();
    assert_eq!(
        seen,
        [
            (3, 23, Some("name"), "text.utf8"),
            (4, 23, Some("name"), "text.nul"),
            (5, 1, None, "csv.column-count"),
            (6, 25, None, "csv.column-count"),
            (7, 21, Some("n"), "number.range"),
            (8, 24, Some("name"), "field.required"),
            (9, 1, Some("ts"), "time.nonexistent"),
            (10, 23, None, "csv.quote-text"),
            (11, 1, Some("ts"), "field.required"),
        ]
    );
    assert_eq!(bad[0].raw, b"2026-01-01T00:01:00,1,bad \xff\r\n");
    let times: Vec<_> = good.iter().map(|r| r.time.as_deref().unwrap()).collect();
    assert_eq!(times, ["2025-12-31T23:00:00Z", "2026-10-25T01:30:00Z", "2025-12-31T23:09:00Z"]);
    assert_eq!(good[1].data["name"], "two\r\nlines");
    assert!(!good[1].data.contains_key("n"));
    assert_eq!((good[1].origin.line, good[2].origin.line), (12, 14));
}

#[test]
fn a_header_that_differs_is_one_clear_error() {
    for (header, wanted) in [
        ("ts,n", "`name` is missing"),
        ("ts,n,name,extra", "`extra` (column 4) is not expected"),
        ("ts,name,n", "column 2 is `name`, expected `n`; column 3 is `n`, expected `name`"),
        ("ts,n,Name", "`name` is missing; `Name` (column 3) is not expected"),
        ("ts,n,n,name", "`n` (column 3) stands twice"),
        ("ts;n;name", "`ts` is missing"),
        ("", "the file is empty"),
    ] {
        let error = open_error(header.as_bytes());
        assert_eq!(error.class(), ErrorClass::Permanent, "{header}");
        assert!(error.to_string().contains(wanted), "{header}: {error}");
    }
    let utf16 = open_error(b"\xff\xfet\0s\0");
    assert_eq!(utf16.code(), "adapter.encoding");
    let missing = check(std::path::Path::new("/nonexistent"), YAML).err().unwrap();
    assert_eq!((missing.class(), missing.code()), (ErrorClass::Permanent, "adapter.io"));
}

#[test]
fn a_truncated_gzip_is_never_taken_for_the_whole_file() {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(b"ts,n,name\n").unwrap();
    for n in 0..5_000 {
        writeln!(gz, "2026-01-01T{:02}:{:02}:00,{},{:x}", n / 60 % 24, n % 60, n, n * 7_919_u64).unwrap();
    }
    let whole = gz.finish().unwrap();
    let (dir, plan) = folder(&whole);
    assert_eq!(rows_of(dir.path(), &plan).0.len(), 5_000);
    std::fs::write(dir.path().join("in.csv"), &whole[..whole.len() - 12]).unwrap();
    let last = concordat_adapters::file::records(dir.path(), plan).unwrap().last().unwrap();
    let error = last.expect_err("the end of a half file was taken for its end");
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "adapter.truncated"));
}

fn lines(count: u64) -> Vec<u8> {
    let mut file = b"ts,n,name\n".to_vec();
    for n in 0..count {
        writeln!(file, "2026-01-01T{:02}:{:02}:00,{n},{}", n / 60, n % 60, if n % 7 == 3 { "" } else { "x" }).unwrap();
    }
    file
}

#[test]
fn reading_from_any_checkpoint_gives_the_same_rows() {
    let (dir, plan) = folder(&lines(200));
    let mut whole = FileSource::new(dir.path(), Arc::clone(&plan));
    let mut at = Checkpoint::default();
    let mut total = 0;
    loop {
        let batch = whole.read(&at, 13).unwrap();
        assert!(batch.records.len() + batch.rejects.len() <= 13);
        let again = FileSource::new(dir.path(), Arc::clone(&plan)).read(&at, 13).unwrap();
        assert_eq!(again, batch);
        total += batch.records.len() + batch.rejects.len();
        at = batch.checkpoint;
        if batch.next == Next::End {
            break;
        }
    }
    assert_eq!(total, 200);
    let after = whole.read(&at, 13).unwrap();
    assert!(after.next == Next::End && after.records.is_empty() && after.checkpoint == at);
}

#[test]
fn a_file_that_changed_behind_the_checkpoint_stops_the_adapter() {
    let (dir, plan) = folder(&lines(100));
    let path = dir.path().join("in.csv");
    let at = FileSource::new(dir.path(), Arc::clone(&plan)).read(&Checkpoint::default(), 50).unwrap().checkpoint;
    let read = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        FileSource::new(dir.path(), Arc::clone(&plan)).read(&at, 256)
    };
    let grown = read(&lines(120)).unwrap();
    assert_eq!(grown.records.len() + grown.rejects.len(), 70);
    let edited = String::from_utf8(lines(100)).unwrap().replace(",20,x", ",21,x");
    for bytes in [edited.as_bytes(), &lines(40)] {
        let error = read(bytes).expect_err("a changed file was read on");
        assert_eq!((error.class(), error.code()), (ErrorClass::Permanent, "adapter.changed"));
    }
    std::fs::write(&path, lines(100)).unwrap();
    for bytes in [&b"{}"[..], b"\xff", b"{\"v\":2,\"file\":\"in.csv\",\"row\":1,\"chain\":\"\"}"] {
        let error = FileSource::new(dir.path(), Arc::clone(&plan)).read(&Checkpoint(bytes.to_vec()), 1).unwrap_err();
        assert_eq!(error.code(), "adapter.checkpoint");
    }
}

proptest::proptest! {
    /// Whatever a broker hands back as a checkpoint: it is ours, or it is refused.
    #[test]
    fn a_foreign_checkpoint_is_refused(noise in proptest::collection::vec(proptest::num::u8::ANY, 1..40), row in 0_u64..20) {
        let (dir, plan) = folder(&lines(10));
        let chain = "00".repeat(32);
        let forged = format!("{{\"v\":1,\"file\":\"in.csv\",\"row\":{row},\"chain\":\"{chain}\"}}").into_bytes();
        for bytes in [noise, forged] {
            let error = FileSource::new(dir.path(), Arc::clone(&plan)).read(&Checkpoint(bytes), 5).unwrap_err();
            proptest::prop_assert_eq!(error.class(), ErrorClass::Permanent);
        }
    }
}
