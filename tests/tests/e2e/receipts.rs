//! Receipts, verified by a process of its own in an empty folder.

use crate::World;
use crate::queries::{stops, with};
use concordat_tests::harness::{City, Ran};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// An empty folder with `trust.json`, and the receipt of a query in it.
fn prepared(world: &World) -> &'static (PathBuf, u64) {
    static PREPARED: OnceLock<(PathBuf, u64)> = OnceLock::new();
    PREPARED.get_or_init(|| {
        let city = world.shared();
        let op = city.api("court", "clerk").query(&stops()).is(200).op();
        let folder = world.folder("verify");
        std::fs::copy(city.root.join("trust.json"), folder.join("trust.json")).unwrap();
        fetch(city, op, &folder.join("op.receipt"));
        (folder, op)
    })
}

fn fetch(city: &City, op: u64, file: &Path) {
    let (op, file) = (format!("op:{op}"), file.to_str().unwrap());
    city.run(&["--context", "court/clerk", "op", "receipt", &op, "--file", file, "--quiet"]).done();
}

/// The verifier without environment, home or city.
fn verify(city: &City, folder: &Path, receipt: &str, trust: &str) -> Ran {
    let mut command = Command::new(&city.program);
    command.args(["verify", "receipt", receipt, "--trust", trust, "--output", "json"]);
    Ran::of(command.current_dir(folder).env_clear())
}

pub fn a_receipt_is_verified_with_nothing_else(world: &World) {
    let (folder, op) = prepared(world);
    let found = verify(world.shared(), folder, "op.receipt", "trust.json").done().json();
    assert_eq!((found["valid"].as_bool(), found["verdict"].as_str()), (Some(true), Some("accepted")), "{found}");
    assert_eq!(found["operation"], format!("op:{op}"));
    assert_eq!((found["provider"].as_str(), found["consumer"].as_str()), (Some("police"), Some("court")), "{found}");
    let opened = found.to_string();
    assert!(opened.contains("26-CR-1042") && opened.contains("purp:pending-case"), "{opened}");
    let size = std::fs::metadata(folder.join("op.receipt")).unwrap().len();
    assert!(size <= 16_384, "{size} bytes");
    let names: Vec<_> = std::fs::read_dir(folder).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(names.len(), 2, "the verifier left nothing: {names:?}");
    // The other party has the same evidence of the same operation; a stranger gets none.
    let city = world.shared();
    let op = format!("op:{op}");
    let file = folder.parent().unwrap().join("stranger.receipt");
    let stranger = city.run(&["--context", "grid/operator", "op", "receipt", &op, "--file", file.to_str().unwrap()]);
    assert!(stranger.code != 0 && !file.exists(), "{stranger:?}");
}

pub fn a_denial_has_a_receipt(world: &World) {
    let city = world.shared();
    let (folder, _) = prepared(world);
    let said = city.api("court", "clerk").query(&with(stops(), json!({"purpose": "purp:profiling"}))).is(403);
    let file = folder.parent().unwrap().join("denial.receipt");
    let ran = city.run(&[
        "--context",
        "court/clerk",
        "op",
        "receipt",
        &format!("op:{}", said.op()),
        "--file",
        file.to_str().unwrap(),
        "--quiet",
    ]);
    ran.done();
    let found = verify(city, folder, "../denial.receipt", "trust.json").done().json();
    assert_eq!((found["valid"].as_bool(), found["kind"].as_str()), (Some(true), Some("deny")), "{found}");
    assert_eq!(found["operation"], format!("op:{}", said.op()));
}

pub fn any_flipped_byte_is_found(world: &World) {
    let (folder, _) = prepared(world);
    let city = world.shared();
    let receipt = std::fs::read(folder.join("op.receipt")).unwrap();
    let forged = folder.parent().unwrap().join("forged.receipt");
    for i in (0..receipt.len()).step_by((receipt.len() / 64).max(1)) {
        let mut bytes = receipt.clone();
        bytes[i] ^= 1 << (i % 8);
        std::fs::write(&forged, &bytes).unwrap();
        let ran = verify(city, folder, "../forged.receipt", "trust.json");
        assert_eq!(ran.code, 4, "byte {i} of {} flipped: {ran:?}", receipt.len());
        let found = ran.json();
        assert!(found["valid"] == false && found["check"].is_string(), "byte {i}: {found}");
    }
    for bytes in [&receipt[..receipt.len() - 1], &[][..], &[&receipt[..], &[0]].concat()] {
        std::fs::write(&forged, bytes).unwrap();
        verify(city, folder, "../forged.receipt", "trust.json").ends(4);
    }
    verify(city, folder, "../nothing.receipt", "trust.json").ends(5);
}

pub fn another_chains_trust_proves_nothing(world: &World) {
    let (folder, _) = prepared(world);
    std::fs::copy(world.second().root.join("trust.json"), folder.parent().unwrap().join("other-trust.json")).unwrap();
    let ran = verify(world.shared(), folder, "op.receipt", "../other-trust.json").ends(4);
    assert_eq!(ran.json()["valid"], false, "{ran:?}");
    // A trust.json that was tampered with is refused, not believed.
    let text = std::fs::read_to_string(folder.join("trust.json")).unwrap();
    let other = text.replace(&world.shared().chain(), "concordat-demo-00000000");
    assert_ne!(text, other);
    std::fs::write(folder.parent().unwrap().join("forged-trust.json"), other).unwrap();
    verify(world.shared(), folder, "op.receipt", "../forged-trust.json").ends(4);
}
