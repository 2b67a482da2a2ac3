//! The example files in `vectors/receipt/`, by which another implementation can check itself.

use crate::world::{Made, Spec, TICK, make, trust};
use concordat_protocol::codes::Verdict;
use concordat_protocol::trust::Trust;
use concordat_protocol::verify::verify;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/receipt")
}

fn cases() -> Vec<(&'static str, Vec<u8>)> {
    let bytes = |spec: &Spec| Made::bytes(&make(spec));
    let good = bytes(&Spec::default());
    let mut flipped = good.clone();
    let at = flipped.windows(12).position(|w| w == b"content_root").map_or(0, |i| i + 12 + 17 + 4);
    flipped[at] ^= 1;
    vec![
        ("accepted", good),
        ("flipped", flipped),
        ("refused", bytes(&Spec { verdict: Verdict::Refused, code: 405, ..Spec::default() })),
        ("final", bytes(&Spec { cosigners: vec!["court", "police", "transport"], ..Spec::default() })),
        ("contested", bytes(&Spec { revoked_ms: TICK + 9, compromised_since_ms: TICK, ..Spec::default() })),
        ("revoked-key", bytes(&Spec { revoked_ms: TICK, ..Spec::default() })),
        ("too-few-votes", bytes(&Spec { signers: vec![0, 1], ..Spec::default() })),
    ]
}

fn expected(receipt: &[u8], trust: &Trust) -> Value {
    match verify(receipt, trust, None) {
        Ok(v) => {
            let mut facts = v.to_json();
            let checks = facts.as_object_mut().and_then(|f| f.remove("checks"));
            assert!(checks.is_some_and(|c| c.as_array().is_some_and(|c| c.len() > 10)));
            facts
        }
        Err(e) => json!({"valid": false, "check": e.check}),
    }
}

/// Set `CONCORDAT_WRITE_VECTORS` to write them anew (cosignatures are randomised, so the final receipt's bytes change).
#[test]
fn the_example_files_verify_as_they_say() {
    if std::env::var_os("CONCORDAT_WRITE_VECTORS").is_some() {
        write();
    }
    let trust = Trust::from_json(&std::fs::read_to_string(dir().join("trust.json")).unwrap()).unwrap();
    let list: Value = serde_json::from_str(&std::fs::read_to_string(dir().join("receipts.json")).unwrap()).unwrap();
    assert_eq!(list["fingerprint"], trust.fingerprint());
    let list = list["receipts"].as_array().unwrap();
    assert_eq!(list.len(), cases().len());
    for case in list {
        let receipt = hex::decode(case["receipt"].as_str().unwrap()).unwrap();
        assert_eq!(expected(&receipt, &trust), case["expected"], "{}", case["name"]);
    }
    // What is deterministic is made again, byte for byte.
    for (case, (name, bytes)) in list.iter().zip(cases()).filter(|(_, (name, _))| *name != "final") {
        assert_eq!(case["receipt"], hex::encode(bytes), "{name}");
    }
}

fn write() {
    let trust = trust();
    let one = |(name, bytes): (&str, Vec<u8>)| json!({"name": name, "receipt": hex::encode(&bytes), "expected": expected(&bytes, &trust)});
    let list = json!({
        "comment": "Receipts in hex, each with what a verifier says of it given trust.json: valid with these facts, or the first check that fails.",
        "fingerprint": trust.fingerprint(),
        "receipts": cases().into_iter().map(one).collect::<Vec<_>>(),
    });
    std::fs::create_dir_all(dir()).unwrap();
    std::fs::write(dir().join("trust.json"), trust.to_json() + "\n").unwrap();
    std::fs::write(dir().join("receipts.json"), serde_json::to_string_pretty(&list).unwrap() + "\n").unwrap();
}
