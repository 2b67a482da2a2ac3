//! What names an agency's sessions, and leaves that are proven at a checkpoint long after it.

use std::collections::VecDeque;

use concordat_protocol::cbor;
use concordat_protocol::codes;
use concordat_protocol::evidence::{LeavesProof, NamedOp};
use concordat_protocol::hash::Hash;
use concordat_protocol::node::{LeafProof, NodeReply, NodeRequest, SessionLeaf, session_leaf_key};
use concordat_protocol::ops::{Op, Tags};
use concordat_protocol::tree::{value_leaf, verify_inclusion};

use super::checkpoints::{EXECUTOR, city, newest, next_checkpoint};
use super::kit::*;
use crate::app::undos_kept;
use crate::state::trees::Undo;

fn named(city: &City, who: &str, from: u64) -> (u64, Vec<NamedOp>) {
    match city.ask(&NodeRequest::Named { agency: agency(who), from }) {
        NodeReply::Named { end, body } => (end, body),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_names_an_agencys_sessions_is_listed_whatever_the_verdict() {
    let (mut city, a) = city();
    let (s, day) = (a.session, city.day());
    let grid = city.open_session("grid", "police", "grid's");
    let deny = |n| Op::Deny { handle: 0, session: s, n, day, tags: Tags::none(), commitment: [4; 32] };
    let (mut want, mut others) = (Vec::new(), Vec::new());
    for round in 0..3 {
        let first = city.log_size();
        let n = round * 10;
        let ops = vec![
            city.query(a.handles[0], s, n + 1),
            city.query(999, s, n + 2),          // refused
            city.query(a.handles[0], s, n + 1), // a replay
            deny(n + 3),
            deny(0),                               // counts several
            city.query(a.handles[0], grid, n + 1), // another consumer's
            city.query(a.handles[0], 77, n + 1),   // no session
            city.deliver(a.handles[1], 0, 1, START),
        ];
        let list = |ops: &[Op], of: u64| -> Vec<NamedOp> {
            let named = |(i, op): (u64, &Op)| match op.recorded() {
                Some(r) if r.session == of => {
                    Some(NamedOp { index: i, session: of, n: r.n, kind: op.kind(), op_hash: op.hash() })
                }
                _ => None,
            };
            (first..).zip(ops).filter_map(named).collect()
        };
        want.extend(list(&ops, s));
        others.extend(list(&ops, grid));
        city.write(EXECUTOR, ops);
        // A provider that the session is not open at names it in vain: refused, in nobody's name.
        let foreign = city.query(a.handles[0], s, n + 4);
        assert_eq!(city.say("grid/executor", foreign).1, codes::SESSION_UNKNOWN);
    }
    let size = city.log_size();
    assert_eq!(want.len(), 15);
    for _ in 0..2 {
        assert_eq!(named(&city, "court", 0), (size, want.clone()));
        assert_eq!(named(&city, "grid", 0), (size, others.clone()));
        assert_eq!(named(&city, "police", 0), (size, vec![]));
        for from in [want[2].index, want[2].index + 1, want[7].index, size, size + 5] {
            let rest: Vec<NamedOp> = want.iter().filter(|n| n.index >= from).cloned().collect();
            assert_eq!(named(&city, "court", from), (size, rest), "from {from}");
        }
        city.reopen();
    }
    let NodeReply::Error { code, .. } = city.ask(&NodeRequest::Named { agency: agency("mars"), from: 0 }) else {
        panic!("an unknown agency")
    };
    assert_eq!(code, codes::UNKNOWN_REF);
}

#[test]
fn a_long_list_comes_in_parts_without_gap_or_repeat() {
    let (mut city, a) = city();
    for block in 0..3u64 {
        let ops = (1..=4_000).map(|i| city.query(a.handles[0], a.session, block * 4_000 + i)).collect();
        city.write(EXECUTOR, ops);
    }
    let (end, mut all) = named(&city, "court", 0);
    assert_eq!((all.len(), end), (10_000, all[9_999].index + 1));
    let (end, rest) = named(&city, "court", end);
    assert_eq!((rest.len(), end), (2_000, city.log_size()));
    all.extend(rest);
    let numbers: Vec<u64> = all.iter().map(|n| n.n).collect();
    assert_eq!(numbers, (1..=12_000).collect::<Vec<u64>>());
}

fn leaves(city: &City, height: u64, sessions: &[u64]) -> Result<LeavesProof, u16> {
    let keys = vec![key("police", "executor").id(), key("court", "cosign").id()];
    match city.ask(&NodeRequest::Leaves { height, keys, sessions: sessions.to_vec() }) {
        NodeReply::Leaves { body } => Ok(body),
        NodeReply::Error { code, .. } => Err(code),
        other => panic!("{other:?}"),
    }
}

fn leads_to(leaf: &LeafProof, root: &Hash) {
    let hash = value_leaf(&leaf.key, &leaf.value);
    verify_inclusion(&hash, leaf.index, leaf.size, &leaf.path, root).unwrap();
}

#[test]
fn leaves_are_proven_at_the_last_two_checkpoints_long_after_and_after_a_restart() {
    let (mut city, a) = city();
    let later = a.session + 1;
    let older = next_checkpoint(&mut city, &a, 1);
    let _ = next_checkpoint(&mut city, &a, 2); // closes the first one's time
    let first = next_checkpoint(&mut city, &a, 3);
    let second = next_checkpoint(&mut city, &a, 4);
    let quiet = city.mock.height();
    for n in 5..=45 {
        // Under the interval, so that no further checkpoint is made: the log grows, time does not.
        let op = city.query(a.handles[0], a.session, n);
        city.clock.advance(1);
        let tx = city.batch(EXECUTOR, vec![op]);
        city.mock.submit(tx);
        city.mock.block();
    }
    assert_eq!(newest(&city).checkpoint, second);
    assert!(city.mock.height() - quiet > 32);
    for _ in 0..2 {
        for (c, newest_n) in [(&first, 3), (&second, 4)] {
            let proof = leaves(&city, c.height, &[a.session, later, 900]).unwrap();
            assert_eq!((proof.height, &proof.roots, proof.keys.len()), (c.height, &c.roots, 2));
            proof.keys.iter().for_each(|leaf| leads_to(leaf, &c.roots.meta));
            let [leaf] = &proof.sessions[..] else { panic!("sessions without a leaf are left out") };
            leads_to(leaf, &c.roots.heads);
            assert_eq!(leaf.key.0, session_leaf_key(a.session));
            let leaf: SessionLeaf = cbor::decode(&leaf.value).unwrap();
            assert_eq!((leaf.consumer.as_str(), leaf.newest_n), ("court", newest_n));
        }
        assert_eq!(leaves(&city, older.height, &[a.session]), Err(codes::BUSY), "too far back");
        city.reopen();
    }
    assert_eq!(leaves(&city, 0, &[a.session]).unwrap().height, city.mock.height() as u64 - 1);
    assert_eq!(leaves(&city, 0, &[1; 2_000]), Err(codes::BAD_VALUE));
    let unknown = NodeRequest::Leaves {
        height: 0,
        keys: vec![Key::new("x", key("police", "root").public.suite).id()],
        sessions: vec![],
    };
    assert!(matches!(city.ask(&unknown), NodeReply::Error { code: codes::UNKNOWN_REF, .. }));
}

#[test]
fn undos_stay_back_to_the_last_checkpoint_but_one_within_bounds() {
    let undo = |height| {
        let mut undo = Undo::default();
        undo.height = height;
        undo
    };
    let newest_first = |from: u64, to: u64| (from..=to).rev().map(undo).collect::<VecDeque<_>>();
    let kept = |have: u64, checkpoint| undos_kept(&newest_first(1, have), &undo(have + 1), checkpoint);
    assert_eq!(kept(9, 0), 10);
    assert_eq!(kept(99, 98), 32, "at least 32 blocks");
    assert_eq!(kept(99, 30), 70, "back to the checkpoint");
    assert_eq!(kept(999, 30), 512, "at most 512");
}
