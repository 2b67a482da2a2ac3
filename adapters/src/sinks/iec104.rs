//! Messages as events of an outstation, IEC 60870-5-104: a controlling station connects to this sink.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::{Value, json};
use serde_saphyr::Spanned;

use super::document::Head;
use super::{Message, Sink};
use crate::contract::{AdapterError, ErrorClass, Reject};
use crate::convert::Fault;
use crate::document::DocumentError;
use crate::kinds::iec104::asdu::OBJECT_MAX;
use crate::kinds::iec104::controlled::{Event, Image};
use crate::kinds::iec104::document::{Timing, zone};
use crate::kinds::iec104::outstation::{Audience, Outstation, Serving};
use crate::kinds::iec104::time;
use crate::kinds::iec104::value::{PointType, encode};
use crate::strict::nearest;
use crate::tls;

/// How long a page waits in one call; it is called again then.
const WAIT: Duration = Duration::from_secs(5);

/// Where the outstation listens, and which event is which point.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct To {
    /// Address and port, such as `10.1.2.3:2404`.
    pub listen: Spanned<String>,
    /// Common address of the station.
    pub station: Spanned<u16>,
    /// The zone in which times are written.
    pub zone: Spanned<String>,
    /// The points.
    pub points: Spanned<Vec<PointDoc>>,
    /// What becomes of an event that is no point.
    #[serde(default)]
    pub others: Others,
    /// Windows and timers.
    #[serde(default)]
    pub link: Timing,
    /// Own certificate for TLS, a PEM file.
    #[serde(default)]
    pub cert: Option<String>,
    /// Its key, a PEM file.
    #[serde(default)]
    pub key: Option<String>,
    /// Certificates of controlling stations that are trusted, a PEM file; with it each needs one.
    #[serde(default)]
    pub ca: Option<String>,
}

/// One point.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointDoc {
    /// Members of the data and the value each must have; all events when left out.
    #[serde(default)]
    pub when: BTreeMap<String, String>,
    /// Object address.
    pub object: u32,
    /// Its type by name, such as `M_ME_TF_1`.
    #[serde(rename = "type")]
    pub kind: Spanned<String>,
    /// The member that is its value.
    pub value: String,
    /// The member that is its quality; good when left out.
    #[serde(default)]
    pub quality: Option<String>,
}

/// What becomes of an event that is no point.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Others {
    /// It is a dead letter.
    #[default]
    Refuse,
    /// It is left out.
    Skip,
}

struct Point {
    doc: PointDoc,
    kind: PointType,
}

fn points(to: &To) -> Result<Vec<Point>, DocumentError> {
    if !(1..=0xfffe).contains(&to.station.value) {
        return Err(DocumentError::at(&to.station, "to.station", "a common address from 1 to 65534"));
    }
    let mut kinds = BTreeMap::new();
    let mut points = Vec::new();
    for doc in &to.points.value {
        let kind = PointType::named(&doc.kind.value).ok_or_else(|| {
            let hint = match nearest(&doc.kind.value, PointType::names()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are {}", PointType::names().collect::<Vec<_>>().join(", ")),
            };
            DocumentError::at(&doc.kind, "to.points.type", format!("no type `{}`; {hint}", doc.kind.value))
        })?;
        if !(1..=OBJECT_MAX).contains(&doc.object) || *kinds.entry(doc.object).or_insert(kind) != kind {
            let detail = "an object address from 1 to 16777215, always with the same type";
            return Err(DocumentError::at(&doc.kind, "to.points.object", detail));
        }
        points.push(Point { doc: doc.clone(), kind });
    }
    if points.is_empty() {
        return Err(DocumentError::at(&to.points, "to.points", "name at least one point"));
    }
    Ok(points)
}

/// Opens the sink.
pub fn open(head: &Head, to: &To, base: &Path) -> Result<Box<dyn Sink>, AdapterError> {
    let points = points(to)?;
    let limits = to.link.limits("to.link")?;
    let files = tls::Files { ca: to.ca.as_deref(), cert: to.cert.as_deref(), key: to.key.as_deref() };
    let secure = to.cert.is_some() || to.key.is_some() || to.ca.is_some();
    let tls = if secure { Some(tls::server(base, files)?) } else { None };
    let kept = base.join("sinks").join(format!("{}.points.json", head.sink));
    let image = load(&kept, to.station.value, &points)?;
    let serving = Serving { stations: vec![to.station.value], limits, tls };
    Ok(Box::new(Iec104Sink {
        zone: zone(&to.zone, "to.zone")?,
        outstation: Outstation::listen(&to.listen.value, serving, image.clone())?,
        to: to.clone(),
        points,
        place: head.subscription.clone(),
        given: BTreeSet::new(),
        kept,
        image,
    }))
}

struct Iec104Sink {
    to: To,
    points: Vec<Point>,
    zone: TimeZone,
    place: String,
    outstation: Outstation,
    /// Messages of this page that the outstation has, sent or not.
    given: BTreeSet<String>,
    kept: PathBuf,
    /// What is in the file.
    image: Image,
}

/// A value as text; none for what is missing.
fn text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

impl Iec104Sink {
    /// The events of a message.
    fn events(&self, message: &Message) -> Result<Vec<Event>, Fault> {
        let mut events = Vec::new();
        for Point { doc, kind } in &self.points {
            if !doc.when.iter().all(|(name, want)| text(message.data.get(name)).as_ref() == Some(want)) {
                continue;
            }
            let missing = || Fault::new("sink.value", "the member that is the value is missing");
            let value = text(message.data.get(&doc.value)).ok_or_else(missing)?;
            let quality = doc.quality.as_ref().and_then(|name| text(message.data.get(name))).unwrap_or_default();
            let mut element = encode(*kind, &value, &quality)?;
            if kind.tagged {
                let instant = message.time.as_ref().and_then(Value::as_str).and_then(|t| t.parse::<Timestamp>().ok());
                let none = || Fault::new("sink.time", "the event shows no time, and the type needs one");
                element.extend(time::encode(instant.ok_or_else(none)?, &self.zone));
            }
            events.push(Event { station: self.to.station.value, object: doc.object, kind: *kind, element });
        }
        if events.is_empty() && self.to.others == Others::Refuse {
            return Err(Fault::new("sink.point", "no point of the document is this event; add one, or `others: skip`"));
        }
        Ok(events)
    }
}

impl Sink for Iec104Sink {
    fn deliver(&mut self, page: &[Message]) -> Result<Vec<Reject>, AdapterError> {
        let cursors: BTreeSet<String> = page.iter().map(Message::cursor).collect();
        // Another page than the one that waits: the subscription was sought.
        if !self.given.is_subset(&cursors) {
            self.outstation.forget();
            self.given.clear();
        }
        let mut refused = Vec::new();
        for message in page {
            match self.events(message) {
                Ok(events) => {
                    if self.given.insert(message.cursor()) {
                        self.outstation.push(events);
                    }
                }
                Err(fault) => {
                    refused.push(super::webhook::refused(&self.place, message, fault.rule, fault.message));
                }
            }
        }
        let waiting = self.outstation.wait(WAIT);
        if waiting > 0 {
            let detail = match self.outstation.audience() {
                Audience::Started => format!("the controlling station has not acknowledged {waiting} events yet"),
                Audience::Waiting(open) => format!(
                    "{waiting} events wait, connections: {open}, and no controlling station began data (STARTDT); \
                     let it begin there"
                ),
                Audience::Nobody => format!("no controlling station is connected; {waiting} events wait"),
            };
            return Err(AdapterError::source_failed(ErrorClass::Transient, "source.unreachable", detail));
        }
        let image = self.outstation.image();
        if image != self.image {
            save(&self.kept, &image)?;
            self.image = image;
        }
        self.given.clear();
        Ok(refused)
    }
}

#[derive(Deserialize)]
struct Line {
    object: u32,
    #[serde(rename = "type")]
    kind: String,
    element: String,
}

fn io(path: &Path, action: &'static str, source: std::io::Error) -> AdapterError {
    AdapterError::Io { file: path.display().to_string(), action, source }
}

/// What was sent last of each point, before a restart. Points that are no more, or are of another type now, are left out.
fn load(path: &Path, station: u16, points: &[Point]) -> Result<Image, AdapterError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Image::new()),
        Err(e) => return Err(io(path, "read", e)),
    };
    let lines: Vec<Line> = serde_json::from_slice(&bytes).map_err(|e| io(path, "read", e.into()))?;
    let known = lines.into_iter().filter_map(|line| {
        let kind = PointType::named(&line.kind)?;
        let element = hex::decode(line.element).ok().filter(|e| e.len() == kind.size())?;
        let same = points.iter().any(|p| p.doc.object == line.object && p.kind.untagged() == kind);
        same.then_some(((station, line.object), (kind, element)))
    });
    Ok(known.collect())
}

fn save(path: &Path, image: &Image) -> Result<(), AdapterError> {
    let lines: Vec<Value> = image
        .iter()
        .map(|((_, object), (kind, element))| {
            json!({"object": object, "type": kind.name, "element": hex::encode(element)})
        })
        .collect();
    let aside = path.with_extension("json.new");
    let written = (|| {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&aside, Value::from(lines).to_string())?;
        std::fs::File::open(&aside)?.sync_all()?;
        std::fs::rename(&aside, path)
    })();
    written.map_err(|e| io(path, "write", e))
}
