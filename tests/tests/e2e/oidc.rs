//! People sign in at a real issuer: `oidc-provider` of npm, run by node (`tests/outside/oidc`).

use crate::World;
use crate::queries::stops;
use concordat_protocol::acts::ActBody;
use concordat_protocol::hash::sha256;
use concordat_tests::harness::{Client, SOON, act, until, wait};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const AUDIENCE: &str = "urn:concordat:court";
const ROLE_MAP: &str = "version: 1
roles:
- role: clerk
  any_of: [{claim: groups, has: court-clerks}]
- role: operator
  any_of: [{claim: groups, has: court-it}]
  step_up: {acr: ['urn:example:mfa'], max_age_s: 900}
- role: auditor
  any_of: [{claim: groups, has: court-it}]
";

/// Where what was fetched once is kept.
pub fn cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    base.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache")).join("concordat")
}

/// Runs a command; the error is its last line.
pub fn run(command: &mut Command) -> Result<(), String> {
    let out = command.output().map_err(|e| format!("{}: {e}", command.get_program().display()))?;
    let said = String::from_utf8_lossy(&out.stderr);
    if out.status.success() { Ok(()) } else { Err(said.lines().last().unwrap_or_default().to_owned()) }
}

/// The issuer's folder with its pinned packages, made once for each content of package-lock.json.
pub fn issuer_folder() -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("outside/oidc");
    let lock = std::fs::read(source.join("package-lock.json")).unwrap();
    let folder = cache().join(format!("oidc-provider-{}", &hex::encode(sha256(&[&lock]))[..16]));
    run(Command::new("node").arg("--version"))?;
    std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
    for file in ["package.json", "package-lock.json", "issuer.mjs"] {
        std::fs::copy(source.join(file), folder.join(file)).map_err(|e| e.to_string())?;
    }
    if !folder.join("complete").exists() {
        run(Command::new("npm").args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(&folder))?;
        std::fs::write(folder.join("complete"), "").map_err(|e| e.to_string())?;
    }
    Ok(folder)
}

/// A running issuer, ended when dropped. Each start has new keys.
pub struct Issuer {
    process: Child,
    pub url: String,
}

impl Issuer {
    pub fn start(folder: &Path, port: u16) -> Self {
        let mut command = Command::new("node");
        command.arg("issuer.mjs").arg(port.to_string()).current_dir(folder);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("node");
        let mut url = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut url).unwrap();
        assert!(url.starts_with("http://127.0.0.1:"), "the issuer did not start: {url}");
        Self { process, url: url.trim().to_owned() }
    }

    fn port(&self) -> u16 {
        self.url.rsplit_once(':').unwrap().1.parse().unwrap()
    }

    /// An access token of the client for a resource.
    pub fn token(&self, client: &str, resource: &str) -> String {
        let asked = format!("grant_type=client_credentials&resource={resource}");
        let request = reqwest::Client::new().post(format!("{}/token", self.url)).body(asked);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let request = request.basic_auth(client, Some("secret-of-the-tests"));
        let answer: Value = wait(async { request.send().await.unwrap().json().await.unwrap() });
        answer["access_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Who the caller is, once the ledger names the role map. Until then the broker vouches for nobody.
fn vouched(person: &Client) -> Value {
    until("the role map is on the ledger", SOON, || {
        let answer = person.get("/v1/whoami");
        match answer.status {
            200 => Ok(answer.body),
            503 if answer.body["code"] == "role-map-not-recorded" => Err(answer.body),
            _ => panic!("{}: {}", answer.status, answer.body),
        }
    })
}

pub fn roles_count_while_the_ledger_names_their_map(world: &World) {
    let folder = match issuer_folder() {
        Ok(folder) => folder,
        Err(why) => return eprintln!("SKIPPED oidc: roles_count_while_the_ledger_names_their_map: {why}"),
    };
    let issuer = Issuer::start(&folder, 0);
    let city = world.shared();
    let (dir, listen) = (city.dir("court"), city.config("court").listen);
    let before = std::fs::read_to_string(dir.join("node.yaml")).unwrap();
    // Another map than other tests have.
    let map = |n: u8| format!("{ROLE_MAP}# {n}\n");
    std::fs::write(dir.join("role-map.yaml"), map(1)).unwrap();
    let oidc = json!({"issuer": issuer.url, "audience": AUDIENCE});
    std::fs::write(dir.join("node.yaml"), format!("{before}\noidc: {oidc}\n")).unwrap();
    city.killed_and_back("court", "broker");
    let anna = Client::new(&listen, &issuer.token("anna", AUDIENCE));
    let nobody = Client::new(&listen, &issuer.token("nobody", AUDIENCE));
    let hash = |map: &str| hex::encode(sha256(&[map.as_bytes()]));
    let recorded = || {
        let list = city.api("police", "clerk").get("/v1/role-maps/court").is(200).body;
        list["role_maps"].as_array().unwrap().clone()
    };

    // The broker recorded it by itself: once, as every other agency sees.
    let me = vouched(&anna);
    let first = recorded().pop().unwrap();
    assert_eq!((&first["sha256"], &me["role_map"]), (&json!(hash(&map(1))), &first), "{me}");
    let number = first["number"].as_u64().unwrap();
    let shown = city.at("court", &["role-map", "show", "--output", "json"]).done().json();
    assert_eq!((&shown["in_force"], &shown["file_sha256"]), (&json!(true), &first["sha256"]), "{shown}");
    assert_eq!(shown["operation"], first["operation"]);
    let asked = anna.query(&stops()).is(200).text("operation");

    // A broker with another file: this one vouches for nobody, and does not take its own map back.
    let other = ActBody::RoleMap { number: number + 1, sha256: [9; 32] };
    act(city, "court", &city.key("court", "gateway"), other).unwrap();
    until("the broker sees it", SOON, || {
        let answer = anna.get("/v1/whoami");
        if answer.status == 503 { Ok(()) } else { Err(answer.body) }
    });
    let refused = anna.query(&stops()).is(503).body;
    assert_eq!(refused["code"], "role-map-not-recorded", "{refused}");
    let strong = Client::new(&listen, &issuer.token("boss-strong", AUDIENCE));
    strong.get("/admin/v1/dead-letters").is(503);
    nobody.get("/v1/whoami").is(200);
    city.api("court", "clerk").query(&stops()).is(200);
    let own = city.api("court", "operator").get("/admin/v1/role-map").is(200).body;
    assert_eq!((&own["in_force"], &own["recorded"]["number"]), (&json!(false), &json!(number + 1)), "{own}");
    city.at("court", &["role-map", "show"]).ends(7);

    // The file changes: one more entry, and roles count again, without a restart.
    std::fs::write(dir.join("role-map.yaml"), map(2)).unwrap();
    let me = vouched(&anna);
    assert_eq!((&me["role_map"]["sha256"], &me["role_map"]["number"]), (&json!(hash(&map(2))), &json!(number + 2)));
    assert_eq!(recorded().len() as u64, number + 2, "each number once");
    let later = anna.query(&stops()).is(200).text("operation");
    // Each operation is shown with the map that was in force then.
    for (op, want) in [(asked, number), (later, number + 2)] {
        let shown = anna.get(&format!("/v1/operations/{op}")).is(200).body;
        assert_eq!(shown["role_map"]["number"], want, "{shown}");
    }
    // One that cannot be read leaves the one in use.
    std::fs::write(dir.join("role-map.yaml"), "version: 9\nroles: []\n").unwrap();
    until("the broker says so", SOON, || {
        let log = city.log("court", "broker");
        if log.contains("the role map read before stays in use") { Ok(()) } else { Err("not yet") }
    });
    anna.get("/v1/whoami").is(200);
    std::fs::write(dir.join("node.yaml"), before).unwrap();
    city.killed_and_back("court", "broker");
}

pub fn people_sign_in_at_a_real_issuer(world: &World) {
    let folder = match issuer_folder() {
        Ok(folder) => folder,
        Err(why) => return eprintln!("SKIPPED oidc: people_sign_in_at_a_real_issuer: {why}"),
    };
    let issuer = Issuer::start(&folder, 0);
    let city = world.shared();
    let (file, listen) = (city.dir("court").join("node.yaml"), city.config("court").listen);
    let before = std::fs::read_to_string(&file).unwrap();
    std::fs::write(city.dir("court").join("role-map.yaml"), ROLE_MAP).unwrap();
    let oidc = json!({"issuer": issuer.url, "audience": AUDIENCE});
    std::fs::write(&file, format!("{before}\noidc: {oidc}\n")).unwrap();
    city.killed_and_back("court", "broker");

    let by = |token: &str| Client::new(&listen, token);
    let anna = issuer.token("anna", AUDIENCE);
    let me = vouched(&by(&anna));
    assert_eq!((&me["name"], &me["roles"], &me["by"]), (&json!("oidc:anna"), &json!(["clerk"]), &json!("issuer")));
    assert_eq!(me["role_map_sha256"], hex::encode(sha256(&[ROLE_MAP.as_bytes()])));
    // A person's query is answered, recorded under their name here, and under a pseudonym elsewhere.
    let op = by(&anna).query(&stops()).is(200).text("operation");
    let shown = by(&anna).get(&format!("/v1/operations/{op}")).is(200).body;
    assert_eq!(shown["request"]["asked_by"], "oidc:anna", "{shown}");
    let others = city.api("court", "clerk").get(&format!("/v1/operations/{op}")).is(200).body;
    assert!(others["request"].is_null(), "a clerk with a token is somebody else: {others}");

    // Who has the record sees a pseudonym; behind it looks the agency's own oversight, and that is kept.
    let receipt = until("a receipt", SOON, || {
        let answer = by(&anna).get(&format!("/v1/operations/{op}/receipt"));
        if answer.status == 200 { Ok(answer.bytes) } else { Err(answer.body) }
    });
    let at = receipt.windows(4).position(|w| w == b"psn:").expect("a pseudonym");
    let pseudonym = std::str::from_utf8(&receipt[at..at + 36]).unwrap();
    let auditor = by(&issuer.token("boss-weak", AUDIENCE));
    let month = concordat_broker::people::actors::month(city.tick_ms());
    let look =
        |provider: &str| json!({"pseudonym": pseudonym, "provider": provider, "month": month, "reason": "complaint 7"});
    let person = auditor.post("/admin/v1/actors/open", &look("police")).is(200).body;
    assert_eq!(
        (&person["name"], person["operations"].as_array().map(|o| o.contains(&json!(op)))),
        (&json!("oidc:anna"), Some(true))
    );
    assert_eq!(
        auditor.post("/admin/v1/actors/open", &look("grid")).is(404).body["code"],
        "unknown-actor",
        "elsewhere another"
    );
    by(&anna).post("/admin/v1/actors/open", &look("police")).is(403);
    let looks = auditor.get("/admin/v1/actors/openings").is(200).body;
    let found: Vec<&Value> = looks["openings"].as_array().unwrap().iter().map(|l| &l["found"]).collect();
    assert_eq!((found, &looks["openings"][0]["reason"]), (vec![&json!(false), &json!(true)], &json!("complaint 7")));

    // A role may wait for a stronger or fresher sign-in.
    let letters = |client: &str| by(&issuer.token(client, AUDIENCE)).get("/admin/v1/dead-letters");
    letters("boss-strong").is(200);
    for client in ["boss-weak", "boss-stale"] {
        assert_eq!(letters(client).is(401).body["code"], "step-up", "{client}");
    }
    assert_eq!(letters("anna").is(403).body["code"], "forbidden");
    by(&issuer.token("nobody", AUDIENCE)).query(&stops()).is(403);

    // What is not for this broker, not a JWT, or changed.
    let elsewhere = issuer.token("anna", "urn:concordat:grid");
    let mut forged = anna.clone().into_bytes();
    let at = forged.len() - 20;
    forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
    for token in [elsewhere, String::from_utf8(forged).unwrap()] {
        assert_eq!(by(&token).get("/v1/whoami").is(401).body["code"], "invalid-token");
    }
    by(&issuer.token("anna", "urn:concordat:court:opaque")).get("/v1/whoami").is(401);

    // New keys: new tokens are believed without a restart, old ones no longer.
    let port = issuer.port();
    drop(issuer);
    let issuer = Issuer::start(&folder, port);
    let fresh = issuer.token("anna", AUDIENCE);
    until("a token by the issuer's new key", SOON, || {
        let answer = by(&fresh).get("/v1/whoami");
        if answer.status == 200 { Ok(()) } else { Err(answer.body) }
    });
    assert_eq!(by(&anna).get("/v1/whoami").is(401).body["code"], "invalid-token");

    std::fs::write(&file, before).unwrap();
    city.killed_and_back("court", "broker");
    assert_eq!(by(&fresh).get("/v1/whoami").is(401).body["code"], "unauthorized", "no issuer, no people");
}
