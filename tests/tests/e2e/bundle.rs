//! The evidence of a case as one file: exported by a court, checked by a process of its own in an empty folder.

use crate::World;
use crate::queries::{stops, with};
use concordat_broker::bundle::container::{self, Entry};
use concordat_broker::bundle::sign::BundleKey;
use concordat_broker::bundle::{MEDIA_TYPE, seal};
use concordat_tests::harness::{City, Ran};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

const CASE: &str = "26-CR-7731";
const MANIFEST: &str = "META-INF/ASiCManifest001.xml";
const SIGNATURE: &str = "META-INF/signature001.p7s";

fn export(city: &City, user: &str, case: &str, file: &Path, more: &[&str]) -> Ran {
    let args =
        ["--context", user, "evidence", "export", "--case", case, "--out", file.to_str().unwrap(), "--output", "json"];
    city.run(&[&args, more].concat())
}

/// The verifier without environment, home or city.
fn verify(city: &City, folder: &Path, bundle: &str, trust: &str) -> Ran {
    let mut command = Command::new(&city.program);
    command.args(["verify", "bundle", bundle, "--trust", trust, "--output", "json"]);
    Ran::of(command.current_dir(folder).env_clear())
}

/// Refused, and the file that it names.
fn refused(city: &City, folder: &Path, bytes: &[u8]) -> String {
    std::fs::write(folder.join("forged.asice"), bytes).unwrap();
    let found = verify(city, folder, "forged.asice", "trust.json").ends(4).json();
    assert_eq!(found["valid"], false, "{found}");
    found["file"].as_str().unwrap().to_owned()
}

fn tool(folder: &Path, program: &str, args: &[&str]) -> Option<bool> {
    match Command::new(program).args(args).current_dir(folder).output() {
        Ok(out) => {
            if !out.status.success() {
                println!("{program}: {}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
            }
            Some(out.status.success())
        }
        Err(_) => {
            println!("SKIPPED: {program} is not here");
            None
        }
    }
}

/// What other people's programs say of the file.
fn others_agree(folder: &Path, entries: &[Entry]) {
    assert_ne!(tool(folder, "unzip", &["-tq", "case.asice"]), Some(false));
    for e in entries.iter().filter(|e| e.name.starts_with("META-INF/")) {
        std::fs::write(folder.join(e.name.replace('/', "-")), &e.bytes).unwrap();
    }
    let cms: Vec<&str> = "cms -verify -binary -noverify -inform DER -in META-INF-signature001.p7s \
         -content META-INF-ASiCManifest001.xml -out verified"
        .split_whitespace()
        .collect();
    if let Some(good) = tool(folder, "openssl", &cms) {
        assert!(good, "openssl does not accept the signature");
    }
}

pub fn a_case_is_one_file_that_anybody_checks(world: &World) {
    let (city, folder) = (world.shared(), world.folder("bundle"));
    std::fs::copy(city.root.join("trust.json"), folder.join("trust.json")).unwrap();
    let clerk = city.api("court", "clerk");
    let body = with(stops(), json!({"case": CASE}));
    let ops = [
        clerk.query(&body).is(200).op(),
        clerk.query(&with(body.clone(), json!({"limit": 3}))).is(200).op(),
        clerk.query(&with(body, json!({"purpose": "purp:profiling"}))).is(403).op(),
    ];
    let file = folder.join("case.asice");
    export(city, "court/clerk", CASE, &file, &[]).ends(3);
    export(city, "court/operator", "99-CR-0000", &file, &[]).ends(5);
    export(city, "court/operator", CASE, &file, &["--zone", "Mars/Base"]).ends(2);
    assert!(!file.exists());
    // Once the newest of them is final, all are.
    let newest = format!("op:{}", ops[2]);
    let scratch = folder.join("newest.receipt");
    let wait = ["op", "receipt", &newest, "--final", "--wait", "60", "--quiet", "--file", scratch.to_str().unwrap()];
    city.run(&[&["--context", "court/operator"], &wait[..]].concat()).done();
    // The registered schema is the provider's file; a court that has it passes it on.
    let schema = city.dir("court").join("schemas/stops@1.json");
    std::fs::copy(city.dir("police").join("schemas/stops@1.json"), &schema).unwrap();
    let said = export(city, "court/operator", CASE, &file, &["--zone", "Europe/Berlin"]).done().json();
    std::fs::remove_file(&schema).unwrap();
    assert_eq!((&said["operations"], &said["left_out"]), (&json!(3), &json!([])), "{said}");

    let found = verify(city, &folder, "case.asice", "trust.json").done().json();
    let list = found["operations"].as_array().unwrap();
    let of = |member: &str| list.iter().map(|o| o[member].clone()).collect::<Vec<Value>>();
    assert_eq!(of("operation"), ops.map(|op| json!(format!("op:{op}"))), "{found}");
    assert_eq!(of("kind")[2], "deny");
    assert_eq!(of("verdict"), vec![json!("accepted"); 3]);
    assert_eq!(of("status"), vec![json!("final"); 3]);
    assert_eq!((&found["case"], &found["exported_by"]), (&json!(CASE), &json!("court")));
    assert!(city.log("court", "broker").contains("evidence exported"), "its use is logged");

    let bytes = std::fs::read(&file).unwrap();
    let entries = container::read(&bytes).unwrap();
    assert_eq!((entries[0].name.as_str(), entries[0].bytes.as_slice()), ("mimetype", MEDIA_TYPE.as_bytes()));
    let name = |end: &str| entries.iter().any(|e| e.name.ends_with(end));
    for end in ["statement.pdf", ".yaml", ".txt", ".terms", "trust.json", "export.json"] {
        assert!(name(end), "no {end}: {:?}", entries.iter().map(|e| &e.name).collect::<Vec<_>>());
    }
    assert!(entries.iter().any(|e| e.name.starts_with("schemas/")));
    others_agree(&folder, &entries);
    altered(city, &folder, &bytes, &entries);
    forged(city, &folder, &entries);
    // Trust that names an oversight key more has another fingerprint.
    let mut trust: Value = serde_json::from_slice(&std::fs::read(folder.join("trust.json")).unwrap()).unwrap();
    trust["oversight"] = json!([{"name": "ombud", "key": trust["epochs"][0]["keys"][0]["root"]}]);
    std::fs::write(folder.join("other.json"), trust.to_string()).unwrap();
    let other = verify(city, &folder, "case.asice", "other.json").ends(4).json();
    assert_eq!(other["file"], "trust.json", "{other}");
}

fn altered(city: &City, folder: &Path, bytes: &[u8], entries: &[Entry]) {
    for (i, entry) in entries.iter().enumerate() {
        let mut changed = entries.to_vec();
        let at = changed[i].bytes.len() / 2;
        changed[i].bytes[at] ^= 1;
        let named = refused(city, folder, &container::write(&changed).unwrap());
        assert!(named == entry.name || entry.name == MANIFEST, "{} altered: {named}", entry.name);
        changed.remove(i);
        assert_eq!(refused(city, folder, &container::write(&changed).unwrap()), entry.name, "left out");
    }
    let mut more = entries.to_vec();
    more.push(Entry::new("receipts/op-1.receipt", "more"));
    assert_eq!(refused(city, folder, &container::write(&more).unwrap()), "receipts/op-1.receipt");
    refused(city, folder, &bytes[..bytes.len() - 1]);
}

/// Whoever signs a container anew, with any key: the receipts do not follow.
fn forged(city: &City, folder: &Path, entries: &[Entry]) {
    let keys = folder.join("keys");
    std::fs::create_dir(&keys).unwrap();
    let key = BundleKey::open(&keys, "court", 1_795_000_000_000).unwrap();
    let files: Vec<Entry> =
        entries.iter().filter(|e| !["mimetype", MANIFEST, SIGNATURE].contains(&e.name.as_str())).cloned().collect();
    let forge = |end: &str, from: &str, to: &str| {
        let mut files = files.clone();
        let entry = files.iter_mut().find(|e| e.name.ends_with(end)).unwrap();
        let text = String::from_utf8(entry.bytes.clone()).unwrap();
        assert!(text.contains(from), "{from} in {}", entry.name);
        entry.bytes = text.replace(from, to).into_bytes();
        let name = entry.name.clone();
        (name, refused(city, folder, &seal(&files, &key, 1_795_000_000_000).unwrap()))
    };
    // The export claims what no receipt says.
    for (from, to) in [("\"deny\"", "\"query\""), ("\"police\"", "\"grid\""), ("\"accepted\"", "\"refused\"")] {
        assert_eq!(forge("export.json", from, to).1, "export.json", "{from} became {to}");
    }
    let (_, named) = forge("export.json", "\"case\": \"26-CR-7731\"", "\"case\": \"26-CR-7732\"");
    assert!(named.starts_with("receipts/"), "receipts of another case: {named}");
    // A receipt with another's name, and a document that is not the approved one.
    let mut swapped = files.clone();
    let at: Vec<usize> = (0..swapped.len()).filter(|i| swapped[*i].name.ends_with(".receipt")).collect();
    let first = swapped[at[0]].bytes.clone();
    swapped[at[0]].bytes = std::mem::replace(&mut swapped[at[1]].bytes, first);
    assert_eq!(refused(city, folder, &seal(&swapped, &key, 1_795_000_000_000).unwrap()), "export.json");
    let (name, named) = forge(".yaml", "C1", "C9");
    assert_eq!(named, name);
}
