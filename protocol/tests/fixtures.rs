//! What a release wrote, every later version verifies, and says the same of it.
#![cfg(feature = "verifier")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use concordat_protocol::trust::Trust;
use concordat_protocol::verify::{verify, verify_access};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

fn releases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    let mut all: Vec<_> = fs::read_dir(root).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()).collect();
    all.sort();
    all
}

/// What this version says of a file.
fn says(file: &str, bytes: &[u8], trust: &Trust) -> Value {
    let said = match file.rsplit_once('.') {
        Some((_, "receipt")) => verify(bytes, trust, None).map(|v| v.to_json()),
        Some((_, "access")) => verify_access(bytes, trust).map(|v| v.to_json()),
        _ => panic!("{file}: neither a receipt nor an access list"),
    };
    said.unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// Later versions may say more, never anything else.
fn agrees(file: &str, said: &Value, expected: &Value) {
    match (said, expected) {
        (Value::Object(said), Value::Object(expected)) => {
            for (name, value) in expected {
                agrees(&format!("{file}: {name}"), said.get(name).unwrap_or(&Value::Null), value);
            }
        }
        (Value::Array(said), Value::Array(expected)) => {
            assert_eq!(said.len(), expected.len(), "{file}");
            said.iter().zip(expected).for_each(|(s, e)| agrees(file, s, e));
        }
        _ => assert_eq!(said, expected, "{file}"),
    }
}

#[test]
fn every_release_ever_made_verifies() {
    let releases = releases();
    assert!(releases.iter().any(|r| r.ends_with("0.1.0")), "the first release is gone");
    for dir in releases {
        let index: Value = serde_json::from_str(&fs::read_to_string(dir.join("index.json")).unwrap()).unwrap();
        let trust = Trust::from_json(&fs::read_to_string(dir.join("trust.json")).unwrap()).unwrap();
        assert_eq!(index["fingerprint"], trust.fingerprint());
        let listed = index["files"].as_array().unwrap();
        for case in listed {
            let file = case["file"].as_str().unwrap();
            let mut bytes = fs::read(dir.join(file)).unwrap();
            agrees(&format!("{}/{file}", dir.display()), &says(file, &bytes, &trust), &case["expected"]);
            // And that it is this file that was verified.
            let at = bytes.len() / 3;
            bytes[at] ^= 1;
            let refused = if file.ends_with(".receipt") {
                verify(&bytes, &trust, None).is_err()
            } else {
                verify_access(&bytes, &trust).is_err()
            };
            assert!(refused, "{file}: one bit flipped, and still believed");
        }
        let mut kept: Vec<String> =
            fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        kept.retain(|f| f.ends_with(".receipt") || f.ends_with(".access"));
        assert_eq!(kept.len(), listed.len(), "{}: a file is missing from the index", dir.display());
        assert!(listed.len() >= 11);
    }
}
