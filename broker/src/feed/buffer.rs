//! Deliveries between their check and their acknowledgement (pure): contiguous, each once, handed on from any place.

use super::check::Message;
use std::collections::{BTreeMap, VecDeque};

/// Place of a message in a subscription; as text `12.3`. What is acknowledged is everything up to and with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// Number of the delivery.
    pub sub_seq: u64,
    /// Position in the delivery.
    pub index: u64,
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.sub_seq, self.index)
    }
}

impl std::str::FromStr for Cursor {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let rule = || "a cursor is one that an answer of /messages named, such as 12.3".to_owned();
        let (sub_seq, index) = s.split_once('.').ok_or_else(rule)?;
        let number = |t: &str| t.parse::<u64>().ok().filter(|n| n.to_string() == t).ok_or_else(rule);
        Ok(Self { sub_seq: number(sub_seq)?, index: number(index)? })
    }
}

/// How far a subscription is acknowledged: every delivery up to `sub_seq`, and `messages` of the next one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Acked {
    /// Last delivery that is acknowledged whole.
    pub sub_seq: u64,
    /// Messages of the next delivery that are acknowledged.
    pub messages: u64,
}

/// A checked delivery. `T` is what acknowledges it upstream.
#[derive(Debug)]
pub struct Held<T> {
    /// Its number.
    pub sub_seq: u64,
    /// Its messages.
    pub messages: Vec<Message>,
    /// What acknowledges it.
    pub ack: T,
}

/// What became of an offered delivery.
#[derive(Debug)]
pub enum Offer<T> {
    /// Taken; it may wait for the ones before it.
    Kept,
    /// It is held already; the newer acknowledgement replaced the older one.
    Again,
    /// It was acknowledged by the application before: acknowledge it upstream.
    Done(T),
}

/// The deliveries of one subscription that are not acknowledged.
#[derive(Debug)]
pub struct Buffer<T> {
    acked: Acked,
    /// Contiguous from `acked` on, except where a gap was given up.
    ready: VecDeque<Held<T>>,
    /// What came before its turn.
    ahead: BTreeMap<u64, Held<T>>,
    next: u64,
}

impl<T> Buffer<T> {
    /// A buffer that goes on from here.
    pub fn new(acked: Acked) -> Self {
        Self { acked, ready: VecDeque::new(), ahead: BTreeMap::new(), next: acked.sub_seq + 1 }
    }

    /// How far it is acknowledged.
    pub fn acked(&self) -> Acked {
        self.acked
    }

    /// Newest delivery that can be handed on.
    pub fn last(&self) -> u64 {
        self.next - 1
    }

    /// Deliveries held.
    pub fn held_count(&self) -> usize {
        self.ready.len() + self.ahead.len()
    }

    /// Messages that can be handed on and are not acknowledged.
    pub fn pending(&self) -> u64 {
        self.ready.iter().map(|h| h.messages.len() as u64).sum::<u64>().saturating_sub(self.acked.messages)
    }

    /// Takes a delivery.
    pub fn offer(&mut self, held: Held<T>) -> Offer<T> {
        if held.sub_seq <= self.acked.sub_seq {
            return Offer::Done(held.ack);
        }
        if held.sub_seq < self.next {
            return match self.ready.iter_mut().find(|h| h.sub_seq == held.sub_seq) {
                Some(known) => {
                    known.ack = held.ack;
                    Offer::Again
                }
                // It belongs to a gap that was given up: too late.
                None => Offer::Done(held.ack),
            };
        }
        let again = self.ahead.insert(held.sub_seq, held).is_some();
        self.advance();
        if again { Offer::Again } else { Offer::Kept }
    }

    fn advance(&mut self) {
        while let Some(held) = self.ahead.remove(&self.next) {
            self.next += 1;
            self.ready.push_back(held);
        }
    }

    /// The deliveries that are missing before the first one that came too early.
    pub fn gap(&self) -> Option<(u64, u64)> {
        self.ahead.first_key_value().map(|(first, _)| (self.next, first - 1))
    }

    /// Gives up what is missing: what comes after it can be handed on.
    pub fn skip_gap(&mut self) {
        if let Some((first, _)) = self.ahead.first_key_value() {
            self.next = *first;
            self.advance();
        }
    }

    /// At most `max` messages after a place (by default after what is acknowledged).
    pub fn after(&self, cursor: Option<Cursor>, max: usize) -> Vec<Message> {
        let acked = |m: &Message| {
            m.sub_seq <= self.acked.sub_seq || (m.sub_seq == self.acked.sub_seq + 1 && m.index < self.acked.messages)
        };
        let passed = |m: &Message| cursor.is_some_and(|c| Cursor { sub_seq: m.sub_seq, index: m.index } <= c);
        let all = self.ready.iter().flat_map(|h| &h.messages);
        all.filter(|m| !acked(m) && !passed(m)).take(max).cloned().collect()
    }

    /// What an acknowledgement up to this place would make of it; none if the place was never handed on.
    pub fn ack_to(&self, cursor: Cursor) -> Option<Acked> {
        if cursor.sub_seq >= self.next {
            return None;
        }
        let Some(held) = self.ready.iter().find(|h| h.sub_seq == cursor.sub_seq) else { return Some(self.acked) };
        let shown = held.messages.len() as u64;
        if cursor.index >= shown {
            return None;
        }
        let to = if cursor.index + 1 == shown {
            Acked { sub_seq: cursor.sub_seq, messages: 0 }
        } else {
            Acked { sub_seq: cursor.sub_seq - 1, messages: cursor.index + 1 }
        };
        Some(to.max(self.acked))
    }

    /// Acknowledges; returns what is to be acknowledged upstream.
    pub fn ack(&mut self, to: Acked) -> Vec<Held<T>> {
        self.acked = self.acked.max(to);
        let mut out = Vec::new();
        while let Some(front) = self.ready.front() {
            let empty = front.messages.is_empty();
            if front.sub_seq > self.acked.sub_seq && !empty {
                break;
            }
            if front.sub_seq > self.acked.sub_seq {
                // Nothing of it is for the application: it counts as acknowledged with the one before.
                self.acked = Acked { sub_seq: front.sub_seq, messages: 0 };
            }
            out.extend(self.ready.pop_front());
        }
        out
    }

    /// Everything held.
    pub fn held(&self) -> impl Iterator<Item = &Held<T>> {
        self.ready.iter().chain(self.ahead.values())
    }

    /// Lets go of everything; the position stays.
    pub fn clear(&mut self) {
        *self = Self::new(self.acked);
    }
}

#[cfg(test)]
mod tests {
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
        }
    }

    fn held(sub_seq: u64, messages: u64) -> Held<u64> {
        Held { sub_seq, messages: (0..messages).map(|i| message(sub_seq, i)).collect(), ack: sub_seq }
    }

    fn ids(b: &Buffer<u64>, after: Option<&str>, max: usize) -> Vec<String> {
        b.after(after.map(|c| c.parse().unwrap()), max).into_iter().map(|m| m.id).collect()
    }

    #[test]
    fn what_is_not_acknowledged_is_handed_on_again_and_a_cursor_goes_past_it() {
        let mut b = Buffer::new(Acked::default());
        assert!(matches!(b.offer(held(1, 2)), Offer::Kept));
        assert!(matches!(b.offer(held(2, 2)), Offer::Kept));
        assert_eq!(ids(&b, None, 3), ["1.0", "1.1", "2.0"]);
        assert_eq!(ids(&b, None, 3), ["1.0", "1.1", "2.0"]);
        assert_eq!(ids(&b, Some("1.1"), 9), ["2.0", "2.1"]);
        let to = b.ack_to("2.0".parse().unwrap()).unwrap();
        assert_eq!(to, Acked { sub_seq: 1, messages: 1 });
        assert_eq!(b.ack(to).iter().map(|h| h.ack).collect::<Vec<_>>(), [1]);
        assert_eq!((ids(&b, None, 9), b.pending()), (vec!["2.1".to_owned()], 1));
        assert_eq!(b.ack_to("1.1".parse().unwrap()), Some(to), "an old acknowledgement takes nothing back");
        for never in ["2.2", "3.0", "9.9"] {
            assert_eq!(b.ack_to(never.parse().unwrap()), None, "{never}");
        }
    }

    #[test]
    fn a_restart_goes_on_within_a_delivery() {
        let mut b = Buffer::new(Acked { sub_seq: 4, messages: 1 });
        assert!(matches!(b.offer(held(4, 3)), Offer::Done(4)));
        b.offer(held(5, 3));
        assert_eq!(ids(&b, None, 9), ["5.1", "5.2"]);
    }

    #[test]
    fn a_gap_waits_is_named_and_can_be_given_up() {
        let mut b = Buffer::new(Acked::default());
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

    proptest! {
        /// Whatever order deliveries come in and however often, every message is handed on once, in order.
        #[test]
        fn every_message_comes_once_in_order(order in proptest::collection::vec(1u64..12, 1..80), sizes in proptest::collection::vec(0u64..4, 12), step in 1usize..5) {
            let mut b = Buffer::new(Acked::default());
            let mut got = Vec::new();
            for n in order.iter().copied().chain(1..12) {
                b.offer(held(n, sizes[n as usize]));
                let page = b.after(None, step);
                if let Some(last) = page.last() {
                    let to = b.ack_to(Cursor { sub_seq: last.sub_seq, index: last.index }).unwrap();
                    b.ack(to);
                }
                got.extend(page);
            }
            loop {
                let page = b.after(None, step);
                let Some(last) = page.last() else { break };
                let to = b.ack_to(Cursor { sub_seq: last.sub_seq, index: last.index }).unwrap();
                b.ack(to);
                got.extend(page);
            }
            let want: Vec<_> = (1..12u64).flat_map(|n| (0..sizes[n as usize]).map(move |i| message(n, i))).collect();
            prop_assert_eq!(got, want);
        }
    }
}
