//! Parquet files: those of `samples/write.py`, and files written here.

use std::path::Path;
use std::sync::Arc;

use concordat_adapters::contract::{AdapterError, Batch, Checkpoint, ErrorClass, Level, Next, Row};
use concordat_adapters::parse;
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::json;

use crate::drop_rig::{Folder, ids, read_all};

const DROP: &str = "\
adapter: drop
kind: file-drop
watch: {path: in, glob: '*', ready: {rename_from: .part}}
format: {parquet: {}}
into: ds:conform/it@1
map: {id: {type: integer}, mw: {type: decimal}, note: {}}
key: [id]
after: {move: done, failed: failed}
poll: {every: 10ms}
";

const SAMPLE: &str = "\
adapter: sample
kind: file
path: pyarrow.parquet
format: {parquet: {}}
into: ds:conform/it@1
map:
  id: {type: integer}
  mw: {type: decimal}
  wide: {}
  at: {type: timestamp, zone: offset, precision: ms}
  clock: {type: timestamp, zone: Europe/Berlin, fold: earlier}
  nanos: {}
  day: {}
  tod: {}
  note: {}
  word: {}
  ok: {type: boolean}
  raw: {}
  big: {}
  real: {type: decimal}
  name: {from: place.name}
  lat: {from: place.gps.lat, type: decimal}
ignore: [place.gps.lon, tags, extra]
key: [id]
time: clock
";

fn samples() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/samples"))
}

fn read(document: &str, base: &Path, from: &Checkpoint) -> Result<Vec<Batch>, AdapterError> {
    let (mut source, mut at, mut all) = (parse(document)?.open(base)?, from.clone(), Vec::new());
    loop {
        let batch = source.read(&at, 6)?;
        at = batch.checkpoint.clone();
        all.push(batch);
        if all[all.len() - 1].next == Next::End {
            return Ok(all);
        }
    }
}

fn refused(document: &str, base: &Path) -> (ErrorClass, &'static str, String) {
    let error = read(document, base, &Checkpoint::default()).unwrap_err();
    (error.class(), error.code(), error.to_string())
}

/// A file as the library itself writes it: `id`, `mw` with three places, `note`.
fn written(first: i64, rows: usize, compression: Compression) -> Vec<u8> {
    let schema = "message m { required int64 id; optional int64 mw (decimal(18,3)); optional binary note (utf8); }";
    let properties = WriterProperties::builder().set_compression(compression).set_data_page_size_limit(2_000).build();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut out = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    let all: Vec<i64> = (first..first + rows as i64).collect();
    for part in all.chunks(700) {
        let mut group = out.next_row_group().unwrap();
        let levels: Vec<i16> = part.iter().map(|i| i16::from(i % 3 != 0)).collect();
        let some: Vec<i64> = part.iter().copied().filter(|i| i % 3 != 0).collect();
        while let Some(mut column) = group.next_column().unwrap() {
            match column.untyped() {
                ColumnWriter::Int64ColumnWriter(w) if w.get_descriptor().name() == "id" => {
                    w.write_batch(part, None, None).unwrap();
                }
                ColumnWriter::Int64ColumnWriter(w) => {
                    w.write_batch(&some.iter().map(|i| i * 1_000 + 5).collect::<Vec<_>>(), Some(&levels), None)
                        .unwrap();
                }
                ColumnWriter::ByteArrayColumnWriter(w) => {
                    let text = |i: &i64| ByteArray::from(format!("note {i}").as_str());
                    w.write_batch(&some.iter().map(text).collect::<Vec<_>>(), Some(&levels), None).unwrap();
                }
                _ => unreachable!(),
            }
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    out.into_inner().unwrap()
}

#[test]
fn every_type_of_another_writer_is_exact_text() {
    let all = read(SAMPLE, samples(), &Checkpoint::default()).unwrap();
    assert_eq!(ids(&all), (0..20).filter(|i| *i != 13).map(|i| i.to_string()).collect::<Vec<_>>());
    let records: Vec<_> = all.iter().flat_map(|b| &b.records).collect();
    assert_eq!(
        serde_json::Value::Object(records[8].data.clone()),
        json!({"id": 8, "mw": "8.008", "wide": "-1234567890123456789012345678.0123456789", "at": "2026-03-01T10:00:08.123Z",
               "clock": "2026-03-01T09:08:00Z", "nanos": "2026-03-01T10:00:00.000000009Z", "day": "2026-03-09",
               "tod": "10:00:00.000005", "note": "café 8", "word": "a", "ok": false, "raw": "CP8=",
               "big": "18446744073709551607", "real": "0.1", "name": "p8", "lat": "52.5"})
    );
    let first = &records[0].data;
    assert!(["mw", "note", "name", "lat"].iter().all(|field| !first.contains_key(*field)), "{first:?}");
    let raw: serde_json::Value = serde_json::from_slice(&records[8].raw).unwrap();
    assert_eq!((&raw["mw"], &raw["place.gps.lon"], &raw["tags"]), (&json!("8.008"), &json!("13.25"), &json!(null)));
    let bad: Vec<_> =
        all.iter().flat_map(|b| &b.rejects).map(|r| (r.rule.as_str(), r.origin.row, r.field.as_deref())).collect();
    assert_eq!(bad, [("number.not-finite", 14, Some("real"))]);

    let old = "adapter: old\nkind: file\npath: int96.parquet\nformat: {parquet: {}}\ninto: ds:conform/it@1\nkey: [id]\n\
               map: {id: {type: integer}, clock: {type: timestamp, zone: UTC}}\n";
    let all = read(old, samples(), &Checkpoint::default()).unwrap();
    assert_eq!(all[0].records[3].data["clock"], "2026-03-01T10:03:00Z");
}

#[test]
fn a_dead_letter_is_mapped_again_by_the_corrected_document() {
    let wrong = read(&SAMPLE.replace("mw: {type: decimal}", "mw: {type: integer}"), samples(), &Checkpoint::default());
    let wrong: Vec<_> = wrong.unwrap().into_iter().flat_map(|b| b.rejects).collect();
    let letter = |row: u64| wrong.iter().find(|r| r.origin.row == row).unwrap();
    assert_eq!((letter(9).rule.as_str(), letter(9).field.as_deref()), ("number.integer", Some("mw")));
    let all = read(SAMPLE, samples(), &Checkpoint::default()).unwrap();
    let record = all.iter().flat_map(|b| &b.records).find(|r| r.origin.row == 9).unwrap();
    let mut again = parse(SAMPLE).unwrap().again().unwrap();
    assert_eq!(
        again(letter(9).origin.clone(), &letter(9).raw),
        Row::Good(record.clone()),
        "as if it had been good at once"
    );
    // The word for what is no number is kept, and is still none.
    let Row::Bad(still) = again(letter(14).origin.clone(), &letter(14).raw) else { panic!("taken") };
    assert_eq!((still.rule.as_str(), still.field.as_deref()), ("number.syntax", Some("real")));
}

#[test]
fn a_restart_goes_on_at_its_row_and_another_file_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let document = SAMPLE.replace("path: pyarrow.parquet", "path: f.parquet");
    std::fs::copy(samples().join("pyarrow.parquet"), dir.path().join("f.parquet")).unwrap();
    let first = parse(&document).unwrap().open(dir.path()).unwrap().read(&Checkpoint::default(), 11).unwrap();
    // The mapping may change meanwhile: it is the rows that are compared.
    let other = document.replace("  word: {}\n", "").replace("ignore: [", "ignore: [word, ");
    for document in [&document, &other] {
        let rest = read(document, dir.path(), &first.checkpoint).unwrap();
        assert_eq!(ids(&rest), (11..20).filter(|i| *i != 13).map(|i| i.to_string()).collect::<Vec<_>>());
    }
    let simple = DROP.replace("kind: file-drop\n", "kind: file\npath: f.parquet\n");
    let simple: String = simple
        .lines()
        .filter(|l| !l.starts_with("watch") && !l.starts_with("after"))
        .map(|l| format!("{l}\n"))
        .collect();
    std::fs::write(dir.path().join("f.parquet"), written(0, 40, Compression::SNAPPY)).unwrap();
    let first = parse(&simple).unwrap().open(dir.path()).unwrap().read(&Checkpoint::default(), 11).unwrap();
    std::fs::write(dir.path().join("f.parquet"), written(1, 40, Compression::SNAPPY)).unwrap();
    let error = read(&simple, dir.path(), &first.checkpoint).unwrap_err();
    assert_eq!((error.class(), error.code()), (ErrorClass::Permanent, "adapter.changed"), "{error}");
}

#[test]
fn dropped_files_of_every_packing_are_read_once() {
    let mut folder = Folder::new(DROP);
    let packings = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::LZ4_RAW,
        Compression::ZSTD(ZstdLevel::default()),
    ];
    for (n, packing) in packings.into_iter().enumerate() {
        folder.drop(&written(n as i64 * 1_500, 1_500, packing));
    }
    let again = folder.last.clone();
    folder.drop(&again);
    let (mut source, mut at) = (folder.source(), Checkpoint::default());
    let first = source.read(&at, 7).unwrap();
    at = first.checkpoint.clone();
    drop(source);
    let mut all = vec![first];
    all.extend(read_all(&mut *folder.source(), &mut at));
    assert!(ids(&all) == (0..7_500).map(|i| i.to_string()).collect::<Vec<_>>(), "{} rows", ids(&all).len());
    assert_eq!(all[0].records[1].data["mw"], "1.005");
    assert!(all.iter().any(|b| b.notes.iter().any(|n| n.contains("same bytes"))));
    assert_eq!((folder.names("in").len(), folder.names("in/done").len()), (0, 6));
}

#[test]
fn what_is_cut_or_damaged_is_refused_before_a_row_of_it() {
    let good = written(0, 2_000, Compression::ZSTD(ZstdLevel::default()));
    let mut folder = Folder::new(DROP);
    folder.drop(&good[..good.len() - 9]);
    let mut torn = good.clone();
    torn[4..40].fill(0xff);
    folder.drop(&torn);
    // One byte of a value, where pages have checksums.
    let sample = std::fs::read(samples().join("pyarrow.parquet")).unwrap();
    let at = sample.windows(3).position(|w| w == "café".as_bytes()[..3].as_ref()).unwrap();
    let mut other = sample;
    other[at] = b'X';
    folder.drop(&other);
    folder.drop(b"id;mw\n1;2\n");
    folder.drop(&std::fs::read(samples().join("brotli.parquet")).unwrap());
    let batches = read_all(&mut *folder.source(), &mut Checkpoint::default());
    assert_eq!(ids(&batches), Vec::<String>::new());
    let rules: Vec<&str> = batches.iter().flat_map(|b| &b.rejects).map(|r| r.rule.as_str()).collect();
    assert_eq!(rules, ["file.truncated", "file.encoding", "file.encoding", "file.encoding", "file.encoding"]);
    let said: Vec<&str> = batches.iter().flat_map(|b| &b.rejects).map(|r| r.message.as_str()).collect();
    assert!(said[1].contains("damaged") && said[2].contains("damaged"), "{said:?}");
    assert!(said[3].contains("no Parquet") && said[4].contains("BROTLI"), "{said:?}");
    assert_eq!(folder.names("in/failed").len(), 5);
}

/// Bytes changed anywhere end in rows or in an error, never in a panic.
#[test]
fn no_damage_makes_it_panic() {
    let dir = tempfile::tempdir().unwrap();
    let sample = std::fs::read(samples().join("pyarrow.parquet")).unwrap();
    let document = SAMPLE.replace("path: pyarrow.parquet", "path: f.parquet");
    let mut seed = 7_u64;
    for _ in 0..500 {
        let mut bytes = sample.clone();
        for _ in 0..3 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (seed >> 20) as usize % bytes.len();
            bytes[at] = (seed >> 56) as u8;
        }
        std::fs::write(dir.path().join("f.parquet"), &bytes).unwrap();
        if let Err(error) = read(&document, dir.path(), &Checkpoint::default()) {
            assert!(!error.to_string().contains("café"), "{error}");
        }
    }
}

#[test]
fn columns_without_text_or_without_a_rule_are_named() {
    let (class, code, text) =
        refused(&SAMPLE.replace("ignore: [place.gps.lon, tags,", "rest: {}\nignore: ["), samples());
    assert_eq!((class, code), (ErrorClass::Permanent, "adapter.columns"));
    assert!(text.contains("`tags` is a list") && text.contains("put it into `ignore`"), "{text}");
    let (.., text) = refused(&SAMPLE.replace("place.gps.lon, ", ""), samples());
    assert!(text.contains("`place.gps.lon` is neither mapped nor in `ignore`"), "{text}");
    let (.., text) = refused(&SAMPLE.replace("place.gps.lat", "place.gps.lats"), samples());
    assert!(text.contains("did you mean `place.gps.lat`?"), "{text}");
    let (.., text) = refused(&SAMPLE.replace("{parquet: {}}", "{parquet: {}, csv: {columns: [id]}}"), samples());
    assert!(text.contains("say one of"), "{text}");

    let found = parse(SAMPLE).unwrap().check(samples());
    assert!(found.iter().all(|f| f.level == Level::Ok && f.sentence.contains("19 expected")), "{found:?}");
    let drafts = parse(SAMPLE).unwrap().discover(samples()).unwrap();
    let kind = |name: &str| drafts.columns.iter().find(|c| c.name == name).unwrap().kind.name();
    assert_eq!((kind("mw"), kind("at"), kind("ok"), drafts.sampled), ("decimal", "timestamp", "boolean", 20));
    assert!(drafts.adapter.contains(r#"ignore: ["tags","extra"]"#), "{}", drafts.adapter);
}
