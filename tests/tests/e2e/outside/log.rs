//! The exported log, read with the packages of Go's checksum database (`tests/outside/tlog`).

use super::tools;
use crate::World;
use crate::queries::stops;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use concordat_broker::outside::note_key::NoteKey;
use concordat_protocol::c2sp::{Note, TileId, VerifierKey, cosignature_text, partial_tiles};
use concordat_protocol::cbor;
use concordat_protocol::evidence::CheckpointView;
use concordat_tests::harness::{City, SOON, until};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The outsider's program; none where Go is missing.
fn reader(folder: &Path) -> Option<PathBuf> {
    if Command::new("go").arg("version").output().is_err() {
        println!("SKIPPED c2sp: Go is not here");
        return None;
    }
    let program = folder.join("tlog");
    let built =
        Command::new("go").args(["build", "-o"]).arg(&program).arg(".").current_dir(tools().join("tlog")).output();
    let built = built.unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Some(program)
}

/// Reads and proves everything: the size, or what does not hold.
fn read(program: &Path, log: &Path, key: &str, old: Option<(u64, &str)>) -> Result<u64, String> {
    let mut command = Command::new(program);
    command.arg(log).arg(key);
    if let Some((size, root)) = old {
        command.arg(size.to_string()).arg(root);
    }
    let out = command.output().unwrap();
    if !out.status.success() {
        return Err(String::from_utf8_lossy(&out.stderr).into_owned());
    }
    Ok(String::from_utf8_lossy(&out.stdout).trim().parse().unwrap())
}

/// Exports until the log has more than so many entries: checkpoints come every few seconds.
fn export(city: &City, folder: &Path, more_than: u64) -> Value {
    let folder = folder.to_str().unwrap();
    until(&format!("a checkpoint of more than {more_than} entries is exported"), SOON, || {
        let ran = city.at("court", &["ledger", "export", "--tiles", folder, "--output", "json"]);
        if ran.code == 7 {
            return Err(ran.err);
        }
        let said = ran.done().json();
        if said["size"].as_u64().unwrap() > more_than { Ok(said) } else { Err(said.to_string()) }
    })
}

fn base64_of(hex_text: &Value) -> String {
    STANDARD.encode(hex::decode(hex_text.as_str().unwrap()).unwrap())
}

pub fn an_outsider_reads_the_exported_log(world: &World) {
    let city = world.shared();
    let place = world.folder("outside-log");
    let log = place.join("log");
    let first = export(city, &log, 0);
    let (size, key) = (first["size"].as_u64().unwrap(), first["verifier_key"].as_str().unwrap());
    // The note's root is the one that agencies cosign.
    let view: CheckpointView = cbor::decode(&std::fs::read(log.join("cosigned.cbor")).unwrap()).unwrap();
    assert_eq!(
        (view.checkpoint.log_size, hex::encode(view.checkpoint.roots.log)),
        (size, first["root"].as_str().unwrap().into())
    );
    city.api("court", "clerk").query(&stops()).is(200);
    let second = export(city, &log, size);
    let grown = second["size"].as_u64().unwrap();
    assert_eq!((second["before"].as_u64(), second["verifier_key"].as_str()), (Some(size), Some(key)));

    if let Some(program) = reader(&place) {
        let old = base64_of(&first["root"]);
        assert_eq!(read(&program, &log, key, None), Ok(grown));
        assert_eq!(read(&program, &log, key, Some((size, &old))), Ok(grown), "the log only grew");
        let other = base64_of(&second["root"]);
        assert!(read(&program, &log, key, Some((size, &other))).is_err(), "another past is noticed");
        // A changed leaf, a changed hash, a changed note.
        let bundle = |width| TileId { layer: concordat_protocol::c2sp::Layer::Entries, index: 0, width };
        let whole = log.join(bundle(256).to_string());
        let entries = if whole.exists() { whole } else { log.join(bundle(grown as u16).to_string()) };
        let hashes = PathBuf::from(entries.to_str().unwrap().replace("/tile/entries/", "/tile/0/"));
        for (file, at) in [(entries, 20), (hashes, 40), (log.join("checkpoint"), 60)] {
            let good = std::fs::read(&file).unwrap();
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&file, &bad).unwrap();
            assert!(read(&program, &log, key, None).is_err(), "{} changed at {at}", file.display());
            std::fs::write(&file, &good).unwrap();
        }
        assert_eq!(read(&program, &log, key, None), Ok(grown));
    }
    witnessed(city, &place, &log);
    served(city, &log, grown);
    // A folder that was changed is not continued, and its note stays.
    let note = std::fs::read(log.join("checkpoint")).unwrap();
    let open = partial_tiles(grown).pop().unwrap();
    let mut bytes = std::fs::read(log.join(open.to_string())).unwrap();
    bytes[0] ^= 1;
    std::fs::write(log.join(open.to_string()), bytes).unwrap();
    city.at("court", &["ledger", "export", "--tiles", log.to_str().unwrap()]).ends(4);
    assert_eq!(std::fs::read(log.join("checkpoint")).unwrap(), note);
}

/// A witness looks, signs, and its line is kept; a line over another head is not.
fn witnessed(city: &City, place: &Path, log: &Path) {
    let witness = NoteKey::open(&place.join("witness.key"), "witness.example/w1").unwrap();
    let text = witness.verifier().to_string();
    let public = STANDARD.decode(text.splitn(3, '+').nth(2).unwrap()).unwrap();
    let key = VerifierKey::witness("witness.example/w1", public[1..].try_into().unwrap()).unwrap();
    let read = || std::fs::read_to_string(log.join("checkpoint")).unwrap().parse::<Note>().unwrap();
    let line = |text: &str| {
        let signature = witness.sign(&cosignature_text(1_790_000_000, text)).unwrap();
        key.line(&[&1_790_000_000u64.to_be_bytes()[..], &signature.bytes].concat()).to_string()
    };
    let file = place.join("answer");
    let add = || {
        let (file, log, key) = (file.to_str().unwrap(), log.to_str().unwrap(), key.to_string());
        city.at("court", &["ledger", "witness", "--add", file, "--key", &key, "--tiles", log])
    };
    std::fs::write(&file, line(&read().text.replacen('\n', "x\n", 1))).unwrap();
    add().ends(4);
    assert_eq!(read().signatures.len(), 1);
    std::fs::write(&file, line(&read().text)).unwrap();
    add().done();
    assert_eq!((read().signatures.len(), key.verify(&read())), (2, Ok(Some(1_790_000_000))));
}

/// The gateway serves what was exported into its own folder, to anybody, and nothing else.
fn served(city: &City, log: &Path, size: u64) {
    city.at("court", &["ledger", "export"]).done();
    let nobody = concordat_tests::harness::Client::new(&city.config("court").listen, "");
    let note: Note = nobody.get("/v1/log/checkpoint").is(200).text_body().parse().unwrap();
    assert!(note.text.starts_with(&format!("concordat.{}\n", city.chain())));
    let tile = partial_tiles(size).into_iter().find(|t| log.join(t.to_string()).exists()).unwrap();
    let own = city.dir("court").join("broker/log");
    let head: u64 = note.text.lines().nth(1).unwrap().parse().unwrap();
    for tile in partial_tiles(head) {
        let bytes = nobody.get(&format!("/v1/log/{tile}")).is(200).bytes;
        assert_eq!(bytes, std::fs::read(own.join(tile.to_string())).unwrap());
    }
    assert!(tile.width > 0);
    for bad in ["tile/0/999", "tile/0/../../actor.secret", "tile/..%2f..%2factor.secret", "cosigned.cbor", "tile/0/0"] {
        nobody.get(&format!("/v1/log/{bad}")).is(404);
    }
}
