//! Bad input straight at CometBFT's RPC and at the node's own socket: refused with its code, and nothing breaks.

use crate::World;
use concordat_protocol::acts::{Act, ActBody, KeyRole};
use concordat_protocol::cbor::{self, Bytes};
use concordat_protocol::codes;
use concordat_protocol::hash::sha256;
use concordat_protocol::ids::{AgencyId, DatasetId};
use concordat_protocol::keys::{SigningKey, Statement, Suite};
use concordat_protocol::node::{NodeReply, NodeRequest};
use concordat_protocol::ops::{Op, Tx};
use concordat_tests::harness::{City, SOON, act, batch_tx, register_key, register_writer, submit_act, until, wait};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A remark on the log's first entry: any writer may sign one, and nothing in the city depends on it.
fn remark(n: u8) -> Op {
    Op::Annotate { reference: 0, commitment: [n; 32] }
}

#[track_caller]
fn code(said: &Result<u64, String>, expected: u16) {
    assert_eq!(said.as_ref().ok().copied(), Some(u64::from(expected)), "{said:?}");
}

/// The ledger goes on: every node takes another block with an act in it.
fn still_well(city: &City) {
    let before = city.log_size("grid");
    let body =
        ActBody::Dataset { id: DatasetId::new(format!("ds:grid/well{before}@1")).unwrap(), schema_hash: [1; 32] };
    act(city, "grid", &city.key("grid", "gateway"), body).expect("the ledger takes acts");
    for agency in ["court", "grid", "police", "transport"] {
        until(&format!("{agency} follows"), SOON, || {
            let size = city.log_size(agency);
            if size > before { Ok(()) } else { Err(size) }
        });
    }
}

pub fn bad_batches_are_refused(world: &World) {
    let city = world.shared();
    let (chain, rpc) = (city.chain(), city.rpc("police"));
    let (writer, key) = register_writer(city, "police", "spare");
    let from = rpc.height();
    let (good, hash) = batch_tx(&chain, &writer, &key, 1, [0; 32], vec![remark(1), remark(2)]);
    // Forged, before the writer wrote anything.
    let stranger = SigningKey::generate(Suite::Ed25519).unwrap();
    code(&rpc.submit(&batch_tx(&chain, &writer, &stranger, 1, [0; 32], vec![remark(1)]).0), codes::BAD_SIGNATURE);
    let mut changed = good.clone();
    let at = changed.windows(32).position(|w| w == [1; 32]).unwrap();
    changed[at] ^= 1;
    code(&rpc.submit(&changed), codes::BAD_SIGNATURE);
    code(
        &rpc.submit(&batch_tx("concordat-elsewhere", &writer, &key, 1, [0; 32], vec![remark(1)]).0),
        codes::WRONG_CHAIN,
    );
    let nobody = concordat_protocol::ids::WriterId::new("police/nobody").unwrap();
    code(&rpc.submit(&batch_tx(&chain, &nobody, &key, 1, [0; 32], vec![remark(1)]).0), codes::UNKNOWN_WRITER);
    code(&rpc.submit(&batch_tx(&chain, &writer, &key, 1, [0; 32], vec![]).0), codes::BAD_VALUE);
    assert_eq!(city.writer("police", &writer).last_seq, 0);
    // A gap: let in, left out of blocks for 10 s, then included to be refused.
    let (gapped, _) = batch_tx(&chain, &writer, &key, 50, [7; 32], vec![remark(3)]);
    code(&rpc.submit(&gapped), codes::OK);
    // The good one, then the same bytes again at another agency's node: a success without effect.
    code(&rpc.submit(&good), codes::OK);
    let last_seq = |want: u64| {
        until(&format!("the writer is at {want}"), SOON, || {
            let view = city.writer("police", &writer);
            if view.last_seq == want { Ok(view) } else { Err(view.last_seq) }
        })
    };
    assert_eq!(last_seq(2).last_hash, hash);
    let elsewhere = city.rpc("court");
    until("the court's node has it", SOON, || {
        let seq = city.writer("court", &writer).last_seq;
        if seq == 2 { Ok(()) } else { Err(seq) }
    });
    let again = elsewhere.submit(&good);
    assert!(matches!(again, Ok(0 | 304)) || again.as_ref().is_err_and(|e| e.contains("cache")), "{again:?}");
    let refused = until("the gapped batch is out of the mempool", Duration::from_secs(40), || {
        rpc.included(&gapped, from).ok_or("not included")
    });
    assert_eq!(refused, u64::from(codes::GAP));
    assert_eq!(last_seq(2).last_hash, hash, "neither the gap nor the replay moved the writer");
    // Another batch in a place that is taken is stored as equivocation, and takes no effect.
    let (conflict, _) = batch_tx(&chain, &writer, &key, 1, [0; 32], vec![remark(9)]);
    code(&rpc.submit(&conflict), codes::OK);
    let refused = until("the conflicting batch is refused", Duration::from_secs(40), || {
        rpc.included(&conflict, from).ok_or("not included")
    });
    assert_eq!(refused, u64::from(codes::CONFLICT));
    // The wrong predecessor.
    let (unlinked, _) = batch_tx(&chain, &writer, &key, 3, [9; 32], vec![remark(4)]);
    let said = rpc.submit(&unlinked);
    let refused = match said {
        Ok(0) => until("the unlinked batch is refused", Duration::from_secs(40), || {
            rpc.included(&unlinked, from).ok_or("not included")
        }),
        other => other.expect("a code"),
    };
    assert_ne!(refused, 0);
    assert_eq!(last_seq(2).last_hash, hash);
    // It goes on where it was.
    code(&rpc.submit(&batch_tx(&chain, &writer, &key, 3, hash, vec![remark(5)]).0), codes::OK);
    last_seq(3);
    still_well(city);
}

pub fn bad_acts_are_refused(world: &World) {
    let city = world.shared();
    let rpc = city.rpc("transport");
    let (chain, agency) = (city.chain(), AgencyId::new("transport").unwrap());
    // A gateway's key of the test's own: the broker uses up numbers of the agency's.
    let gateway = register_key(city, "transport", KeyRole::Gateway, "bad-acts");
    let dataset = |name: &str| ActBody::Dataset {
        id: DatasetId::new(format!("ds:transport/{name}@1")).unwrap(),
        schema_hash: [2; 32],
    };
    let counters = || wait(city.node("transport").counters(gateway.key_id())).unwrap().1;
    let signed = |by: &SigningKey, named: &SigningKey, counter: u64, body: ActBody, chain: &str, agency: &AgencyId| {
        let act = Act { chain: chain.into(), agency: agency.clone(), key_id: named.key_id(), counter, body };
        let body = cbor::encode(&act);
        let signature = by.sign(Statement::Act, chain, &body);
        cbor::encode(&Tx::Act { body: Bytes(body), signature })
    };
    let next = counters() + 1;
    let stranger = SigningKey::generate(Suite::Ed25519).unwrap();
    code(&rpc.submit(&signed(&stranger, &gateway, next, dataset("a"), &chain, &agency)), codes::BAD_SIGNATURE);
    code(&rpc.submit(&signed(&stranger, &stranger, next, dataset("a"), &chain, &agency)), codes::UNKNOWN_KEY);
    code(
        &rpc.submit(&signed(&gateway, &gateway, next, dataset("a"), "concordat-elsewhere", &agency)),
        codes::WRONG_CHAIN,
    );
    let grid = AgencyId::new("grid").unwrap();
    code(&rpc.submit(&signed(&gateway, &gateway, next, dataset("a"), &chain, &grid)), codes::WRONG_AGENCY);
    // The gateway's key registers no keys.
    let role = KeyRole::Security;
    let key_add = ActBody::KeyAdd { role, label: "mine".into(), key: stranger.public().clone() };
    code(&rpc.submit(&signed(&gateway, &gateway, next, key_add, &chain, &agency)), codes::WRONG_ROLE);
    // A gap in the counter is let in, and refused once it has waited.
    let gapped = signed(&gateway, &gateway, next + 5, dataset("gap"), &chain, &agency);
    let from = rpc.height();
    code(&rpc.submit(&gapped), codes::OK);
    let good = signed(&gateway, &gateway, next, dataset("good"), &chain, &agency);
    submit_act(city, "transport", &good).expect("the next counter is taken");
    let again = rpc.submit(&good);
    assert!(matches!(again, Ok(304)) || again.as_ref().is_err_and(|e| e.contains("cache")), "{again:?}");
    let at_court = city.rpc("court");
    until("the court's node refuses the replay", SOON, || match at_court.submit(&good) {
        Ok(304) => Ok(()),
        Err(e) if e.contains("cache") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // Another's data is not registered: refused in the block, with its code.
    let foreign = ActBody::Dataset { id: DatasetId::new("ds:police/mine@1").unwrap(), schema_hash: [3; 32] };
    let said = act(city, "transport", &gateway, foreign).expect_err("another agency's dataset");
    assert_eq!(said.code(), "ledger-refused", "{said}");
    let refused =
        until("the gapped act is out", Duration::from_secs(40), || rpc.included(&gapped, from).ok_or("not included"));
    assert_eq!(refused, u64::from(codes::GAP));
    let known = wait(city.node("transport").datasets()).unwrap();
    let names: Vec<String> = known.iter().map(|d| d.id.to_string()).collect();
    assert!(names.contains(&"ds:transport/good@1".to_owned()));
    for bad in ["ds:transport/a@1", "ds:transport/gap@1", "ds:police/mine@1", "ds:grid/a@1"] {
        assert!(!names.contains(&bad.to_owned()), "{bad} was registered");
    }
    let revoke = ActBody::KeyRevoke { key_id: gateway.key_id(), compromised_since_ms: 0 };
    act(city, "transport", &city.key("transport", "root"), revoke).expect("the test's key is revoked");
    still_well(city);
}

pub fn what_cannot_be_read_is_refused(world: &World) {
    let city = world.shared();
    let rpc = city.rpc("grid");
    for (bytes, expected) in [
        (b"no transaction".to_vec(), codes::NOT_CANONICAL),
        (cbor::encode(&Tx::Tick { ms: city.tick_ms() + 1_000 }), codes::UNKNOWN_KIND),
        (vec![0x82, 0x18, 0x01, 0x00], codes::NOT_CANONICAL),
        (vec![0x9f, 0xff], codes::NOT_CANONICAL),
    ] {
        code(&rpc.submit(&bytes), expected);
    }
    // Over the limit CometBFT itself refuses; nothing of it reaches a block.
    let oversize = rpc.submit(&vec![0x81; 262_145]);
    assert!(oversize.as_ref().is_err_and(|e| e.contains("too large")), "{oversize:?}");
    // A batch within the limit of bytes and over that of operations.
    let (writer, key) = register_writer(city, "grid", "spare");
    let many = (0..8_193).map(|_| Op::Ack { reference: 0, commitment: [0; 32] }).collect();
    let (tx, _) = batch_tx(&city.chain(), &writer, &key, 1, [0; 32], many);
    let said = rpc.submit(&tx);
    assert!(said.is_err() || said.as_ref().is_ok_and(|c| *c != 0), "{said:?}");
    // The node's own socket: rubbish, a huge length, half a message, a question it does not know.
    let socket = city.dir("grid").join("run/node.sock");
    let connect = || {
        let stream = UnixStream::connect(&socket).expect("node.sock");
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    };
    let mut garbage = connect();
    garbage.write_all(&5_u32.to_be_bytes()).unwrap();
    garbage.write_all(b"hello").unwrap();
    let (mut len, mut reply) = ([0; 4], Vec::new());
    garbage.read_exact(&mut len).unwrap();
    reply.resize(u32::from_be_bytes(len) as usize, 0);
    garbage.read_exact(&mut reply).unwrap();
    assert!(matches!(cbor::decode(&reply), Ok(NodeReply::Error { code: codes::NOT_CANONICAL, .. })));
    let mut huge = connect();
    huge.write_all(&u32::MAX.to_be_bytes()).unwrap();
    assert_eq!(huge.read(&mut [0; 8]).unwrap_or(0), 0, "a length over the limit ends the connection");
    let mut half = connect();
    half.write_all(&[0, 0]).unwrap();
    drop(half);
    let far = wait(city.node("grid").ask(&NodeRequest::Log { from: u64::MAX, count: u64::MAX }));
    assert!(
        matches!(&far, Ok(NodeReply::Error { .. }))
            || matches!(&far, Ok(NodeReply::Log { entries, .. }) if entries.is_empty()),
        "{far:?}"
    );
    assert_ne!(sha256(&[&tx]), [0; 32]);
    still_well(city);
}
