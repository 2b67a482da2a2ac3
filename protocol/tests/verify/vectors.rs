//! The example files in `vectors/receipt/`, by which another implementation can check itself.

use crate::world::{
    AGENCIES, EPOCH_1, Made, Spec, TICK, denial, make, publish, session_close, trust_later as trust, vals,
};
use concordat_protocol::cbor::encode;
use concordat_protocol::codes::Verdict;
use concordat_protocol::trust::Trust;
use concordat_protocol::verify::verify;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/receipt")
}

/// Four agencies: all of them.
pub fn all() -> Vec<&'static str> {
    AGENCIES.to_vec()
}

/// Another query of the same city, later: what splices are taken from.
pub fn second() -> Spec {
    Spec { seed: "b", session: 8, n: 4, index: 31, log_size: 45, height: 14, ..Spec::default() }
}

/// A state of the second epoch.
pub fn late() -> Spec {
    Spec { height: EPOCH_1 + 20, vals: vals("b"), cosign_epoch: 1, cosigners: all(), ..Spec::default() }
}

fn denied() -> Vec<u8> {
    let spec = Spec { op: Some(denial), index: 30, cosigners: all(), ..Spec::default() };
    let mut deny = make(&spec).receipt();
    deny.release = None;
    encode(&deny)
}

/// Receipts that are valid, and from whose parts forgeries are made.
pub fn valid() -> Vec<(&'static str, Vec<u8>)> {
    let bytes = |spec: &Spec| Made::bytes(&make(spec));
    vec![
        ("accepted", bytes(&Spec::default())),
        ("refused", bytes(&Spec { verdict: Verdict::Refused, code: 405, ..Spec::default() })),
        ("final", bytes(&Spec { cosigners: vec!["court", "police", "transport"], ..Spec::default() })),
        ("contested", bytes(&Spec { revoked_ms: TICK + 9, compromised_since_ms: TICK, ..Spec::default() })),
        ("final-four", bytes(&Spec { cosigners: all(), ..Spec::default() })),
        ("second", bytes(&Spec { cosigners: all(), ..second() })),
        ("absent-vote", bytes(&Spec { signers: vec![0, 2, 3], height: 13, ..Spec::default() })),
        ("denial", denied()),
        ("publish", encode(&publish(&Spec { index: 12, cosigners: all(), ..Spec::default() }))),
        ("act", encode(&session_close(&Spec { index: 13, ..Spec::default() }))),
        ("final-epoch-1", bytes(&late())),
    ]
}

fn invalid() -> Vec<(&'static str, Vec<u8>)> {
    let bytes = |spec: &Spec| Made::bytes(&make(spec));
    let mut flipped = bytes(&Spec::default());
    let at = flipped.windows(12).position(|w| w == b"content_root").map_or(0, |i| i + 12 + 17 + 4);
    flipped[at] ^= 1;
    let mut shown = make(&Spec { verdict: Verdict::Refused, code: 405, ..Spec::default() }).receipt();
    (shown.entry.verdict, shown.entry.code) = (Verdict::Accepted, 0);
    vec![
        ("flipped", flipped),
        ("revoked-key", bytes(&Spec { revoked_ms: TICK, ..Spec::default() })),
        ("too-few-votes", bytes(&Spec { signers: vec![0, 1], ..Spec::default() })),
        ("refused-shown-as-accepted", encode(&shown)),
        ("too-few-cosigners", bytes(&Spec { cosigners: vec!["court", "police"], ..Spec::default() })),
        ("cosigned-by-a-stranger", bytes(&Spec { cosigners: vec!["court", "police", "stranger"], ..Spec::default() })),
        ("new-validators-for-an-old-height", bytes(&Spec { vals: vals("b"), ..Spec::default() })),
        ("old-validators-for-a-new-height", bytes(&Spec { vals: vals("a"), cosigners: vec![], ..late() })),
        ("old-cosigning-key-for-a-new-height", bytes(&Spec { cosign_epoch: 0, ..late() })),
        ("new-cosigning-key-for-an-old-height", bytes(&Spec { cosign_epoch: 1, cosigners: all(), ..Spec::default() })),
        ("release-key-of-another-agency", bytes(&Spec { release_agency: "grid", ..Spec::default() })),
        ("another-purpose-than-asked", bytes(&Spec { opened_purpose: "purp:planning", ..Spec::default() })),
    ]
}

fn cases() -> Vec<(&'static str, Vec<u8>)> {
    [valid(), invalid()].concat()
}

fn expected(receipt: &[u8], trust: &Trust) -> Value {
    match verify(receipt, trust, None) {
        Ok(v) => {
            let mut facts = v.to_json();
            let checks = facts.as_object_mut().and_then(|f| f.remove("checks"));
            assert!(checks.is_some_and(|c| c.as_array().is_some_and(|c| c.len() > 7)));
            facts
        }
        Err(e) => json!({"valid": false, "check": e.check}),
    }
}

/// Compares with the kept file, or writes it where `CONCORDAT_WRITE_VECTORS` is set.
pub fn kept(path: &Path, text: &str) {
    if std::env::var_os("CONCORDAT_WRITE_VECTORS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    let path = path.display();
    assert!(kept == text, "{path} differs: a format changed. If that is meant, run with CONCORDAT_WRITE_VECTORS=1");
}

/// The text of a JSON file.
pub fn text(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap() + "\n"
}

/// All of it is made again, byte for byte: signatures here are deterministic.
#[test]
fn the_example_files_verify_as_they_say() {
    let made = trust();
    kept(&dir().join("trust.json"), &(made.to_json() + "\n"));
    let trust = Trust::from_json(&std::fs::read_to_string(dir().join("trust.json")).unwrap()).unwrap();
    let cases: Vec<_> = cases().into_iter().map(|(name, bytes)| (name, expected(&bytes, &trust), bytes)).collect();
    for (name, expected, _) in &cases {
        assert_eq!(expected["valid"], valid().iter().any(|(v, _)| v == name), "{name}: {expected}");
    }
    let list = json!({
        "comment": "Receipts in hex, each with what a verifier says of it given trust.json: valid with these facts, or the first check that fails.",
        "fingerprint": trust.fingerprint(),
        "receipts": cases.iter().map(|(name, expected, bytes)| json!({"name": name, "receipt": hex::encode(bytes), "expected": expected})).collect::<Vec<_>>(),
    });
    kept(&dir().join("receipts.json"), &text(&list));
}
