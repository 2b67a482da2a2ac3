//! Attacks of those who are let in: guessing hidden rows through errors, old approvals used again,
//! documents that ask for fewer signatures.

use crate::World;
use crate::queries::{original, with};
use crate::writes::Cases;
use concordat_broker::ledger::LedgerError;
use concordat_broker::ledger::acts::sign_act;
use concordat_protocol::acts::{Act, ActBody, ApprovalKind};
use concordat_protocol::cbor;
use concordat_protocol::codes;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::node::AgreementView;
use concordat_protocol::ops::{Batch, Op, Tx};
use concordat_protocol::session::{QueryReply, Released};
use concordat_tests::harness::{Agreement, City, OwnSession, act, provider_call, streams, subject, submit_act, wait};
use serde_json::{Value, json};

/// Members that differ between any two answers, whatever was asked: places, times and secrets of their own.
const OWN: [&str; 15] = [
    "operation",
    "receipt",
    "height",
    "released_after_ms",
    "request_id",
    "content_secret",
    "instance",
    "n",
    "session",
    "asked_at_ms",
    "time",
    "tick_ms",
    "seq",
    "op_hash",
    "checkpoint",
];

/// An answer as its caller sees it.
struct Said {
    status: u16,
    headers: Vec<String>,
    text: String,
    body: Value,
}

impl Said {
    fn by_clerk(city: &City, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Self {
        let token = city.tokens("court").into_iter().find(|t| t.name == "clerk").expect("a clerk").token;
        let request = reqwest::Client::new()
            .request(method.parse().unwrap(), format!("http://{}{path}", city.config("court").listen))
            .bearer_auth(token);
        let request = headers.iter().fold(request, |r, (name, value)| r.header(*name, *value));
        let request = body.into_iter().fold(request, |r, body| r.json(body));
        wait(async {
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            let mut headers: Vec<String> = answer.headers().keys().map(|k| k.as_str().to_owned()).collect();
            headers.sort();
            let text = answer.text().await.unwrap();
            let body = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
            Self { status, headers, text, body }
        })
    }

    /// All that is public about it, without what is of this answer only and without the key that was asked for.
    fn bare(&self, key: &str) -> (u16, Vec<String>, String) {
        let mut text = self.text.clone();
        blank(&self.body, &mut text);
        (self.status, self.headers.clone(), text.replace(key, "KEY"))
    }

    fn op(&self) -> u64 {
        let op = self.body["operation"].as_str().unwrap_or_else(|| panic!("no operation: {}", self.text));
        op.trim_start_matches("op:").parse().unwrap()
    }
}

fn blank(value: &Value, text: &mut String) {
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            if OWN.contains(&name.as_str()) {
                *text = text.replace(&format!("\"{name}\":{value}"), &format!("\"{name}\":*"));
            } else {
                blank(value, text);
            }
        }),
        Value::Array(list) => list.iter().for_each(|value| blank(value, text)),
        _ => {}
    }
}

/// What the ledger shows to everybody of an operation, but for the place of its request: its kind, and how many bytes it has.
fn recorded(city: &City, index: u64) -> (&'static str, usize) {
    let entry = city.entry("court", index);
    let txs = city.rpc("court").block(entry.height);
    let batches = txs.iter().filter_map(|tx| match cbor::decode::<Tx>(tx) {
        Ok(Tx::Batch { body, .. }) => cbor::decode::<Batch>(&body).ok(),
        _ => None,
    });
    let mut op = batches.flat_map(|b| b.ops).find(|op| op.hash() == entry.op_hash).expect("the operation of its entry");
    let kind = match &mut op {
        Op::Query { n, .. } => (n, "query"),
        Op::Deny { n, .. } => (n, "deny"),
        other => panic!("{other:?}"),
    };
    // A greater number takes more bytes.
    *kind.0 = 0;
    (kind.1, cbor::encode(&op).len())
}

/// k-9 is there and outside the rows of the clause, k-7 is nowhere.
pub fn a_hidden_record_answers_like_one_that_is_not_there(world: &World) {
    let city = world.shared();
    let cases = Cases::new(city, "guessed-cases", "AGR-2026-9586");
    let purpose = cases.agreement.purpose.as_str();
    let query = |changes: Value| {
        let body = json!({"dataset": cases.dataset, "purpose": purpose, "where": {"case_no": {"eq": "KEY"}}});
        ("POST", "/v1/queries".to_owned(), vec![], Some(with(body, changes)))
    };
    let write = |method: &'static str, if_match: &'static str, patch: Value| {
        let body = Some(patch).filter(|p| !p.is_null());
        (method, cases.path("KEY"), vec![("concordat-purpose", purpose), ("if-match", if_match)], body)
    };
    let insert = |data: Value| ("POST", cases.path(""), vec![("concordat-purpose", purpose)], Some(data));
    let version = "\"00000000000000000000000000000000\"";
    // Each question, what it is answered, and whether it has an entry on the ledger.
    let questions = [
        (query(json!({})), 200, true),
        (query(json!({"include": ["version"]})), 200, true),
        (query(json!({"order": "-key", "limit": 1})), 200, true),
        (query(json!({"where": {"case_no": {"prefix": "KEY"}}, "limit": 1})), 200, true),
        (query(json!({"where": {"and": [{"case_no": "KEY"}, {"precinct": "9"}]}})), 200, true),
        (query(json!({"where": {"and": [{"case_no": "KEY"}, {"secret": "s9"}]}})), 403, true),
        (query(json!({"where": {"and": [{"case_no": "KEY"}, {"not": {"secret": "s9"}}]}})), 403, true),
        (query(json!({"select": ["secret"]})), 403, true),
        (query(json!({"purpose": "purp:curiosity"})), 403, true),
        (query(json!({"where": {"case": "KEY"}})), 422, false),
        (write("PATCH", "*", json!({"note": "x"})), 412, true),
        (write("PATCH", version, json!({"note": "x"})), 412, true),
        (write("PATCH", "*", json!({"precinct": "1"})), 412, true),
        (write("PATCH", "*", json!({"state": "lost"})), 412, true),
        (write("PATCH", "*", json!({"secret": "x"})), 403, true),
        (write("PATCH", "*", json!({"nosuch": 1})), 403, true),
        (write("PATCH", "*", json!({"case_no": "k-8"})), 412, true),
        (write("DELETE", "*", Value::Null), 403, true),
        (insert(json!({"case_no": "KEY", "precinct": "9", "state": "open"})), 403, true),
        (insert(json!({"case_no": "KEY", "precinct": "1", "state": "lost"})), 422, false),
    ];
    for ((method, path, headers, body), status, on_ledger) in questions {
        let [hidden, missing] = ["k-9", "k-7"].map(|key| {
            let body = body.as_ref().map(|b| serde_json::from_str(&b.to_string().replace("KEY", key)).unwrap());
            let said = Said::by_clerk(city, method, &path.replace("KEY", key), &headers, body.as_ref());
            let public = said.bare(key);
            let later = on_ledger.then(|| {
                let op = said.op();
                let why = Said::by_clerk(city, "GET", &format!("/v1/decisions/op:{op}"), &[], None);
                let shown = Said::by_clerk(city, "GET", &format!("/v1/operations/op:{op}"), &[], None);
                (why.bare(key), shown.bare(key), recorded(city, op))
            });
            (public, later)
        });
        assert_eq!(hidden, missing, "{method} {path} {body:?}");
        assert_eq!(hidden.0.0, status, "{method} {path} {body:?}: {}", hidden.0.2);
        assert!(!hidden.0.2.contains("\"rows\":[{"), "{}", hidden.0.2);
    }
    // A record that the clause opens answers otherwise: the comparison sees differences.
    let body = json!({"dataset": cases.dataset, "purpose": purpose, "where": {"case_no": {"eq": "k-1"}}});
    let open = Said::by_clerk(city, "POST", "/v1/queries", &[], Some(&body));
    assert!(open.bare("k-1").2.contains("\"rows\":[{"), "{}", open.text);
}

pub fn what_travels_tells_a_hidden_row_from_none_by_nothing(world: &World) {
    let city = world.shared();
    let mut agreement = Agreement::new("AGR-2026-9587", "guessed-stops");
    agreement.duties.push("{type: require-filter, any_of: [stop_id, {time: 24h}]}".into());
    agreement.duties.push("{type: row-filter, where: {precinct: {in: [\"1\", \"2\"]}}}".into());
    agreement.activate(city);
    let file = original(city);
    let of = |precincts: &[&str]| {
        let found = file.iter().find(|(id, (_, p))| id.len() == 9 && precincts.contains(&p.as_str()));
        found.expect("a stop").0.clone()
    };
    let (open, hidden) = (of(&["1", "2"]), of(&["3", "4", "5"]));
    let missing = format!("{}x", &hidden[..8]);
    assert!(!file.contains_key(&missing));
    let (session, nats) = (OwnSession::open(city, "court"), streams(city, "court"));
    let [open, hidden, missing] = [(1, open), (2, hidden), (3, missing)].map(|(n, stop)| {
        let document = OwnSession::document(&stop, 7);
        let call = session.call(&session.key, session.request(n, &agreement.purpose, &document), &document);
        match provider_call(&nats, subject(), cbor::encode(&call)) {
            Some(QueryReply::Released { body }) => sizes(city, &body),
            other => panic!("{stop}: {other:?}"),
        }
    });
    assert_eq!(hidden, missing, "bytes of the operation, its openings, the sealed answer; kind and size on the ledger");
    assert!(open.2 > hidden.2, "an answer with a row is longer: the comparison sees differences");
}

fn sizes(city: &City, r: &Released) -> (usize, usize, usize, (&'static str, usize)) {
    (r.op.len(), r.openings.len(), r.sealed.len(), recorded(city, r.ticket.log_index))
}

/// Sets the roles that police always need; they are as they were when it is dropped.
struct Always<'a>(&'a City);

impl<'a> Always<'a> {
    fn needed(city: &'a City, roles: &[&str]) -> Self {
        let always = Self(city);
        always.set(roles);
        always
    }

    fn set(&self, roles: &[&str]) {
        let roles = roles.iter().map(|r| (*r).to_owned()).collect();
        act(self.0, "police", &self.0.key("police", "gateway"), ActBody::Roles { roles }).expect("the roles are set");
    }
}

impl Drop for Always<'_> {
    fn drop(&mut self) {
        self.set(&[]);
    }
}

pub fn a_document_drops_no_role_that_its_agency_always_needs(world: &World) {
    let city = world.shared();
    let agreement = Agreement::new("AGR-2026-9588", "threshold");
    agreement.activate(city);
    let _always = Always::needed(city, &["data-steward", "legal"]);
    let next = Agreement { version: 2, purpose: "purp:threshold-two".into(), ..agreement.clone() };
    let path = city.dir("police").join("agreements/AGR-2026-9588.yaml");
    let propose = |text: &str, version: &str| {
        std::fs::write(&path, text.replace("version: 2", version)).unwrap();
        let path = path.to_string_lossy().into_owned();
        [("police", &path), ("court", &path)]
            .map(|(agency, path)| city.at(agency, &["agreement", "propose", path, "--output", "json"]))
    };
    let whole = next.yaml();
    for fewer in ["assigner: [legal]", "assigner: [data-steward]"] {
        let text = whole.replace("assigner: [legal, data-steward]", fewer);
        assert_ne!(text, whole);
        for (text, version) in [(&text, "version: 2"), (&text, "version: 3")] {
            for said in propose(text, version) {
                let problem = said.ends(3).problem();
                assert_eq!(problem["ledger_code"], u64::from(codes::APPROVAL), "{fewer}: {problem}");
            }
        }
    }
    let versions =
        || view_of(city, &agreement).into_iter().map(|v| (v.version, v.status.to_string())).collect::<Vec<_>>();
    assert_eq!(versions(), [(1, "active".to_owned())], "nothing of it is even proposed");
    // With all roles it is proposed, and version 1 stands until the last of them has signed.
    next.propose(city);
    for (agency, role) in [("police", "legal"), ("court", "legal")] {
        city.at(agency, &["agreement", "approve", &next.id, "--role", role]).done();
    }
    assert_eq!(versions(), [(1, "active".to_owned()), (2, "proposed".to_owned())]);
    city.at("police", &["agreement", "approve", &next.id, "--role", "data-steward"]).done();
    next.reaches(city, "court", "active");
    agreement.reaches(city, "court", "superseded");
}

/// The versions of an agreement as police's node has them.
fn view_of(city: &City, agreement: &Agreement) -> Vec<AgreementView> {
    let all = wait(city.node("police").agreements()).unwrap();
    all.into_iter().filter(|v| v.agreement.as_str() == agreement.id).collect()
}

/// The approvals that stand, as the transactions that brought them, byte for byte: anybody reads them off the ledger.
fn approvals(city: &City, agreement: &Agreement) -> Vec<Vec<u8>> {
    let approvals = view_of(city, agreement).remove(0).approvals;
    assert_eq!(approvals.len(), 3);
    let signature = |bytes: &[u8]| cbor::decode(bytes).expect("a signature");
    approvals.into_iter().map(|a| cbor::encode(&Tx::Act { signature: signature(&a.signature), body: a.act })).collect()
}

/// Sends the exact bytes of an act once more, to every node: each knows the bytes, or finds their number used.
fn replayed(city: &City, tx: &[u8]) {
    for agency in ["court", "grid", "police", "transport"] {
        match city.rpc(agency).submit(tx) {
            Ok(code) => assert_eq!(code, u64::from(codes::STALE), "{agency}"),
            Err(e) => assert!(e.contains("cache"), "{agency}: {e}"),
        }
    }
}

pub fn an_old_approval_resumes_nothing(world: &World) {
    let city = world.shared();
    let agreement = Agreement::new("AGR-2026-9589", "old-approval");
    agreement.activate(city);
    let id = agreement.id.as_str();
    let key = city.key("police", "approver-legal");
    let signed = |body: ActBody| {
        let counter = wait(city.node("police").counters(key.key_id())).unwrap().1 + 1;
        sign_act(&city.chain(), &AgencyId::new("police").unwrap(), &key, counter, body).unwrap()
    };
    let ask = json!({"dataset": "ds:police/stops@1", "purpose": agreement.purpose, "where": {"stop_id": "17-089556"}});
    let stays_suspended = |what: &str| {
        let view = view_of(city, &agreement).remove(0);
        assert_eq!(view.status.to_string(), "suspended", "{what}");
        let denied = city.api("court", "clerk").query(&ask).is(403);
        assert_eq!(denied.body["ledger_code"], u64::from(codes::SUSPENDED), "{what}: {}", denied.body);
        view.revision
    };
    let refused = |tx: &[u8]| match submit_act(city, "police", tx) {
        Err(LedgerError::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    };
    let activating = approvals(city, &agreement);
    // One more, signed for the state before the suspension and kept back: its number is still free.
    let before = view_of(city, &agreement).remove(0);
    let kept = ActBody::Approve {
        agreement: before.agreement.clone(),
        version: 1,
        revision: before.revision,
        what: ApprovalKind::Resume,
        terms_hash: before.terms_hash,
        prev_terms_hash: [0; 32],
        role: "legal".into(),
        expires_ms: city.tick_ms() + 600_000,
    };
    let kept = signed(kept);
    city.at("court", &["agreement", "suspend", id, "--reason", "a test"]).done();
    agreement.reaches(city, "police", "suspended");
    let revision = stays_suspended("at first");
    for tx in &activating {
        replayed(city, tx);
    }
    assert_eq!(refused(&kept), codes::APPROVAL, "an approval of the state before");
    assert_eq!(stays_suspended("after old approvals"), revision);
    let resume = |city: &City| {
        for (agency, role) in [("police", "legal"), ("police", "data-steward"), ("court", "legal")] {
            city.at(agency, &["agreement", "resume", id, "--role", role]).done();
        }
        agreement.reaches(city, "police", "active");
    };
    resume(city);
    city.api("court", "clerk").query(&ask).is(200);
    // Resumed once, suspended again: those who resumed it then have not said so again.
    let resuming = approvals(city, &agreement);
    city.at("police", &["agreement", "suspend", id, "--reason", "a second test"]).done();
    agreement.reaches(city, "court", "suspended");
    let revision = stays_suspended("again");
    for tx in resuming.iter().chain(&activating) {
        replayed(city, tx);
    }
    // The same words under a new number, as one would sign who is shown an old paper.
    let old = resuming.iter().find_map(|tx| match cbor::decode(tx) {
        Ok(Tx::Act { body, .. }) => cbor::decode::<Act>(&body).ok().filter(|a| a.key_id == key.key_id()),
        _ => None,
    });
    assert_eq!(refused(&signed(old.expect("police's own").body)), codes::APPROVAL);
    assert_eq!(stays_suspended("after old resumptions"), revision);
}
