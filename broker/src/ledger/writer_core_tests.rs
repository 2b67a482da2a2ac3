#![allow(clippy::unwrap_used)]
use super::*;
use concordat_protocol::codes::Verdict;
use concordat_protocol::ops::Tags;
use std::convert::Infallible;

fn op(n: u64) -> Op {
    Op::Query { handle: 1, session: 1, n, day: 1, tags: Tags::none(), commitment: [n as u8; 32] }
}

fn view(last_seq: u64, last_hash: Hash) -> WriterView {
    WriterView { writer: WriterId::new("police/executor").unwrap(), key: [0; 32], incarnation: 1, last_seq, last_hash }
}

fn core() -> WriterCore {
    WriterCore::resume("c", &view(0, [0; 32]), vec![], 0).unwrap()
}

fn form(core: &mut WriterCore) -> Option<Outgoing> {
    core.form(|_| Ok::<_, Infallible>([0; 64])).unwrap()
}

fn entry(seq: u64, op: &Op) -> LogEntry {
    LogEntry {
        height: 1,
        tick_ms: 1,
        writer: "police/executor".into(),
        incarnation: 1,
        seq,
        op_hash: op.hash(),
        verdict: Verdict::Accepted,
        code: 0,
    }
}

#[test]
fn at_most_a_window_of_batches_is_open_and_they_chain() {
    let mut c = core();
    let mut formed = Vec::new();
    for n in 1..=CLIENT_WINDOW_BATCHES {
        c.push(op(n));
        formed.push(form(&mut c).unwrap());
    }
    let next = CLIENT_WINDOW_BATCHES + 1;
    c.push(op(next));
    assert_eq!((form(&mut c), c.rest_ms(1_000)), (None, None), "the window is full");
    let body = |o: &Outgoing| match cbor::decode::<Tx>(&o.tx).unwrap() {
        Tx::Batch { body, .. } => cbor::decode::<Batch>(&body).unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!((body(&formed[1]).first_seq, body(&formed[1]).prev), (2, formed[0].hash));
    assert_eq!(c.committed(&entry(1, &op(1)), 5).unwrap(), Some((1, formed[0].hash)));
    assert_eq!(form(&mut c).unwrap().first_seq, next);
}

#[test]
fn batches_are_spaced_but_the_first_and_full_ones() {
    let mut c = core();
    assert_eq!(c.rest_ms(1_000), None, "nothing waits");
    c.push(op(1));
    assert_eq!(c.rest_ms(0), Some(0), "nothing is open");
    form(&mut c).unwrap();
    c.push(op(2));
    assert_eq!((c.rest_ms(5), c.rest_ms(SPACING_MS), c.rest_ms(900)), (Some(SPACING_MS - 5), Some(0), Some(0)));
    (0..FULL as u64).for_each(|n| c.push(op(n)));
    assert_eq!(c.rest_ms(0), Some(0), "a full batch waits");
}

#[test]
fn the_same_bytes_are_sent_again_only_without_progress() {
    let mut c = core();
    c.push(op(1));
    let out = form(&mut c).unwrap();
    assert_eq!(c.due(10), vec![Send { tx: out.tx.clone(), attempt: 0 }]);
    assert!(c.due(500).is_empty());
    assert_eq!(c.due(1_010), vec![Send { tx: out.tx.clone(), attempt: 1 }]);
    assert!(c.due(1_500).is_empty());
    assert_eq!(c.due(2_010), vec![Send { tx: out.tx, attempt: 2 }]);
}

#[test]
fn a_restart_goes_on_with_what_the_ledger_lacks() {
    let mut c = core();
    c.push(op(1));
    let first = form(&mut c).unwrap();
    c.push(op(2));
    let second = form(&mut c).unwrap();
    let mut again = WriterCore::resume("c", &view(1, first.hash), vec![first.clone(), second.clone()], 0).unwrap();
    assert_eq!(again.due(0), vec![Send { tx: second.tx.clone(), attempt: 0 }]);
    again.push(op(3));
    assert_eq!(form(&mut again).unwrap().first_seq, 3);
    assert_eq!(Outgoing::from_tx(second.tx.clone()).unwrap(), second);
    let other = WriterCore::resume("c", &view(1, [9; 32]), vec![first], 0);
    assert_eq!(other.err(), Some(Conflict(1)), "another batch stands where ours should be");
}

#[test]
fn an_entry_with_other_content_is_a_conflict() {
    let mut c = core();
    c.push(op(1));
    form(&mut c).unwrap();
    assert_eq!(c.committed(&entry(1, &op(9)), 5), Err(Conflict(1)));
    let mut idle = core();
    assert_eq!(idle.committed(&entry(1, &op(1)), 5), Err(Conflict(1)), "it wrote nothing");
}

#[test]
fn large_queues_are_cut_into_batches_of_bounded_size() {
    let mut c = core();
    (0..5_000).for_each(|n| c.push(op(n)));
    let out = form(&mut c).unwrap();
    assert!(out.tx.len() < BATCH_BYTES + 1_000 && out.op_hashes.len() > 1_000);
    assert_eq!(c.queued() + c.uncommitted(), 5_000);
}
