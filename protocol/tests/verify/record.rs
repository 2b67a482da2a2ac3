//! Records what a release writes, for every later version to verify (`tests/fixtures`).

use crate::looked;
use crate::vectors::{all, text, valid};
use crate::world::trust_later;
use concordat_protocol::cbor::encode;
use concordat_protocol::trust::Trust;
use concordat_protocol::verify::{verify, verify_access};
use serde_json::{Value, json};
use std::path::Path;

const README: &str = "# Release VERSION

Written at release VERSION, never changed: every later version must verify these files and say of them what `index.json`
says. Receipts and access lists of a city of four agencies and two epochs; `trust.json` is the city's.

| file | |
|---|---|
| `*.receipt` | receipts: canonical CBOR |
| `*.access` | access lists: canonical CBOR |
| `trust.json` | genesis, epochs, oversight |
| `index.json` | for each file what a verifier says, and the fingerprint of `trust.json` |
";

const RECEIPTS: [(&str, &str); 8] = [
    ("accepted", "query-provisional"),
    ("final-four", "query-final"),
    ("final-epoch-1", "query-final-epoch-1"),
    ("refused", "query-refused"),
    ("contested", "query-contested"),
    ("denial", "denial"),
    ("publish", "publish"),
    ("act", "act"),
];

const LISTS: [(&str, &str); 3] =
    [("anna-final", "looked-at"), ("nobody-looked-final", "nobody-looked"), ("bulk-ben", "bulk")];

fn said(mut facts: Value) -> Value {
    facts.as_object_mut().unwrap().remove("checks");
    facts
}

fn files(trust: &Trust) -> Vec<(String, Vec<u8>, Value)> {
    let receipts = valid();
    let bytes = |name: &str| receipts.iter().find(|(n, _)| *n == name).unwrap().1.clone();
    let receipt = |(of, name): &(&str, &str)| {
        let bytes = bytes(of);
        let facts = said(verify(&bytes, trust, None).unwrap().to_json());
        (format!("{name}.receipt"), bytes, facts)
    };
    let lists = looked::valid();
    let list = |(of, name): &(&str, &str)| {
        let bytes = encode(&lists.iter().find(|(n, _)| n == of).unwrap().1);
        let facts = said(verify_access(&bytes, trust).unwrap().to_json());
        (format!("{name}.access"), bytes, facts)
    };
    RECEIPTS.iter().map(receipt).chain(LISTS.iter().map(list)).collect()
}

/// Run once, when a release is made: `cargo test -p concordat-protocol --features node --test verify record -- --ignored`.
#[test]
#[ignore = "writes the files of a release, which are never changed"]
fn record_this_release() {
    assert_eq!(all().len(), 4);
    let version = env!("CARGO_PKG_VERSION");
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(version);
    assert!(!dir.exists(), "{version} is recorded already: its files are never changed");
    std::fs::create_dir_all(&dir).unwrap();
    let trust = trust_later();
    let mut index = Vec::new();
    for (name, bytes, facts) in files(&trust) {
        std::fs::write(dir.join(&name), bytes).unwrap();
        index.push(json!({"file": name, "expected": facts}));
    }
    let index = json!({"release": version, "fingerprint": trust.fingerprint(), "files": index});
    std::fs::write(dir.join("index.json"), text(&index)).unwrap();
    std::fs::write(dir.join("trust.json"), trust.to_json() + "\n").unwrap();
    std::fs::write(dir.join("README.md"), README.replace("VERSION", version)).unwrap();
}
