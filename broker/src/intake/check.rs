//! What a batch of lines must be (pure but for the random secrets): I-JSON, the dataset's JSON Schema, CloudEvents.

use super::IntakeError;
use super::quick::{Frame, Quick, Scratch};
use concordat_executor::policies::dataset::DatasetDoc;
use concordat_protocol::ids::DatasetId;
use concordat_protocol::limits::{ENVELOPE_MESSAGES_MAX, EVENT_BYTES_MAX};
use concordat_protocol::message::{Event, Prepared, parse_ijson};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// CloudEvents type of every published record.
pub const EVENT_TYPE: &str = "concordat.record.v1";
/// Most violations of the schema named for one line.
const VIOLATIONS: usize = 3;
/// Most lines named in one answer: the first ones tell what is wrong with the rest.
const LINES: usize = ENVELOPE_MESSAGES_MAX;

/// A line that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LineError {
    /// Line of the body, from 1.
    pub line: usize,
    /// Stable name of the rule.
    pub code: &'static str,
    /// The field, the rule, what to do.
    pub message: String,
}

/// Checks messages of one dataset version. Compiled once.
pub struct Checker {
    dataset: DatasetId,
    schema: jsonschema::Validator,
    quick: Option<Quick>,
    frame: Frame,
    members: BTreeSet<String>,
    list: Vec<String>,
}

/// A batch that keeps every rule, ready to get its place.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// The messages with their roots.
    pub messages: Prepared,
    /// Time of the last message that has one, milliseconds since 1970.
    pub newest_ms: Option<i64>,
}

impl Checker {
    /// Compiles a dataset's schema.
    pub fn new(doc: &DatasetDoc) -> Result<Self, IntakeError> {
        let schema = jsonschema::options().should_validate_formats(true).build(&doc.schema);
        let schema = schema.map_err(|e| IntakeError::Schema(doc.id.to_string(), e.to_string()))?;
        let text = |s: &str| Value::from(s).to_string();
        let frame = Frame {
            source: text(doc.id.as_str()),
            kind: text(EVENT_TYPE),
            key: doc.key.clone(),
            time: doc.time.as_ref().map(|t| t.field.clone()),
        };
        let members: BTreeSet<String> = doc.fields().iter().map(|f| f.name.clone()).collect();
        let list = members.iter().cloned().collect();
        Ok(Self { dataset: doc.id.clone(), schema, quick: Quick::new(&doc.schema), frame, members, list })
    }

    /// Top-level members of the schema, in order: the leaf set depends on them.
    pub fn members(&self) -> &[String] {
        &self.list
    }

    /// Reads a body of JSON lines: all of it, or the lines that are wrong.
    pub fn read(&self, body: &[u8]) -> Result<Batch, IntakeError> {
        let lines: Vec<(usize, &[u8])> =
            lines(body).enumerate().filter(|(_, l)| !l.iter().all(u8::is_ascii_whitespace)).collect();
        if lines.is_empty() || lines.len() > ENVELOPE_MESSAGES_MAX {
            return Err(IntakeError::Count(lines.len()));
        }
        let mut random = vec![0; 32 * lines.len()];
        getrandom::fill(&mut random).map_err(|e| IntakeError::Library(e.to_string()))?;
        let mut messages = Prepared::with_capacity(lines.len());
        let (mut errors, mut newest, mut scratch) = (Vec::new(), None, Scratch::default());
        for ((at, line), secret) in lines.into_iter().zip(random.as_chunks::<32>().0) {
            let quick = self.quick.as_ref().filter(|_| line.len() <= EVENT_BYTES_MAX);
            let quick = quick.and_then(|q| q.push(&self.frame, line, &mut scratch, *secret, &self.list, &mut messages));
            let pushed = match quick {
                Some(time) => Ok(time.map(str::to_owned)),
                None => self.push(line, *secret, &mut messages),
            };
            match pushed {
                Ok(time) => newest = time.or(newest),
                Err((code, message)) => errors.push(LineError { line: at + 1, code, message }),
            }
        }
        errors.truncate(LINES);
        if !errors.is_empty() {
            return Err(IntakeError::Lines(errors));
        }
        let newest_ms = newest.and_then(|t| t.parse::<jiff::Timestamp>().ok()).map(|t| t.as_millisecond());
        Ok(Batch { messages, newest_ms })
    }

    /// Adds a line the general way; the answer is the message's time.
    fn push(
        &self,
        line: &[u8],
        secret: [u8; 32],
        out: &mut Prepared,
    ) -> Result<Option<String>, (&'static str, String)> {
        let event = self.line(line)?;
        out.push(secret, &event, &self.members).map_err(|e| ("event", e.to_string()))?;
        Ok(event.attributes().get("time").and_then(Value::as_str).map(str::to_owned))
    }

    /// One line as an event: the general way, which also words the refusals.
    fn line(&self, line: &[u8]) -> Result<Event, (&'static str, String)> {
        if line.len() > EVENT_BYTES_MAX {
            let rule = "split it or refer to the large part by its hash";
            return Err(("too-large", format!("{} bytes are more than {EVENT_BYTES_MAX}: {rule}", line.len())));
        }
        let value = parse_ijson(line).map_err(|e| ("json", e.to_string()))?;
        let Value::Object(mut members) = value else { return Err(("json", "must be one JSON object".into())) };
        let data = match members.remove("data") {
            Some(data @ Value::Object(_)) => data,
            _ => return Err(("data", "data: must be present and a JSON object".into())),
        };
        let violations: Vec<String> = self
            .schema
            .iter_errors(&data)
            .take(VIOLATIONS)
            .map(|e| format!("data{}: {e}", e.instance_path()).chars().take(300).collect())
            .collect();
        if !violations.is_empty() {
            return Err(("schema", violations.join("; ")));
        }
        let Value::Object(data) = data else { return Err(("data", "data: must be a JSON object".into())) };
        let id = self.id(members.remove("id"), &data)?;
        let time = self.time(members.remove("time"), &data)?;
        if let Some(unknown) = members.keys().next() {
            let name: String = unknown.chars().take(80).collect();
            return Err(("member", format!("\"{name}\": a line has id, time and data only")));
        }
        let mut event = json!({
            "specversion": "1.0", "id": id, "source": self.dataset.as_str(), "type": EVENT_TYPE,
            "datacontenttype": "application/json", "data": data,
        });
        if let Some(time) = time {
            event["time"] = time.into();
        }
        let bytes = serde_json::to_vec(&event).map_err(|e| ("json", e.to_string()))?;
        Event::parse(&bytes).map_err(|e| ("event", e.to_string()))
    }

    /// The line's id, or the values of the key: the same record always has the same id.
    fn id(&self, id: Option<Value>, data: &Map<String, Value>) -> Result<String, (&'static str, String)> {
        match id {
            Some(Value::String(id)) if !id.is_empty() && id.len() <= 256 => Ok(id),
            Some(_) => Err(("id", "id: must be text of 1 to 256 bytes, or left out".into())),
            None => {
                let text = |v: Option<&Value>| match v {
                    Some(Value::String(s)) => s.clone(),
                    Some(other) => other.to_string(),
                    None => String::new(),
                };
                Ok(self.frame.key.iter().map(|k| text(data.get(k))).collect::<Vec<_>>().join("|"))
            }
        }
    }

    fn time(&self, time: Option<Value>, data: &Map<String, Value>) -> Result<Option<String>, (&'static str, String)> {
        let rule = || ("time", "time: must be RFC 3339 text such as 2026-01-01T00:00:00Z, or left out".to_owned());
        let text = match time {
            Some(Value::String(text)) => Some(text),
            Some(_) => return Err(rule()),
            None => self.frame.time.as_ref().and_then(|f| data.get(f)).and_then(Value::as_str).map(str::to_owned),
        };
        match text {
            Some(text) if text.parse::<jiff::Timestamp>().is_err() => Err(rule()),
            other => Ok(other),
        }
    }
}

/// The lines of a body. Vectorised: a body is mostly not line ends.
fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = memchr::memchr_iter(b'\n', body).chain([body.len()]);
    ends.scan(0, |from, end| {
        let line = body.get(*from..end).unwrap_or_default();
        *from = end + 1;
        Some(line)
    })
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
