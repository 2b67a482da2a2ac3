//! Records as they are sent: one JSON line each, made on the thread that read them, so that what a record is made of
//! never leaves it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::client::LineError;
use crate::contract::{Batch, Checkpoint, Next, Origin, Record, Reject};

/// What a dead letter of a record needs, and when the record is of.
#[derive(Debug)]
struct Kept {
    time: Option<String>,
    origin: Origin,
    raw: Vec<u8>,
}

/// The records of a batch that are not refused.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    text: Vec<u8>,
    kept: Vec<Kept>,
}

/// What one pull gave, ready to be sent.
#[derive(Debug)]
pub(crate) struct Ready {
    pub lines: Lines,
    /// Rows for the dead letters.
    pub rejects: Vec<Reject>,
    /// Where the next pull begins once this is durable.
    pub checkpoint: Checkpoint,
    /// When to ask again.
    pub next: Next,
    /// Things a person should know and no row is about.
    pub notes: Vec<String>,
}

impl Ready {
    /// Rows, good and bad.
    pub fn rows(&self) -> usize {
        self.lines.len() + self.rejects.len()
    }
}

impl From<Batch> for Ready {
    fn from(batch: Batch) -> Self {
        let Batch { records, rejects, checkpoint, next, notes } = batch;
        Self { lines: records.into(), rejects, checkpoint, next, notes }
    }
}

impl From<Vec<Record>> for Lines {
    fn from(records: Vec<Record>) -> Self {
        let text = event_lines(records.iter());
        let kept = records.into_iter().map(|r| Kept { time: r.time, origin: r.origin, raw: r.raw });
        Self { text, kept: kept.collect() }
    }
}

impl Lines {
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The body of the batch.
    pub fn body(&self) -> Vec<u8> {
        self.text.clone()
    }

    /// Event time of the last record.
    pub fn newest(&self) -> Option<&str> {
        self.kept.last().and_then(|k| k.time.as_deref())
    }

    /// Takes out what the broker refused, by index.
    pub fn refuse(&mut self, errors: &[LineError]) -> Vec<Reject> {
        let by_index: BTreeMap<usize, &LineError> = errors.iter().map(|e| (e.index, e)).collect();
        let (mut left, mut rejects) = (Self::default(), Vec::new());
        let Self { text, kept } = std::mem::take(self);
        // A line of JSON has no line feed but the one that ends it.
        for (n, (kept, line)) in kept.into_iter().zip(text.split_inclusive(|b| *b == b'\n')).enumerate() {
            match by_index.get(&n) {
                Some(error) => rejects.push(Reject::by_broker(kept.origin, kept.raw, error)),
                None => {
                    left.text.extend_from_slice(line);
                    left.kept.push(kept);
                }
            }
        }
        *self = left;
        rejects
    }
}

/// The body of a batch: one JSON line an event, `{"id": ..., "time": ..., "data": {...}}`.
pub fn event_lines<'a>(records: impl Iterator<Item = &'a Record>) -> Vec<u8> {
    let mut body = Vec::new();
    for record in records {
        body.extend_from_slice(b"{\"id\":");
        text(&mut body, &record.id);
        if let Some(time) = &record.time {
            body.extend_from_slice(b",\"time\":");
            text(&mut body, time);
        }
        body.extend_from_slice(b",\"data\":");
        fields(&mut body, &record.data);
        body.extend_from_slice(b"}\n");
    }
    body
}

fn fields(out: &mut Vec<u8>, data: &Map<String, Value>) {
    out.push(b'{');
    for (n, (name, value)) in data.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        text(out, name);
        out.push(b':');
        match value {
            Value::String(value) => text(out, value),
            other => json(out, other),
        }
    }
    out.push(b'}');
}

/// A string of JSON. Nearly all of them have nothing to escape, and are looked at many bytes at a time: no early end.
fn text(out: &mut Vec<u8>, value: &str) {
    let escaped = value.bytes().fold(false, |found, b| found | (b < 0x20) | (b == b'"') | (b == b'\\'));
    if escaped {
        return json(out, value);
    }
    out.push(b'"');
    out.extend_from_slice(value.as_bytes());
    out.push(b'"');
}

fn json(out: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    // Writing into memory, of values that are JSON, cannot fail.
    let _ = serde_json::to_writer(out, value);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn record(id: &str, time: Option<&str>, data: Value) -> Record {
        let Value::Object(data) = data else { panic!("no object") };
        Record {
            id: id.to_owned(),
            time: time.map(str::to_owned),
            data,
            origin: Origin::row("f", 1),
            raw: id.as_bytes().to_vec(),
        }
    }

    fn read(lines: &[u8]) -> Vec<Value> {
        std::str::from_utf8(lines).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn every_text_is_read_back(id in ".*", name in ".*", value in any::<String>(), n in any::<i64>(), time in proptest::option::of(".*")) {
            let data = json!({name.clone(): value, format!("{name}2"): n, format!("{name}3"): true});
            let record = record(&id, time.as_deref(), data.clone());
            let lines = event_lines([&record, &record].into_iter());
            let mut wanted = json!({"id": id, "data": data});
            if let Some(time) = time {
                wanted["time"] = time.into();
            }
            prop_assert_eq!(read(&lines), vec![wanted.clone(), wanted]);
        }
    }

    #[test]
    fn what_is_refused_leaves_the_others_as_they_were() {
        let records = ["a", "b\n", "c"].map(|id| record(id, Some(id), json!({"v": id})));
        let mut lines = Lines::from(records.to_vec());
        let error = |index| LineError { index, rule: "broker.schema".to_owned(), message: "no".to_owned() };
        let rejects = lines.refuse(&[error(0), error(2), error(7)]);
        assert_eq!(rejects.iter().map(|r| r.raw.as_slice()).collect::<Vec<_>>(), [b"a", b"c"]);
        assert_eq!((lines.len(), lines.newest()), (1, Some("b\n")));
        assert_eq!(lines.body(), event_lines(records[1..2].iter()));
        assert_eq!(lines.refuse(&[error(0)]).len(), 1);
        assert!(lines.is_empty() && lines.body().is_empty() && lines.newest().is_none());
    }
}
