//! Looks at everything the other tests left.

use crate::World;
use crate::queries::{day, stops, with};
use concordat_tests::harness::{City, SOON, until};
use serde_json::json;
use std::path::{Path, PathBuf};

const AGENCIES: [&str; 4] = ["court", "grid", "police", "transport"];

/// A word that must not be found, and what it is.
struct Canary {
    what: String,
    word: Vec<u8>,
}

fn canary(what: &str, word: &str) -> Canary {
    Canary { what: what.to_owned(), word: word.as_bytes().to_vec() }
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|w| w == word)
}

/// Every file below a folder, without the folders and files that hold a word lawfully.
fn files(dir: &Path, leave_out: &[PathBuf], out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type());
        if leave_out.iter().any(|l| path.starts_with(l)) {
            continue;
        }
        match kind {
            Ok(k) if k.is_dir() => files(&path, leave_out, out),
            Ok(k) if k.is_file() => out.push(path),
            _ => {}
        }
    }
}

#[track_caller]
fn nowhere(place: &str, bytes: &[u8], canaries: &[Canary]) {
    for c in canaries {
        assert!(!contains(bytes, &c.word), "{} stands in {place}", c.what);
    }
}

/// A clerk with a name that stands nowhere else; the court's broker is started again with it.
fn hire(city: &City, name: &str) {
    let path = city.dir("court").join("keys/tokens.yaml");
    let mut text = std::fs::read_to_string(&path).unwrap();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let indent = text
        .lines()
        .find(|l| l.trim_start().starts_with("- name:"))
        .map_or("", |l| &l[..l.len() - l.trim_start().len()])
        .to_owned();
    text.push_str(&format!("{indent}- name: {name}\n{indent}  roles: [clerk]\n{indent}  token: c0ffee{:042}\n", 7_319));
    std::fs::write(&path, text).unwrap();
    let broker = city.process("court", "broker");
    broker.0.kill_hard();
    until("the broker is another process", SOON, || {
        let state = city.state("court");
        let now = state.processes.iter().find(|p| p.name == "broker").and_then(|p| p.process);
        if now.is_some_and(|n| n != broker.0) { Ok(()) } else { Err("the same") }
    });
    city.wait_up("court");
}

pub fn canaries_are_nowhere(world: &World) {
    let city = world.shared();
    let (name, case, stop) = ("maria-canary", "26-ZZ-7319", "17-089569");
    hire(city, name);
    let api = city.api("court", name);
    let ask = with(stops(), json!({"case": case, "where": {"stop_id": {"eq": stop}}}));
    assert_eq!(api.query(&ask).is(200).rows().len(), 1);
    api.query(&with(ask.clone(), json!({"purpose": "purp:profiling"}))).is(403);
    api.query(&with(ask.clone(), json!({"where": {"stopid": {"eq": stop}}}))).is(422);
    api.query(&with(ask.clone(), json!({"case": case, "where": day("2017-03-14", "2017-03-15")}))).is(200);
    let mut secrets = Vec::new();
    for agency in AGENCIES {
        for token in city.tokens(agency) {
            secrets.push(canary(&format!("the token of {agency}/{}", token.name), &token.token));
        }
        let password = std::fs::read_to_string(city.dir(agency).join("keys/nats.password")).unwrap();
        secrets.push(canary(&format!("{agency}'s password for the streams"), password.trim()));
        for entry in std::fs::read_dir(city.dir(agency).join("keys")).unwrap().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|e| e == "key") {
                let text = std::fs::read_to_string(&path).unwrap();
                secrets.push(canary(&path.display().to_string(), text.trim()));
            }
        }
    }
    assert!(secrets.len() > 60, "{} secrets", secrets.len());
    let people = [
        canary("the clerk's name", name),
        canary("the case number", case),
        canary("a stop's number", stop),
        canary("a stop's number", "17-089556"),
    ];

    // The chain: every block of the run.
    let rpc = city.rpc("police");
    for height in 1..=rpc.height() {
        let txs = rpc.block(height).concat();
        nowhere(&format!("block {height}"), &txs, &people);
        nowhere(&format!("block {height}"), &txs, &secrets);
    }
    // What is measured.
    for agency in AGENCIES {
        let metrics = city.api(agency, "operator").get("/metrics").is(200);
        nowhere(&format!("{agency}'s metrics"), &metrics.bytes, &people);
        nowhere(&format!("{agency}'s metrics"), &metrics.bytes, &secrets);
    }
    // Secrets: in no file but their own; the streams' server has its users' passwords.
    let own = |dir: &str| city.root.join(dir);
    let mut keys: Vec<PathBuf> = AGENCIES.iter().map(|a| own(&format!("{a}/keys"))).collect();
    keys.push(own("exchange/keys"));
    keys.push(own("exchange/nats/nats.conf"));
    scan(city, &keys, &secrets);
    // People: in the source, the holding and the two parties' own stores, and nowhere else.
    let lawful = ["police/data", "police/executor", "court/broker", "court/keys/tokens.yaml"].map(own);
    scan(city, &lawful, &people);
    // The search finds what is there.
    assert!(contains(&std::fs::read(own("court/keys/tokens.yaml")).unwrap(), name.as_bytes()));
}

fn scan(city: &City, leave_out: &[PathBuf], canaries: &[Canary]) {
    let mut found = Vec::new();
    files(&city.root, leave_out, &mut found);
    assert!(found.len() > 100, "{} files", found.len());
    for path in found {
        let Ok(bytes) = std::fs::read(&path) else { continue };
        nowhere(&path.display().to_string(), &bytes, canaries);
    }
}

pub fn four_nodes_have_the_same_app_hashes(world: &World) {
    same_app_hashes(world.shared());
}

/// Requires that every agency's node computed the same at every height.
pub fn same_app_hashes(city: &City) {
    let rpcs: Vec<_> = AGENCIES.iter().map(|a| (*a, city.rpc(a))).collect();
    let height = rpcs.iter().map(|(_, r)| r.height()).max().unwrap();
    let mut hashes: Vec<Vec<(String, String)>> = Vec::new();
    for (agency, rpc) in &rpcs {
        until(&format!("{agency} has height {height}"), SOON, || {
            let own = rpc.height();
            if own >= height { Ok(()) } else { Err(own) }
        });
        let mut own = Vec::new();
        for from in (1..=height).step_by(20) {
            let to = (from + 19).min(height);
            let page = rpc.get(&format!("blockchain?minHeight={from}&maxHeight={to}")).unwrap();
            let metas = page["block_metas"].as_array().cloned().unwrap_or_default();
            let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
            let mut page: Vec<_> =
                metas.iter().map(|m| (text(&m["header"]["app_hash"]), text(&m["block_id"]["hash"]))).collect();
            page.reverse();
            own.extend(page);
        }
        assert_eq!(own.len() as u64, height, "{agency} has a header a height");
        hashes.push(own);
    }
    let changes = hashes[0].windows(2).filter(|w| w[0].0 != w[1].0).count();
    println!("    {height} heights, {changes} changes of the app hash");
    assert!(changes > 10, "the state changed {changes} times");
    for (agency, own) in AGENCIES.iter().zip(&hashes).skip(1) {
        let differs = own.iter().zip(&hashes[0]).position(|(a, b)| a != b);
        assert_eq!(differs.map(|i| i + 1), None, "{agency} differs from court at this height");
    }
}
