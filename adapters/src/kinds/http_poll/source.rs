//! A service that is asked again and again, as a source of batches.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::fetch::{Asker, Page, Question, Reply, Service, place};
use super::items::Items;
use super::paging::{Ask, Paging, Since, newest_of};
use super::spool::{Head, Spool, print};
use crate::contract::{AdapterError, BATCH_BYTES_MAX, Batch, Checkpoint, ErrorClass, Next, Origin, Row, Source};
use crate::json_rows::JsonRows;

/// Longest wait in one call.
const WAIT: Duration = Duration::from_millis(400);

/// What a source is told.
pub struct Plan {
    /// Where the items of an answer are.
    pub items: Items,
    /// How pages follow each other.
    pub paging: Paging,
    /// How only what is new is asked for.
    pub since: Option<Since>,
    /// Wait between two rounds.
    pub every: Duration,
    /// Most pages of one round.
    pub pages_max: u32,
    /// The mapping.
    pub rows: JsonRows<()>,
}

/// The contents of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    v: u8,
    /// Number of the answer; 0 before the first.
    unit: u64,
    /// Items of it that are done.
    row: usize,
    /// All of them are.
    done: bool,
    /// The question after it.
    ask: Ask,
    /// Where its round began, to ask again if the answer is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<String>,
}

impl Place {
    fn decode(from: &Checkpoint) -> Result<Self, AdapterError> {
        if from.is_start() {
            return Ok(Self { v: 1, done: true, ..Self::default() });
        }
        from.json()
    }

    fn encode(&self) -> Checkpoint {
        Checkpoint::of_json(self)
    }
}

/// One answer that is being handed out.
struct Unit {
    head: Head,
    since: Option<String>,
    /// Rows that are not known from before, with the number of items up to and with them.
    rows: Vec<(usize, Row)>,
}

/// A service as a source.
pub struct HttpSource {
    plan: Plan,
    url: Url,
    asker: Asker,
    spool: Spool,
    unit: Option<Unit>,
    /// The newest answer's number and the question after it, which may be newer than the answer: a round that brought
    /// nothing is not kept.
    newest: Option<(u64, Ask)>,
    /// When the newest round began.
    began: Option<Instant>,
    restarted: bool,
    resumed: bool,
    notes: Vec<String>,
}

impl HttpSource {
    /// A source that keeps its answers below `folder`.
    pub fn new(service: Service, plan: Plan, folder: &Path) -> Result<Self, AdapterError> {
        Ok(Self {
            plan,
            url: service.url.clone(),
            asker: Asker::new(service),
            spool: Spool::open(folder)?,
            unit: None,
            newest: None,
            began: None,
            restarted: false,
            resumed: false,
            notes: vec![],
        })
    }

    fn items(&self, body: &[u8]) -> Result<Vec<Vec<u8>>, AdapterError> {
        self.plan.items.of(body).map_err(|detail| {
            // Not for ever: a page of an error behind status 200 comes and goes.
            let message = format!("{}: {detail}", place(&self.url));
            AdapterError::source_failed(ErrorClass::Transient, "source.protocol", message)
        })
    }

    /// The rows of an answer that no earlier answer had.
    fn fresh(&mut self, unit: u64, items: &[Vec<u8>]) -> Vec<(usize, Row)> {
        let mut rows = Vec::new();
        let mut here = HashSet::new();
        let from = place(&self.url);
        for (n, item) in items.iter().enumerate() {
            // One place for equal items, so that a bad one that is listed again is one dead letter.
            let row = self.plan.rows.row(Origin::row(from.as_str(), 0), item, item, &|()| crate::mapping::Cell::Null);
            let print = match &row {
                Row::Good(record) => print(record),
                Row::Bad(reject) => bad_print(&reject.raw),
            };
            if here.insert(print) && !self.spool.known(unit, print) {
                rows.push((n + 1, row));
            }
        }
        rows
    }

    /// Once, before anything else: what is durable is known, even if its fingerprints were not written down yet.
    fn resume(&mut self, at: &Place) -> Result<(), AdapterError> {
        if std::mem::replace(&mut self.resumed, true) {
            return Ok(());
        }
        if at.unit == 0 {
            return self.spool.reset();
        }
        for unit in self.spool.kept() + 1..=at.unit {
            if let Some((_, body)) = self.spool.get(unit)? {
                let items = self.items(&body)?;
                self.fresh(unit, &items);
            }
        }
        Ok(())
    }

    /// Loads the answer that a place is in, or the one behind it if that was kept.
    fn load(&mut self, at: &Place) -> Result<(), AdapterError> {
        let wanted = at.unit + u64::from(at.done);
        if self.unit.as_ref().is_some_and(|u| u.head.unit == wanted) {
            return Ok(());
        }
        self.unit = None;
        if let Some((head, body)) = self.spool.get(wanted)? {
            let items = self.items(&body)?;
            let rows = self.fresh(wanted, &items);
            if self.newest.as_ref().is_none_or(|(newest, _)| *newest < wanted) {
                self.newest = Some((wanted, head.ask.clone()));
            }
            self.unit = Some(Unit { since: head.since.clone(), head, rows });
        } else if !at.done {
            let note = "an answer that was not durable yet is not kept here any more: it was asked for again";
            self.notes.push(note.to_owned());
            self.newest = Some((at.unit, Ask { since: at.since.clone(), ..Ask::default() }));
        }
        Ok(())
    }

    /// The question at a place whose answers are all handed out.
    fn question(&mut self, at: &Place) -> Ask {
        match &self.newest {
            Some((unit, ask)) if *unit >= at.unit => ask.clone(),
            _ => {
                self.newest = Some((at.unit, at.ask.clone()));
                at.ask.clone()
            }
        }
    }

    /// Asks, or looks whether the answer is there; `None` when there is nothing to do but wait.
    fn poll(&mut self, at: &Place) -> Result<Option<Duration>, AdapterError> {
        let ask = self.question(at);
        if !self.asker.waiting() {
            if ask.begins() {
                let since = self.began.map(|t| t.elapsed());
                if let Some(left) = since.and_then(|s| self.plan.every.checked_sub(s)).filter(|d| !d.is_zero()) {
                    return Ok(Some(left));
                }
                self.began = Some(Instant::now());
            }
            let url = ask.url(&self.url, &self.plan.paging, self.plan.since.as_ref())?;
            let (etag, modified) = if ask.begins() { (ask.etag.clone(), ask.modified.clone()) } else { (None, None) };
            self.asker.ask(Question { url, etag, modified });
        }
        match self.asker.answer(WAIT) {
            None => Ok(Some(Duration::ZERO)),
            Some(Ok(Reply::Unchanged)) => Ok(None),
            Some(Ok(Reply::Page(page))) => {
                self.restarted = false;
                self.taken(at.unit, &ask, &page).map(|()| None)
            }
            Some(Err(error)) => self.failed(at, &ask, error),
        }
    }

    /// A place in the middle of a list may be gone at the service: once from the start of the round.
    fn failed(&mut self, at: &Place, ask: &Ask, error: AdapterError) -> Result<Option<Duration>, AdapterError> {
        // The next try need not wait for the round's time.
        self.began = None;
        if ask.begins() || self.restarted || error.class() != ErrorClass::Permanent || error.code() == "source.limit" {
            return Err(error);
        }
        self.restarted = true;
        self.notes.push(format!("the list was read again from its beginning: {error}"));
        self.newest = Some((at.unit, Ask { since: ask.since.clone(), ..Ask::default() }));
        Ok(None)
    }

    fn taken(&mut self, before: u64, ask: &Ask, page: &Page) -> Result<(), AdapterError> {
        let items = self.items(&page.body)?;
        let newest = self.plan.since.as_ref().and_then(|since| {
            let items: Vec<&[u8]> = items.iter().map(Vec::as_slice).collect();
            newest_of(&items, &since.path, jiff::Timestamp::now())
        });
        let next = ask.after(&self.plan.paging, page, items.len() as u64, newest.as_deref(), self.plan.pages_max)?;
        let unit = self.newest.as_ref().map_or(before, |(n, _)| *n).max(before) + 1;
        let rows = self.fresh(unit, &items);
        if rows.is_empty() {
            self.newest = Some((unit - 1, next));
            return Ok(());
        }
        let head = Head { unit, ask: next.clone(), since: ask.since.clone() };
        self.spool.put(&head, &page.body)?;
        self.newest = Some((unit, next));
        self.unit = Some(Unit { head, since: ask.since.clone(), rows });
        Ok(())
    }

    /// Rows behind a place.
    fn hand_out(&self, at: &Place, batch: &mut Batch, max: usize) {
        let wanted = at.unit + u64::from(at.done);
        let Some(unit) = self.unit.as_ref().filter(|u| u.head.unit >= wanted) else { return };
        let from = if unit.head.unit == at.unit && !at.done { at.row } else { 0 };
        let (mut bytes, mut row) = (0, None);
        let mut rows = unit.rows.iter().filter(|(n, _)| *n > from).peekable();
        while let Some((n, found)) = rows.peek() {
            bytes += match found {
                Row::Good(record) => record.size_hint(),
                Row::Bad(_) => 0,
            };
            if batch.rows() >= max || (bytes > BATCH_BYTES_MAX && batch.rows() > 0) {
                break;
            }
            batch.push(found.clone());
            row = Some(*n);
            rows.next();
        }
        // What follows the last row of an answer is known already, so the answer is done.
        let done = rows.peek().is_none();
        if let Some(row) = row {
            let (ask, since) = (unit.head.ask.clone(), unit.since.clone());
            batch.checkpoint = Place { v: 1, unit: unit.head.unit, row, done, ask, since }.encode();
        }
    }
}

fn bad_print(raw: &[u8]) -> [u8; 8] {
    let hash = concordat_protocol::hash::sha256(&[b"bad", raw]);
    let mut out = [0; 8];
    out.iter_mut().zip(hash).for_each(|(o, h)| *o = h);
    out
}

impl Source for HttpSource {
    fn read(&mut self, from: &Checkpoint, max: usize) -> Result<Batch, AdapterError> {
        let at = Place::decode(from)?;
        self.resume(&at)?;
        self.load(&at)?;
        let mut batch = Batch::at(from, Next::More);
        self.hand_out(&at, &mut batch, max);
        if batch.rows() == 0 {
            match self.poll(&at)? {
                Some(wait) => batch.next = Next::Idle(wait),
                None => self.hand_out(&at, &mut batch, max),
            }
        }
        batch.notes = std::mem::take(&mut self.notes);
        Ok(batch)
    }

    fn ack(&mut self, durable: &Checkpoint) -> Result<(), AdapterError> {
        let at = Place::decode(durable)?;
        self.resume(&at)?;
        self.spool.durable(at.unit + u64::from(at.done))
    }
}
