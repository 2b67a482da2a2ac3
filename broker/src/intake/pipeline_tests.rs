#![allow(clippy::unwrap_used)]
use super::*;
use crate::intake::Position;
use concordat_protocol::hash::sha256;
use concordat_protocol::ids::DatasetId;
use concordat_protocol::message::PlainEvent;
use proptest::prelude::*;

fn source(adapter: &str, batch_no: u64) -> SourceState {
    SourceState { adapter: adapter.into(), batch_no, checkpoint: batch_no.to_be_bytes().to_vec().into() }
}

fn batch(ids: &[String]) -> Batch {
    let mut messages = Prepared::default();
    for id in ids {
        let json = format!("\"{id}\"");
        let event = PlainEvent { attributes: &[("id", &json)], data: &[] };
        messages.push_plain([0; 32], &event, &[""; 0]).unwrap();
    }
    Batch { messages, newest_ms: None }
}

/// Batch `n` of an adapter has `n % 3 + 1` messages.
fn ids(n: u64) -> Vec<String> {
    (0..=n % 3).map(|i| format!("b{n}-{i}")).collect()
}

fn post(batch_no: u64, reply: u64) -> Post<u64> {
    let before = source("load", batch_no.saturating_sub(1)).checkpoint;
    let after = sha256(&[if batch_no > 1 { &before } else { &[] }]);
    Post { source: Some(source("load", batch_no)), after: Some(after), batch: batch(&ids(batch_no)), reply }
}

fn single(id: &str, reply: u64) -> Post<u64> {
    Post { source: None, after: None, batch: batch(&[id.to_owned()]), reply }
}

#[derive(Clone)]
struct Stored {
    header: EnvelopeHeader,
    state: SourceState,
    ids: Vec<String>,
}

/// JetStream's contract, enforced: an envelope is stored only at the place it expects, behind the one it names.
#[derive(Default)]
struct Stream {
    stored: Vec<Stored>,
}

impl Stream {
    fn publish(&mut self, envelope: &Stored, place: u64, follows: Option<Hash>) -> Result<u64, ()> {
        let last = self.stored.last().map(|s| s.header.root);
        if self.stored.len() as u64 + 1 != place || (follows.is_some() && follows != last) {
            return Err(());
        }
        self.stored.push(envelope.clone());
        Ok(place)
    }

    fn head(&self) -> Head {
        let place = self.stored.len() as u64;
        self.stored.last().map_or_else(Head::empty, |s| Head::after(&s.header, s.state.clone(), place))
    }

    fn ids(&self) -> Vec<String> {
        self.stored.iter().flat_map(|s| s.ids.clone()).collect()
    }
}

fn envelope(draft: Draft<u64>) -> (Stored, Option<Hash>, Sent<u64>) {
    let Draft { first_seq, messages, follows, sent } = draft;
    let ids: Vec<String> = messages
        .records()
        .iter()
        .map(|r| {
            let event: serde_json::Value = serde_json::from_slice(&r.event).unwrap();
            event["id"].as_str().unwrap().to_owned()
        })
        .collect();
    let root = sha256(&[&first_seq.to_be_bytes(), ids.join(",").as_bytes()]);
    let dataset = DatasetId::new("ds:grid/load@1").unwrap();
    let count = ids.len() as u64;
    let header = EnvelopeHeader { chain: "city".into(), dataset, first_seq, count, source: [0; 32], root };
    (Stored { header, state: sent.state.clone(), ids }, follows, sent)
}

/// What happens to an envelope on its way.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Good,
    /// Not stored.
    Lost,
    /// Stored, but its acknowledgement is lost.
    Silent,
    /// Another process is quicker and takes its place.
    Overtaken,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![8 => Just(Fate::Good), 1 => Just(Fate::Lost), 1 => Just(Fate::Silent), 1 => Just(Fate::Overtaken)]
}

/// A pipeline with its stream and an adapter that keeps up to eight batches on their way.
struct World {
    now: Instant,
    pipeline: Pipeline<u64>,
    stream: Stream,
    acks: VecDeque<Result<u64, ()>>,
    fates: VecDeque<Fate>,
    replies: u64,
    /// Batches asked for and not answered, by reply.
    open: BTreeMap<u64, u64>,
    singles: BTreeMap<u64, String>,
    durable_singles: Vec<String>,
    /// Batch that the adapter sends next, and whether it must ask first.
    next: u64,
    ask: bool,
    foreign: u64,
}

impl World {
    fn new(fates: Vec<Fate>) -> Self {
        Self {
            now: Instant::now(),
            pipeline: Pipeline::new("d", Head::empty()),
            stream: Stream::default(),
            acks: VecDeque::new(),
            fates: fates.into(),
            replies: 0,
            open: BTreeMap::new(),
            singles: BTreeMap::new(),
            durable_singles: vec![],
            next: 1,
            ask: false,
            foreign: 0,
        }
    }

    fn hear(&mut self, said: Said<u64>) {
        for (reply, answer) in said {
            if let Some(id) = self.singles.remove(&reply) {
                if answer.is_ok() {
                    assert!(self.stream.ids().contains(&id), "acknowledged and not stored: {id}");
                    self.durable_singles.push(id);
                }
                continue;
            }
            let n = self.open.remove(&reply).expect("answered twice");
            match answer {
                Ok(accepted) => {
                    assert_eq!(accepted.accepted as usize, ids(n).len());
                    assert!(self.stream.ids().contains(&ids(n)[0]), "acknowledged and not stored: batch {n}");
                }
                Err(IntakeError::OtherAdapter { .. }) => panic!("there is one adapter"),
                Err(_) => self.ask = true,
            }
        }
    }

    /// The adapter posts what it may, in the order that `at` gives.
    fn adapter(&mut self, at: usize, last: u64) {
        if self.ask && self.open.is_empty() {
            self.next = self.pipeline.durable().source.batch_no + 1;
            self.ask = false;
        }
        let mut ready = vec![];
        while !self.ask && self.open.len() + ready.len() < 8 && self.next <= last {
            ready.push(self.next);
            self.next += 1;
        }
        while !ready.is_empty() {
            let n = ready.remove(at % ready.len());
            self.replies += 1;
            self.open.insert(self.replies, n);
            let said = self.pipeline.take(post(n, self.replies), self.now);
            self.hear(said);
        }
    }

    fn send(&mut self) {
        let mut said = vec![];
        while let Some(draft) = self.pipeline.next(1 << 20, &mut said) {
            let (stored, follows, sent) = envelope(draft);
            let place = sent.place;
            let fate = self.fates.pop_front().unwrap_or(Fate::Good);
            if fate == Fate::Overtaken {
                self.foreign += 1;
                let head = self.stream.head();
                let id = format!("foreign-{}", self.foreign);
                let root = sha256(&[id.as_bytes()]);
                let header = EnvelopeHeader { first_seq: head.next_seq, count: 1, root, ..stored.header.clone() };
                self.stream.stored.push(Stored { header, state: head.source, ids: vec![id] });
            }
            let ack = if fate == Fate::Lost { Err(()) } else { self.stream.publish(&stored, place, follows) };
            self.acks.push_back(if fate == Fate::Silent { Err(()) } else { ack });
            self.pipeline.sent(&stored.header, sent);
        }
        self.hear(said);
    }

    fn ack(&mut self) {
        let Some(ack) = self.acks.pop_front() else { return };
        if let Some((_, said)) = ack.ok().and_then(|place| self.pipeline.acked(place)) {
            return self.hear(said);
        }
        self.acks.clear();
        let (_, said) = self.pipeline.reconcile(self.stream.head(), &IntakeError::Unavailable("lost".into()));
        assert_eq!(self.pipeline.in_flight(), 0);
        self.hear(said);
    }

    fn check(&self, last: u64) {
        let own: Vec<String> = self.stream.ids().into_iter().filter(|id| id.starts_with('b')).collect();
        let want: Vec<String> = (1..=last).flat_map(ids).collect();
        assert_eq!(own, want, "each message of the adapter once, in order");
        let mut seen: Vec<String> = self.stream.ids().into_iter().filter(|id| id.starts_with('s')).collect();
        seen.retain(|id| self.durable_singles.contains(id));
        assert_eq!(seen.len(), self.durable_singles.len(), "acknowledged single messages are there once");
        let mut next = 1;
        for s in &self.stream.stored {
            assert_eq!(s.header.first_seq, next, "numbers without gap");
            next += s.header.count;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    /// Whatever order batches arrive in and whatever becomes of their envelopes: nothing is lost, nothing comes twice,
    /// and nothing is acknowledged that is not stored.
    #[test]
    fn every_message_is_stored_once_in_order(
        steps in proptest::collection::vec((0..4u8, 0..8usize), 0..200),
        fates in proptest::collection::vec(fate(), 0..40),
        last in 1..40u64,
    ) {
        let mut world = World::new(fates);
        let mut singles = 0;
        for (what, at) in steps {
            match what {
                0 => world.adapter(at, last),
                1 => world.send(),
                2 => world.ack(),
                _ => {
                    singles += 1;
                    world.replies += 1;
                    let (reply, id) = (world.replies, format!("s{singles}"));
                    world.singles.insert(reply, id.clone());
                    let said = world.pipeline.take(single(&id, reply), world.now);
                    world.hear(said);
                }
            }
        }
        // Everything comes to its end, the clock included.
        for _ in 0..2_000 {
            world.adapter(0, last);
            world.send();
            world.ack();
            world.now += Duration::from_millis(100);
            let said = world.pipeline.expire(world.now);
            world.hear(said);
        }
        prop_assert!(world.open.is_empty() && world.singles.is_empty(), "somebody still waits");
        prop_assert_eq!(world.next, last + 1);
        world.check(last);
    }
}

fn answers(said: Said<u64>) -> Vec<(u64, Result<Accepted, &'static str>)> {
    said.into_iter().map(|(r, a)| (r, a.map_err(|e| e.code()))).collect()
}

fn sent(p: &mut Pipeline<u64>) -> Option<Stored> {
    let (stored, _, sent) = envelope(p.next(1 << 20, &mut vec![])?);
    p.sent(&stored.header, sent);
    Some(stored)
}

#[test]
fn a_batch_waits_for_its_predecessor_and_not_for_ever() {
    let (now, mut p) = (Instant::now(), Pipeline::new("d", Head::empty()));
    assert!(p.take(post(2, 20), now).is_empty());
    assert!(sent(&mut p).is_none());
    assert!(p.take(post(1, 10), now).is_empty());
    assert_eq!(sent(&mut p).unwrap().ids, ids(1));
    assert_eq!(sent(&mut p).unwrap().ids, ids(2));
    assert!(p.take(post(4, 40), now).is_empty());
    assert!(p.expire(now + PATIENCE / 2).is_empty());
    assert_eq!(p.deadline(), Some(now + PATIENCE));
    assert_eq!(answers(p.expire(now + PATIENCE)), [(40, Err("batch-number"))]);
    assert_eq!(answers(p.take(post(3 + WINDOW, 99), now)), [(99, Err("batch-number"))]);
    assert_eq!(answers(p.take(post(0, 98), now)), [(98, Err("batch-number"))]);
}

#[test]
fn a_repeated_batch_gets_the_answer_of_the_first_and_another_content_does_not() {
    let (now, mut p) = (Instant::now(), Pipeline::new("d", Head::empty()));
    p.take(post(1, 1), now);
    sent(&mut p).unwrap();
    assert!(p.take(post(1, 2), now).is_empty(), "on its way: waits with the first");
    let mut other = post(1, 3);
    other.source.as_mut().unwrap().checkpoint = vec![9].into();
    assert!(p.take(other, now).is_empty());
    let (durable, said) = p.acked(1).unwrap();
    let good = Ok(Accepted { accepted: 2, last_seq: 2 });
    assert_eq!(answers(said), [(1, good), (2, good), (3, Err("batch-number"))]);
    assert_eq!(durable.head.position(), Position { batch_no: 1, checkpoint: 1u64.to_be_bytes().to_vec() });
    assert_eq!(answers(p.take(post(1, 4), now)), [(4, good)], "durable: the same answer");
    assert!(p.acked(1).is_none(), "nothing is on its way");
}

#[test]
fn a_second_adapter_does_not_take_the_place_of_the_first() {
    let (now, mut p) = (Instant::now(), Pipeline::new("d", Head::empty()));
    let other = |batch_no, reply| Post { source: Some(source("other", batch_no)), ..post(batch_no, reply) };
    p.take(post(1, 1), now);
    p.take(other(2, 2), now);
    sent(&mut p).unwrap();
    let mut said = vec![];
    assert!(p.next(1 << 20, &mut said).is_none());
    assert_eq!(answers(said), [(2, Err("other-adapter"))]);
    assert_eq!(answers(p.take(other(2, 3), now)), [(3, Err("other-adapter"))]);
    assert!(p.take(single("x", 4), now).is_empty(), "single messages leave the adapter's position alone");
    let stored = sent(&mut p).unwrap();
    assert_eq!((stored.state, stored.header.first_seq), (source("load", 1), 3));
}

#[test]
fn single_messages_that_wait_together_share_an_envelope() {
    let (now, mut p) = (Instant::now(), Pipeline::new("d", Head::empty()));
    p.take(single("s0", 0), now);
    assert_eq!(sent(&mut p).unwrap().ids.len(), 1, "the first does not wait");
    (1..300).for_each(|n| drop(p.take(single(&format!("s{n}"), n), now)));
    assert_eq!(sent(&mut p).unwrap().ids.len(), 256, "a full one does not wait");
    assert!(sent(&mut p).is_none(), "the rest waits for an acknowledgement");
    assert_eq!(p.acked(1).unwrap().1.len(), 1);
    let (_, said) = p.acked(2).unwrap();
    assert_eq!(said.len(), 256);
    assert_eq!(said[255], (256, Ok(Accepted { accepted: 1, last_seq: 257 })));
    assert_eq!(sent(&mut p).unwrap().ids.len(), 43);
    // An envelope is no larger than the streams take.
    p.acked(3).unwrap();
    p.take(single("a", 1), now);
    p.take(single("b", 2), now);
    assert_eq!(p.next(100, &mut vec![]).unwrap().messages.len(), 1);
}

#[test]
fn when_the_stream_cannot_be_read_nobody_is_told_of_success() {
    let (now, mut p) = (Instant::now(), Pipeline::new("d", Head::empty()));
    p.take(post(1, 1), now);
    sent(&mut p).unwrap();
    p.take(post(3, 3), now);
    p.take(single("s", 4), now);
    let said = answers(p.fail(&IntakeError::Unavailable("gone".into())));
    assert_eq!(said, [(1, Err("streams-down")), (3, Err("streams-down")), (4, Err("streams-down"))]);
}

#[test]
fn a_batch_does_not_follow_another_reading_of_the_source() {
    let (now, mut p) = (Instant::now(), Pipeline::new("d", Head::empty()));
    let mut other = post(1, 1);
    other.source.as_mut().unwrap().checkpoint = vec![9].into();
    p.take(other, now);
    p.take(post(2, 2), now);
    sent(&mut p).unwrap();
    let mut said = vec![];
    assert!(p.next(1 << 20, &mut said).is_none());
    assert_eq!(answers(said), [(2, Err("batch-number"))]);
    // Who does not say what came before is believed.
    p.take(Post { after: None, ..post(2, 3) }, now);
    assert_eq!(sent(&mut p).unwrap().ids, ids(2));
}
