//! Batches on their way to the broker: several at once, each with its own checkpoint, settled in order.

use std::collections::{BTreeMap, VecDeque};

use tokio::task::JoinSet;

use crate::client::{Answer, BrokerClient, Outgoing, Position};
use crate::contract::{AdapterError, Checkpoint};
use crate::lines::{Lines, Ready};
use crate::runner::RunConfig;

/// A batch that was pulled and is not durable yet.
#[derive(Debug)]
pub(crate) struct Pulled {
    /// Records that are not refused.
    pub lines: Lines,
    /// Rows it came from, good and bad.
    pub rows: u64,
    /// Where the source goes on after it.
    pub checkpoint: Checkpoint,
    /// Its number, once it was posted.
    number: Option<u64>,
    /// The checkpoint of the batch before it, once it was posted.
    after: Checkpoint,
}

impl Pulled {
    fn new(ready: Ready) -> Self {
        let rows = ready.rows() as u64;
        Self { lines: ready.lines, rows, checkpoint: ready.checkpoint, number: None, after: Checkpoint::default() }
    }
}

/// What became of a post.
type Told = Result<Answer, AdapterError>;

/// What was pulled and is not durable, oldest first, and the posts that are under way.
pub(crate) struct Flights<'a> {
    client: &'a BrokerClient,
    adapter: &'a str,
    dataset: &'a str,
    queue: VecDeque<Pulled>,
    posts: JoinSet<(u64, Told)>,
    answers: BTreeMap<u64, Told>,
    /// The newest batch that was posted, or that the broker has.
    newest: Position,
    /// How many may be under way: one after a failure, doubled by each success.
    window: usize,
    most: usize,
}

impl<'a> Flights<'a> {
    /// Nothing yet; `newest` is where the broker stands.
    pub fn new(client: &'a BrokerClient, config: &'a RunConfig, newest: &Position) -> Self {
        let most = config.in_flight.max(1);
        Self {
            client,
            adapter: &config.adapter,
            dataset: &config.dataset,
            queue: VecDeque::new(),
            posts: JoinSet::new(),
            answers: BTreeMap::new(),
            newest: newest.clone(),
            window: most,
            most,
        }
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Takes a batch from the source and posts it as soon as it may be under way.
    pub fn push(&mut self, ready: Ready) {
        self.queue.push_back(Pulled::new(ready));
        self.post_all();
    }

    /// Posts what may be under way. A batch of which nothing is good has no number: the next one's checkpoint covers
    /// it.
    fn post_all(&mut self) {
        let mut under_way = self.queue.iter().filter(|p| p.number.is_some()).count();
        for i in 0..self.queue.len() {
            let Some(pulled) = self.queue.get_mut(i) else { return };
            if under_way >= self.window || pulled.number.is_some() || pulled.lines.is_empty() {
                continue;
            }
            under_way += 1;
            let number = self.newest.batch_no + 1;
            pulled.number = Some(number);
            let newest = Position { batch_no: number, checkpoint: pulled.checkpoint.clone() };
            pulled.after = std::mem::replace(&mut self.newest, newest).checkpoint;
            self.post(i, number);
        }
    }

    fn post(&mut self, at: usize, number: u64) {
        let Some(pulled) = self.queue.get(at) else { return };
        let body = pulled.lines.body();
        let (adapter, dataset) = (self.adapter.to_owned(), self.dataset.to_owned());
        let (client, checkpoint, after) = (self.client.clone(), pulled.checkpoint.clone(), pulled.after.clone());
        self.posts.spawn(async move {
            let out = Outgoing {
                adapter: &adapter,
                dataset: &dataset,
                batch_no: number,
                checkpoint: &checkpoint,
                after: &after,
            };
            (number, client.post(out, body).await)
        });
    }

    /// Waits until there is an answer to the oldest batch, if it was posted. The wait can be given up at any time.
    pub async fn answered(&mut self) {
        self.post_all();
        let Some(number) = self.queue.front().and_then(|p| p.number) else { return };
        while !self.answers.contains_key(&number) {
            match self.posts.join_next().await {
                Some(Ok((n, answer))) => drop(self.answers.insert(n, answer)),
                // A task that was lost had its post under way: what became of it, the broker knows.
                Some(Err(e)) => drop(self.answers.insert(number, Err(self.lost(e.to_string())))),
                None => drop(self.answers.insert(number, Err(self.lost("its answer is missing".to_owned())))),
            }
        }
    }

    /// The oldest batch with its answer; without one if there was nothing to post. `None` when nothing is left, or when
    /// the answer is not there yet.
    pub fn front(&mut self) -> Option<(&mut Pulled, Option<(u64, Told)>)> {
        let Some(number) = self.queue.front()?.number else { return self.queue.front_mut().map(|p| (p, None)) };
        let answer = self.answers.remove(&number)?;
        self.queue.front_mut().map(|p| (p, Some((number, answer))))
    }

    fn lost(&self, detail: String) -> AdapterError {
        AdapterError::Unreachable { broker: "its own task".to_owned(), detail }
    }

    /// The oldest batch is durable: more may be under way.
    pub fn landed(&mut self) -> Option<Pulled> {
        self.window = (self.window * 2).min(self.most);
        self.queue.pop_front()
    }

    /// The oldest batch holds nothing any more.
    pub fn pass(&mut self) {
        self.queue.pop_front();
    }

    /// Posts the oldest batch again under its number: some of its lines were refused and are gone. False when none is
    /// left, so that the numbers after it are wrong.
    pub fn again(&mut self, number: u64) -> bool {
        let Some(front) = self.queue.front_mut() else { return false };
        if front.lines.is_empty() {
            front.number = None;
            return false;
        }
        self.post(0, number);
        true
    }

    /// Waits until nothing is under way any more, so that the broker's position is the last word.
    pub async fn land(&mut self) {
        while self.posts.join_next().await.is_some() {}
        self.answers.clear();
        self.window = 1;
    }

    /// Goes on from where the broker stands: what is durable leaves the queue and is returned, the rest gets new
    /// numbers. `None` when the broker stands at none of the batches: then the queue is empty, and the source must be
    /// read from there.
    pub fn settle(&mut self, before: &Position, found: &Position) -> Option<Vec<Pulled>> {
        let at = self.queue.iter().position(|p| p.number == Some(found.batch_no) && p.checkpoint == found.checkpoint);
        let durable = match at {
            Some(n) => self.queue.drain(..=n).collect(),
            None if found == before => vec![],
            None => {
                self.queue.clear();
                self.newest = found.clone();
                return None;
            }
        };
        self.queue.iter_mut().for_each(|p| p.number = None);
        self.newest = found.clone();
        Some(durable)
    }
}
