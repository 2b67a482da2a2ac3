//! What a batch of lines must be (pure but for the random secrets): I-JSON, the dataset's JSON Schema, CloudEvents.

use super::IntakeError;
use concordat_executor::policies::dataset::DatasetDoc;
use concordat_protocol::ids::DatasetId;
use concordat_protocol::limits::ENVELOPE_MESSAGES_MAX;
use concordat_protocol::message::{Event, Record, parse_ijson};
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
    members: BTreeSet<String>,
    key: Vec<String>,
    time: Option<String>,
}

impl Checker {
    /// Compiles a dataset's schema.
    pub fn new(doc: &DatasetDoc) -> Result<Self, IntakeError> {
        let schema = jsonschema::options().should_validate_formats(true).build(&doc.schema);
        let schema = schema.map_err(|e| IntakeError::Schema(doc.id.to_string(), e.to_string()))?;
        Ok(Self {
            dataset: doc.id.clone(),
            schema,
            members: doc.fields().iter().map(|f| f.name.clone()).collect(),
            key: doc.key.clone(),
            time: doc.time.as_ref().map(|t| t.field.clone()),
        })
    }

    /// Top-level members of the schema: the leaf set depends on them.
    pub fn members(&self) -> &BTreeSet<String> {
        &self.members
    }

    /// Reads a body of JSON lines: all of it, or the lines that are wrong.
    pub fn read(&self, body: &[u8]) -> Result<Vec<Record>, IntakeError> {
        let lines: Vec<&[u8]> = body.split(|b| *b == b'\n').collect();
        let lines: Vec<(usize, &[u8])> =
            lines.into_iter().enumerate().filter(|(_, l)| !l.iter().all(u8::is_ascii_whitespace)).collect();
        if lines.is_empty() || lines.len() > ENVELOPE_MESSAGES_MAX {
            return Err(IntakeError::Count(lines.len()));
        }
        let (mut records, mut errors) = (Vec::with_capacity(lines.len()), Vec::new());
        for (at, line) in lines {
            match self.line(line) {
                Ok(event) => records.push(Record { secret: super::random32()?, event: event.into() }),
                Err((code, message)) => errors.push(LineError { line: at + 1, code, message }),
            }
        }
        errors.truncate(LINES);
        if errors.is_empty() { Ok(records) } else { Err(IntakeError::Lines(errors)) }
    }

    /// One line as canonical event bytes.
    fn line(&self, line: &[u8]) -> Result<Vec<u8>, (&'static str, String)> {
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
        let event = Event::parse(&bytes).map_err(|e| ("event", e.to_string()))?;
        event.to_bytes().map_err(|e| ("event", e.to_string()))
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
                Ok(self.key.iter().map(|k| text(data.get(k))).collect::<Vec<_>>().join("|"))
            }
        }
    }

    fn time(&self, time: Option<Value>, data: &Map<String, Value>) -> Result<Option<String>, (&'static str, String)> {
        let rule = || ("time", "time: must be RFC 3339 text such as 2026-01-01T00:00:00Z, or left out".to_owned());
        let text = match time {
            Some(Value::String(text)) => Some(text),
            Some(_) => return Err(rule()),
            None => self.time.as_ref().and_then(|f| data.get(f)).and_then(Value::as_str).map(str::to_owned),
        };
        match text {
            Some(text) if text.parse::<jiff::Timestamp>().is_err() => Err(rule()),
            other => Ok(other),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn checker() -> Checker {
        let yaml = "dataset: ds:grid/load@1\ntitle: t\nkind: feed\nschema: s.json\nkey: [time]\ntime: {field: time, zone: UTC}\nsubject: none\nsensitive: {}\n";
        let schema = r#"{"type":"object","properties":{"time":{"type":"string","format":"date-time"},"mw":{"type":"string","format":"decimal"}},
            "required":["time"],"additionalProperties":false}"#;
        Checker::new(&DatasetDoc::parse(yaml, schema).unwrap()).unwrap()
    }

    #[test]
    fn a_good_line_becomes_the_same_event_every_time() {
        let body = br#"{"id":"a","time":"2026-01-01T00:00:00Z","data":{"mw":"1.5","time":"2026-01-01T00:00:00Z"}}"#;
        let (one, two) = (checker().read(body).unwrap(), checker().read(body).unwrap());
        assert_eq!(one[0].event, two[0].event);
        assert_ne!(one[0].secret, two[0].secret, "salts are fresh");
        let event = Event::parse(&one[0].event).unwrap();
        assert_eq!(event.attributes()["source"], "ds:grid/load@1");
        assert_eq!(event.data()["mw"], "1.5");
    }

    #[test]
    fn id_and_time_come_from_the_key_and_time_fields_when_left_out() {
        let body = br#"{"data":{"time":"2026-01-01T00:00:00Z"}}"#;
        let event = Event::parse(&checker().read(body).unwrap()[0].event).unwrap();
        assert_eq!(event.attributes()["id"], "2026-01-01T00:00:00Z");
        assert_eq!(event.attributes()["time"], "2026-01-01T00:00:00Z");
    }

    #[test]
    fn every_wrong_line_is_named_and_nothing_is_taken() {
        let body = [
            r#"{"data":{"time":"2026-01-01T00:00:00Z"}}"#,
            r#"{"data":{"time":"yesterday"}}"#,
            r#"{"data":{"time":"2026-01-01T00:00:00Z","mw":1}}"#,
            r#"{"data":{"time":"2026-01-01T00:00:00Z","mw":"1","mw":"2"}}"#,
            r#"{"data":{"time":"2026-01-01T00:00:00Z"},"shadow":1}"#,
            r#"{"id":"x","time":"noon","data":{"time":"2026-01-01T00:00:00Z"}}"#,
            r#"[]"#,
            r#"{"data":{}}"#,
        ]
        .join("\n");
        let Err(IntakeError::Lines(errors)) = checker().read(body.as_bytes()) else { panic!("taken") };
        let found: Vec<_> = errors.iter().map(|e| (e.line, e.code)).collect();
        assert_eq!(
            found,
            [(2, "schema"), (3, "schema"), (4, "json"), (5, "member"), (6, "time"), (7, "json"), (8, "schema")]
        );
    }

    #[test]
    fn empty_and_oversize_batches_are_refused() {
        let line = "{\"data\":{\"time\":\"2026-01-01T00:00:00Z\"}}\n";
        assert!(matches!(checker().read(b"\n\n"), Err(IntakeError::Count(0))));
        assert!(matches!(checker().read(line.repeat(257).as_bytes()), Err(IntakeError::Count(257))));
        assert_eq!(checker().read(line.repeat(256).as_bytes()).unwrap().len(), 256);
    }
}
