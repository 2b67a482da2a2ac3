//! Points of an outstation as a source of batches: events are acknowledged there once they are durable with us.

use std::time::Duration;

use concordat_protocol::hash::sha256;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::asdu::{Asdu, Head, STARTED, cause, cause_word};
use super::session::{News, Session};
use super::time;
use super::value::{PointType, Reading, flag_names};
use crate::contract::{AdapterError, Batch, Checkpoint, Origin, Row, Source};
use crate::convert::Fault;
use crate::json_rows::bad;
use crate::mapping::{Cell, Mapper};
use crate::window::{Print, Queued, WAITING_MAX, Window, print_of};

/// Longest wait for something in one call.
const WAIT: Duration = Duration::from_millis(250);
/// Longest wait while events are not durable yet: the outstation may have filled its window `k` with them, and sends
/// nothing before the acknowledgement, which comes only after this call.
const WAIT_OPEN: Duration = Duration::from_millis(10);
/// Most frames that are taken at once; each has up to 127 objects.
const FRAMES: usize = 64;

/// Cells of every point, besides its flags.
const CELLS: &[&str] = &[
    "station",
    "object",
    "type",
    "cause",
    "value",
    "quality",
    "transient",
    "counted",
    "time",
    "time_substituted",
    "at",
    "received",
    "originator",
    "test",
];

/// Names of all cells.
pub fn cell_names() -> impl Iterator<Item = &'static str> {
    CELLS.iter().copied().chain(flag_names())
}

/// One information object, or a whole ASDU whose objects cannot be told apart.
#[derive(Debug, Clone)]
pub struct Point {
    head: Head,
    /// Its type and address; none for an ASDU that is not understood.
    object: Option<(PointType, u32)>,
    /// The element, or the whole ASDU.
    bytes: Vec<u8>,
    received: Timestamp,
    /// Number of its frame.
    number: u64,
    /// True when it comes again on another connection, as long as its frame is not acknowledged.
    comes_back: bool,
}

impl Point {
    /// The points of an ASDU; none in commands and their answers.
    fn all(number: u64, asdu: &[u8], received: Timestamp) -> Vec<Self> {
        let whole = |head| Self { head, object: None, bytes: asdu.to_vec(), received, number, comes_back: false };
        let Some(parsed) = Asdu::parse(asdu) else {
            return vec![whole(Head::command(0, 0, 0))];
        };
        let head = parsed.head;
        if head.kind >= STARTED {
            return vec![];
        }
        let Some(point) = PointType::of(head.kind) else { return vec![whole(head)] };
        let Some(objects) = parsed.objects(point.size()) else { return vec![whole(head)] };
        let point = |o: super::asdu::Object| Self {
            object: Some((point, o.address)),
            bytes: o.element,
            // An event without a time is like any other of the same value: only those with one are known again.
            comes_back: point.tagged && !cause::comes_again(head.cause),
            ..whole(head)
        };
        objects.into_iter().map(point).collect()
    }

    /// True when its frame is acknowledged only once it is durable: nobody would tell it again.
    fn is_event(&self) -> bool {
        !cause::comes_again(self.head.cause)
    }

    /// It as an ASDU of its own.
    fn raw(&self) -> Vec<u8> {
        match self.object {
            Some((_, address)) => self.head.encode([(address, self.bytes.as_slice())]),
            None => self.bytes.clone(),
        }
    }
}

impl Queued for Point {
    /// The number of its frame.
    type Token = u64;

    fn print(&self) -> Print {
        print_of(sha256(&[&self.raw()]))
    }

    fn token(&self) -> Option<u64> {
        self.comes_back.then_some(self.number)
    }

    fn set_token(&mut self, token: Option<u64>) {
        self.comes_back = token.is_some();
        self.number = token.unwrap_or(self.number);
    }
}

/// The mapping of points.
pub struct Rule {
    /// The mapping.
    pub mapper: Mapper,
    /// The zone of the stations' clocks.
    pub zone: TimeZone,
    /// The stations whose points are wanted.
    pub stations: Vec<u16>,
}

impl Rule {
    fn row(&self, place: &str, point: &Point) -> Row {
        let (head, raw) = (point.head, point.raw());
        let refused =
            |at: String, rule, detail: &str| Row::Bad(bad(Origin::row(at, 0), &raw, Fault::new(rule, detail)));
        let Some((kind, address)) = point.object else {
            let detail = "the type of the objects is not known here, or their number is not the one that is said";
            return refused(format!("{place} {}", head.station), "iec104.type", detail);
        };
        let at = format!("{place} {}/{address}", head.station);
        if !self.stations.contains(&head.station) {
            return refused(at, "iec104.station", "its common address is none of `stations`; add it");
        }
        let Some(reading) = Reading::decode(kind, &point.bytes, &self.zone) else {
            return refused(at, "iec104.type", "the element has another size than its type");
        };
        self.mapper.row(Origin::row(at, 0), &raw, &|name| Some(cell(name, point, (kind, address), &reading)))
    }
}

impl Rule {
    /// A point of a dead letter once more. It was received now: when it came is not kept.
    pub(super) fn again(&self, place: &str, origin: Origin, raw: &[u8]) -> Row {
        match Point::all(0, raw, Timestamp::now()).as_slice() {
            [point] => self.row(place, point),
            _ => {
                let fault = Fault::new("replay.rows", "its bytes are not one information object");
                Row::Bad(bad(origin, raw, fault))
            }
        }
    }
}

/// An instant as text, to the millisecond.
fn text(instant: Timestamp) -> String {
    instant.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

fn tagged(tag: Option<&time::Tag>) -> Option<Result<String, Fault>> {
    tag?.instant.clone().map(|instant| instant.map(text))
}

fn of(found: Option<Result<String, Fault>>) -> Cell<'static> {
    match found {
        Some(Ok(text)) => text.into(),
        Some(Err(fault)) => Cell::Bad(fault),
        None => Cell::Null,
    }
}

fn cell(name: &str, point: &Point, (kind, address): (PointType, u32), reading: &Reading) -> Cell<'static> {
    match name {
        "station" => point.head.station.to_string().into(),
        "object" => address.to_string().into(),
        "type" => kind.name.into(),
        "cause" => cause_word(point.head.cause).into_owned().into(),
        "value" => of(Some(reading.value.clone())),
        "quality" => reading.quality().into(),
        "transient" => reading.transient.map(|t| t.to_string()).into(),
        "counted" => reading.counted.map(|n| n.to_string()).into(),
        "time" => of(tagged(reading.tag.as_ref())),
        "time_substituted" => reading.tag.as_ref().map(|t| t.substituted.to_string()).into(),
        "at" => of(tagged(reading.tag.as_ref()).or_else(|| Some(Ok(text(point.received))))),
        "received" => text(point.received).into(),
        "originator" => point.head.originator.to_string().into(),
        "test" => point.head.test.to_string().into(),
        flag => reading.flag(flag).map(|set| set.to_string()).into(),
    }
}

/// Points of an outstation.
pub struct Iec104Source {
    session: Session,
    place: String,
    rule: Rule,
    window: Window<Point>,
    /// The connection whose frames come, and how many of them were seen.
    connection: u64,
    seen: u64,
    /// An error that came while points were not handed out yet.
    failed: Option<AdapterError>,
}

impl Iec104Source {
    /// A source over a session. `run` tells this process's checkpoints from those of others.
    pub fn new(session: Session, rule: Rule, run: [u8; 8]) -> Self {
        let place = session.name();
        Self { session, place, rule, window: Window::new(run), connection: 0, seen: 0, failed: None }
    }

    /// Takes what came; waits only when nothing is there to hand out.
    fn receive(&mut self, wait: Duration) -> Result<(), AdapterError> {
        if self.window.len() >= WAITING_MAX {
            return Ok(());
        }
        for news in self.session.receive(FRAMES, wait)? {
            match news {
                News::Up { connection } => {
                    self.window.connected(true);
                    (self.connection, self.seen) = (connection, 0);
                }
                News::Frame { number, asdu, received } => {
                    self.seen = number + 1;
                    for point in Point::all(number, &asdu, received) {
                        self.window.received(point);
                    }
                }
            }
        }
        Ok(())
    }

    /// Acknowledges the frames before the first one with an event that is not durable yet.
    fn acknowledge(&mut self) {
        let open = self.window.live().filter(|p| p.is_event()).map(|p| p.number).min();
        self.session.acknowledge(self.connection, open.unwrap_or(self.seen));
    }
}

impl Source for Iec104Source {
    fn read(&mut self, from: &Checkpoint, max: usize) -> Result<Batch, AdapterError> {
        let (seq, _) = self.window.place(from)?;
        let waiting = self.window.has_behind(seq);
        if let Some(error) = self.failed.take_if(|_| !waiting) {
            return Err(error);
        }
        if self.failed.is_none() {
            let wait = match (waiting, self.window.is_empty()) {
                (true, _) => Duration::ZERO,
                (false, false) => WAIT_OPEN,
                (false, true) => WAIT,
            };
            match self.receive(wait) {
                Err(error) if waiting => self.failed = Some(error),
                other => other?,
            }
        }
        self.acknowledge();
        Ok(self.window.batch(from, seq, max, |point| self.rule.row(&self.place, point)))
    }

    fn ack(&mut self, durable: &Checkpoint) -> Result<(), AdapterError> {
        self.window.acknowledged(durable);
        self.acknowledge();
        Ok(())
    }
}
