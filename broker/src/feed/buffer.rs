//! Deliveries between their check and their acknowledgement (pure): contiguous, each once, handed on from any place.

use super::check::Message;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// Place of a message in a subscription; as text `12.3`. What is acknowledged is everything up to and with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
    /// Its place in the feed stream.
    pub place: u64,
    /// When its provider says it delivered it, milliseconds.
    pub delivered_ms: u64,
    /// Its messages.
    pub messages: Vec<Message>,
    /// What acknowledges it.
    pub ack: T,
}

/// What became of an offered delivery.
#[derive(Debug)]
pub enum Offer<T> {
    /// Taken. `in_order`: every one before it was there.
    Kept {
        /// Whether it came in its turn.
        in_order: bool,
    },
    /// It is held already; the newer acknowledgement replaced the older one.
    Again,
    /// It was acknowledged by the application before, or a seek passes over it: acknowledge it upstream.
    Done(T),
}

/// Where the next delivery comes from after a seek. The stream is read in order from a place at or before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// With the first delivery that comes.
    First,
    /// With the message after this one, or the first that is kept after it.
    After(Cursor),
    /// With this delivery, or the first that is kept after it.
    From(u64),
    /// With the first that was delivered at this time or later, milliseconds.
    Since(u64),
}

/// The deliveries of one subscription that are not acknowledged.
#[derive(Debug)]
pub struct Buffer<T> {
    acked: Acked,
    /// Place of the delivery `acked.sub_seq`, 0 where it is not known.
    acked_place: u64,
    /// A seek whose first delivery has not come yet.
    start: Option<Start>,
    /// Contiguous from `acked` on, except where a gap was given up.
    ready: VecDeque<Held<T>>,
    /// What came before its turn.
    ahead: BTreeMap<u64, Held<T>>,
    next: u64,
}

impl<T> Buffer<T> {
    /// A buffer that goes on from here.
    pub fn new(acked: Acked, acked_place: u64) -> Self {
        let next = acked.sub_seq + 1;
        Self { acked, acked_place, start: None, ready: VecDeque::new(), ahead: BTreeMap::new(), next }
    }

    /// Lets go of everything and begins with the first delivery that fits. What is known of the place before is kept
    /// until it comes.
    pub fn seek(&mut self, start: Start) {
        let acked = match start {
            Start::After(c) => Acked { sub_seq: c.sub_seq.saturating_sub(1), messages: c.index.saturating_add(1) },
            Start::From(n) => Acked { sub_seq: n.saturating_sub(1), messages: 0 },
            Start::First | Start::Since(_) => Acked::default(),
        };
        *self = Self { start: Some(start), ..Self::new(acked, 0) };
    }

    /// A seek whose first delivery has not come.
    pub fn seeking(&self) -> Option<Start> {
        self.start
    }

    /// How far it is acknowledged.
    pub fn acked(&self) -> Acked {
        self.acked
    }

    /// Place of the newest delivery of which none is missing before it; 0 where it is not known.
    pub fn place(&self) -> u64 {
        self.ready.back().map_or(self.acked_place, |h| h.place)
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

    /// Whether a seek passes over it; the first that it does not pass over settles the seek.
    fn passed_over(&mut self, held: &Held<T>) -> bool {
        let passed = match self.start {
            None => return false,
            Some(Start::First) => false,
            Some(Start::After(c)) => held.sub_seq < c.sub_seq,
            Some(Start::From(n)) => held.sub_seq < n,
            Some(Start::Since(ms)) => held.delivered_ms < ms,
        };
        if !passed {
            self.start = None;
            if held.sub_seq != self.acked.sub_seq + 1 {
                // What was asked for is not kept any more: this is the next after it.
                self.acked = Acked { sub_seq: held.sub_seq.saturating_sub(1), messages: 0 };
            }
            (self.next, self.acked_place) = (held.sub_seq, held.place.saturating_sub(1));
        }
        passed
    }

    /// Takes a delivery.
    pub fn offer(&mut self, held: Held<T>) -> Offer<T> {
        if held.sub_seq == 0 || self.passed_over(&held) || held.sub_seq <= self.acked.sub_seq {
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
        let in_order = held.sub_seq == self.next && self.ahead.is_empty();
        let again = self.ahead.insert(held.sub_seq, held).is_some();
        self.advance();
        if again { Offer::Again } else { Offer::Kept { in_order } }
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
        // Whole deliveries before the cursor are not looked into: a reader far ahead costs no more than one at the front.
        let first = cursor.map_or(0, |c| self.ready.partition_point(|h| h.sub_seq < c.sub_seq));
        let all = self.ready.iter().skip(first).flat_map(|h| &h.messages);
        all.filter(|m| !acked(m) && !passed(m)).take(max).cloned().collect()
    }

    /// What an acknowledgement up to this place would make of it, with the place to go on from; none if the message was
    /// never handed on.
    pub fn ack_to(&self, cursor: Cursor) -> Option<(Acked, u64)> {
        if self.start.is_some() || cursor.sub_seq >= self.next {
            return None;
        }
        let here = (self.acked, self.acked_place);
        let Some(held) = self.ready.iter().find(|h| h.sub_seq == cursor.sub_seq) else { return Some(here) };
        let shown = held.messages.len() as u64;
        if cursor.index >= shown {
            return None;
        }
        let to = if cursor.index + 1 == shown {
            Acked { sub_seq: cursor.sub_seq, messages: 0 }
        } else {
            Acked { sub_seq: cursor.sub_seq - 1, messages: cursor.index + 1 }
        };
        if to <= self.acked {
            return Some(here);
        }
        let before = self.ready.iter().take_while(|h| h.sub_seq <= to.sub_seq).last();
        Some((to, before.map_or(self.acked_place, |h| h.place)))
    }

    /// Acknowledges; returns what is to be acknowledged upstream.
    pub fn ack(&mut self, to: Acked) -> Vec<Held<T>> {
        self.acked = self.acked.max(to);
        let mut out = Vec::new();
        while let Some(front) = self.ready.front() {
            let shown = front.messages.len() as u64;
            let spent = shown == 0 || (front.sub_seq == self.acked.sub_seq + 1 && shown <= self.acked.messages);
            if front.sub_seq > self.acked.sub_seq && !spent {
                break;
            }
            if front.sub_seq > self.acked.sub_seq {
                // Nothing more of it is for the application: it counts as acknowledged with the one before.
                self.acked = Acked { sub_seq: front.sub_seq, messages: 0 };
            }
            self.acked_place = front.place;
            out.extend(self.ready.pop_front());
        }
        out
    }

    /// Everything held.
    pub fn held(&self) -> impl Iterator<Item = &Held<T>> {
        self.ready.iter().chain(self.ahead.values())
    }

    /// Lets go of everything; the position stays, and so does a seek.
    pub fn clear(&mut self) {
        *self = Self { start: self.start, ..Self::new(self.acked, self.acked_place) };
    }
}

#[cfg(test)]
#[path = "buffer_tests.rs"]
mod tests;
