#![allow(clippy::unwrap_used)]
use super::container::{Entry, read};
use super::sign::{BundleKey, CERTIFICATE_FILE, KEY_FILE, verify};
use super::*;
use std::io::{Cursor, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

const NOW_MS: u64 = 1_795_000_000_000;

fn files() -> Vec<Entry> {
    vec![
        Entry::new(STATEMENT, "a page".repeat(100)),
        Entry::new("receipts/op-7.receipt", vec![7; 900]),
        Entry::new("agreements/AGR-2026-0142-v3.terms", vec![1, 2, 3]),
        Entry::new(EXPORT, "{}"),
    ]
}

fn key() -> (tempfile::TempDir, BundleKey) {
    let dir = tempfile::tempdir().unwrap();
    let key = BundleKey::open(dir.path(), "court", NOW_MS).unwrap();
    (dir, key)
}

/// What a reader finds wrong first: the container, a file against the manifest, or the signature.
fn refused(bytes: &[u8]) -> Option<(String, String)> {
    let judged = read(bytes).and_then(|entries| {
        manifest::check(&entries)?;
        let of = |name: &str| entries.iter().find(|e| e.name == name).unwrap().bytes.clone();
        verify(&of(SIGNATURE), &of(MANIFEST)).map_err(|why| BundleError::refused(SIGNATURE, why))
    });
    match judged {
        Ok(_) => None,
        Err(BundleError::Refused { file, why }) => Some((file, why)),
        Err(other) => panic!("{other}"),
    }
}

fn file_refused(bytes: &[u8]) -> String {
    refused(bytes).unwrap().0
}

/// Any ZIP, by rules of nobody.
fn zip(entries: &[Entry], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for e in entries {
        let options = SimpleFileOptions::default().compression_method(method);
        zip.start_file(e.name.as_str(), options).unwrap();
        zip.write_all(&e.bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn what_was_sealed_is_read_again() {
    let (_dir, key) = key();
    let bytes = seal(&files(), &key, NOW_MS).unwrap();
    assert_eq!(refused(&bytes), None);
    assert_eq!(&bytes[30..38], b"mimetype");
    assert_eq!(&bytes[38..38 + MEDIA_TYPE.len()], MEDIA_TYPE.as_bytes(), "not compressed, without extra fields");
    let entries = read(&bytes).unwrap();
    assert_eq!(entries[1..5], files());
    let of = |name: &str| &entries.iter().find(|e| e.name == name).unwrap().bytes;
    let signer = verify(of(SIGNATURE), of(MANIFEST)).unwrap();
    assert_eq!(signer.time_ms, NOW_MS);
    assert!(signer.subject.contains("court"), "{}", signer.subject);
}

#[test]
fn whatever_is_changed_is_refused_by_the_name_of_its_file() {
    let (_dir, key) = key();
    let bytes = seal(&files(), &key, NOW_MS).unwrap();
    let entries = read(&bytes).unwrap();
    let with = |change: &dyn Fn(&mut Vec<Entry>)| {
        let mut entries = entries.clone();
        change(&mut entries);
        container::write(&entries).unwrap()
    };
    for i in 0..entries.len() {
        let name = entries[i].name.as_str();
        // Altered. What is altered in the manifest leaves a file that it no longer fits, or its signature.
        for at in [0, entries[i].bytes.len() / 2, entries[i].bytes.len() - 1] {
            let altered = file_refused(&with(&|e| e[i].bytes[at] ^= 1));
            assert!(altered == name || name == MANIFEST, "{name} altered at {at}: {altered}");
        }
        // Left out, and there under another name.
        assert_eq!(file_refused(&with(&|e| drop(e.remove(i)))), name, "left out");
        let renamed = file_refused(&with(&|e| e[i].name = "other".into()));
        assert!(renamed == name || renamed == "other", "{name} renamed: {renamed}");
    }
    assert_eq!(file_refused(&with(&|e| e.push(Entry::new("more.txt", "more")))), "more.txt");
    assert_eq!(file_refused(&with(&|e| e.swap(0, 1))), MIMETYPE);
    // Every byte of the file by itself: the ZIP's own bytes too, but for attributes that no reader takes as content.
    let mut passed = Vec::new();
    for at in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x10;
        if refused(&bytes).is_none() {
            passed.push(at);
        }
    }
    assert!(passed.len() < 24 * entries.len(), "{} bytes of {} changed nothing", passed.len(), bytes.len());
    // A manifest made anew over other files has no signature.
    let mut forged = files();
    forged[1].bytes[0] = 8;
    let mut again = entries.clone();
    again[2].bytes[0] = 8;
    let at = again.iter().position(|e| e.name == MANIFEST).unwrap();
    again[at].bytes = manifest::write(&forged).into_bytes();
    assert_eq!(file_refused(&container::write(&again).unwrap()), SIGNATURE);
}

#[test]
fn containers_that_readers_could_see_differently_are_refused() {
    let (_dir, key) = key();
    let bytes = seal(&files(), &key, NOW_MS).unwrap();
    let first = Entry::new(MIMETYPE, MEDIA_TYPE);
    for name in ["../up", "/abs", "a//b", "a\\b", ".hidden", "receipts/../x", "é"] {
        let evil = zip(&[first.clone(), Entry::new(name, "x")], CompressionMethod::Stored);
        let (file, why) = refused(&evil).unwrap();
        assert!(file == name || file == "container", "{name}: {file} {why}");
        assert!(container::write(&[Entry::new(name, "x")]).is_err(), "{name} is not written either");
    }
    assert_eq!(file_refused(&zip(&[first], CompressionMethod::Deflated)), MIMETYPE);
    let container = |bytes: &[u8]| assert_eq!(file_refused(bytes), "container");
    container(b"");
    container(b"no zip");
    container(&[&bytes[..], b"after"].concat());
    assert_eq!(file_refused(&[b"before", &bytes[..]].concat()), MIMETYPE);
    container(&bytes[..bytes.len() - 1]);
    // One name twice: the names have the same length, so that only they change.
    let twice = zip(
        &[Entry::new(MIMETYPE, MEDIA_TYPE), Entry::new("aaaa", "1"), Entry::new("bbbb", "2")],
        CompressionMethod::Stored,
    );
    let twice: Vec<u8> = {
        let mut b = twice;
        while let Some(at) = b.windows(4).position(|w| w == b"bbbb") {
            b[at..at + 4].copy_from_slice(b"aaaa");
        }
        b
    };
    container(&twice);
}

#[test]
fn the_key_stays_and_is_nobodys_but_its_owners() {
    let (dir, key) = key();
    let again = BundleKey::open(dir.path(), "court", NOW_MS + 1).unwrap();
    let of = |k: &BundleKey| verify(&k.sign(b"m", NOW_MS).unwrap(), b"m").unwrap().certificate_sha256;
    assert_eq!(of(&key), of(&again));
    assert!(verify(&key.sign(b"m", NOW_MS).unwrap(), b"n").is_err());
    let path = dir.path().join(KEY_FILE);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(BundleKey::open(dir.path(), "court", NOW_MS).err().unwrap().code(), "bundle-key");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (other, _) = self::key();
    std::fs::copy(other.path().join(CERTIFICATE_FILE), dir.path().join(CERTIFICATE_FILE)).unwrap();
    assert!(BundleKey::open(dir.path(), "court", NOW_MS).is_err(), "another key's certificate");
}

#[test]
fn openssl_verifies_the_signature() {
    let (dir, key) = key();
    let file = |name: &str| dir.path().join(name);
    std::fs::write(file("m"), b"manifest").unwrap();
    std::fs::write(file("s"), key.sign(b"manifest", NOW_MS).unwrap()).unwrap();
    let mut openssl = Command::new("openssl");
    openssl.args("cms -verify -cades -binary -inform DER -purpose any".split(' '));
    openssl.arg("-in").arg(file("s")).arg("-content").arg(file("m")).arg("-CAfile").arg(file(CERTIFICATE_FILE));
    match openssl.output() {
        Err(_) => println!("SKIPPED: the openssl command is not here"),
        Ok(out) => assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr)),
    }
}

fn export() -> Export {
    let released = Operation {
        operation: "op:7".into(),
        receipt: "receipts/op-7.receipt".into(),
        kind: "query".into(),
        outcome: "released".into(),
        verdict: "accepted".into(),
        status: "final".into(),
        cosigners: vec!["court".into(), "grid".into(), "transport".into()],
        not_countersigned: vec!["police".into()],
        consumer: "court".into(),
        provider: "police".into(),
        dataset: "ds:police/stops@1".into(),
        purpose: "purp:pending-case".into(),
        agreement: "AGR-2026-0142".into(),
        version: Some(3),
        clause: "C1".into(),
        clause_text: "The court's clerks may query stops for a pending case.".into(),
        rows: Some(14),
        tick_ms: NOW_MS,
        height: 58,
        opened: vec![("content_root".into(), "ab".repeat(32))],
        ..Operation::default()
    };
    let denied = Operation { operation: "op:9".into(), kind: "deny".into(), denied: "no".into(), ..released.clone() };
    Export {
        format: FORMAT.into(),
        tool: "concordat 0".into(),
        chain: "city".into(),
        fingerprint: "0011 2233".into(),
        case: "26-CR-1042 – Łódź 東".into(),
        agency: "court".into(),
        exported_by: "clerk".into(),
        exported_at_ms: NOW_MS,
        zone: "Europe/Berlin".into(),
        operations: vec![released, denied],
        left_out: vec![],
        agreements: vec![],
        datasets: vec![],
        timestamps: vec![],
    }
}

fn rendered(export: &Export) -> Vec<u8> {
    let about = page::About {
        title: format!("Evidence in the matter {}", export.case),
        agency: "court".into(),
        tool: "concordat 0".into(),
        at_ms: NOW_MS,
    };
    page::render(&statement::blocks(export).unwrap(), &about).unwrap()
}

#[test]
fn the_page_is_pdf_a_and_says_who_asked_whom_for_what() {
    let pdf = rendered(&export());
    assert!(pdf.starts_with(b"%PDF-1."));
    let text = String::from_utf8_lossy(&pdf);
    assert!(text.contains("<pdfaid:part>2</pdfaid:part>"), "declares PDF/A-2");
    assert!(text.contains("<pdfaid:conformance>B</pdfaid:conformance>"));
    assert!(text.contains("/FontFile2"), "its fonts are in it");
    if let Ok(dir) = std::env::var("CONCORDAT_KEEP_PDF") {
        std::fs::write(std::path::Path::new(&dir).join("statement.pdf"), &pdf).unwrap();
    }
    // Many operations go on to further pages.
    let mut long = export();
    long.operations = std::iter::repeat_n(long.operations[0].clone(), 40).collect();
    let pages = |pdf: &[u8]| String::from_utf8_lossy(pdf).matches("/Type/Page/").count().max(1);
    let kids = |pdf: &[u8]| String::from_utf8_lossy(pdf).contains("/Count");
    assert!(kids(&rendered(&long)) && rendered(&long).len() > pdf.len() && pages(&pdf) >= 1);
}

#[test]
fn the_statement_has_clause_local_time_and_limits() {
    let blocks = statement::blocks(&export()).unwrap();
    let all = format!("{blocks:?}");
    for said in [
        "court asked police for records of ds:police/stops@1, and police released them.",
        "and police refused.",
        "The court's clerks may query stops for a pending case.",
        "2026-11-18 12:06:40 CET (UTC+01:00), which is 2026-11-18 11:06:40 UTC",
        "14 were released. They are not in this bundle.",
        "signed by court, grid, transport",
        "Not countersigned by police",
        "What it does not prove",
        "concordat verify bundle FILE.asice --trust trust.json",
        "0011 2233",
    ] {
        assert!(all.contains(said), "{said} in {all}");
    }
    let nowhere = Export { zone: "Mars/Base".into(), ..export() };
    assert_eq!(statement::blocks(&nowhere).err().unwrap().code(), "bundle-zone");
}
