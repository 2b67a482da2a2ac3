#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

fn pair(limits: Limits, hold: bool) -> (Link, Link, Instant) {
    let now = Instant::now();
    let (mut asking, mut answering) = (Link::new(limits, hold, now), Link::new(limits, false, now));
    asking.start(now);
    let (mut a, mut b) = (vec![], vec![]);
    answering.feed(&std::mem::take(&mut asking.out), now, &mut a).unwrap();
    asking.feed(&std::mem::take(&mut answering.out), now, &mut b).unwrap();
    assert_eq!((a, b), (vec![Heard::Started], vec![Heard::Started]));
    (asking, answering, now)
}

/// Lets one side hear what the other has written.
fn carry(from: &mut Link, to: &mut Link, now: Instant) -> Vec<Heard> {
    let mut heard = vec![];
    to.feed(&std::mem::take(&mut from.out), now, &mut heard).unwrap();
    heard
}

fn data(heard: &[Heard]) -> Vec<u64> {
    heard.iter().filter_map(|h| if let Heard::Data { number, .. } = h { Some(*number) } else { None }).collect()
}

#[test]
fn the_sender_stops_at_k_until_what_is_durable_is_acknowledged() {
    let (mut asking, mut answering, now) = pair(Limits::default(), true);
    let mut sent = 0;
    while answering.has_room() {
        answering.send(vec![1], now);
        sent += 1;
    }
    assert_eq!(sent, 12);
    assert_eq!(data(&carry(&mut answering, &mut asking, now)), (0..12).collect::<Vec<_>>());
    // Neither w nor t2 makes an acknowledgement while it is held back.
    asking.tick(now + Duration::from_secs(14)).unwrap();
    assert_eq!(carry(&mut asking, &mut answering, now), vec![]);
    asking.acknowledge(5);
    asking.acknowledge(3);
    assert_eq!(carry(&mut asking, &mut answering, now), [Heard::Acknowledged(5)]);
    assert!(answering.has_room());
    asking.acknowledge(99);
    assert_eq!(carry(&mut asking, &mut answering, now), [Heard::Acknowledged(12)]);
}

#[test]
fn w_and_t2_make_an_acknowledgement_where_it_is_not_held_back() {
    let (mut asking, mut answering, now) = pair(Limits::default(), false);
    for n in 0..8 {
        answering.send(vec![n], now);
    }
    carry(&mut answering, &mut asking, now);
    assert_eq!(carry(&mut asking, &mut answering, now), [Heard::Acknowledged(8)]);
    answering.send(vec![9], now);
    carry(&mut answering, &mut asking, now);
    asking.tick(asking.due()).unwrap();
    assert_eq!(carry(&mut asking, &mut answering, now), [Heard::Acknowledged(9)]);
}

#[test]
fn silence_is_noticed_within_t3_and_t1() {
    let (mut asking, mut answering, now) = pair(Limits::default(), true);
    let test = asking.due();
    assert_eq!(test, now + Duration::from_secs(20));
    asking.tick(test).unwrap();
    assert_eq!(asking.out, Frame::Control(Control::TestAct).encode());
    let heard = carry(&mut asking, &mut answering, test);
    assert_eq!(heard, vec![]);
    carry(&mut answering, &mut asking, test);
    assert_eq!(asking.due(), test + Duration::from_secs(20));
    asking.tick(asking.due()).unwrap();
    let end = asking.tick(asking.due()).unwrap_err();
    assert_eq!(end, Broken::Silent { what: "answer to a test frame", within: Duration::from_secs(15) });
    let mut alone = Link::new(Limits::default(), true, now);
    alone.start(now);
    assert!(matches!(alone.tick(now + Duration::from_secs(15)), Err(Broken::Silent { .. })));
    answering.send(vec![1], now);
    assert!(matches!(answering.tick(now + Duration::from_secs(15)), Err(Broken::Silent { .. })));
}

#[test]
fn gaps_and_false_acknowledgements_end_a_connection() {
    let (mut asking, mut answering, now) = pair(Limits::default(), true);
    answering.send(vec![1], now);
    answering.out.clear();
    answering.send(vec![2], now);
    let mut heard = vec![];
    assert_eq!(asking.feed(&answering.out, now, &mut heard), Err(Broken::Gap));
    let (mut asking, _, now) = pair(Limits::default(), true);
    let lie = Frame::Acknowledge { expected: 1 }.encode();
    assert_eq!(asking.feed(&lie, now, &mut heard), Err(Broken::Acknowledged));
    let mut early = Link::new(Limits::default(), true, now);
    let data = Frame::Data { sent: 0, expected: 0, asdu: vec![1] }.encode();
    assert_eq!(early.feed(&data, now, &mut heard), Err(Broken::Turn));
    assert_eq!(heard, vec![]);
}

#[test]
fn numbers_go_on_behind_2_to_the_15() {
    let (mut asking, mut answering, now) = pair(Limits::default(), false);
    for n in 0..70_000u64 {
        assert!(answering.has_room(), "{n}");
        assert_eq!(answering.send(vec![1], now), n);
        assert_eq!(data(&carry(&mut answering, &mut asking, now)), [n]);
        carry(&mut asking, &mut answering, now);
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
        let (mut link, _, now) = pair(Limits::default(), true);
        for part in parts {
            // Mostly well-formed frames of random contents, so that more than the first octet is tried.
            let mut bytes = vec![0x68, part.len().max(4) as u8];
            bytes.extend(part.iter().chain(&[0; 4]).take(part.len().max(4)));
            if link.feed(&bytes, now, &mut vec![]).is_err() {
                break;
            }
        }
    }

    #[test]
    fn whatever_the_order_nothing_is_lost_or_doubled(steps in prop::collection::vec((0u8..4, 1u64..20), 0..200)) {
        let (mut asking, mut answering, now) = pair(Limits::default(), true);
        let (mut sent, mut got) = (0u64, vec![]);
        for (step, n) in steps {
            match step {
                0 => for _ in 0..n { if answering.has_room() { answering.send(vec![1], now); sent += 1; } },
                1 => got.extend(data(&carry(&mut answering, &mut asking, now))),
                2 => asking.acknowledge(n + got.len() as u64 / 2),
                _ => { carry(&mut asking, &mut answering, now); }
            }
            prop_assert!(answering.next - answering.acknowledged <= 12);
        }
        got.extend(data(&carry(&mut answering, &mut asking, now)));
        prop_assert_eq!(got, (0..sent).collect::<Vec<_>>());
    }
}
