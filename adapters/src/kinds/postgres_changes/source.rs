//! First the rows that are there, then every change in the order of the commits.
//!
//! A checkpoint names the commit and how many of its changes were told. The slot's own position follows what is durable, never
//! before: the server sends the rest again after a restart, and what was told of it is passed over.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::document::ChangesDoc;
use super::look::{self, Look, Part};
use super::rows::{OWN, Ready, cell, stamp};
use super::stream::{Live, News, RowNews};
use crate::contract::{AdapterError, BATCH_BYTES_MAX, Batch, Checkpoint, Next, Origin, Row, Source};
use crate::document::{Common, DocumentError};
use crate::kinds::sql_poll::check::keys;
use crate::kinds::sql_poll::postgres::{PostgresSession, Reach};
use crate::kinds::sql_poll::session::{Cause, Failure, Relation, Session};
use crate::kinds::sql_poll::{Way, way};
use crate::mapping::Cell;

/// Longest wait for a change.
const WAIT: Duration = Duration::from_millis(500);

/// The contents of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    v: u8,
    /// Rows handed out so far.
    n: u64,
    /// Key of the last row of the first look, while that goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    look: Option<Vec<String>>,
    /// Where the views of an interrupted first look stand, until the changes are past them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    looks: Vec<Part>,
    /// Place of the last commit of which something was told.
    #[serde(default)]
    commit: u64,
    /// Changes of it that were told.
    #[serde(default)]
    told: u64,
}

impl Place {
    fn decode(checkpoint: &Checkpoint) -> Result<Self, AdapterError> {
        if checkpoint.is_start() {
            return Ok(Self { v: 1, look: Some(Vec::new()), ..Self::default() });
        }
        checkpoint.json()
    }

    fn encode(&self) -> Checkpoint {
        Checkpoint::of_json(self)
    }

    /// Where this stands among the commits.
    fn order(&self) -> (u64, u64) {
        (self.commit, self.told)
    }
}

/// Changes of one table.
pub(super) struct ChangesSource {
    doc: ChangesDoc,
    common: Common,
    reach: Reach,
    live: Option<Live>,
    look: Option<Look>,
    ready: Option<Ready>,
    /// Who is asked how keys are ordered.
    judge: Option<PostgresSession>,
    expected: Option<Checkpoint>,
    place: Place,
    durable: (u64, u64),
    /// Places of the stream, each with the change before it.
    until: VecDeque<((u64, u64), u64)>,
    /// A change that was read and found no room.
    held: Option<Box<RowNews>>,
    notes: Vec<String>,
}

impl ChangesSource {
    pub(super) fn new(doc: ChangesDoc, base: &Path) -> Result<Self, AdapterError> {
        doc.check()?;
        let Way::Postgres(reach) = way(&doc.connect, &doc.adapter.value, base)? else {
            return Err(DocumentError::rule("connect.dsn", "this kind reads PostgreSQL alone").into());
        };
        Ok(Self {
            common: doc.common(),
            doc,
            reach: *reach,
            live: None,
            look: None,
            ready: None,
            judge: None,
            expected: None,
            place: Place::default(),
            durable: (0, 0),
            until: VecDeque::new(),
            held: None,
            notes: Vec::new(),
        })
    }

    fn relation(&self) -> Relation {
        Relation::Table(self.doc.table.value.split('.').map(str::to_owned).collect())
    }

    fn failed(&mut self, failure: &Failure) -> AdapterError {
        (self.live, self.look, self.judge, self.expected) = (None, None, None, None);
        failure.at(&self.reach.place())
    }

    fn reset(&mut self, from: &Checkpoint) -> Result<(), AdapterError> {
        (self.live, self.look, self.held) = (None, None, None);
        self.until.clear();
        self.place = Place::decode(from)?;
        self.expected = Some(from.clone());
        Ok(())
    }

    fn found(&self, session: &mut PostgresSession) -> Result<Ready, AdapterError> {
        let (relation, place) = (self.relation(), self.reach.place());
        let columns = session.columns(&relation).map_err(|e| e.at(&place))?;
        let way = Way::Postgres(Box::new(self.reach.clone()));
        let key = keys(session, &way, &relation);
        let key: Vec<usize> = key.iter().filter_map(|k| columns.iter().position(|c| c.name == *k)).collect();
        if key.is_empty() {
            let detail = format!("{} has no primary key; its changes could not be told apart", self.doc.table.value);
            return Err(Failure::new(Cause::Refused, detail).at(&place));
        }
        Ok(Ready::new(&self.common, &self.doc.table.value, columns, key)?)
    }

    /// Opens a view of the rows as they are, with the slot where there is none.
    fn begin_look(&mut self) -> Result<(), AdapterError> {
        let place = self.reach.place();
        let mut session = self.session()?;
        let ready = self.found(&mut session)?;
        let (look, seen) = Look::begin(session, ready, &self.reach, &self.doc.slot.value).map_err(|e| e.at(&place))?;
        if let Some(seen) = seen {
            look::add(&mut self.place.looks, self.place.look.clone().unwrap_or_default(), seen);
        }
        self.look = Some(look);
        Ok(())
    }

    fn session(&self) -> Result<PostgresSession, AdapterError> {
        PostgresSession::connect(&self.reach, self.doc.timeout()).map_err(|e| e.at(&self.reach.place()))
    }

    fn read_look(&mut self, batch: &mut Batch, max: usize) -> Result<(), AdapterError> {
        if self.look.is_none() {
            self.begin_look()?;
        }
        let relation = self.relation();
        let Some(look) = &mut self.look else { return Ok(()) };
        let after = self.place.look.clone().unwrap_or_default();
        let (lines, over) = match look.page(&relation, &after, max) {
            Ok(page) => page,
            Err(failed) => return Err(self.failed_as(failed)),
        };
        let mut bytes = 0;
        for line in lines {
            if bytes >= BATCH_BYTES_MAX {
                return Ok(());
            }
            self.place.n += 1;
            let own = ["snapshot".to_owned(), String::new(), String::new()];
            let cells: Vec<Cell<'_>> = line.cells.iter().map(|c| Cell::from(c.as_deref())).collect();
            let row = look.ready.row(&cells, &own, Origin::row(&self.doc.table.value, self.place.n));
            bytes += row.size_hint();
            batch.push(row);
            self.place.look = Some(line.keyset);
        }
        if over {
            self.place.look = None;
            self.ready = self.look.take().map(|l| l.ready);
        }
        Ok(())
    }

    fn failed_as(&mut self, failed: look::Failed) -> AdapterError {
        match failed {
            look::Failed::Source(failure) => self.failed(&failure),
            look::Failed::Checkpoint(error) => error,
        }
    }

    /// True when the first look showed already what this change made of its row.
    fn showed(&mut self, row: &RowNews) -> Result<bool, AdapterError> {
        if self.place.looks.is_empty() {
            return Ok(false);
        }
        let relation = self.relation();
        if self.judge.is_none() {
            self.judge = Some(self.session()?);
        }
        let (Some(judge), Some(ready)) = (&mut self.judge, &self.ready) else { return Ok(false) };
        let Some(key) = ready.key_of(&row.table, &row.data) else { return Ok(false) };
        let is_behind = |after: &[String]| look::is_behind(judge, &relation, ready, &key, after);
        match look::showed(&mut self.place.looks, row.commit, is_behind) {
            Ok(showed) => {
                if self.place.looks.is_empty() {
                    self.judge = None;
                }
                Ok(showed)
            }
            Err(failed) => Err(self.failed_as(failed)),
        }
    }

    fn connect(&mut self) -> Result<(), AdapterError> {
        let place = self.reach.place();
        if self.ready.is_none() {
            let mut session = self.session()?;
            self.ready = Some(self.found(&mut session)?);
        }
        if self.live.is_none() {
            let live = Live::start(&self.reach, &self.doc.wanted()).map_err(|e| e.at(&place))?;
            self.live = Some(live);
        }
        Ok(())
    }

    fn read_changes(&mut self, batch: &mut Batch, max: usize) -> Result<(), AdapterError> {
        self.connect()?;
        let (begun, mut bytes) = (Instant::now(), 0);
        while batch.rows() < max && bytes < BATCH_BYTES_MAX {
            let news = match (self.held.take(), &mut self.live) {
                (Some(held), _) => Ok(Some(News::Row(held))),
                // The first change is waited for; the others are taken as far as they are there.
                (None, Some(live)) => {
                    let wait = if batch.rows() == 0 { WAIT.saturating_sub(begun.elapsed()) } else { Duration::ZERO };
                    live.next(wait)
                }
                (None, None) => Ok(None),
            };
            match news {
                Ok(Some(News::Row(row))) if (row.commit, row.number) <= self.place.order() => {}
                Ok(Some(News::Row(row))) if self.showed(&row)? => {}
                Ok(Some(News::Row(row))) => {
                    self.place.n += 1;
                    let (commit, number) = (row.commit, row.number);
                    let row = self.row(*row)?;
                    bytes += row.size_hint();
                    batch.push(row);
                    (self.place.commit, self.place.told) = (commit, number);
                }
                Ok(Some(News::Until(place))) => {
                    let order = self.place.order();
                    match self.until.back_mut().filter(|(after, _)| *after == order) {
                        Some((_, until)) => *until = place,
                        None => self.until.push_back((order, place)),
                    }
                    self.confirm();
                }
                Ok(Some(News::Truncate(table))) => {
                    self.notes.push(format!(
                        "{}.{} was truncated: its rows are gone and nobody is told of each",
                        table.schema, table.name
                    ));
                }
                Ok(None) => break,
                Err(e) => return Err(self.failed(&e)),
            }
        }
        Ok(())
    }

    fn row(&mut self, news: RowNews) -> Result<Row, AdapterError> {
        let Some(ready) = &self.ready else {
            return Err(Failure::new(Cause::Lost, "the table is not known").at(&self.reach.place()));
        };
        if let Some(gone) =
            ready.mapper.steps().iter().find(|s| {
                !OWN.contains(&s.from.as_str()) && !news.table.columns.iter().any(|(name, _)| *name == s.from)
            })
        {
            let detail = format!(
                "{} no longer has the column `{}`; correct the document or the source",
                self.doc.table.value, gone.from
            );
            let failure = Failure::new(Cause::Missing, detail);
            self.ready = None;
            return Err(self.failed(&failure));
        }
        let own = [news.op.name().to_owned(), format!("{:016X}-{:08}", news.commit, news.number), stamp(news.micros)];
        let cells: Vec<Cell<'_>> = ready.columns.iter().map(|c| cell(&news.table, &news.data, &c.name)).collect();
        Ok(ready.row(&cells, &own, Origin::row(&self.doc.table.value, self.place.n)))
    }

    /// Confirms what lies behind durable changes alone.
    fn confirm(&mut self) {
        let mut place = None;
        while let Some((after, until)) = self.until.front() {
            if *after > self.durable {
                break;
            }
            place = Some(*until);
            self.until.pop_front();
        }
        if let (Some(place), Some(live)) = (place, &self.live) {
            live.confirm(place);
        }
    }
}

impl Source for ChangesSource {
    fn read(&mut self, from: &Checkpoint, max: usize) -> Result<Batch, AdapterError> {
        if self.expected.as_ref() != Some(from) {
            self.reset(from)?;
        }
        let mut batch = Batch::at(from, Next::More);
        if self.place.look.is_some() {
            self.read_look(&mut batch, max)?;
        } else {
            self.read_changes(&mut batch, max)?;
            if batch.rows() == 0 {
                // The wait was here.
                batch.next = Next::Idle(Duration::ZERO);
            }
        }
        if batch.rows() > 0 {
            batch.checkpoint = self.place.encode();
        }
        batch.notes.append(&mut self.notes);
        self.expected = Some(batch.checkpoint.clone());
        Ok(batch)
    }

    fn ack(&mut self, durable: &Checkpoint) -> Result<(), AdapterError> {
        let place = Place::decode(durable)?;
        if place.look.is_none() {
            self.durable = self.durable.max(place.order());
            self.confirm();
        }
        Ok(())
    }
}
