//! Checkpoints, cosignatures, disputes: what makes a receipt final, and what must be said before an agency signs.

use crate::World;
use crate::queries::stops;
use concordat_protocol::cbor;
use concordat_protocol::codes;
use concordat_protocol::codes::Verdict;
use concordat_protocol::evidence::DisputeView;
use concordat_protocol::node::AgreementView;
use concordat_protocol::ops::{Op, Tags, Tx};
use concordat_protocol::receipt::Cosign;
use concordat_protocol::terms::Status;
use concordat_tests::harness::{City, Ran, SOON, batch_tx, register_writer, until, wait};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Checkpoints of the demo come every 5 s; three of them, on a busy machine.
const FINAL_WITHIN: &str = "60";

/// Fetches a final receipt by the command line, as a person does.
fn fetch_final(city: &City, context: &str, op: &str, file: &Path) -> Ran {
    let file = file.to_str().unwrap();
    city.run(&[
        "--context",
        context,
        "op",
        "receipt",
        op,
        "--file",
        file,
        "--final",
        "--wait",
        FINAL_WITHIN,
        "--output",
        "json",
    ])
}

/// The verifier in a folder with the receipt and trust.json alone, without environment.
fn verify(city: &City, folder: &Path, receipt: &str) -> Ran {
    let mut command = Command::new(&city.program);
    command.args(["verify", "receipt", receipt, "--trust", "trust.json", "--output", "json"]);
    Ran::of(command.current_dir(folder).env_clear())
}

fn names(found: &Value, member: &str) -> Vec<String> {
    let list = found[member].as_array().unwrap_or_else(|| panic!("{member} in {found}"));
    list.iter().map(|v| v.as_str().unwrap_or_default().to_owned()).collect()
}

/// A query whose receipt becomes final; what the verifier says of it, and its bytes.
fn finalised(city: &City, folder: &Path) -> (Value, Vec<u8>) {
    std::fs::copy(city.root.join("trust.json"), folder.join("trust.json")).unwrap();
    let op = city.api("court", "clerk").query(&stops()).is(200).op();
    let file = folder.join("op.receipt");
    let said = fetch_final(city, "court/clerk", &format!("op:{op}"), &file).done().json();
    assert_eq!(said["status"], "final", "{said}");
    let found = verify(city, folder, "op.receipt").done().json();
    assert_eq!((found["status"].as_str(), found["operation"].as_str()), (Some("final"), Some(&*format!("op:{op}"))));
    (found, std::fs::read(&file).unwrap())
}

pub fn a_receipt_becomes_final(world: &World) {
    let (city, folder) = (world.shared(), world.folder("final"));
    let (found, _) = finalised(city, &folder);
    let op = found["operation"].as_str().unwrap().to_owned();
    // More than 2/3 are enough; the others follow within a few blocks.
    until("all four agencies cosigned", SOON, || {
        let shown = city.api("court", "operator").get(&format!("/v1/operations/{op}")).is(200).body;
        let cosigners = names(&shown["checkpoint"], "cosigners");
        if cosigners == ["court", "grid", "police", "transport"] { Ok(()) } else { Err(cosigners.join(" ")) }
    });
    // A receipt has room for three cosignatures; those of the parties are always among them.
    fetch_final(city, "court/clerk", &op, &folder.join("op.receipt")).done();
    let found = verify(city, &folder, "op.receipt").done().json();
    let receipt = std::fs::read(folder.join("op.receipt")).unwrap();
    assert!(names(&found, "cosigners").len() >= 3 && names(&found, "not_countersigned").is_empty(), "{found}");
    assert!(found["released"] == true && found["proof_height"].as_u64() >= found["height"].as_u64(), "{found}");
    println!("a final receipt of four agencies: {} bytes", receipt.len());
    assert!(receipt.len() <= 16_384, "{} bytes", receipt.len());
    // Nothing in the part that makes it final can be changed.
    for i in (0..receipt.len()).rev().step_by(receipt.len() / 24) {
        let mut bytes = receipt.clone();
        bytes[i] ^= 1 << (i % 8);
        std::fs::write(folder.join("forged.receipt"), &bytes).unwrap();
        verify(city, &folder, "forged.receipt").ends(4);
    }
    // It says so where people look first.
    let shown = city.api("court", "operator").get(&format!("/v1/operations/{op}")).is(200).body;
    assert!(shown["checkpoint"]["final"] == true && shown["disputed"].is_null(), "{shown}");
    // The exported trust proves it as well, and names who may cosign.
    let dir = city.dir("court");
    let exported = folder.join("trust.json");
    city.run(&["trust", "export", exported.to_str().unwrap(), "--dir", dir.to_str().unwrap(), "--quiet"]).done();
    verify(city, &folder, "op.receipt").done();
    let trust = city.run(&["trust", "show", "--dir", dir.to_str().unwrap(), "--output", "json"]).done().json();
    assert_eq!(names(&trust["epochs"][0], "cosigners"), ["court", "grid", "police", "transport"], "{trust}");
    // An act and a denial rest on no session.
    for index in ["op:1", "op:2"] {
        let ran = fetch_final(city, "grid/operator", index, &folder.join("act.receipt")).done().json();
        assert_eq!(ran["status"], "final", "{ran}");
        assert_eq!(verify(city, &folder, "act.receipt").done().json()["status"], "final");
    }
}

pub fn three_of_four_make_it_final(world: &World) {
    let (city, folder) = (world.second(), world.folder("final-3"));
    city.at("police", &["node", "down"]).done();
    // The absent one is a party of nothing here: court asks transport, which is up.
    let public = serde_json::json!({"dataset": "ds:transport/i94@1", "purpose": "purp:public-information", "limit": 1});
    let op = city.api("court", "clerk").query(&public).is(200).op();
    std::fs::copy(city.root.join("trust.json"), folder.join("trust.json")).unwrap();
    fetch_final(city, "court/clerk", &format!("op:{op}"), &folder.join("op.receipt")).done();
    let found = verify(city, &folder, "op.receipt").done().json();
    assert_eq!(names(&found, "cosigners"), ["court", "grid", "transport"], "{found}");
    assert!(names(&found, "not_countersigned").is_empty(), "{found}");
    city.run(&["demo", "up", "--quiet"]).done();
    city.wait_up("police");
}

/// The blocks in which an agency's cosignatures of checkpoints that cover an entry stand.
fn cosigned_in(city: &City, agency: &str, index: u64, from: u64) -> Vec<u64> {
    let rpc = city.rpc("court");
    let covers = |tx: &Vec<u8>| match cbor::decode::<Tx>(tx) {
        Ok(Tx::Cosign { body, .. }) => {
            cbor::decode::<Cosign>(&body).is_ok_and(|c| c.agency.as_str() == agency && c.checkpoint.log_size > index)
        }
        _ => false,
    };
    (from..=rpc.height()).filter(|h| rpc.block(*h).iter().any(covers)).collect()
}

/// Writes a query of a session of the court that the court never made; returns its index.
fn invent(city: &City) -> u64 {
    let op = city.api("court", "clerk").query(&stops()).is(200).op();
    let shown = city.api("court", "operator").get(&format!("/v1/operations/op:{op}")).is(200).body;
    let place = |name: &str| shown["request"][name].as_u64().unwrap_or_else(|| panic!("{name} in {shown}"));
    let views = wait(city.node("police").agreements()).unwrap();
    let named = shown["request"]["agreement"].as_str().unwrap_or_else(|| panic!("{shown}"));
    let in_force = |v: &&AgreementView| v.agreement.as_str() == named && v.status == Status::Active;
    let handle = views.iter().find(in_force).and_then(|v| v.handles.first().copied()).expect("the agreement's handle");
    let day = city.tick_ms() / 86_400_000;
    let session = place("session");
    let invented = |n: u64| Op::Query { handle, session, n, day, tags: Tags::none(), commitment: [7; 32] };
    let (writer, key) = register_writer(city, "police", "inventor");
    let (tx, _) = batch_tx(&city.chain(), &writer, &key, 1, [0; 32], vec![invented(place("n") + 3_000)]);
    assert_eq!(city.rpc("police").submit(&tx), Ok(u64::from(codes::OK)));
    let name = writer.to_string();
    until("the invented operation is on the ledger", SOON, || {
        let node = city.node("court");
        let entries = wait(node.log(op, 1_000)).map_err(|e| e.to_string())?;
        let found = entries.iter().position(|e| e.writer == name).ok_or("not there")?;
        assert_eq!(entries[found].verdict, Verdict::Accepted, "{:?}: the ledger cannot know", entries[found]);
        Ok::<u64, String>(op + found as u64)
    })
}

fn disputed(city: &City, index: u64) -> DisputeView {
    until(&format!("op:{index} is disputed"), Duration::from_secs(60), || {
        let all = wait(city.node("police").disputes()).map_err(|e| e.to_string())?;
        all.into_iter().find(|d| d.reference == index).ok_or_else(|| "no dispute".to_owned())
    })
}

pub fn an_invented_operation_is_disputed_before_the_next_cosignature(world: &World) {
    let city = world.shared();
    let index = invent(city);
    let entry = city.entry("court", index);
    let dispute = disputed(city, index);
    assert_eq!(dispute.agency.as_str(), "court");
    // Where the dispute stands on the ledger, in court's own words.
    let shown = city.api("court", "operator").get(&format!("/v1/operations/op:{index}")).is(200).body;
    let by = shown["disputed"]["operation"].as_str().unwrap_or_else(|| panic!("{shown}")).to_owned();
    assert!(shown["disputed"]["reason"].as_str().is_some_and(|r| r.contains("signed no request")), "{shown}");
    let filed = city.entry("court", by[3..].parse().unwrap());
    assert_eq!((filed.writer.as_str(), filed.code), ("act:court", codes::OK));
    let signed = until("court cosigns a checkpoint that covers it", Duration::from_secs(60), || {
        let found = cosigned_in(city, "court", index, entry.height);
        if found.is_empty() { Err("none yet") } else { Ok(found) }
    });
    assert!(signed[0] > filed.height, "cosigned in {signed:?}, disputed in {}", filed.height);
    // The others see it; its reason is court's own.
    let seen = city.api("grid", "operator").get(&format!("/v1/operations/op:{index}")).is(200).body;
    assert!(seen["disputed"]["agency"] == "court" && seen["disputed"]["reason"].is_null(), "{seen}");
    let metrics = city.api("court", "operator").get("/metrics").is(200).text_body();
    let value = |name: &str| {
        let line = metrics.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("{name} in {metrics}"));
        line.rsplit(' ').next().and_then(|v| v.parse::<f64>().ok()).unwrap()
    };
    assert!(value("concordat_disputes_total ") >= 1.0);
    assert!(value("concordat_cosigned_height ") > 0.0 && value("concordat_checkpoint_height ") > 0.0);
    assert_eq!(value("concordat_cosign_stopped ") as u64, 0);
}

pub fn a_person_disputes_once_and_only_what_names_the_agency(world: &World) {
    let city = world.shared();
    let op = city.api("court", "clerk").query(&stops()).is(200).op();
    let named = format!("op:{op}");
    let dispute = |context: &str, op: &str| {
        city.run(&[
            "--context",
            context,
            "op",
            "dispute",
            op,
            "--reason",
            "the clerk was not on duty",
            "--output",
            "json",
        ])
    };
    let said = dispute("court/operator", &named).done().json();
    assert!(said["disputed"] == named.as_str() && said["operation"].is_string(), "{said}");
    assert_eq!(dispute("court/operator", &named).done().json()["operation"], said["operation"], "once");
    assert_eq!(disputed(city, op).agency.as_str(), "court");
    // A clerk may not; an agency may not for another; an act names no session.
    assert_eq!(dispute("court/clerk", &named).code, 3);
    assert_ne!(dispute("grid/operator", &named).code, 0);
    assert_ne!(dispute("court/operator", "op:1").code, 0);
    // A refused one holds up nothing: court still cosigns what comes after.
    let (from, size) = (city.rpc("court").height(), city.log_size("court"));
    city.api("court", "clerk").query(&stops()).is(200);
    until("court still cosigns", Duration::from_secs(60), || {
        if cosigned_in(city, "court", size, from).is_empty() { Err("none yet") } else { Ok(()) }
    });
}
