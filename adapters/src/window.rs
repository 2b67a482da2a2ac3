//! The messages that a source has not acknowledged to its server, and the checkpoint that names them.
//!
//! A queue has no position to go back to: the server keeps what is not acknowledged, and sends it again. So a message is
//! acknowledged only once it is durable with us, and a checkpoint holds the fingerprints of all messages that may come
//! again although they are durable. What comes again is then known, and acknowledged at once.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::contract::{AdapterError, BATCH_BYTES_MAX, Batch, Checkpoint, Next, Row};

/// Most fingerprints of a checkpoint, which has at most 2,900 bytes.
const PRINTS_MAX: usize = 480;
/// Most messages that are handed out and not acknowledged: as many again may be acknowledged without being heard.
pub const OPEN_MAX: usize = PRINTS_MAX / 2;
/// Most messages that wait, handed out or not.
pub const WAITING_MAX: usize = 4_096;

/// Messages after which nothing of an earlier connection is expected again.
const EXPECTING: usize = 2_000;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 17;
const PRINT_BYTES: usize = 6;

/// A fingerprint: messages with the same one make the same record.
pub type Print = [u8; PRINT_BYTES];
type RunId = [u8; 8];

/// The fingerprint of a hash.
pub fn print_of(hash: [u8; 32]) -> Print {
    let mut out = [0; PRINT_BYTES];
    out.iter_mut().zip(hash).for_each(|(o, h)| *o = h);
    out
}

/// A message of a server that keeps it until it is acknowledged.
pub trait Queued {
    /// What acknowledges it, on the connection that brought it.
    type Token: Copy;
    /// The message by its contents.
    fn print(&self) -> Print;
    /// What acknowledges it; none when nobody waits for that, so that it does not come again either.
    fn token(&self) -> Option<Self::Token>;
    /// It came again, or will not.
    fn set_token(&mut self, token: Option<Self::Token>);
}

/// One message that waits for its acknowledgement.
#[derive(Debug, Clone)]
pub struct Waiting<M> {
    /// Its number in this run, from 1.
    pub seq: u64,
    print: Print,
    /// The message came on the connection that stands; otherwise it will come again.
    live: bool,
    /// The message.
    pub message: M,
}

/// The contents of a checkpoint.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    run: RunId,
    seq: u64,
    prints: Vec<Print>,
}

impl Place {
    fn encode(&self) -> Checkpoint {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.run);
        bytes.extend_from_slice(&self.seq.to_be_bytes());
        self.prints.iter().for_each(|p| bytes.extend_from_slice(p));
        Checkpoint(bytes)
    }

    fn decode(checkpoint: &Checkpoint) -> Result<Self, AdapterError> {
        let refuse =
            || AdapterError::Checkpoint { detail: "it is not one of a source that is acknowledged".to_owned() };
        let (head, rest) = checkpoint.0.split_at_checked(HEAD_BYTES).ok_or_else(refuse)?;
        let (version, head) = head.split_first().ok_or_else(refuse)?;
        let (run, seq) = head.split_at_checked(8).ok_or_else(refuse)?;
        if *version != VERSION || rest.len() % PRINT_BYTES != 0 {
            return Err(refuse());
        }
        Ok(Self {
            run: run.try_into().map_err(|_| refuse())?,
            seq: u64::from_be_bytes(seq.try_into().map_err(|_| refuse())?),
            prints: rest.chunks_exact(PRINT_BYTES).filter_map(|c| c.try_into().ok()).collect(),
        })
    }
}

/// Messages in the order they came, with what is known of earlier ones.
#[derive(Debug)]
pub struct Window<M> {
    run: RunId,
    newest: u64,
    waiting: VecDeque<Waiting<M>>,
    /// Durable messages that may come again, and how often.
    known: HashMap<Print, u32>,
    /// Messages that were acknowledged last; whether the server heard it, nobody says.
    recent: VecDeque<Print>,
    /// Of these, what may come again on the connection that stands.
    again: HashMap<Print, u32>,
    /// New messages until nothing of the past is expected again.
    expecting: usize,
    /// The checkpoint of another run that this one goes on from.
    adopted: Option<Checkpoint>,
}

impl<M: Queued> Window<M> {
    /// An empty window; `run` tells this process's checkpoints from those of others.
    pub fn new(run: RunId) -> Self {
        Self {
            run,
            newest: 0,
            waiting: VecDeque::new(),
            known: HashMap::new(),
            recent: VecDeque::new(),
            again: HashMap::new(),
            expecting: EXPECTING,
            adopted: None,
        }
    }

    /// Messages that wait for their acknowledgement.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// True when none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A new connection: nothing of the one before can be acknowledged. Without a kept session nothing comes again.
    pub fn connected(&mut self, session_kept: bool) {
        for waiting in &mut self.waiting {
            waiting.live = false;
            if !session_kept {
                waiting.message.set_token(None);
            }
        }
        self.again.clear();
        self.expecting = EXPECTING;
        match session_kept {
            true => self.recent.iter().for_each(|print| *self.again.entry(*print).or_default() += 1),
            false => self.known.clear(),
        }
    }

    /// Takes a message. A token that comes back is to be acknowledged at once: the message is durable.
    pub fn received(&mut self, message: M) -> Option<M::Token> {
        let print = message.print();
        if let Some(token) = message.token() {
            if forget(&mut self.known, print) || forget(&mut self.again, print) {
                self.remember(print);
                return Some(token);
            }
            let again = |w: &&mut Waiting<M>| !w.live && w.print == print && w.message.token().is_some();
            if let Some(waiting) = self.waiting.iter_mut().find(again) {
                waiting.live = true;
                waiting.message.set_token(Some(token));
                return None;
            }
        }
        self.expecting = self.expecting.saturating_sub(1);
        if self.expecting == 0 {
            self.known.clear();
            self.again.clear();
        }
        self.newest += 1;
        self.waiting.push_back(Waiting { seq: self.newest, print, live: true, message });
        None
    }

    /// An acknowledgement is on its way, and may be lost with the connection.
    fn remember(&mut self, print: Print) {
        self.recent.push_back(print);
        if self.recent.len() > EXPECTING {
            self.recent.pop_front();
        }
    }

    /// Where a checkpoint stands: the newest message that it covers, and what can be acknowledged because it is durable
    /// already.
    pub fn place(&mut self, from: &Checkpoint) -> Result<(u64, Vec<M::Token>), AdapterError> {
        if from.is_start() {
            return Ok((0, vec![]));
        }
        if self.adopted.as_ref() == Some(from) {
            return Ok((0, vec![]));
        }
        let place = Place::decode(from)?;
        if place.run == self.run {
            return Ok((place.seq, vec![]));
        }
        for print in place.prints {
            *self.known.entry(print).or_default() += 1;
        }
        let mut tokens = Vec::new();
        for waiting in std::mem::take(&mut self.waiting) {
            match waiting.message.token() {
                Some(token) if forget(&mut self.known, waiting.print) => tokens.extend(waiting.live.then_some(token)),
                _ => self.waiting.push_back(waiting),
            }
        }
        self.adopted = Some(from.clone());
        Ok((0, tokens))
    }

    /// The messages behind `seq`, at most `max` and at most as many as a checkpoint can name.
    pub fn behind(&self, seq: u64, max: usize) -> impl Iterator<Item = &Waiting<M>> {
        let behind = self.waiting.partition_point(|w| w.seq <= seq);
        let room = OPEN_MAX.saturating_sub(behind).min(max);
        self.waiting.iter().skip(behind).take(room)
    }

    /// Messages that came on the connection that stands and are not acknowledged yet.
    pub fn live(&self) -> impl Iterator<Item = &M> {
        self.waiting.iter().filter(|w| w.live).map(|w| &w.message)
    }

    /// True when a message waits behind `seq`, whether or not it may be handed out now.
    pub fn has_behind(&self, seq: u64) -> bool {
        self.waiting.back().is_some_and(|w| w.seq > seq)
    }

    /// A batch of the messages behind `seq`, which is where `from` stands.
    pub fn batch(&self, from: &Checkpoint, seq: u64, max: usize, row: impl Fn(&M) -> Row) -> Batch {
        let mut batch = Batch::at(from, Next::More);
        let (mut last, mut bytes) = (seq, 0);
        for waiting in self.behind(seq, max) {
            let row = row(&waiting.message);
            bytes += match &row {
                Row::Good(record) => record.size_hint(),
                Row::Bad(_) => 0,
            };
            if bytes > BATCH_BYTES_MAX && batch.rows() > 0 {
                break;
            }
            batch.push(row);
            last = waiting.seq;
        }
        if last > seq {
            batch.checkpoint = self.checkpoint(last);
        } else {
            // Nothing came, or as much is handed out as a checkpoint can name: the acknowledgement makes room.
            batch.next = Next::Idle(Duration::from_millis(5));
        }
        batch
    }

    /// The checkpoint behind a message.
    pub fn checkpoint(&self, seq: u64) -> Checkpoint {
        let open = self.waiting.iter().take_while(|w| w.seq <= seq).filter(|w| w.message.token().is_some());
        let mut prints: Vec<Print> = open.map(|w| w.print).collect();
        let known = self.known.iter().flat_map(|(p, n)| std::iter::repeat_n(*p, *n as usize));
        let room = |prints: &[Print]| PRINTS_MAX.saturating_sub(prints.len());
        prints.extend(known.take(room(&prints)));
        prints.extend(self.recent.iter().rev().take(room(&prints)));
        prints.sort_unstable();
        Place { run: self.run, seq, prints }.encode()
    }

    /// Everything up to a checkpoint is durable: what to acknowledge, in the order it came.
    pub fn acknowledged(&mut self, checkpoint: &Checkpoint) -> Vec<M::Token> {
        let Ok(place) = Place::decode(checkpoint) else { return vec![] };
        if place.run != self.run {
            return vec![];
        }
        let mut tokens = Vec::new();
        while self.waiting.front().is_some_and(|w| w.seq <= place.seq) {
            let Some(waiting) = self.waiting.pop_front() else { break };
            match waiting.message.token() {
                Some(token) if waiting.live => {
                    tokens.push(token);
                    self.remember(waiting.print);
                }
                // Its connection is gone: it comes again and is known then.
                Some(_) => *self.known.entry(waiting.print).or_default() += 1,
                None => {}
            }
        }
        tokens
    }
}

fn forget(known: &mut HashMap<Print, u32>, print: Print) -> bool {
    let Some(count) = known.get_mut(&print) else { return false };
    *count -= 1;
    if *count == 0 {
        known.remove(&print);
    }
    true
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
