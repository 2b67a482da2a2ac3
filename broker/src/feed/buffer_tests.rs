//! Deliveries in every order, seeks and gaps.
#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

fn message(sub_seq: u64, index: u64) -> Message {
    Message {
        sub_seq,
        index,
        seq: 0,
        id: format!("{sub_seq}.{index}"),
        time: None,
        data: Default::default(),
        hidden: 0,
        altered: vec![],
    }
}

fn held(sub_seq: u64, messages: u64) -> Held<u64> {
    Held {
        sub_seq,
        place: sub_seq + 100,
        delivered_ms: sub_seq * 1_000,
        messages: (0..messages).map(|i| message(sub_seq, i)).collect(),
        ack: sub_seq,
    }
}

fn ids(b: &Buffer<u64>, after: Option<&str>, max: usize) -> Vec<String> {
    b.after(after.map(|c| c.parse().unwrap()), max).into_iter().map(|m| m.id).collect()
}

#[test]
fn what_is_not_acknowledged_is_handed_on_again_and_a_cursor_goes_past_it() {
    let mut b = Buffer::new(Acked::default(), 0);
    assert!(matches!(b.offer(held(1, 2)), Offer::Kept { in_order: true }));
    assert!(matches!(b.offer(held(2, 2)), Offer::Kept { in_order: true }));
    assert_eq!(ids(&b, None, 3), ["1.0", "1.1", "2.0"]);
    assert_eq!(ids(&b, None, 3), ["1.0", "1.1", "2.0"]);
    assert_eq!(ids(&b, Some("1.1"), 9), ["2.0", "2.1"]);
    let (to, place) = b.ack_to("2.0".parse().unwrap()).unwrap();
    assert_eq!(place, 101, "a restart goes on behind the last whole delivery");
    assert_eq!(to, Acked { sub_seq: 1, messages: 1 });
    assert_eq!(b.ack(to).iter().map(|h| h.ack).collect::<Vec<_>>(), [1]);
    assert_eq!((ids(&b, None, 9), b.pending()), (vec!["2.1".to_owned()], 1));
    assert_eq!(b.ack_to("1.1".parse().unwrap()), Some((to, 101)), "an old acknowledgement takes nothing back");
    for never in ["2.2", "3.0", "9.9"] {
        assert_eq!(b.ack_to(never.parse().unwrap()), None, "{never}");
    }
}

#[test]
fn a_restart_goes_on_within_a_delivery() {
    let mut b = Buffer::new(Acked { sub_seq: 4, messages: 1 }, 104);
    assert!(matches!(b.offer(held(4, 3)), Offer::Done(4)));
    b.offer(held(5, 3));
    assert_eq!(ids(&b, None, 9), ["5.1", "5.2"]);
}

#[test]
fn a_gap_waits_is_named_and_can_be_given_up() {
    let mut b = Buffer::new(Acked::default(), 0);
    b.offer(held(1, 1));
    b.offer(held(4, 1));
    assert_eq!((ids(&b, None, 9), b.gap()), (vec!["1.0".to_owned()], Some((2, 3))));
    b.skip_gap();
    assert_eq!((ids(&b, None, 9), b.gap()), (vec!["1.0".to_owned(), "4.0".to_owned()], None));
    assert!(matches!(b.offer(held(3, 1)), Offer::Done(3)), "too late");
}

#[test]
fn cursors_are_read_strictly() {
    for bad in ["", "1", "1.", ".1", "01.2", "1.2.3", "-1.0", "a.b", "99999999999999999999.0"] {
        assert!(bad.parse::<Cursor>().is_err(), "{bad}");
    }
}

#[test]
fn a_seek_begins_with_what_was_asked_for_and_passes_over_what_is_before() {
    let started = |start, from: u64| {
        let mut b = Buffer::new(Acked { sub_seq: 9, messages: 1 }, 109);
        b.offer(held(10, 3));
        b.seek(start);
        assert_eq!((b.held_count(), b.ack_to("10.0".parse().unwrap())), (0, None), "nothing is handed on yet");
        let passed = (from..=6).filter(|n| matches!(b.offer(held(*n, 2)), Offer::Done(_))).count();
        (passed, ids(&b, None, 3), b.seeking())
    };
    let cursor = |s: &str| Start::After(s.parse().unwrap());
    assert_eq!(started(Start::First, 3), (0, vec!["3.0".into(), "3.1".into(), "4.0".into()], None));
    assert_eq!(started(cursor("4.0"), 2), (2, vec!["4.1".into(), "5.0".into(), "5.1".into()], None));
    assert_eq!(started(cursor("2.0"), 4), (0, vec!["4.0".into(), "4.1".into(), "5.0".into()], None), "2 is not kept");
    assert_eq!(started(Start::From(5), 1), (4, vec!["5.0".into(), "5.1".into(), "6.0".into()], None));
    assert_eq!(started(Start::Since(4_500), 1), (4, vec!["5.0".into(), "5.1".into(), "6.0".into()], None));
    assert_eq!(started(Start::Since(9_000), 1), (6, vec![], Some(Start::Since(9_000))), "it waits for what is to come");
}

#[test]
fn a_seek_behind_the_last_message_of_a_delivery_leaves_nothing_of_it() {
    let mut b = Buffer::new(Acked::default(), 0);
    b.seek(Start::After("3.1".parse().unwrap()));
    assert!(matches!(b.offer(held(3, 2)), Offer::Kept { .. }));
    let at = b.acked();
    assert_eq!(b.ack(at).iter().map(|h| h.ack).collect::<Vec<_>>(), [3]);
    b.offer(held(4, 1));
    assert_eq!((ids(&b, None, 9), b.pending(), b.place()), (vec!["4.0".to_owned()], 1, 104));
}

#[test]
fn a_replay_fills_a_gap_and_renews_what_is_held() {
    let mut b = Buffer::new(Acked::default(), 0);
    for n in [1, 2, 4, 5] {
        b.offer(held(n, 1));
    }
    assert_eq!((b.place(), b.gap()), (102, Some((3, 3))), "a replay begins behind this place");
    assert!(matches!(b.offer(held(3, 1)), Offer::Kept { in_order: false }));
    assert!(matches!(b.offer(held(4, 1)), Offer::Again));
    assert_eq!((ids(&b, None, 9).len(), b.gap(), b.place()), (5, None, 105));
}

proptest! {
    /// Whatever order deliveries come in and however often, every message is handed on once, in order.
    #[test]
    fn every_message_comes_once_in_order(order in proptest::collection::vec(1u64..12, 1..80), sizes in proptest::collection::vec(0u64..4, 12), step in 1usize..5) {
        let mut b = Buffer::new(Acked::default(), 0);
        let mut got = Vec::new();
        for n in order.iter().copied().chain(1..12) {
            b.offer(held(n, sizes[n as usize]));
            let page = b.after(None, step);
            if let Some(last) = page.last() {
                let (to, _) = b.ack_to(Cursor { sub_seq: last.sub_seq, index: last.index }).unwrap();
                b.ack(to);
            }
            got.extend(page);
        }
        loop {
            let page = b.after(None, step);
            let Some(last) = page.last() else { break };
            let (to, _) = b.ack_to(Cursor { sub_seq: last.sub_seq, index: last.index }).unwrap();
            b.ack(to);
            got.extend(page);
        }
        let want: Vec<_> = (1..12u64).flat_map(|n| (0..sizes[n as usize]).map(move |i| message(n, i))).collect();
        prop_assert_eq!(got, want);
    }

    /// After any seek the messages come in order from the wanted one on, whatever was read before.
    #[test]
    fn a_seek_gives_every_message_again_once(before in 0u64..12, target in 1u64..12, index in 0u64..3) {
        let mut b = Buffer::new(Acked::default(), 0);
        for n in 1..=before {
            b.offer(held(n, 3));
        }
        b.seek(Start::After(Cursor { sub_seq: target, index }));
        let mut got = Vec::new();
        for n in 1..12 {
            b.offer(held(n, 3));
            let at = b.acked();
            b.ack(at);
            got.extend(b.after(None, 100));
            if let Some((to, _)) = got.last().and_then(|m: &Message| b.ack_to(Cursor { sub_seq: m.sub_seq, index: m.index })) {
                b.ack(to);
            }
        }
        let all = (target..12).flat_map(|n| (0..3).map(move |i| message(n, i)));
        let want: Vec<_> = all.filter(|m| (m.sub_seq, m.index) > (target, index)).collect();
        prop_assert_eq!(got, want);
    }
}
