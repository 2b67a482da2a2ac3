//! Properties: the split into batches does not matter, a replay gives the same, no bytes bring the application down.

use bytes::Bytes;
use concordat_protocol::codes::Verdict;
use concordat_protocol::ops::{Op, Tags};
use proptest::prelude::*;

use super::kit::{City, DAY, START, genesis, open, signed_batch};
use crate::mock::Mock;
use crate::tx::{Content, Parsed, tick_tx};

const WRITER: &str = "police/executor";
/// Log index of the first operation on a [`City::ready`] chain.
const FIRST: u64 = 7;

/// Operations around what the ready city knows: handles 1 to 6, session 1, dataset 1, and a little beyond.
fn any_op() -> impl Strategy<Value = Op> {
    let day = START / DAY;
    let commitment = [0; 32];
    let request = (0u64..8, 0u64..3, 0u64..12, 0u8..4).prop_map(move |(handle, session, n, kind)| {
        let tags = Tags::none();
        match kind {
            0 => Op::Query { handle, session, n, day, tags, commitment },
            1 => Op::Intent { handle, session, n, day, tags, commitment },
            2 => Op::BreakGlass { handle, session, n, day, tags, commitment },
            _ => Op::Deny { handle, session, n, day, tags, commitment },
        }
    });
    let about = (FIRST - 1..FIRST + 30, 0u8..6).prop_map(move |(reference, kind)| match kind {
        0 => Op::Outcome { reference, commitment },
        1 => Op::Withheld { reference, commitment },
        2 => Op::Review { reference, commitment },
        3 => Op::Annotate { reference, commitment },
        4 => Op::Erase { reference, commitment },
        _ => Op::Ack { reference, commitment },
    });
    let publish = (0u64..3, 1u64..5, 0u64..4).prop_map(|(dataset, last_seq, count)| Op::Publish {
        dataset,
        last_seq,
        count,
        root: [0; 32],
    });
    let deliver = (0u64..8, 1u64..5, 0u64..3, 0u64..20_000).prop_map(move |(handle, last_sub_seq, count, age)| {
        let (tags, oldest_ms) = (Tags::none(), START - age);
        Op::Deliver {
            handle,
            subscription: handle,
            last_sub_seq,
            count,
            root: [0; 32],
            oldest_ms,
            day,
            tags,
            commitment,
        }
    });
    prop_oneof![4 => request, 3 => about, 1 => publish, 2 => deliver]
}

/// Puts the operations into one block, cut at `cuts`, and gives what the ledger said of each.
fn in_batches(ops: &[Op], cuts: &[usize]) -> (Vec<(Verdict, u16)>, Vec<u64>) {
    let (mut city, _) = City::ready();
    assert_eq!(city.log_size(), FIRST);
    let mut bounds: Vec<usize> = cuts.iter().map(|c| c % ops.len()).chain([0, ops.len()]).collect();
    bounds.sort_unstable();
    bounds.dedup();
    let (mut seq, mut prev) = (1, [0; 32]);
    let mut txs = vec![tick_tx(START + 60_000)];
    for w in bounds.windows(2) {
        let (tx, hash) = signed_batch(WRITER, 1, seq, prev, ops[w[0]..w[1]].to_vec());
        txs.push(tx);
        (seq, prev) = (seq + (w[1] - w[0]) as u64, hash);
    }
    let block = city.mock.decide(txs);
    assert!(block.results.iter().all(|r| r.code == 0));
    let log = city.log(FIRST);
    let committed = city.mock.app.committed();
    let used = committed.state.tables.quotas.values().map(|q| q.used).collect();
    (log.iter().map(|e| (e.verdict, e.code)).collect(), used)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn verdicts_do_not_depend_on_the_split_into_batches(
        ops in proptest::collection::vec(any_op(), 1..40),
        cuts in proptest::collection::vec(any::<usize>(), 0..6),
    ) {
        prop_assert_eq!(in_batches(&ops, &[]), in_batches(&ops, &cuts));
    }

    #[test]
    fn a_replay_into_an_empty_store_gives_every_app_hash_again(
        blocks in proptest::collection::vec(proptest::collection::vec(any_op(), 0..12), 1..6),
    ) {
        let (mut city, _) = City::ready();
        for ops in blocks {
            if !ops.is_empty() {
                let tx = city.batch(WRITER, ops);
                city.mock.submit(tx);
            }
            city.tick();
        }
        let other = open(&city.dir.path().join("other.redb"), &city.clock);
        city.mock.replay_into(other);
    }

    #[test]
    fn no_bytes_bring_the_application_down(
        garbage in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..6),
        flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4),
    ) {
        let (mut city, _) = City::ready();
        let hash = city.mock.app_hash();
        let mut batch = city.batch(WRITER, vec![city.query(1, 1, 1)]).to_vec();
        let whole = batch.clone();
        for (at, with) in flips {
            let at = at % batch.len();
            batch[at] ^= with;
        }
        let changed = batch != whole;
        let mut txs = vec![tick_tx(START + 60_000)];
        txs.extend(garbage.into_iter().map(Bytes::from));
        txs.push(batch.into());
        for tx in &txs[1..] {
            city.mock.check(tx.clone());
        }
        city.mock.accepts(&txs);
        let block = city.mock.decide(txs);
        let last = block.results.last().map_or(0, |r| r.code);
        prop_assert_eq!(last != 0, changed, "a flipped byte must be refused");
        if changed {
            prop_assert_eq!(block.app_hash, hash);
        }
    }

    #[test]
    fn reading_takes_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let tx = Parsed::read(bytes.into());
        prop_assert!(matches!(tx.content, Content::Bad(_) | Content::Tick(_)));
    }
}

#[test]
fn a_block_without_a_tick_changes_nothing() {
    let (mut city, _) = City::ready();
    let hash = city.mock.app_hash();
    let tx = city.batch(WRITER, vec![city.query(1, 1, 1)]);
    let block = city.mock.decide(vec![tx]);
    assert_eq!((block.results[0].code as u16, block.app_hash), (concordat_protocol::codes::BAD_VALUE, hash));
}

#[test]
fn the_genesis_hash_does_not_depend_on_spacing() {
    let dir = tempfile::tempdir().unwrap();
    let city = City::new();
    let pretty = serde_json::to_string_pretty(&genesis()).unwrap();
    let other = Mock::new(open(&dir.path().join("b.redb"), &city.clock), super::kit::CHAIN, &pretty);
    assert_eq!(other.app_hash(), city.mock.app_hash());
    let elsewhere = Mock::new(open(&dir.path().join("c.redb"), &city.clock), "other-city", &pretty);
    assert_ne!(elsewhere.app_hash(), city.mock.app_hash());
}
