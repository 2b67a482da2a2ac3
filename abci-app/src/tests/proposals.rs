//! What proposers put into blocks, and what the others accept.

use bytes::Bytes;
use concordat_protocol::acts::ActBody;
use concordat_protocol::codes;
use concordat_protocol::limits::WAITING_ACTS_PER_KEY;
use concordat_protocol::ops::Op;

use super::kit::{City, START, key, signed_act, signed_batch};
use crate::clock::Clock;
use crate::tx::{block_size, tick_tx};

fn publish(n: u64) -> Op {
    Op::Publish { dataset: 99, last_seq: n, count: 1, root: [0; 32] }
}

fn roles(counter: u64, who: &str) -> Bytes {
    signed_act(who, &key(who, "gateway"), counter, ActBody::Roles { roles: vec!["legal".into()] })
}

fn suspend(counter: u64) -> Bytes {
    let body = ActBody::Suspend { agreement: "AGR-1".parse().unwrap(), version: 1, reason: [0; 32] };
    signed_act("court", &key("court", "security"), counter, body)
}

#[test]
fn the_order_is_tick_urgent_acts_other_acts_batches() {
    let (mut city, _) = City::ready();
    let b1 = city.batch("police/executor", vec![publish(1)]);
    let b2 = city.batch("police/executor", vec![publish(2)]);
    let c1 = city.batch("court/broker", vec![publish(1)]);
    let (r, s) = (roles(1, "grid"), suspend(1));
    for tx in [&b2, &r, &b1, &c1, &s] {
        city.mock.submit(tx.clone());
    }
    let txs = city.mock.propose();
    assert_eq!(txs[1..], [s.clone(), r.clone(), c1.clone(), b1.clone(), b2.clone()]);
    assert!(city.mock.accepts(&txs));
    let swap = |i: usize, j: usize| {
        let mut other = txs.clone();
        other.swap(i, j);
        other
    };
    for (i, j) in [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)] {
        assert!(!city.mock.accepts(&swap(i, j)), "{i} and {j} exchanged");
    }
    let mut twice = txs.clone();
    twice.insert(3, r);
    assert!(!city.mock.accepts(&twice), "a transaction twice");
    let mut bad = txs.clone();
    bad.push(Bytes::from_static(b"x"));
    assert!(!city.mock.accepts(&bad), "an unreadable transaction");
    let mut forged = city.batch("police/executor", vec![publish(3)]).to_vec();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let mut bad = txs.clone();
    bad.push(forged.into());
    assert!(!city.mock.accepts(&bad), "a bad signature");
    assert!(city.mock.accepts(&txs));
}

#[test]
fn ticks_are_first_alone_rising_and_not_ahead() {
    let (mut city, _) = City::ready();
    let previous = city.clock.now_ms();
    let t = tick_tx;
    city.clock.advance(5_000);
    let now = city.clock.now_ms();
    assert!(!city.mock.accepts(&[]), "no tick");
    assert!(city.mock.accepts(&[t(now)]));
    assert!(!city.mock.accepts(&[t(now), t(now + 1)]), "a second tick");
    assert!(!city.mock.accepts(&[t(previous)]), "the previous tick again");
    assert!(!city.mock.accepts(&[t(previous - 1)]));
    assert!(city.mock.accepts(&[t(previous + 1)]), "age is never a reason");
    assert!(city.mock.accepts(&[t(now + 1_000)]));
    assert!(!city.mock.accepts(&[t(now + 1_001)]), "more than a second ahead");
    assert_eq!(city.mock.check(t(now)).code as u16, codes::UNKNOWN_KIND, "clients send no ticks");
}

#[test]
fn a_slow_clock_still_proposes_and_accepts_the_next_millisecond() {
    let (mut city, _) = City::ready();
    let previous = city.clock.now_ms();
    city.clock.set_wall(START - 3_600_000);
    let txs = city.mock.propose();
    assert_eq!(txs, [tick_tx(previous + 1)]);
    city.mock.block();
    assert!(!city.mock.accepts(&[tick_tx(previous + 3)]));
}

#[test]
fn a_proposal_fills_its_size_to_the_byte_and_never_beyond() {
    let (mut city, _) = City::ready();
    let tick = block_size(tick_tx(START).len());
    let batches: Vec<Bytes> = (1..=3).map(|n| city.batch("police/executor", vec![publish(n); 40])).collect();
    batches.iter().for_each(|b| city.mock.submit(b.clone()));
    let two = tick + block_size(batches[0].len()) + block_size(batches[1].len());
    for (max, count) in [(two, 3), (two - 1, 2), (two + 1, 3), (tick, 1)] {
        city.mock.max_tx_bytes = max as i64;
        assert_eq!(city.mock.propose().len(), count, "max_tx_bytes {max}");
    }
}

#[test]
fn acts_overtake_any_amount_of_batches() {
    let (mut city, _) = City::ready();
    city.mock.max_tx_bytes = 40_000;
    for n in 1..=4 {
        for writer in ["police/executor", "police/broker", "court/executor", "court/broker", "grid/executor"] {
            let tx = city.batch(writer, (0..300).map(|i| publish(n * 1_000 + i)).collect());
            city.mock.submit(tx);
        }
    }
    city.mock.submit(suspend(1));
    let block = city.tick();
    assert_eq!((block.txs[1].clone(), block.results[1].code), (suspend(1), 0));
}

#[test]
fn every_writer_has_its_turn() {
    let (mut city, _) = City::ready();
    let writers = ["court/broker", "court/executor", "grid/broker", "police/executor"];
    for writer in writers {
        for n in 1..=4 {
            let tx = city.batch(writer, vec![publish(n); 20]);
            city.mock.submit(tx);
        }
    }
    city.mock.max_tx_bytes = 5_000;
    let mut left = city.mock.mempool.len();
    let mut blocks = 0;
    while left > 0 {
        let taken = city.tick().txs.len() - 1;
        assert!(taken > 0, "no progress with {left} left");
        left -= taken;
        blocks += 1;
        assert!(blocks < 20);
    }
}

#[test]
fn gapped_ones_wait_ten_seconds_and_are_then_taken_out() {
    let (mut city, _) = City::ready();
    let (gapped, _) = signed_batch("police/executor", 1, 5, [1; 32], vec![publish(1)]);
    city.mock.submit(gapped.clone());
    city.mock.submit(suspend(3));
    assert_eq!(city.tick().txs.len(), 1);
    city.clock.advance(9_000);
    assert_eq!(city.mock.propose().len(), 1);
    city.clock.advance(1_000);
    let block = city.tick();
    let codes: Vec<u16> = block.results.iter().map(|r| r.code as u16).collect();
    assert_eq!((codes, block.txs.len()), (vec![0, codes::GAP, codes::GAP], 3));
    assert!(city.mock.mempool.is_empty());
}

#[test]
fn stale_and_conflicting_batches_are_taken_out_at_once() {
    let (mut city, _) = City::ready();
    let (mine, _) = signed_batch("police/executor", 1, 1, [0; 32], vec![publish(1)]);
    let (other, _) = signed_batch("police/executor", 1, 1, [0; 32], vec![publish(2)]);
    city.mock.submit(mine.clone());
    city.mock.submit(other.clone());
    let block = city.tick();
    let mut codes: Vec<u16> = block.results.iter().map(|r| r.code as u16).collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, 0, codes::CONFLICT]);
    assert!(city.mock.mempool.is_empty());
}

#[test]
fn few_acts_a_key_wait_and_identical_ones_wait_once() {
    let mut city = City::new();
    for n in 1..=WAITING_ACTS_PER_KEY as u64 {
        city.mock.submit(roles(n, "police"));
        city.mock.submit(roles(n, "police"));
    }
    let one_more = roles(WAITING_ACTS_PER_KEY as u64 + 1, "police");
    assert_eq!(city.mock.check(one_more.clone()).code as u16, codes::BUSY);
    city.mock.submit(roles(1, "grid"));
    city.mock.mempool.clear();
    let block = city.tick();
    assert_eq!(block.txs.len(), WAITING_ACTS_PER_KEY + 2, "the list of our own is put first, without the mempool");
    city.mock.submit(one_more);
}

#[test]
fn batches_leave_half_of_the_mempool_free_and_their_fair_part_to_others() {
    use crate::pool::{MempoolLimits, Pool};
    use crate::tx::{Content, Parsed};
    let (mut city, _) = City::ready();
    let mut pool = Pool::default();
    let limits = MempoolLimits { txs: 12, bytes: 1 << 30 };
    let mut add = |tx: Bytes| {
        let tx = Parsed::read(tx);
        let Content::Batch(b) = &tx.content else { panic!() };
        pool.add_batch(&tx, b, limits, 3, 0)
    };
    assert_eq!(add(city.batch("police/executor", vec![publish(1)])), Ok(()));
    assert_eq!(add(city.batch("police/broker", vec![publish(2)])), Ok(()));
    assert_eq!(add(city.batch("police/broker", vec![publish(3)])), Err(codes::BUSY), "a third of the half");
    for who in ["grid", "court"] {
        assert_eq!(add(city.batch(&format!("{who}/executor"), vec![publish(1)])), Ok(()));
        assert_eq!(add(city.batch(&format!("{who}/broker"), vec![publish(1)])), Ok(()));
    }
    assert_eq!(add(city.batch("grid/broker", vec![publish(4)])), Err(codes::BUSY));
}
