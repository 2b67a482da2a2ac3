//! Histories of senders and receivers, and the check over them (pure): nothing acknowledged is lost, nothing comes twice,
//! out of order, altered or invented. It reads what applications wrote down, never a broker's counters.
//!
//! A sender writes a line before it sends a message and one after the acknowledgement came. A receiver writes a line for
//! every message it is given, and one after its own acknowledgement of a place was answered. A message is known by a key
//! that both sides see. A receiver whose clause opens less than was sent is checked against the senders' histories of
//! just that: [`Line`] holds a digest of what the receiver must see.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::io::{self, Write};

/// Place of a message in a subscription: number of the delivery, position in it.
pub type Place = (u64, u64);

/// One line of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "did", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Line {
    /// A sender is about to send this; it may have tried before.
    Attempted {
        /// The message's key.
        key: String,
        /// Digest of what a receiver must see of it.
        digest: String,
    },
    /// The sender was told that this is durable.
    Acknowledged {
        /// The message's key.
        key: String,
    },
    /// A receiver was given this.
    Received {
        /// Where it stands in the subscription.
        at: Place,
        /// The message's key.
        key: String,
        /// Digest of what the receiver saw.
        digest: String,
    },
    /// The receiver acknowledged everything up to and with this place, and that was answered.
    Committed {
        /// The place.
        at: Place,
    },
}

impl Line {
    /// Appends the line; one write, so that a killed writer leaves at most its last line torn.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let mut text = serde_json::to_string(self).map_err(io::Error::other)?;
        text.push('\n');
        to.write_all(text.as_bytes())?;
        to.flush()
    }
}

/// Reads a history. A last line without its end was torn by a kill and is left out.
pub fn read(text: &str) -> Result<Vec<Line>, String> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines = whole.lines().enumerate().filter(|(_, l)| !l.is_empty());
    lines.map(|(i, l)| serde_json::from_str(l).map_err(|e| format!("history, line {}: {e}", i + 1))).collect()
}

/// What histories show to be wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Acknowledged to the sender, never given to the receiver.
    Lost(String),
    /// One message at two places.
    Twice(String, Place, Place),
    /// Given again although the receiver had acknowledged its place.
    After(String, Place),
    /// Two messages at one place.
    Changed(Place, String, String),
    /// A message before one that the same sender sent earlier.
    Order(String, String),
    /// A message at a place before one that was given already, and that was never seen at that place.
    Back(String, Place, Place),
    /// Other content than was sent.
    Altered(String),
    /// Nobody sent it.
    Invented(String),
    /// A history that contradicts itself.
    History(String),
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(k) => write!(f, "{k} was acknowledged and never delivered"),
            Self::Twice(k, a, b) => write!(f, "{k} was delivered twice, at {}.{} and at {}.{}", a.0, a.1, b.0, b.1),
            Self::After(k, a) => write!(f, "{k} was delivered again after {}.{} was acknowledged", a.0, a.1),
            Self::Changed(at, a, b) => write!(f, "{}.{} was {a} and then {b}", at.0, at.1),
            Self::Order(a, b) => write!(f, "{b} was delivered after {a}, and was sent before it"),
            Self::Back(k, a, b) => write!(f, "{k} at {}.{} came after {}.{}", a.0, a.1, b.0, b.1),
            Self::Altered(k) => write!(f, "{k} was delivered with other content than it was sent with"),
            Self::Invented(k) => write!(f, "{k} was delivered and nobody sent it"),
            Self::History(why) => write!(f, "the histories contradict themselves: {why}"),
        }
    }
}

/// Counts of a pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Messages that were sent at least once.
    pub attempted: usize,
    /// Messages that were acknowledged to their sender.
    pub acknowledged: usize,
    /// Messages that were given to the receiver.
    pub delivered: usize,
    /// How often one was given again before its place was acknowledged.
    pub again: usize,
}

struct Sent<'a> {
    sender: usize,
    order: usize,
    digest: &'a str,
    acknowledged: bool,
}

/// Checks one receiver against everyone who sent to it. Each sender's messages must come in the order in which it first
/// sent them; senders among each other have no order. Returns every fault there is.
pub fn check(senders: &[Vec<Line>], receiver: &[Line]) -> Result<Counted, Vec<Fault>> {
    let mut faults = Vec::new();
    let sent = sent(senders, &mut faults);
    let (first, again) = received(receiver, &mut faults);
    let mut places: BTreeMap<&str, Place> = BTreeMap::new();
    let mut newest: BTreeMap<usize, (usize, &str)> = BTreeMap::new();
    for (at, (key, digest)) in &first {
        let Some(of) = sent.get(key) else {
            faults.push(Fault::Invented((*key).into()));
            continue;
        };
        if let Some(before) = places.insert(key, *at) {
            faults.push(Fault::Twice((*key).into(), before, *at));
            continue;
        }
        if of.digest != *digest {
            faults.push(Fault::Altered((*key).into()));
        }
        match newest.get(&of.sender) {
            Some((order, other)) if *order > of.order => {
                faults.push(Fault::Order((*other).into(), (*key).into()));
            }
            _ => drop(newest.insert(of.sender, (of.order, key))),
        }
    }
    let lost = sent.iter().filter(|(key, s)| s.acknowledged && !places.contains_key(*key));
    faults.extend(lost.map(|(key, _)| Fault::Lost((*key).into())));
    let acknowledged = sent.values().filter(|s| s.acknowledged).count();
    if faults.is_empty() {
        Ok(Counted { attempted: sent.len(), acknowledged, delivered: places.len(), again })
    } else {
        Err(faults)
    }
}

fn sent<'a>(senders: &'a [Vec<Line>], faults: &mut Vec<Fault>) -> BTreeMap<&'a str, Sent<'a>> {
    let mut sent: BTreeMap<&str, Sent> = BTreeMap::new();
    for (sender, lines) in senders.iter().enumerate() {
        for (order, line) in lines.iter().enumerate() {
            match line {
                Line::Attempted { key, digest } => {
                    let new = Sent { sender, order, digest, acknowledged: false };
                    let known = sent.entry(key).or_insert(new);
                    if known.sender != sender || known.digest != digest {
                        faults.push(Fault::History(format!("{key} was sent with different content, or by two")));
                    }
                }
                Line::Acknowledged { key } => match sent.get_mut(key.as_str()) {
                    Some(known) if known.sender == sender => known.acknowledged = true,
                    _ => faults.push(Fault::History(format!("{key} was acknowledged before it was sent"))),
                },
                _ => faults.push(Fault::History("a sender received something".into())),
            }
        }
    }
    sent
}

type First<'a> = BTreeMap<Place, (&'a str, &'a str)>;

/// What the receiver was given, each place once; repeats of a place are allowed until it is acknowledged.
fn received<'a>(receiver: &'a [Line], faults: &mut Vec<Fault>) -> (First<'a>, usize) {
    let (mut first, mut again, mut committed): (First, usize, Option<Place>) = (BTreeMap::new(), 0, None);
    for line in receiver {
        match line {
            Line::Received { at, key, digest } => {
                if committed.is_some_and(|c| *at <= c) {
                    faults.push(Fault::After(key.clone(), *at));
                }
                let last = first.last_key_value().map(|(at, _)| *at);
                match first.get(at) {
                    Some((other, _)) if other != key => {
                        faults.push(Fault::Changed(*at, (*other).into(), key.clone()));
                    }
                    Some((_, other)) if other != digest => faults.push(Fault::Altered(key.clone())),
                    Some(_) => again += 1,
                    None => {
                        if let Some(last) = last.filter(|last| at < last) {
                            faults.push(Fault::Back(key.clone(), *at, last));
                        }
                        first.insert(*at, (key, digest));
                    }
                }
            }
            Line::Committed { at } => {
                if !first.contains_key(at) {
                    faults.push(Fault::History(format!("{}.{} was acknowledged and never received", at.0, at.1)));
                }
                committed = committed.max(Some(*at));
            }
            _ => faults.push(Fault::History("a receiver sent something".into())),
        }
    }
    (first, again)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sender(name: &str, n: u64) -> Vec<Line> {
        let one = |i| {
            let key = format!("{name}{i}");
            [Line::Attempted { key: key.clone(), digest: format!("d-{key}") }, Line::Acknowledged { key }]
        };
        (0..n).flat_map(one).collect()
    }

    fn got(at: Place, key: &str) -> Line {
        Line::Received { at, key: key.into(), digest: format!("d-{key}") }
    }

    /// Two deliveries of five messages of one sender, the first one acknowledged.
    fn receiver() -> Vec<Line> {
        let mut lines: Vec<Line> = (0..5).map(|i| got((1, i), &format!("a{i}"))).collect();
        lines.push(Line::Committed { at: (1, 4) });
        lines.extend((5..10).map(|i| got((2, i - 5), &format!("a{i}"))));
        lines
    }

    fn faults(receiver: &[Line]) -> Vec<Fault> {
        check(&[sender("a", 10)], receiver).unwrap_err()
    }

    #[test]
    fn whole_histories_pass() {
        let counted = check(&[sender("a", 10)], &receiver()).unwrap();
        assert_eq!(counted, Counted { attempted: 10, acknowledged: 10, delivered: 10, again: 0 });
    }

    #[test]
    fn a_seeded_loss_is_found() {
        for gone in (0..11).filter(|i| *i != 5) {
            let mut lines = receiver();
            let Line::Received { key, .. } = lines.remove(gone) else { panic!() };
            assert!(faults(&lines).contains(&Fault::Lost(key)), "{gone}");
        }
        assert_eq!(faults(&receiver()[..6]).len(), 5, "a lost end");
        assert_eq!(faults(&[]).len(), 10, "all of it");
    }

    #[test]
    fn a_seeded_duplicate_is_found() {
        let mut lines = receiver();
        lines.push(got((3, 0), "a7"));
        assert_eq!(faults(&lines), [Fault::Twice("a7".into(), (2, 2), (3, 0))]);
        // The same place again, after it was acknowledged.
        let mut lines = receiver();
        lines.push(got((1, 4), "a4"));
        assert_eq!(faults(&lines), [Fault::After("a4".into(), (1, 4))]);
    }

    #[test]
    fn what_is_not_acknowledged_may_come_again_at_its_place_only() {
        let mut lines = receiver();
        lines.extend([got((2, 0), "a5"), got((2, 1), "a6")]);
        assert_eq!(check(&[sender("a", 10)], &lines).unwrap().again, 2);
        lines.push(got((2, 1), "a7"));
        assert_eq!(faults(&lines), [Fault::Changed((2, 1), "a6".into(), "a7".into())]);
    }

    #[test]
    fn a_swapped_order_is_found() {
        let mut lines = receiver();
        lines[1] = got((1, 1), "a2");
        lines[2] = got((1, 2), "a1");
        assert_eq!(faults(&lines), [Fault::Order("a2".into(), "a1".into())]);
        // Places that go back.
        let mut lines = receiver();
        lines.swap(6, 7);
        assert_eq!(faults(&lines), [Fault::Back("a5".into(), (2, 0), (2, 1))]);
    }

    #[test]
    fn an_altered_message_is_found() {
        let mut lines = receiver();
        lines[3] = Line::Received { at: (1, 3), key: "a3".into(), digest: "other".into() };
        assert_eq!(faults(&lines), [Fault::Altered("a3".into())]);
    }

    #[test]
    fn an_invention_is_found() {
        let mut lines = receiver();
        lines.push(got((3, 0), "b0"));
        assert_eq!(faults(&lines), [Fault::Invented("b0".into())]);
    }

    #[test]
    fn what_was_never_acknowledged_may_come_or_not() {
        let mut own = sender("a", 10);
        own.push(Line::Attempted { key: "a10".into(), digest: "d-a10".into() });
        let mut lines = receiver();
        assert_eq!(check(std::slice::from_ref(&own), &lines).unwrap().delivered, 10);
        lines.push(got((3, 0), "a10"));
        assert_eq!(check(std::slice::from_ref(&own), &lines).unwrap().delivered, 11);
        lines.push(got((3, 1), "a10"));
        assert!(check(&[own], &lines).is_err(), "but not twice");
    }

    #[test]
    fn senders_have_no_order_among_each_other() {
        let lines = [got((1, 0), "b0"), got((1, 1), "a0"), got((1, 2), "b1"), got((2, 0), "a1")];
        assert!(check(&[sender("a", 2), sender("b", 2)], &lines).is_ok());
        let lines = [got((1, 0), "b1"), got((1, 1), "a0"), got((1, 2), "b0"), got((2, 0), "a1")];
        assert!(check(&[sender("a", 2), sender("b", 2)], &lines).is_err());
    }

    #[test]
    fn histories_that_contradict_themselves_prove_nothing() {
        let early = vec![Line::Acknowledged { key: "a".into() }];
        assert!(matches!(check(&[early], &[]).unwrap_err()[..], [Fault::History(_)]));
        let never = [Line::Committed { at: (1, 0) }];
        assert!(matches!(check(&[], &never).unwrap_err()[..], [Fault::History(_)]));
    }

    #[test]
    fn lines_are_read_as_they_were_written_and_a_torn_one_is_left_out() {
        let mut bytes = Vec::new();
        let lines = [sender("a", 2), receiver()].concat();
        lines.iter().for_each(|l| l.write(&mut bytes).unwrap());
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(read(&text).unwrap(), lines);
        assert_eq!(read(&text[..text.len() - 3]).unwrap(), lines[..lines.len() - 1]);
        assert!(read("{\"did\":\"guessed\"}\n").is_err());
        assert!(read("").unwrap().is_empty());
    }
}
