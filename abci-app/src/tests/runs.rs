//! Subject runs: what enters, when they close, when their roots enter state, and what is proven from them.

use concordat_protocol::node::{NodeReply, NodeRequest};
use concordat_protocol::ops::{Op, Tag, Tags};
use concordat_protocol::runs::{BULK_TAG, RunProof};

use super::kit::*;

const EXECUTOR: &str = "police/executor";

fn tag(n: u8) -> Tag {
    [n; 16]
}

fn tagged(city: &City, handle: u64, session: u64, n: u64, tags: Tags) -> Op {
    Op::Query { handle, session, n, day: city.day(), tags, commitment: [n as u8; 32] }
}

fn runs(city: &City) -> (u64, u64) {
    match city.ask(&NodeRequest::Runs {}) {
        NodeReply::Runs { size, end_index } => (size, end_index),
        other => panic!("{other:?}"),
    }
}

fn prove(city: &City, number: u64, tag: Tag) -> RunProof {
    match city.ask(&NodeRequest::Run { number, tag, height: 0 }) {
        NodeReply::Run { body } => body,
        other => panic!("{other:?}"),
    }
}

/// Writes something without a tag, so that a block is more than its tick.
fn pass(city: &mut City, handle: u64, session: u64, n: u64) {
    let op = tagged(city, handle, session, n, Tags::none());
    city.say(EXECUTOR, op);
}

#[test]
fn who_looked_is_complete_and_nobody_looked_is_proven() {
    let (mut city, Agreement { handles: h, session: s }) =
        City::ready_with(&[("run_close_ms", 5_000), ("run_root_delay", 2)]);
    let first = city.log_size();
    let ops = vec![
        tagged(&city, h[0], s, 1, Tags::List(vec![tag(1)])),
        tagged(&city, h[0], s, 2, Tags::List(vec![tag(1), tag(2), tag(8), tag(9)])),
        tagged(&city, h[0], s, 3, Tags::List(vec![tag(3), tag(1), tag(1)])), // not padded: refused
        tagged(&city, 999, s, 4, Tags::List(vec![tag(1)])),                  // no agreement: refused
        tagged(&city, h[0], s, 5, Tags::Bulk { count: 2_000, root: [7; 32] }),
        tagged(&city, h[0], s, 6, Tags::List(vec![tag(7), tag(7), tag(7), tag(7)])),
    ];
    city.write(EXECUTOR, ops);
    assert_eq!(runs(&city), (0, 0));
    city.clock.advance(6_000);
    let closed_by = city.log_size();
    pass(&mut city, h[0], s, 9);
    assert_eq!(runs(&city).0, 0, "closed, and not in state yet");
    pass(&mut city, h[0], s, 7);
    pass(&mut city, h[0], s, 8);
    assert_eq!(runs(&city), (1, closed_by));
    let app_hash = city.app_hash();
    city.tick();
    let list = |t| prove(&city, 0, t).verify(0, &t).unwrap();
    let (run, found) = list(tag(1));
    assert_eq!((run.first_index, run.end_index, run.count), (0, closed_by, 7));
    assert_eq!(found, [first, first + 1]);
    assert_eq!(list(tag(9)).1, [first + 1]);
    assert_eq!(list(tag(7)).1, [first + 5], "once, however often it is written");
    assert_eq!(list(tag(4)).1, Vec::<u64>::new(), "nobody looked");
    assert_eq!(list(BULK_TAG).1, [first + 4], "may include anybody");
    // The proof leads to the app hash of its height.
    let proof = prove(&city, 0, tag(1));
    assert_eq!(crate::state::trees::app_hash(&proof.roots).as_slice(), &app_hash[..]);
}

#[test]
fn runs_follow_one_another_without_a_gap_and_survive_a_restart() {
    let (mut city, Agreement { handles: h, session: s }) =
        City::ready_with(&[("run_close_ms", 5_000), ("run_root_delay", 1)]);
    for round in 0..6u64 {
        let op = tagged(&city, h[0], s, 2 * round + 1, Tags::List(vec![tag(round as u8)]));
        city.say(EXECUTOR, op);
        city.clock.advance(5_000);
        pass(&mut city, h[0], s, 2 * round + 2);
        if round == 3 {
            city.reopen();
        }
    }
    pass(&mut city, h[0], s, 100);
    city.tick();
    let (size, end) = runs(&city);
    assert_eq!(size, 6);
    let mut next = 0;
    for number in 0..size {
        let (run, found) = prove(&city, number, tag(number as u8)).verify(number, &tag(number as u8)).unwrap();
        assert_eq!((run.first_index, found.len()), (next, 1), "run {number}");
        next = run.end_index;
    }
    assert_eq!(next, end);
    assert!(prove(&city, 2, tag(1)).verify(2, &tag(1)).unwrap().1.is_empty(), "another day");
    assert!(prove(&city, 2, tag(2)).verify(1, &tag(2)).is_err(), "not the run that was asked for");
}

#[test]
fn idle_blocks_close_nothing() {
    let (mut city, Agreement { handles: h, session: s }) =
        City::ready_with(&[("run_close_ms", 5_000), ("run_root_delay", 1)]);
    let op = tagged(&city, h[0], s, 1, Tags::List(vec![tag(1)]));
    city.say(EXECUTOR, op);
    let before = city.app_hash();
    for _ in 0..5 {
        city.clock.advance(6_000);
        city.tick();
    }
    assert_eq!(city.app_hash(), before);
    assert_eq!(runs(&city).0, 0);
}
