//! The life of keys on a real city: exchanged while others work, revoked, signed for offline, kept in a token.

use crate::World;
use crate::queries::stops;
use concordat_protocol::node::{NodeReply, NodeRequest};
use concordat_tests::harness::{City, Ran, SOON, until, wait};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const JSON: [&str; 2] = ["--output", "json"];

fn key(city: &City, agency: &str, args: &[&str]) -> Ran {
    city.at(agency, &[&["key"], args, &JSON[..]].concat())
}

fn word<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name}: {value}"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A receipt fetched now.
fn fetched(city: &City, op: u64, file: &Path) {
    let _ = std::fs::remove_file(file);
    let op = format!("op:{op}");
    city.run(&["--context", "court/clerk", "op", "receipt", &op, "--file", text(file), "--quiet"]).done();
}

fn verified(city: &City, file: &Path) -> Value {
    // With the epochs that the agencies have signed by now.
    let trust = file.with_file_name("trust.json");
    city.at("court", &["trust", "export", text(&trust), "--quiet"]).done();
    city.run(&[&["verify", "receipt", text(file), "--trust", text(&trust)], &JSON[..]].concat()).done().json()
}

fn state_of(city: &City, agency: &str, id: &str) -> Value {
    let list = key(city, agency, &["list"]).done().json();
    let found = list.as_array().unwrap().iter().find(|k| k["key_id"] == id).cloned();
    found.unwrap_or_else(|| panic!("{id}: {list}"))
}

pub fn a_release_key_is_exchanged_while_others_query(world: &World) {
    let city = world.second();
    let folder = world.folder("release-key");
    // The new key lies under a passphrase that node.yaml names.
    let (dir, yaml) = (city.dir("police"), city.dir("police").join("node.yaml"));
    concordat_broker::keys::write_new(&dir.join("keys/key.passphrase"), "correct horse").unwrap();
    let old_yaml = std::fs::read_to_string(&yaml).unwrap();
    std::fs::write(&yaml, format!("{old_yaml}\nkey_passphrase: file:keys/key.passphrase\n")).unwrap();

    let before = city.api("court", "clerk").query(&stops()).is(200).op();
    let first = folder.join("first.receipt");
    fetched(city, before, &first);
    let stop = Arc::new(AtomicBool::new(false));
    let reader = {
        let (city, stop) = (city.clone(), stop.clone());
        std::thread::spawn(move || {
            let clerk = city.api("court", "clerk");
            let mut seen = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let answer = clerk.query(&stops());
                seen.push((answer.status, answer.text_body()));
            }
            seen
        })
    };
    let made = key(city, "police", &["rotate", "--role", "release", "--encrypt", "--restart"]).done().json();
    let (new, old) = (word(&made, "key_id").to_owned(), word(&made, "old_key_id").to_owned());
    assert_eq!((word(&made, "state"), word(&made, "restarted")), ("rotated", "executor"), "{made}");
    let after = until("police answers again", SOON, || {
        let answer = city.api("court", "clerk").query(&stops());
        if answer.status == 200 { Ok(answer.op()) } else { Err(answer.text_body()) }
    });
    stop.store(true, Ordering::Relaxed);
    let seen = reader.join().unwrap();
    assert!(seen.iter().any(|(status, _)| *status == 200), "{seen:?}");
    // While the executor restarts there may be no answer; there is never a wrong one.
    let wrong: Vec<_> =
        seen.iter().filter(|(status, body)| ![200, 429, 503, 504].contains(status) || body.contains("proof")).collect();
    assert!(wrong.is_empty(), "{wrong:?}");

    assert!(dir.join("keys/release.key.age").exists() && !dir.join("keys/release.key").exists());
    assert!(!std::fs::read_to_string(dir.join("keys/release.key.age")).unwrap().contains("concordat-secret"));
    assert_eq!(state_of(city, "police", &new)["file"], "release.key.age");
    let second = folder.join("second.receipt");
    fetched(city, after, &second);
    let (one, two) = (verified(city, &first), verified(city, &second));
    assert!(one["contested"] == false && two["contested"] == false, "{one} {two}");
    let signed_by = |file: &Path| {
        let receipt = concordat_protocol::receipt::Receipt::from_bytes(&std::fs::read(file).unwrap()).unwrap();
        receipt.release.unwrap().key.key.key_id().to_string()
    };
    assert_eq!((signed_by(&first), signed_by(&second)), (old.clone(), new.clone()));

    // It turns out that the old one was copied: what it signed since is contested, in receipts fetched from now on.
    let since =
        one["tick_ms"].as_i64().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).expect("a time").to_string();
    let not_yet = key(city, "police", &["revoke", &old, "--compromised-since", &since]).ends(2);
    assert!(not_yet.err.contains("--yes"), "{not_yet:?}");
    key(city, "police", &["revoke", &old, "--compromised-since", &since, "--yes"]).done();
    assert_eq!(state_of(city, "police", &old)["state"], "contested");
    until("a receipt of the old key is contested", SOON, || {
        fetched(city, before, &first);
        let found = verified(city, &first);
        if found["contested"] == true { Ok(()) } else { Err(found) }
    });
    fetched(city, after, &second);
    assert_eq!(verified(city, &second)["contested"], false);
    key(city, "police", &["revoke", &old, "--yes"]).ends(3);
}

/// Epochs as an agency's node has them: number, votes, police's cosigning key.
fn epochs(city: &City) -> Vec<(u64, usize, String)> {
    let reply = wait(city.node("court").ask(&NodeRequest::Epochs {})).expect("the court's node");
    let NodeReply::Epochs { body } = reply else { panic!("{reply:?}") };
    let cosign = |e: &concordat_protocol::evidence::EpochView| {
        let line = e.keys.iter().find(|k| k.agency.as_str() == "police");
        line.and_then(|l| l.cosign.as_ref()).map(|k| k.key_id().to_string()).unwrap_or_default()
    };
    body.iter().map(|e| (e.body.n, e.votes.len(), cosign(e))).collect()
}

pub fn a_cosigning_key_is_exchanged_and_every_agency_signs_the_epoch(world: &World) {
    let city = world.second();
    let last = epochs(city).last().unwrap().0;
    let made = key(city, "police", &["rotate", "--role", "cosign", "--restart", "--revoke-old"]).done().json();
    let new = word(&made, "key_id");
    assert_eq!(word(&made, "restarted"), "broker", "{made}");
    assert!(made["revoked"].is_string(), "{made}");
    let epoch = until("the ledger has the new epoch", SOON, || {
        let found = epochs(city);
        found.iter().find(|(n, _, cosign)| *n > last && cosign == new).map(|e| e.0).ok_or(format!("{found:?}"))
    });
    for agency in ["court", "grid", "police", "transport"] {
        until(&format!("{agency} has signed"), SOON, || {
            let said = key(city, agency, &["epoch-sign", "--yes"]).done().json();
            if word(&said, "state") == "nothing" { Ok(()) } else { Err(said) }
        });
    }
    until("four signatures", SOON, || {
        let found = epochs(city);
        if found.iter().any(|(n, votes, _)| *n == epoch && *votes == 4) { Ok(()) } else { Err(format!("{found:?}")) }
    });
}

/// The program on a machine of its own: no environment, no node, no network needed.
fn offline(city: &City, folder: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new(&city.program);
    command.args(args).current_dir(folder).env_clear();
    Ran::of(&mut command)
}

pub fn a_node_runs_without_its_root_key_and_acts_are_signed_offline(world: &World) {
    let city = world.second();
    let (safe, keys) = (world.folder("safe"), city.dir("court").join("keys"));
    std::fs::rename(keys.join("root.key"), safe.join("root.key")).unwrap();
    concordat_broker::keys::write_new(&safe.join("passphrase"), "correct horse").unwrap();
    concordat_broker::keys::write_new(&safe.join("wrong"), "wrong horse").unwrap();
    offline(city, &safe, &["key", "encrypt", "root.key", "--passphrase", "file:passphrase"]).done();
    for process in ["broker", "executor", "app"] {
        city.killed_and_back("court", process);
    }
    // Without its root key the node works, and says what it cannot do.
    let refused = key(city, "court", &["rotate", "--role", "gateway", "--restart"]).ends(5);
    assert_eq!(refused.problem()["code"], "no-root-key", "{refused:?}");

    // The key that was made there is registered by way of the offline machine.
    let public = city.key("court", "gateway.next").public().to_text();
    let unsigned = safe.join("gateway.unsigned");
    let args = ["prepare", "add", "--role", "gateway", "--public", &public, "--out", text(&unsigned)];
    key(city, "court", &args).done();
    let sign = ["key", "sign", "gateway.unsigned", "--key", "root.key.age", "--out", "gateway.signed"];
    let with = |passphrase: &'static str| [&sign[..], &["--passphrase", passphrase, "--yes"]].concat();
    let wrong = offline(city, &safe, &with("file:wrong")).ends(1);
    assert!(wrong.err.contains("root.key.age: wrong passphrase"), "{wrong:?}");
    let nobody = offline(city, &safe, &sign).ends(2);
    assert!(nobody.err.contains("--yes") && nobody.err.contains("gateway key \"gateway\""), "{nobody:?}");
    // A file that shows one thing and would sign another.
    let whole = std::fs::read_to_string(&unsigned).unwrap();
    std::fs::write(&unsigned, whole.replace("as gateway key", "as release key")).unwrap();
    let lying = offline(city, &safe, &with("file:passphrase")).ends(2);
    assert!(lying.err.contains("does not say what the act says"), "{lying:?}");
    std::fs::write(&unsigned, whole).unwrap();
    assert!(!safe.join("gateway.signed").exists());
    offline(city, &safe, &with("file:passphrase")).done();
    key(city, "court", &["submit", text(&safe.join("gateway.signed"))]).done();
    let again = key(city, "court", &["submit", text(&safe.join("gateway.signed"))]);
    assert_ne!(again.code, 0, "an act is taken once");

    // The rotation goes on from there, and the new key opens the court's sessions.
    let made = key(city, "court", &["rotate", "--role", "gateway", "--restart"]).done().json();
    assert_eq!(word(&made, "state"), "rotated", "{made}");
    city.wait_up("court");
    city.api("court", "clerk").query(&stops()).is(200);
    let opened = |name: &str| wait(city.node("court").counters(city.key("court", name).key_id())).unwrap().1;
    assert!(opened("gateway") > 0, "the new gateway key signed no act");
    let old = word(&made, "old_key_id");
    let unsigned = safe.join("revoke.unsigned");
    key(city, "court", &["prepare", "revoke", old, "--out", text(&unsigned)]).done();
    let sign = ["key", "sign", "revoke.unsigned", "--key", "root.key.age", "--out", "revoke.signed", "--yes"];
    offline(city, &safe, &[&sign[..], &["--passphrase", "file:passphrase"]].concat()).done();
    key(city, "court", &["submit", text(&safe.join("revoke.signed"))]).done();
    assert_eq!(state_of(city, "court", old)["state"], "revoked");
    city.api("court", "clerk").query(&stops()).is(200);
}

pub fn a_root_key_is_replaced_after_its_delay(world: &World) {
    let city = world.second();
    let made = key(city, "grid", &["rotate", "--role", "root"]).done().json();
    assert_eq!(word(&made, "state"), "waits", "{made}");
    let new = word(&made, "key_id").to_owned();
    let old = city.key("grid", "root").key_id().to_string();
    until("the new root key is in its place", SOON, || {
        let ran = key(city, "grid", &["rotate", "--role", "root"]);
        if ran.code == 0 { Ok(()) } else { Err(ran.err) }
    });
    assert_eq!(city.key("grid", "root").key_id().to_string(), new);
    assert_eq!(state_of(city, "grid", &old)["state"], "revoked");
    // The epoch is signed with the key of before, which was kept, in an act of the new one.
    until("grid has signed the epoch", SOON, || {
        let said = key(city, "grid", &["epoch-sign", "--yes"]).done().json();
        if word(&said, "state") == "signed" { Ok(()) } else { Err(said) }
    });
    // Other keys are registered with the new one.
    key(city, "grid", &["rotate", "--role", "approver", "--label", "legal", "--revoke-old"]).done();
}

/// Module and tool of SoftHSM2, or why there are none.
fn softhsm() -> Result<(String, String), String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/softhsm.sh");
    let out = Command::new(script).output().map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    match said.lines().collect::<Vec<_>>().as_slice() {
        [module, util] if out.status.success() => Ok(((*module).to_owned(), (*util).to_owned())),
        _ => Err(String::from_utf8_lossy(&out.stderr).trim().to_owned()),
    }
}

pub fn a_gateway_key_in_a_token_signs_acts(world: &World) {
    let (module, util) = match softhsm() {
        Ok(found) => found,
        Err(why) => return eprintln!("SKIPPED pkcs11: a_gateway_key_in_a_token_signs_acts: {why}"),
    };
    let city = world.second();
    let folder = world.folder("token");
    let (tokens, conf, pin) = (folder.join("tokens"), folder.join("softhsm2.conf"), folder.join("pin"));
    std::fs::create_dir(&tokens).unwrap();
    std::fs::write(&conf, format!("directories.tokendir = {}\n", tokens.display())).unwrap();
    concordat_broker::keys::write_new(&pin, "482913").unwrap();
    let init = ["--init-token", "--free", "--label", "court", "--pin", "482913", "--so-pin", "7351", "--module"];
    let done = Command::new(util).args(init).arg(&module).env("SOFTHSM2_CONF", &conf).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let uri = |object: &str| {
        format!("pkcs11:token=court;object={object}?module-path={module}&pin-source=file:{}", pin.display())
    };
    let (dir, safe) = (city.dir("court"), city.root.parent().unwrap().join("safe"));
    // The root key is away when the test of offline signing ran before.
    let (root, passphrase) = (safe.join("root.key.age"), format!("file:{}", safe.join("passphrase").display()));
    let away = ["--root", text(&root), "--passphrase", &passphrase];
    let away = if root.exists() { &away[..] } else { &[] };
    let rotate = |args: &[&str]| {
        let args = [&["key", "rotate"], args, away, &JSON[..]].concat();
        Ran::of(city.command(&args).env("SOFTHSM2_CONF", &conf).arg("--dir").arg(&dir)).done().json()
    };
    let made = rotate(&["--role", "gateway", "--token", &uri("gateway")]);
    let file = std::fs::read_to_string(dir.join("keys/gateway.key")).unwrap();
    assert!(file.starts_with("pkcs11:token=court;object=gateway?"), "{file}");
    // An approver's key is hybrid: its second half lies in a file beside.
    let hybrid = rotate(&["--role", "approver", "--label", "legal", "--token", &uri("legal")]);
    assert_eq!(word(&hybrid, "state"), "rotated");
    // Started again where the module finds its token.
    city.at("court", &["node", "down"]).done();
    Ran::of(city.command(&["demo", "up", "--quiet"]).env("SOFTHSM2_CONF", &conf)).done();
    city.wait_up("court");
    // The court opens its sessions by acts of its gateway's key: the one in the token.
    until("the court is answered", SOON, || {
        let answer = city.api("court", "clerk").query(&stops());
        if answer.status == 200 { Ok(()) } else { Err(answer.text_body()) }
    });
    let id = made["key_id"].as_str().unwrap().parse().unwrap();
    assert!(wait(city.node("court").counters(id)).unwrap().1 > 0, "no act by the key in the token");
}
