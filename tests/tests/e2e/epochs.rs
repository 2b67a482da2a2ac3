//! The agencies change a validator's power while the city runs: the chain goes on, and what it says afterwards is
//! believed by whoever holds the epochs that the agencies signed.

use crate::World;
use crate::queries::stops;
use concordat_protocol::acts::ActBody;
use concordat_protocol::cbor;
use concordat_protocol::evidence::{EpochView, SignedEpoch};
use concordat_protocol::keys::Statement;
use concordat_protocol::node::{NodeReply, NodeRequest};
use concordat_protocol::trust::Trust;
use concordat_tests::harness::{self, City, Ran, SOON, until, wait};
use std::path::Path;
use std::process::Command;

fn epochs(city: &City) -> Vec<EpochView> {
    match wait(city.node("court").ask(&NodeRequest::Epochs {})) {
        Ok(NodeReply::Epochs { body }) => body,
        other => panic!("{other:?}"),
    }
}

fn act(city: &City, agency: &str, key: &str, body: ActBody) {
    harness::act(city, agency, &city.key(agency, key), body).unwrap_or_else(|e| panic!("{agency}: {e}"));
}

/// The power that CometBFT itself gives a validator's key at a height.
fn power_at(city: &City, height: u64, key: &[u8; 32]) -> Option<u64> {
    use base64::Engine;
    let key = base64::engine::general_purpose::STANDARD.encode(key);
    let answer = city.rpc("grid").get(&format!("validators?height={height}")).ok()?;
    let listed = answer["validators"].as_array()?.iter().find(|v| v["pub_key"]["value"] == key.as_str())?;
    listed["voting_power"].as_str()?.parse().ok()
}

fn verify(city: &City, receipt: &Path, trust: &Path) -> Ran {
    let mut command = Command::new(&city.program);
    command.args(["verify", "receipt"]).arg(receipt).arg("--trust").arg(trust).args(["--output", "json"]);
    Ran::of(command.env_clear())
}

pub fn a_validators_power_changes_and_receipts_are_believed_after_it(world: &World) {
    let city = world.second();
    let before = epochs(city);
    let last = before.last().unwrap();
    let police = last.validators.iter().find(|v| v.agency.as_str() == "police").unwrap().clone();
    let power = police.power + 1;
    let change = ActBody::Validator { agency: police.agency.clone(), key: police.key, power };
    for agency in ["court", "grid"] {
        act(city, agency, "root", change.clone());
    }
    assert_eq!(epochs(city).len(), before.len(), "two of four do not decide");
    act(city, "transport", "root", change);
    // The node that is asked may be a block behind the one that took the vote.
    let epoch = until("the new epoch", SOON, || {
        let mut now = epochs(city);
        if now.len() > before.len() { Ok(now.pop().unwrap()) } else { Err(format!("{} epochs", now.len())) }
    });
    assert_eq!((epoch.body.n, epoch.body.prev_hash), (last.body.n + 1, hash(last)));
    let from = epoch.body.from_height;
    until("CometBFT to come so far", SOON, || {
        let height = city.rpc("grid").height();
        if height > from { Ok(()) } else { Err(format!("height {height} of {from}")) }
    });
    assert_eq!(power_at(city, from - 1, &police.key), Some(police.power));
    assert_eq!(power_at(city, from, &police.key), Some(power));

    let folder = world.folder("epochs");
    let op = city.api("court", "clerk").query(&stops()).is(200).op();
    for (i, agency) in ["court", "grid", "police"].into_iter().enumerate() {
        let file = folder.join("trust.json");
        let genesis = Trust::from_json(&std::fs::read_to_string(city.root.join("trust.json")).unwrap()).unwrap();
        let trust = Trust::with_epochs(genesis.genesis, genesis.oversight, &epochs(city)).unwrap();
        assert_eq!(trust.epochs.len(), before.len(), "{i} of four signed");
        std::fs::write(file, trust.to_json()).unwrap();
        let signature = city.key(agency, "root").sign(Statement::Epoch, &city.chain(), &cbor::encode(&epoch.body));
        let signed = SignedEpoch { body: epoch.body.clone(), signature };
        act(city, agency, "gateway", ActBody::Epoch { body: cbor::encode(&signed).into() });
    }
    let receipt = folder.join("op.receipt");
    let (name, file) = (format!("op:{op}"), receipt.to_str().unwrap());
    city.run(&["--context", "court/clerk", "op", "receipt", &name, "--file", file, "--quiet"]).done();
    let old = folder.join("trust.json");
    let found = verify(city, &receipt, &old).ends(4).json();
    assert_eq!(found["check"], "validators", "{found}");
    let genesis = Trust::from_json(&std::fs::read_to_string(&old).unwrap()).unwrap();
    let print = genesis.fingerprint();
    let trust = Trust::with_epochs(genesis.genesis, genesis.oversight, &epochs(city)).unwrap();
    assert_eq!((trust.epochs.len(), trust.fingerprint()), (before.len() + 1, print));
    let new = folder.join("trust-new.json");
    std::fs::write(&new, trust.to_json()).unwrap();
    let found = verify(city, &receipt, &new).done().json();
    assert_eq!((found["valid"].as_bool(), found["verdict"].as_str()), (Some(true), Some("accepted")), "{found}");
}

fn hash(epoch: &EpochView) -> [u8; 32] {
    concordat_protocol::hash::sha256(&[&cbor::encode(&epoch.body)])
}
