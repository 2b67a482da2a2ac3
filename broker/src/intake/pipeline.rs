//! The pure decisions of a dataset's stream: which batch comes next, what is on its way, what to answer to whom.
//!
//! Several envelopes are on their way at once. An envelope's place is predicted when it is signed; what JetStream
//! acknowledged is durable, and only that is ever told. When one does not arrive, none after it can (each names its
//! predecessor), so that reading the newest envelope of the stream settles all of them.

use super::check::Batch;
use super::envelope::Head;
use super::{Accepted, Answer, IntakeError};
use concordat_protocol::hash::{Hash, sha256};
use concordat_protocol::limits::ENVELOPE_MESSAGES_MAX;
use concordat_protocol::message::{EnvelopeHeader, Prepared, SourceState};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Envelopes on their way at once.
pub(super) const IN_FLIGHT: usize = 16;
/// How far an adapter's batch may be ahead of the newest one sent: its predecessors are on their way here.
pub(super) const WINDOW: u64 = 32;
/// How long a batch waits for its predecessors.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// Answers kept for batches that are sent again.
const RECENT: usize = WINDOW as usize;

/// A checked batch and where its answer goes.
#[derive(Debug)]
pub(super) struct Post<R> {
    /// The adapter's place; none for messages that no adapter stands behind.
    pub source: Option<SourceState>,
    /// SHA-256 of the checkpoint before it, where the adapter says which one that is.
    pub after: Option<Hash>,
    /// What was read.
    pub batch: Batch,
    /// Where the answer goes.
    pub reply: R,
}

/// Answers to give.
pub(super) type Said<R> = Vec<(R, Answer)>;

/// Someone who waits for an envelope.
#[derive(Debug)]
enum Pending<R> {
    /// Whose messages are in it.
    Part(R, Accepted),
    /// Who sent other content under the number of its batch: is told where the adapter stands then.
    Other(R),
}

/// What is to be signed next.
#[derive(Debug)]
pub(super) struct Draft<R> {
    /// Sequence number of its first message.
    pub first_seq: u64,
    /// Its messages.
    pub messages: Prepared,
    /// The envelope before it, if that is on its way.
    pub follows: Option<Hash>,
    /// What is kept while it is on its way.
    pub sent: Sent<R>,
}

/// What is kept of a draft while its envelope is on its way.
#[derive(Debug)]
pub(super) struct Sent<R> {
    /// What the envelope says of its source.
    pub state: SourceState,
    /// The place it takes in the stream.
    pub place: u64,
    newest_ms: Option<i64>,
    is_batch: bool,
    replies: Vec<Pending<R>>,
}

impl<R> Sent<R> {
    /// It was not signed: nothing of it is in the stream.
    pub fn refuse(self, why: &IntakeError) -> Said<R> {
        self.replies.into_iter().map(|p| (p.into_reply(), Err(why.clone()))).collect()
    }
}

impl<R> Pending<R> {
    fn into_reply(self) -> R {
        match self {
            Self::Part(reply, _) | Self::Other(reply) => reply,
        }
    }

    fn durable(self, head: &Head) -> (R, Answer) {
        match self {
            Self::Part(reply, accepted) => (reply, Ok(accepted)),
            Self::Other(reply) => (reply, Err(IntakeError::Elsewhere(head.position()))),
        }
    }
}

#[derive(Debug)]
struct Flight<R> {
    head: Head,
    newest_ms: Option<i64>,
    is_batch: bool,
    replies: Vec<Pending<R>>,
}

/// What became durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Durable {
    /// The stream after it.
    pub head: Head,
    /// Newest time of a message.
    pub newest_ms: Option<i64>,
}

/// The state of a dataset's stream.
pub(super) struct Pipeline<R> {
    dataset: String,
    durable: Head,
    flights: VecDeque<Flight<R>>,
    /// Adapter's batches that are not sent yet, with the end of their patience.
    batches: BTreeMap<u64, (Post<R>, Instant)>,
    singles: VecDeque<Post<R>>,
    recent: VecDeque<(SourceState, Accepted)>,
}

impl<R> Pipeline<R> {
    /// After reading a stream whose newest envelope says this.
    pub fn new(dataset: &str, head: Head) -> Self {
        let mut new = Self {
            dataset: dataset.to_owned(),
            durable: Head::empty(),
            flights: VecDeque::new(),
            batches: BTreeMap::new(),
            singles: VecDeque::new(),
            recent: VecDeque::new(),
        };
        new.begin(head);
        new
    }

    fn begin(&mut self, head: Head) {
        self.recent.clear();
        self.recent.push_back((head.source.clone(), head.answer));
        self.durable = head;
    }

    /// The stream once everything on its way is durable.
    fn tail(&self) -> &Head {
        self.flights.back().map_or(&self.durable, |f| &f.head)
    }

    /// What is durable.
    pub fn durable(&self) -> &Head {
        &self.durable
    }

    /// Envelopes on their way.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Posts that were not sent yet.
    pub fn waiting(&self) -> usize {
        self.batches.len() + self.singles.len()
    }

    /// When the first batch's patience ends.
    pub fn deadline(&self) -> Option<Instant> {
        self.batches.values().map(|(_, until)| *until).min()
    }

    /// Takes a batch in; what can be answered at once is.
    pub fn take(&mut self, post: Post<R>, now: Instant) -> Said<R> {
        let Some(source) = post.source.clone() else {
            self.singles.push_back(post);
            return vec![];
        };
        let tail = self.tail();
        if let Some(refused) = self.other_adapter(tail, &source) {
            return vec![(post.reply, Err(refused))];
        }
        if source.batch_no <= tail.source.batch_no {
            return self.again(source, post.reply);
        }
        let position = self.durable.position();
        if source.batch_no - tail.source.batch_no > WINDOW {
            return vec![(post.reply, Err(IntakeError::Elsewhere(position)))];
        }
        // A batch that comes twice while it waits: the first sender has gone away.
        let before = self.batches.insert(source.batch_no, (post, now + PATIENCE));
        before.map(|(post, _)| (post.reply, Err(IntakeError::Elsewhere(position)))).into_iter().collect()
    }

    fn other_adapter(&self, tail: &Head, source: &SourceState) -> Option<IntakeError> {
        let adapter = &tail.source.adapter;
        let other = !adapter.is_empty() && *adapter != source.adapter;
        other.then(|| IntakeError::OtherAdapter { dataset: self.dataset.clone(), adapter: adapter.clone() })
    }

    /// A number that was used: the same batch gets the same answer; another one is told where the adapter stands. The
    /// checkpoint tells them apart: it names the place in the source.
    fn again(&mut self, source: SourceState, reply: R) -> Said<R> {
        if let Some(f) = self.flights.iter_mut().find(|f| f.is_batch && f.head.source.batch_no == source.batch_no) {
            let same = f.head.source == source;
            f.replies.push(if same { Pending::Part(reply, f.head.answer) } else { Pending::Other(reply) });
            return vec![];
        }
        let known = self.recent.iter().find(|(s, _)| *s == source && s.batch_no > 0);
        let answer = known.map(|(_, accepted)| *accepted);
        vec![(reply, answer.ok_or_else(|| IntakeError::Elsewhere(self.durable.position())))]
    }

    /// Tells the batches whose predecessors did not come in time.
    pub fn expire(&mut self, now: Instant) -> Said<R> {
        let position = self.durable.position();
        let late: Vec<u64> = self.batches.iter().filter(|(_, (_, until))| *until <= now).map(|(n, _)| *n).collect();
        let late = late.iter().filter_map(|n| self.batches.remove(n));
        late.map(|(post, _)| (post.reply, Err(IntakeError::Elsewhere(position.clone())))).collect()
    }

    /// What to sign next, if there is room on the way and something whose turn it is. `bytes` is the most an envelope's
    /// messages may take together.
    pub fn next(&mut self, bytes: usize, said: &mut Said<R>) -> Option<Draft<R>> {
        if self.flights.len() >= IN_FLIGHT {
            return None;
        }
        if let Some(draft) = self.next_singles(bytes) {
            return Some(draft);
        }
        loop {
            let next = self.tail().source.batch_no.checked_add(1)?;
            let (post, _) = self.batches.remove(&next)?;
            let Some(source) = post.source else { continue };
            if let Some(refused) = self.other_adapter(self.tail(), &source) {
                said.push((post.reply, Err(refused)));
                continue;
            }
            // Its number follows, but what is here was cut from the source in another way.
            if post.after.is_some_and(|after| after != sha256(&[&self.tail().source.checkpoint])) {
                said.push((post.reply, Err(IntakeError::Elsewhere(self.durable.position()))));
                continue;
            }
            return Some(self.draft(source, post.batch, vec![post.reply], true));
        }
    }

    /// Messages without an adapter share an envelope: it closes when it is full, or at once when none of its kind is on
    /// its way.
    fn next_singles(&mut self, bytes: usize) -> Option<Draft<R>> {
        let waiting: usize = self.singles.iter().map(|p| p.batch.messages.len()).sum();
        let busy = self.flights.iter().any(|f| !f.is_batch);
        if waiting == 0 || (busy && waiting < ENVELOPE_MESSAGES_MAX) {
            return None;
        }
        let first = self.singles.pop_front()?;
        let (mut batch, mut parts) = (first.batch, Vec::new());
        let mut from = self.tail().next_seq;
        let mut part = |reply, count: usize| {
            from += count as u64;
            parts.push(Pending::Part(reply, Accepted { accepted: count as u64, last_seq: from - 1 }));
        };
        part(first.reply, batch.messages.len());
        while let Some(post) = self.singles.front() {
            let more = &post.batch.messages;
            let full = batch.messages.len() + more.len() > ENVELOPE_MESSAGES_MAX;
            if full || batch.messages.bytes() + more.bytes() > bytes {
                break;
            }
            let Some(post) = self.singles.pop_front() else { break };
            part(post.reply, post.batch.messages.len());
            batch.messages.append(post.batch.messages);
            batch.newest_ms = post.batch.newest_ms.or(batch.newest_ms);
        }
        let source = self.tail().source.clone();
        let mut draft = self.draft(source, batch, vec![], false);
        draft.sent.replies = parts;
        Some(draft)
    }

    fn draft(&self, state: SourceState, batch: Batch, replies: Vec<R>, is_batch: bool) -> Draft<R> {
        let tail = self.tail();
        let count = batch.messages.len() as u64;
        let accepted = Accepted { accepted: count, last_seq: tail.next_seq + count - 1 };
        let replies = replies.into_iter().map(|r| Pending::Part(r, accepted)).collect();
        let place = tail.subject_seq + 1;
        Draft {
            first_seq: tail.next_seq,
            messages: batch.messages,
            follows: (!self.flights.is_empty()).then_some(tail.root),
            sent: Sent { state, place, newest_ms: batch.newest_ms, is_batch, replies },
        }
    }

    /// An envelope is on its way.
    pub fn sent(&mut self, header: &EnvelopeHeader, sent: Sent<R>) {
        let head = Head::after(header, sent.state, sent.place);
        self.flights.push_back(Flight {
            head,
            newest_ms: sent.newest_ms,
            is_batch: sent.is_batch,
            replies: sent.replies,
        });
    }

    /// The oldest envelope on its way is durable at this place; none if that is not where it should be: then the stream
    /// must be read.
    pub fn acked(&mut self, place: u64) -> Option<(Durable, Said<R>)> {
        if self.flights.front()?.head.subject_seq != place {
            return None;
        }
        let flight = self.flights.pop_front()?;
        Some(self.landed(flight))
    }

    fn landed(&mut self, flight: Flight<R>) -> (Durable, Said<R>) {
        if flight.is_batch {
            self.recent.push_back((flight.head.source.clone(), flight.head.answer));
            if self.recent.len() > RECENT {
                self.recent.pop_front();
            }
        }
        self.durable = flight.head;
        let said = flight.replies.into_iter().map(|p| p.durable(&self.durable)).collect();
        (Durable { head: self.durable.clone(), newest_ms: flight.newest_ms }, said)
    }

    /// The stream was read anew and its newest envelope says this: everything on its way up to it is durable, the rest
    /// never will be.
    pub fn reconcile(&mut self, head: Head, why: &IntakeError) -> (Vec<Durable>, Said<R>) {
        let (mut durable, mut said) = (Vec::new(), Vec::new());
        let landed = self.flights.iter().position(|f| f.head.root == head.root && f.head.next_seq == head.next_seq);
        for _ in 0..landed.map_or(0, |n| n + 1) {
            let Some(flight) = self.flights.pop_front() else { break };
            let (d, s) = self.landed(flight);
            durable.push(d);
            said.extend(s);
        }
        for flight in std::mem::take(&mut self.flights) {
            said.extend(flight.replies.into_iter().map(|p| match p {
                Pending::Part(reply, _) => (reply, Err(why.clone())),
                other => other.durable(&head),
            }));
        }
        if durable.is_empty() && head.root != self.durable.root {
            self.begin(head);
        } else {
            self.durable = head;
        }
        (durable, said)
    }

    /// The stream cannot be read: nobody is told that anything is durable.
    pub fn fail(&mut self, why: &IntakeError) -> Said<R> {
        let flights = std::mem::take(&mut self.flights).into_iter().flat_map(|f| f.replies);
        let replies: Vec<R> = flights.map(Pending::into_reply).collect();
        let batches = std::mem::take(&mut self.batches).into_values().map(|(p, _)| p.reply);
        let singles = std::mem::take(&mut self.singles).into_iter().map(|p| p.reply);
        replies.into_iter().chain(batches).chain(singles).map(|r| (r, Err(why.clone()))).collect()
    }
}

#[cfg(test)]
#[path = "pipeline_tests.rs"]
mod tests;
