//! Requests made by hand and sent over the real streams, past the gateway.

use crate::World;
use concordat_protocol::acts::ActBody;
use concordat_protocol::cbor;
use concordat_protocol::codes;
use concordat_protocol::hash::sha256;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::keys::{SigningKey, Suite};
use concordat_protocol::session::{QueryCall, QueryReply, Request};
use concordat_tests::harness::{Agreement, OwnSession, act, provider_call, streams, subject, wait};
use futures::StreamExt;
use serde_json::{Value, json};
use std::sync::OnceLock;

const STOP: &str = "17-089556";

/// The agreement of these tests, in force from the first of them on.
fn agreement(world: &World) -> &'static Agreement {
    static AGREEMENT: OnceLock<Agreement> = OnceLock::new();
    AGREEMENT.get_or_init(|| {
        let agreement = Agreement::new("AGR-2026-9401", "streams-test");
        agreement.activate(world.shared());
        agreement
    })
}

#[track_caller]
fn denied(reply: Option<QueryReply>, code: u16) {
    match reply {
        Some(QueryReply::Denied { body }) => assert_eq!(body.code, code, "{body:?}"),
        other => panic!("expected a denial with code {code}, got {other:?}"),
    }
}

#[track_caller]
fn released(reply: Option<QueryReply>) -> concordat_protocol::session::Released {
    match reply {
        Some(QueryReply::Released { body }) => body,
        other => panic!("expected data, got {other:?}"),
    }
}

pub fn a_forged_request_is_refused(world: &World) {
    let city = world.shared();
    let purpose = agreement(world).purpose.as_str();
    let session = OwnSession::open(city, "court");
    let nats = streams(city, "court");
    let document = OwnSession::document(STOP, 1);
    let send = |call: &QueryCall| provider_call(&nats, subject(), cbor::encode(call));
    let own = |request: Request| session.call(&session.key, request, &document);
    let before = city.log_size("police");
    let stranger = SigningKey::generate(Suite::Ed25519).unwrap();
    denied(send(&session.call(&stranger, session.request(1, purpose, &document), &document)), codes::BAD_SIGNATURE);
    let mut changed = own(session.request(1, purpose, &document));
    let other = session.request(1, "purp:pending-case", &document);
    changed.signed.request = cbor::encode(&other).into();
    denied(send(&changed), codes::BAD_SIGNATURE);
    let mut wider = own(session.request(1, purpose, &document));
    wider.query = OwnSession::document("17-089569", 1).into();
    denied(send(&wider), codes::BAD_VALUE);
    let foreign = Request { chain: "concordat-elsewhere".into(), ..session.request(1, purpose, &document) };
    denied(send(&own(foreign)), codes::WRONG_CHAIN);
    let invented = Request { session: 9_999_999, ..session.request(1, purpose, &document) };
    denied(send(&own(invented)), codes::SESSION_UNKNOWN);
    denied(provider_call(&nats, subject(), b"not a request".to_vec()), codes::NOT_CANONICAL);
    assert_eq!(city.log_size("police"), before, "who asked is not known, so nothing is recorded");
    released(send(&own(session.request(1, purpose, &document))));
}

pub fn a_replayed_request_discloses_nothing_new(world: &World) {
    let city = world.shared();
    let purpose = agreement(world).purpose.as_str();
    let session = OwnSession::open(city, "court");
    let nats = streams(city, "court");
    let send = |call: &QueryCall| provider_call(&nats, subject(), cbor::encode(call));
    let document = OwnSession::document(STOP, 1);
    let call = session.call(&session.key, session.request(1, purpose, &document), &document);
    let first = released(send(&call));
    let size = city.log_size("police");
    let again = released(send(&call));
    assert_eq!(again, first, "the same request gets the same bytes");
    assert_eq!(city.log_size("police"), size, "and no second operation");
    // Another request at a place that is used up.
    let other = OwnSession::document("17-089569", 2);
    denied(send(&session.call(&session.key, session.request(1, purpose, &other), &other)), codes::REPLAY);
    // One that is over by its own word.
    let late = Request { not_after_ms: 1, ..session.request(2, purpose, &other) };
    let reply = send(&session.call(&session.key, late, &other));
    assert!(matches!(reply, Some(QueryReply::Denied { .. })), "{reply:?}");
}

pub fn another_agency_gets_nothing(world: &World) {
    let city = world.shared();
    let purpose = agreement(world).purpose.as_str();
    let session = OwnSession::open(city, "court");
    let document = OwnSession::document(STOP, 1);
    let call = session.call(&session.key, session.request(1, purpose, &document), &document);
    let (court, grid) = (streams(city, "court"), streams(city, "grid"));
    // Grid listens wherever its account lets it while the court asks.
    let mut heard = wait(grid.subscribe(">")).unwrap();
    wait(grid.flush()).unwrap();
    released(provider_call(&court, subject(), cbor::encode(&call)));
    // Genuine bytes of the court, sent by grid: the streams' server names the sender, the provider compares.
    denied(provider_call(&grid, subject(), cbor::encode(&call)), codes::SESSION_UNKNOWN);
    // Under the court's name there is nobody for grid to speak to; whatever it names, it is known as grid.
    assert!(provider_call(&grid, "q.COURT.POLICE.stops_1".into(), cbor::encode(&call)).is_none());
    denied(provider_call(&grid, "query.POLICE.COURT.stops_1".into(), cbor::encode(&call)), codes::SESSION_UNKNOWN);
    // Grid heard its own messages only: none of the court's, none of the police's answers.
    let own = cbor::encode(&call);
    while let Ok(Some(message)) =
        wait(async { tokio::time::timeout(std::time::Duration::from_millis(200), heard.next()).await })
    {
        // Its own account tells it of its own consumers and streams.
        let of_streams = ["$JS.EVENT.", "$JS.API."].iter().any(|s| message.subject.starts_with(s));
        let advisory = of_streams && !message.subject.contains("POLICE") && !message.subject.contains("COURT");
        let is_own = message.payload == own || message.subject.starts_with("_INBOX") || advisory;
        assert!(is_own, "grid heard {}: {} bytes", message.subject, message.payload.len());
        let reply = cbor::decode::<QueryReply>(&message.payload);
        assert!(!matches!(reply, Ok(QueryReply::Released { .. })), "grid heard a released answer");
    }
    // Its own session does not make it a party of the agreement.
    let stranger = OwnSession::open(city, "grid");
    let call = stranger.call(&stranger.key, stranger.request(1, purpose, &document), &document);
    let reply = provider_call(&grid, subject(), cbor::encode(&call));
    assert!(matches!(reply, Some(QueryReply::Denied { .. })), "{reply:?}");
    // The password of one agency opens no other account.
    let cfg = city.config("police");
    let password = std::fs::read_to_string(city.dir("grid").join("keys/nats.password")).unwrap();
    let options = async_nats::ConnectOptions::with_user_and_password("police".into(), password.trim().to_owned());
    assert!(wait(options.connect(cfg.nats.url.as_str())).is_err(), "grid's password opened police's account");
    assert!(wait(async_nats::connect(cfg.nats.url.as_str())).is_err(), "nobody's account is open");
}

/// A gateway that vouches for roles by another map than its agency recorded.
pub fn roles_of_an_unrecorded_map_are_refused(world: &World) {
    let city = world.shared();
    let purpose = agreement(world).purpose.as_str();
    let (session, nats) = (OwnSession::open(city, "court"), streams(city, "court"));
    let ask = |n: u8, map: Option<[u8; 32]>| {
        let mut document: Value = serde_json::from_slice(&OwnSession::document(STOP, n)).unwrap();
        document.as_object_mut().unwrap().extend(map.map(|m| ("role_map".to_owned(), json!(hex::encode(m)))));
        let document = serde_json::to_vec(&document).unwrap();
        let request = session.request(u64::from(n), purpose, &document);
        provider_call(&nats, subject(), cbor::encode(&session.call(&session.key, request, &document)))
    };
    let refused = |reply: Option<QueryReply>| match reply {
        Some(QueryReply::Denied { body }) => {
            assert_eq!((body.code, body.reason.as_str()), (codes::CLAUSE, "role-map"), "{body:?}");
            body.operation.expect("it is recorded")
        }
        other => panic!("expected a denial, got {other:?}"),
    };
    let maps = wait(city.node("police").role_maps(&AgencyId::new("court").unwrap())).unwrap();
    let number = maps.last().map_or(0, |m| m.number);
    let map = |n: u64| sha256(&[b"role-map-test", &n.to_be_bytes()]);
    let record = |n: u64| {
        act(city, "court", &city.key("court", "gateway"), ActBody::RoleMap { number: n, sha256: map(n) }).unwrap();
    };
    refused(ask(1, Some([0xee; 32])));
    record(number + 1);
    released(ask(2, Some(map(number + 1))));
    let op = refused(ask(3, Some(map(number + 9))));
    let entry = city.entry("police", op);
    assert_eq!(entry.writer, "police/executor", "the attempt stands on the ledger");
    // A newer map: requests that were on their way under the one before are still answered, older ones not.
    record(number + 2);
    released(ask(4, Some(map(number + 2))));
    released(ask(5, Some(map(number + 1))));
    record(number + 3);
    released(ask(6, Some(map(number + 3))));
    refused(ask(7, Some(map(number + 1))));
    released(ask(8, None));
}
