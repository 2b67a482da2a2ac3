//! The stream of a slot on a thread of its own: it answers the server while nobody reads, and hands changes over in order.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Buf;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::pgoutput::{Datum, Decoder, Message, Op, Table};
use super::wire::{Frame, Wire};
use crate::kinds::sql_poll::postgres::Reach;
use crate::kinds::sql_poll::runtime::Own;
use crate::kinds::sql_poll::session::{Cause, Failure};

/// Changes that may wait to be read.
const WAITING: usize = 1_024;
/// How often the server hears from us; it gives up after a minute of silence.
const STATUS: Duration = Duration::from_secs(5);
/// Longest wait for the start.
const START: Duration = Duration::from_secs(20);

/// One thing of the stream.
#[derive(Debug, Clone)]
pub(super) enum News {
    /// A row changed.
    Row(Box<RowNews>),
    /// A table lost all rows.
    Truncate(Arc<Table>),
    /// Everything before this place was handed over.
    Until(u64),
}

/// A changed row.
#[derive(Debug, Clone)]
pub(super) struct RowNews {
    /// Place of its transaction's commit.
    pub commit: u64,
    /// Its number in the transaction, from 1.
    pub number: u64,
    /// When it was committed, microseconds since 2000.
    pub micros: i64,
    /// Its table.
    pub table: Arc<Table>,
    /// What happened.
    pub op: Op,
    /// The row.
    pub data: Vec<Datum>,
}

/// A running stream.
pub(super) struct Live {
    news: mpsc::Receiver<Result<News, Failure>>,
    durable: Option<watch::Sender<u64>>,
    thread: Option<JoinHandle<()>>,
    own: Own,
}

/// Which table is read from which slot.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// The slot.
    pub slot: String,
    /// The publication.
    pub publication: String,
    /// Schema, when named, and table.
    pub table: (Option<String>, String),
}

impl Wanted {
    fn is(&self, table: &Table) -> bool {
        self.table.1 == table.name && self.table.0.as_ref().is_none_or(|s| *s == table.schema)
    }
}

impl Live {
    /// Starts the stream where the slot was confirmed.
    pub(super) fn start(reach: &Reach, wanted: &Wanted) -> Result<Self, Failure> {
        let (send, news) = mpsc::channel(WAITING);
        let (durable, confirmed) = watch::channel(0);
        let (own, theirs) = (Own::new()?, Own::new()?);
        let (reach, wanted) = (reach.clone(), wanted.clone());
        let (ready, started) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("replication".to_owned()).spawn(move || {
            let _ = theirs.wait(async {
                let opened = async {
                    let mut wire = Wire::connect(&reach).await?;
                    wire.start(&wanted.slot, &wanted.publication).await?;
                    Ok(wire)
                };
                let opened = tokio::time::timeout(START, opened).await;
                match opened.unwrap_or_else(|_| Err(Failure::new(Cause::Lost, "the server did not answer in time"))) {
                    Ok(wire) => {
                        let _ = ready.send(Ok(()));
                        pump(wire, &wanted, send, confirmed).await;
                    }
                    Err(e) => drop(ready.send(Err(e))),
                }
            });
        });
        let gone = |e: String| Failure::new(Cause::Lost, e);
        let thread = thread.map_err(|e| gone(e.to_string()))?;
        started.recv().map_err(|e| gone(e.to_string()))??;
        Ok(Self { news, durable: Some(durable), thread: Some(thread), own })
    }

    /// The next thing; none when nothing came in that time.
    pub(super) fn next(&mut self, wait: Duration) -> Result<Option<News>, Failure> {
        if let Ok(news) = self.news.try_recv() {
            return news.map(Some);
        }
        if wait.is_zero() {
            return Ok(None);
        }
        let (own, news) = (&self.own, &mut self.news);
        match own.wait(async { tokio::time::timeout(wait, news.recv()).await })? {
            Ok(Some(news)) => news.map(Some),
            Ok(None) => Err(Failure::new(Cause::Lost, "the stream ended")),
            Err(_) => Ok(None),
        }
    }

    /// Everything before this place is durable.
    pub(super) fn confirm(&self, place: u64) {
        if let Some(durable) = &self.durable {
            durable.send_if_modified(|now| std::mem::replace(now, place.max(*now)) < place);
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // The thread ends when nobody confirms any more, and says goodbye so that the slot is free at once.
        self.durable = None;
        self.news.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Pump<'a> {
    wanted: &'a Wanted,
    decoder: Decoder,
    commit: u64,
    number: u64,
    micros: i64,
    inside: bool,
    received: u64,
}

async fn pump(
    mut wire: Wire,
    wanted: &Wanted,
    send: mpsc::Sender<Result<News, Failure>>,
    mut confirmed: watch::Receiver<u64>,
) {
    let mut pump =
        Pump { wanted, decoder: Decoder::default(), commit: 0, number: 0, micros: 0, inside: false, received: 0 };
    let mut tick = tokio::time::interval(STATUS);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waiting: Vec<News> = Vec::new();
    let failed = loop {
        let mut said = false;
        if waiting.is_empty() {
            tokio::select! {
                biased;
                changed = confirmed.changed() => if changed.is_err() { break None } else { said = true },
                _ = tick.tick() => said = true,
                frame = wire.frame() => match frame.and_then(|f| pump.take(f)) {
                    Ok((news, asked)) => {
                        waiting = news;
                        waiting.reverse();
                        said = asked;
                    }
                    Err(e) => break Some(e),
                },
            }
        } else {
            tokio::select! {
                biased;
                changed = confirmed.changed() => if changed.is_err() { break None } else { said = true },
                room = send.reserve() => match (room, waiting.pop()) {
                    (Ok(room), Some(news)) => room.send(Ok(news)),
                    _ => break None,
                },
                _ = tick.tick() => said = true,
            }
        }
        if said {
            let place = *confirmed.borrow_and_update();
            if let Err(e) = wire.confirm(place, pump.received).await {
                break Some(e);
            }
        }
    };
    match failed {
        Some(e) => drop(send.send(Err(e)).await),
        None => {
            let place = *confirmed.borrow();
            let _ = wire.confirm(place, pump.received).await;
            wire.close(true).await;
        }
    }
}

impl Pump<'_> {
    /// What a frame holds, and whether the server asks for an answer.
    fn take(&mut self, frame: Frame) -> Result<(Vec<News>, bool), Failure> {
        let bad = |what: String| Failure::new(Cause::Refused, what);
        match frame.tag {
            b'd' => {}
            b'E' => return Err(super::wire::refusal(&frame.body)),
            b'c' => return Err(Failure::new(Cause::Lost, "the server ended the stream")),
            _ => return Ok((Vec::new(), false)),
        }
        let mut body = frame.body;
        let short = |_| bad("a message of the stream ends early".to_owned());
        match body.try_get_u8().map_err(short)? {
            b'k' => {
                let end = body.try_get_u64().map_err(short)?;
                body.try_get_u64().map_err(short)?;
                let asked = body.try_get_u8().map_err(short)? == 1;
                self.received = self.received.max(end);
                // Between transactions everything up to here was sent.
                let until = if self.inside { Vec::new() } else { vec![News::Until(end)] };
                Ok((until, asked))
            }
            b'w' => {
                self.received = self.received.max(body.try_get_u64().map_err(short)?);
                body.try_get_u64().map_err(short)?;
                body.try_get_u64().map_err(short)?;
                let message = self.decoder.message(body).map_err(bad)?;
                Ok((self.message(message), false))
            }
            _ => Ok((Vec::new(), false)),
        }
    }

    fn message(&mut self, message: Message) -> Vec<News> {
        match message {
            Message::Begin { commit, micros } => {
                (self.commit, self.number, self.micros, self.inside) = (commit, 0, micros, true);
                Vec::new()
            }
            Message::Commit { end } => {
                self.inside = false;
                vec![News::Until(end)]
            }
            Message::Row { table, op, data } if self.wanted.is(&table) => {
                self.number += 1;
                let (commit, number, micros) = (self.commit, self.number, self.micros);
                vec![News::Row(Box::new(RowNews { commit, number, micros, table, op, data }))]
            }
            Message::Truncate(tables) => tables.into_iter().filter(|t| self.wanted.is(t)).map(News::Truncate).collect(),
            Message::Row { .. } | Message::Other => Vec::new(),
        }
    }
}
