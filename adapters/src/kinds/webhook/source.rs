//! Requests as a source of batches: a sender is answered once its request is durable.

use std::sync::Arc;
use std::time::Duration;

use super::listener::{Inbox, Listener, Outcome, Print, Settings, Shared};
use crate::contract::{AdapterError, BATCH_BYTES_MAX, Batch, Checkpoint, ErrorClass, Next, Origin, Row, Source};
use crate::json_rows::{JsonRows, bad};
use crate::kinds::webhook::items::items;
use crate::mapping::Cell;

/// Longest wait in one call.
const WAIT: Duration = Duration::from_millis(250);
/// Fingerprints in a checkpoint.
const PRINTS_MAX: usize = 450;
/// Requests in a checkpoint that are durable in part; there is one more each time that a process dies within a request which
/// is never sent again.
const BEGUN_MAX: usize = 16;
const VERSION: u8 = 2;
const HEAD_BYTES: usize = 22;
const PRINT_BYTES: usize = 6;
const BEGUN_BYTES: usize = PRINT_BYTES + 4;

/// The contents of a checkpoint.
#[derive(Debug, Default, PartialEq, Eq)]
struct Place {
    run: [u8; 8],
    /// Requests up to this one are handed out.
    seq: u64,
    /// Items of the next one that are.
    row: u32,
    /// Requests of which so many items are handed out: what is sent again of them goes on there.
    begun: Vec<(Print, u32)>,
    prints: Vec<Print>,
}

impl Place {
    fn encode(&self) -> Checkpoint {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.run);
        bytes.extend_from_slice(&self.seq.to_be_bytes());
        bytes.extend_from_slice(&self.row.to_be_bytes());
        bytes.push(u8::try_from(self.begun.len()).unwrap_or_default());
        for (print, row) in &self.begun {
            bytes.extend_from_slice(print);
            bytes.extend_from_slice(&row.to_be_bytes());
        }
        self.prints.iter().for_each(|p| bytes.extend_from_slice(p));
        Checkpoint(bytes)
    }

    fn decode(from: &Checkpoint) -> Option<Self> {
        if from.is_start() {
            return Some(Self::default());
        }
        let (head, rest) = from.0.split_at_checked(HEAD_BYTES)?;
        let (version, head) = head.split_first()?;
        let (run, head) = head.split_at_checked(8)?;
        let (seq, row) = head.split_at_checked(8)?;
        let (row, count) = row.split_at_checked(4)?;
        let (begun, prints) = rest.split_at_checked(usize::from(*count.first()?) * BEGUN_BYTES)?;
        if *version != VERSION || prints.len() % PRINT_BYTES != 0 {
            return None;
        }
        let number = |bytes: &[u8]| Some(u32::from_be_bytes(bytes.try_into().ok()?));
        let begun = begun.chunks_exact(BEGUN_BYTES).map(|c| {
            let (print, row) = c.split_at_checked(PRINT_BYTES)?;
            Some((print.try_into().ok()?, number(row)?))
        });
        Some(Self {
            run: run.try_into().ok()?,
            seq: u64::from_be_bytes(seq.try_into().ok()?),
            row: number(row)?,
            begun: begun.collect::<Option<_>>()?,
            prints: prints.chunks_exact(PRINT_BYTES).filter_map(|c| c.try_into().ok()).collect(),
        })
    }
}

/// Requests that come to a listener.
pub struct WebhookSource {
    settings: Settings,
    rows: JsonRows<()>,
    listener: Option<Listener>,
    run: [u8; 8],
    /// A checkpoint of another run whose fingerprints are known.
    adopted: Option<Checkpoint>,
    /// Requests that an earlier run handed out in part, oldest first.
    begun: Vec<(Print, u32)>,
}

impl WebhookSource {
    /// A source that begins to listen when it is first read.
    pub fn new(settings: Settings, rows: JsonRows<()>, run: [u8; 8]) -> Self {
        Self { settings, rows, listener: None, run, adopted: None, begun: vec![] }
    }

    fn shared(&mut self) -> Result<Arc<Shared>, AdapterError> {
        if let Some(listener) = &self.listener {
            if let Some(error) = listener.shared.inbox().failed.take() {
                return Err(self.failed(&error));
            }
            return Ok(Arc::clone(&listener.shared));
        }
        let listener = Listener::start(self.settings.clone()).map_err(|e| self.failed(&e))?;
        let shared = Arc::clone(&listener.shared);
        self.listener = Some(listener);
        Ok(shared)
    }

    fn failed(&self, error: &std::io::Error) -> AdapterError {
        let class = match error.kind() {
            std::io::ErrorKind::PermissionDenied => ErrorClass::Auth,
            std::io::ErrorKind::AddrNotAvailable => ErrorClass::Permanent,
            _ => ErrorClass::Transient,
        };
        let message = format!("cannot listen at {}: {error}", self.settings.address);
        AdapterError::source_failed(class, "source.unreachable", message)
    }

    /// Where a checkpoint stands: requests before it, and items of the next one.
    fn place(&mut self, from: &Checkpoint, shared: &Shared) -> Result<(u64, usize), AdapterError> {
        let place = Place::decode(from)
            .ok_or_else(|| AdapterError::Checkpoint { detail: "it is not one of a webhook".to_owned() })?;
        if place.run == self.run {
            return Ok((place.seq, place.row as usize));
        }
        if self.adopted.as_ref() != Some(from) {
            let mut inbox = shared.inbox();
            place.prints.into_iter().for_each(|print| inbox.remember(print));
            self.begun = place.begun;
            self.adopted = Some(from.clone());
        }
        Ok((0, 0))
    }

    fn rows_of(&self, body: &[u8]) -> Vec<Row> {
        let place = self.settings.path.as_str();
        match items(body) {
            Ok(items) => {
                let row = |item: &&[u8]| self.rows.row(Origin::row(place, 0), item, item, &|()| Cell::Null);
                items.iter().map(row).collect()
            }
            Err(fault) => vec![Row::Bad(bad(Origin::row(place, 0), body, fault))],
        }
    }

    /// Hands out what waits behind a place.
    fn hand_out(&self, inbox: &mut Inbox, at: (u64, usize), max: usize, batch: &mut Batch) -> Option<(u64, usize)> {
        let (mut seq, mut row) = at;
        let mut bytes = 0;
        let mut moved = false;
        for pending in inbox.pending.iter_mut().filter(|p| p.seq > at.0) {
            let rows = self.rows_of(&pending.body);
            let good = rows.iter().filter(|r| matches!(r, Row::Good(_))).count();
            pending.outcome = Some(Outcome { good, bad: rows.len() - good });
            let count = rows.len();
            row = row.max(done_before(&self.begun, &pending.print));
            for found in rows.into_iter().skip(row) {
                if let Row::Good(record) = &found {
                    bytes += record.size_hint();
                }
                if batch.rows() >= max || (bytes > BATCH_BYTES_MAX && batch.rows() > 0) {
                    return moved.then_some((seq, row));
                }
                batch.push(found);
                row += 1;
                moved = true;
            }
            if row >= count {
                (seq, row, moved) = (pending.seq, 0, true);
            }
        }
        moved.then_some((seq, row))
    }

    fn checkpoint(&self, inbox: &Inbox, (seq, row): (u64, usize)) -> Checkpoint {
        let open: Vec<Print> = inbox.pending.iter().take_while(|p| p.seq <= seq).map(|p| p.print).collect();
        let row = u32::try_from(row).unwrap_or(u32::MAX);
        let within = inbox.pending.iter().find(|p| p.seq > seq).filter(|_| row > 0).map(|p| (p.print, row));
        let still = |(print, _): &&(Print, u32)| {
            !open.contains(print) && !inbox.knows(print) && within.is_none_or(|(now, _)| now != *print)
        };
        let mut begun: Vec<(Print, u32)> = self.begun.iter().filter(still).copied().chain(within).collect();
        begun.drain(..begun.len().saturating_sub(BEGUN_MAX));
        let before = PRINTS_MAX.saturating_sub(open.len());
        let prints = inbox.recent(before).copied().chain(open).collect();
        Place { run: self.run, seq, row, begun, prints }.encode()
    }
}

/// Items of a request that an earlier run handed out, and that are durable.
fn done_before(begun: &[(Print, u32)], print: &Print) -> usize {
    begun.iter().find(|(known, _)| known == print).map_or(0, |(_, row)| *row as usize)
}

impl Source for WebhookSource {
    fn read(&mut self, from: &Checkpoint, max: usize) -> Result<Batch, AdapterError> {
        let shared = self.shared()?;
        let at = self.place(from, &shared)?;
        let mut inbox = shared.inbox();
        if inbox.pending.back().is_none_or(|p| p.seq <= at.0) {
            inbox = shared.wait(inbox, WAIT);
        }
        let mut batch = Batch::at(from, Next::More);
        match self.hand_out(&mut inbox, at, max, &mut batch) {
            Some(at) => batch.checkpoint = self.checkpoint(&inbox, at),
            None => batch.next = Next::Idle(Duration::from_millis(5)),
        }
        Ok(batch)
    }

    fn ack(&mut self, durable: &Checkpoint) -> Result<(), AdapterError> {
        if let (Some(listener), Some(place)) = (&self.listener, Place::decode(durable))
            && place.run == self.run
        {
            listener.shared.inbox().durable(place.seq);
        }
        Ok(())
    }
}
