#![allow(clippy::unwrap_used, clippy::expect_used)]
use super::*;
use crate::gateway::testing::{CHAIN, HANDLE, Pair, agency};
use concordat_protocol::codes;
use concordat_protocol::keys::{SigningKey, Suite};
use serde_json::json;

/// A whole, true answer, and what the own node says of it.
struct Case {
    pair: Pair,
    consumer: AgencyId,
    request: Request,
    key: KeyView,
    entry: LogEntry,
    released: Released,
    content: Content,
}

impl Case {
    fn new() -> Self {
        let pair = Pair::new();
        let request = pair.request(70, 3);
        let (released, content) = pair.disclosed(&request, &[json!({"stop_id": "17-1"}), json!({"stop_id": "17-2"})]);
        let released = pair.seal(&mut pair.sender(70), &request, released, &content, (5821, 58));
        let (key, entry) = (pair.key_view(), pair.entry(&released));
        Self { pair, consumer: agency("court"), request, key, entry, released, content }
    }

    fn run(&self) -> Result<Content, ProofError> {
        let x = self.pair.expected(&self.consumer, &self.request, &self.key, &self.entry);
        let checked = check(&x, &self.released)?;
        let scope = format!("session/{}", self.request.session);
        let receiver = SealReceiver::new(&self.pair.kem, &self.released.encapsulation, CHAIN, &scope, 0);
        let receiver = receiver.map_err(|e| ProofError { check: "seal", sentence: e.to_string() })?;
        open(&x, &self.released, &checked, &receiver)
    }

    /// The executor's own signature over whatever it claims.
    fn resign(&mut self) {
        let opened: Redacted = cbor::decode(&self.released.openings).unwrap();
        let content_root = opened.get(leaf::CONTENT_ROOT).unwrap().try_into().unwrap();
        let release =
            Release { request_hash: self.request.hash(), op_hash: self.released.ticket.op_hash, content_root };
        self.released.release_signature =
            self.pair.release.sign(Statement::Release, CHAIN, &cbor::encode(&release)).ed25519;
    }
}

#[test]
fn a_true_answer_opens() {
    let case = Case::new();
    assert_eq!(case.run().unwrap(), case.content);
}

/// Each part forged, with the check that must notice.
#[test]
fn every_forged_part_is_noticed_by_its_check() {
    type Forge = fn(&mut Case);
    let forgeries: Vec<(&str, Forge)> = vec![
        ("ticket", |c| c.released.ticket.chain = "town".into()),
        ("ticket", |c| c.released.ticket.height += 1),
        ("op_hash", |c| c.released.ticket.op_hash[0] ^= 1),
        ("op_hash", |c| c.released.op.0[9] ^= 1),
        ("op_hash", |c| c.released.op.0.push(0)),
        ("commitment", |c| *c.released.openings.0.last_mut().unwrap() ^= 1),
        ("release_key", |c| c.released.release_key.0[0] ^= 1),
        ("release_key", |c| c.key.agency = agency("grid")),
        ("release_key", |c| c.key.role = KeyRole::Envelope),
        ("release_key", |c| c.key.revoked_ms = 1),
        ("release_signature", |c| c.released.release_signature.0[7] ^= 1),
        ("release_signature", |c| c.released.release_signature.0.truncate(63)),
        ("ticket", |c| c.entry.op_hash[3] ^= 1),
        ("ticket", |c| c.entry.writer = "grid/executor".into()),
        ("verdict", |c| (c.entry.verdict, c.entry.code) = (Verdict::Refused, codes::SUSPENDED)),
        ("clause", |c| c.released.clause = "AGR-2026-0142/C2".into()),
        ("clause", |c| c.pair.agreements[0].handles[0] = HANDLE + 1),
        ("seal", |c| *c.released.sealed.0.last_mut().unwrap() ^= 1),
        ("seal", |c| c.released.encapsulation.0[40] ^= 1),
        ("seal", |c| c.released.encapsulation.0.truncate(100)),
    ];
    for (i, (check, forge)) in forgeries.into_iter().enumerate() {
        let mut case = Case::new();
        forge(&mut case);
        assert_eq!(case.run().expect_err("accepted").code(), check, "forgery {i}");
    }
}

/// A provider that signs whatever it likes: what it answers must still be about this request and this content.
#[test]
fn a_lying_provider_cannot_answer_another_request() {
    for n in [2, 4] {
        let mut case = Case::new();
        let other = case.pair.request(70, n);
        let (released, content) = case.pair.disclosed(&other, &[]);
        case.released = case.pair.seal(&mut case.pair.sender(70), &other, released, &content, (5821, 58));
        case.entry = case.pair.entry(&case.released);
        case.resign();
        assert_eq!(case.run().unwrap_err().code(), "operation", "a true answer to request {n} is none to request 3");
    }
    for change in [
        |r: &mut Request| r.purpose = "purp:other".into(),
        |r: &mut Request| r.case = "26-CR-1".into(),
        |r: &mut Request| r.query_hash = [9; 32],
    ] {
        let mut case = Case::new();
        let mut other = case.request.clone();
        change(&mut other);
        let (released, content) = case.pair.disclosed(&other, &[]);
        case.released = case.pair.seal(&mut case.pair.sender(70), &other, released, &content, (5821, 58));
        case.entry = case.pair.entry(&case.released);
        case.resign();
        assert_eq!(case.run().unwrap_err().code(), "request");
    }
}

#[test]
fn other_rows_than_committed_are_refused_though_well_sealed() {
    let mut case = Case::new();
    let mut sender = case.pair.sender(70);
    for rows in [vec![json!({"stop_id": "17-1"})], vec![json!({"stop_id": "17-1"}), json!({"stop_id": "17-3"})]] {
        let (_, other) = case.pair.disclosed(&case.request, &rows);
        let other = Content { secret: case.content.secret, ..other };
        let request = Request { n: case.request.n, ..case.request.clone() };
        let sealed = sender.seal(request.n, &request.hash(), &cbor::encode(&other));
        case.released.encapsulation = sender.encapsulation().to_vec().into();
        case.released.sealed = sealed.unwrap().into();
        assert_eq!(case.run().unwrap_err().code(), "content_root");
        sender = case.pair.sender(70);
    }
}

#[test]
fn without_the_own_nodes_word_nothing_is_believed() {
    let case = Case::new();
    let x = case.pair.expected(&case.consumer, &case.request, &case.key, &case.entry);
    assert_eq!(check(&Expected { entry: None, ..x }, &case.released).unwrap_err().code(), "ticket");
    assert_eq!(check(&Expected { key: None, ..x }, &case.released).unwrap_err().code(), "release_key");
    assert_eq!(check(&Expected { agreements: &[], ..x }, &case.released).unwrap_err().code(), "clause");
    let stranger = SigningKey::generate(Suite::Ed25519).unwrap();
    let key = KeyView { key: stranger.public().clone(), ..case.key.clone() };
    assert_eq!(check(&Expected { key: Some(&key), ..x }, &case.released).unwrap_err().code(), "release_key");
}
