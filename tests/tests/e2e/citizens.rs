//! Citizens and their lawyers ask who looked, at a real issuer.

use crate::World;
use crate::oidc::{Issuer, issuer_folder};
use crate::queries::with;
use crate::subjects::{accesses, covered, shown, verify};
use concordat_tests::harness::{Agreement, Client};
use serde_json::{Value, json};

const STOPS: &str = "ds:police/stops@1";
const AUDIENCE: &str = "urn:concordat:police:citizens";
/// Of whom the police have no record: that somebody asked for them counts.
const ANNA: &str = "17-412011-none";
const NEIGHBOUR: &str = "17-412012-none";

fn ops(list: &Value) -> Vec<u64> {
    accesses(list).into_iter().map(|a| a.0).collect()
}

pub fn a_citizen_sees_who_looked_and_nobody_else(world: &World) {
    let folder = match issuer_folder() {
        Ok(folder) => folder,
        Err(why) => return eprintln!("SKIPPED citizens: a_citizen_sees_who_looked_and_nobody_else: {why}"),
    };
    let issuer = Issuer::start(&folder, 0);
    let city = world.shared();
    let (file, listen) = (city.dir("police").join("node.yaml"), city.config("police").listen);
    let before = std::fs::read_to_string(&file).unwrap();
    let citizens = json!({"issuer": issuer.url, "audience": AUDIENCE, "acr": ["urn:example:eid:high"], "max_age_s": 900,
        "subjects": [{"claim": "person_no", "datasets": [STOPS]}]});
    std::fs::write(&file, format!("{before}\ncitizens: {citizens}\n")).unwrap();
    city.killed_and_back("police", "broker");
    let agreement = Agreement::new("AGR-2026-9581", "citizens");
    agreement.activate(city);
    let ask = json!({"dataset": STOPS, "purpose": agreement.purpose, "case": "26-CI-1"});
    let looked = |subject: &str| {
        let body = with(ask.clone(), json!({"where": {"stop_id": {"in": [subject]}}}));
        city.api("court", "clerk").query(&body).is(200).op()
    };
    let (at_anna, at_neighbour) = (looked(ANNA), looked(NEIGHBOUR));
    covered(city, STOPS, ANNA, at_neighbour);

    // Each sees their own list, by what their token says.
    let by = |client: &str| Client::new(&listen, &issuer.token(client, AUDIENCE));
    let (citizen, lawyer) = (by("citizen"), by("lawyer"));
    let mine = format!("/v1/me/accesses?dataset={STOPS}");
    let list = citizen.get(&mine).is(200).body;
    assert_eq!(ops(&list), [at_anna], "{list}");
    assert_eq!((&list["complete"], &list["accesses"][0]["case"]), (&json!(true), &json!("26-CI-1")), "{list}");
    assert_eq!(ops(&by("neighbour").get(&mine).is(200).body), [at_neighbour]);
    // With the proof, which needs nobody's word.
    let proof = citizen.get(&format!("/v1/me/accesses/proof?dataset={STOPS}")).is(200);
    let place = world.folder("citizens");
    std::fs::write(place.join("mine.list"), &proof.bytes).unwrap();
    std::fs::copy(city.root.join("trust.json"), place.join("trust.json")).unwrap();
    let found = verify(city, &place, "mine.list").done().json();
    assert_eq!((found["valid"].as_bool(), shown(&found)), (Some(true), vec![at_anna]), "{found}");

    // Who is not sure enough, not named, or somebody else's.
    for weak in ["citizen-weak", "citizen-stale"] {
        assert_eq!(by(weak).get(&mine).is(401).body["code"], "step-up", "{weak}");
    }
    for unnamed in ["citizen-unnamed", "lawyer"] {
        assert_eq!(by(unnamed).get(&mine).is(403).body["code"], "no-subject-claim", "{unnamed}");
    }
    let elsewhere = issuer.token("citizen", "urn:concordat:court");
    let opaque = issuer.token("citizen", &format!("{AUDIENCE}:opaque"));
    for token in [&elsewhere, &opaque, "", "a.b.c"] {
        Client::new(&listen, token).get(&mine).is(401);
    }
    city.api("police", "operator").get(&mine).is(401);
    citizen.get("/v1/whoami").is(401);
    citizen.post("/admin/v1/subjects/log", &json!({"dataset": STOPS, "subject": NEIGHBOUR})).is(401);
    citizen.get(&format!("{mine}&subject={NEIGHBOUR}")).is(400);
    for dataset in ["ds:police/none@1", "ds:court/register@1", "x"] {
        let said = citizen.get(&format!("/v1/me/accesses?dataset={dataset}")).is(404).body;
        assert_eq!(said["code"], "unknown-dataset", "{dataset}");
    }

    // A lawyer, before, while and after a mandate runs. Without one, all persons are alike, also those who do not exist.
    let theirs = |who: &Client, subject: &str| {
        who.post("/v1/me/accesses/represented", &json!({"dataset": STOPS, "subject": subject}))
    };
    let said = |subject: &str| {
        let body = theirs(&lawyer, subject).is(404).body;
        (body["code"].clone(), body["detail"].clone())
    };
    assert_eq!(said(ANNA), said("nobody-at-all"));
    assert_eq!(said(ANNA).0, "no-mandate");
    let document = place.join("power-of-attorney.pdf");
    std::fs::write(&document, "Anna empowers her lawyer.").unwrap();
    let add = ["subject", "mandate", "add", "--dataset", STOPS, "--for", ANNA, "--to", "lawyer", "--until"];
    let with_document = ["--document", document.to_str().unwrap(), "--output", "json"];
    let until = |day: &str| city.at("police", &[&add[..], &[day], &with_document[..]].concat());
    until("2020-01-31").ends(2);
    let day = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24)).strftime("%Y-%m-%d").to_string();
    let mandate = until(&day).done().json()["mandate"].as_str().unwrap().to_owned();
    assert_eq!(ops(&theirs(&lawyer, ANNA).is(200).body), [at_anna]);
    assert_eq!(said(NEIGHBOUR).0, "no-mandate", "one person's, no other's");
    theirs(&by("neighbour"), ANNA).is(404);
    theirs(&by("citizen-weak"), ANNA).is(401);
    let body = json!({"dataset": STOPS, "subject": ANNA});
    let proof = lawyer.post("/v1/me/accesses/represented/proof", &body).is(200);
    std::fs::write(place.join("client.list"), &proof.bytes).unwrap();
    assert_eq!(shown(&verify(city, &place, "client.list").done().json()), [at_anna]);
    // The person sees that somebody looked for them; the agency what was looked at, and nobody's name.
    let list = citizen.get(&mine).is(200).body;
    let seen: Vec<&Value> = list["represented"].as_array().unwrap().iter().map(|l| &l["what"]).collect();
    assert_eq!(seen, [&json!("proof"), &json!("log")], "{list}");
    assert_eq!(list["represented"][0]["mandate"], mandate.as_str());
    let looks = city.at("police", &["subject", "looks", "--output", "json"]).done().json();
    let text = looks.to_string();
    assert!(text.contains("denied") && text.contains(&mandate), "{text}");
    assert!(!text.contains(ANNA) && !text.contains("lawyer"), "{text}");
    let mandates = city.at("police", &["subject", "mandate", "list", "--output", "json"]).done().json();
    let listed = mandates.as_array().unwrap().iter().find(|m| m["mandate"] == mandate.as_str()).unwrap();
    assert_eq!((&listed["state"], &listed["used"]), (&json!("runs"), &json!(2)), "{mandates}");
    city.at("police", &["subject", "mandate", "revoke", &mandate]).done();
    assert_eq!(said(ANNA).0, "no-mandate");
    city.at("police", &["subject", "mandate", "revoke", &mandate]).ends(5);

    // Guessing ends soon, and for the guesser alone.
    let guessed = (0..500).map(|n| theirs(&lawyer, &format!("guess-{n}")).status).find(|s| *s != 404);
    assert_eq!(guessed, Some(429));
    by("neighbour").get(&mine).is(200);
    let log = city.log("police", "broker");
    for name in [ANNA, NEIGHBOUR, "guess-1", "lawyer"] {
        assert!(!log.contains(name), "the broker's log names {name}");
    }
    std::fs::write(&file, before).unwrap();
    city.killed_and_back("police", "broker");
    assert_eq!(citizen.get(&mine).is(401).body["code"], "no-citizens");
}
