//! Messages to rows.

use serde::{Deserialize, Serialize};

use super::batch::Message;
use crate::contract::{Beside, Origin, Reject, Row};
use crate::convert::Fault;
use crate::json_rows::{JsonRows, bad};
use crate::mapping::Cell;

/// Largest message that becomes a record; larger ones become dead letters.
const MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// What a cell of a message can be besides a path into its JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// The message's key as text.
    Key,
    /// The number of its partition.
    Partition,
    /// Its number in the partition.
    Offset,
    /// Its time.
    Timestamp,
    /// `upsert`, or `delete` for a message without a value.
    Op,
    /// The whole value as text.
    Payload,
}

impl Word {
    /// Reads a word; none for anything else.
    pub(crate) fn parse(text: &str) -> Option<Result<Self, String>> {
        let word = match text {
            "$key" => Self::Key,
            "$partition" => Self::Partition,
            "$offset" => Self::Offset,
            "$timestamp" => Self::Timestamp,
            "$op" => Self::Op,
            "$payload" => Self::Payload,
            _ => return None,
        };
        Some(Ok(word))
    }
}

/// What a message is besides its value; a dead letter keeps it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    partition: i32,
    offset: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time_ms: Option<i64>,
    /// The key, where it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

/// A topic's mapping.
pub(crate) struct Rows {
    rows: JsonRows<Word>,
    topic: String,
    /// The mapping says what happened, so a deletion can be told.
    tells: bool,
}

impl Rows {
    /// The messages of a topic by a mapping.
    pub(crate) fn new(rows: JsonRows<Word>, topic: String) -> Self {
        let tells = rows.mapper().steps().iter().any(|step| step.from == "$op");
        Self { rows, topic, tells }
    }

    /// The row of a message.
    pub(crate) fn row(&self, partition: i32, message: &Message) -> Row {
        let mut beside = Beside::default();
        if message.value.is_none() {
            beside.op = Some("delete".to_owned());
        }
        let key = message.key.as_ref().map(|key| std::str::from_utf8(key));
        if let Some(Err(_)) = key {
            beside.faults.insert("$key".to_owned(), "the key is not UTF-8".to_owned());
        }
        let (offset, time_ms) = (message.offset, message.time_ms);
        let key = key.and_then(Result::ok).map(str::to_owned);
        beside.cells = serde_json::to_string(&Envelope { partition, offset, time_ms, key }).ok();
        let place = format!("{}[{partition}]", self.topic);
        let origin = Origin::row(place, u64::try_from(message.offset).unwrap_or_default()).with(beside);
        self.again(origin, message.value.as_deref().unwrap_or_default())
    }

    /// The row of a message's value; what else it is stands beside its origin.
    pub(crate) fn again(&self, origin: Origin, value: &[u8]) -> Row {
        let beside = origin.beside.clone().unwrap_or_default();
        let envelope = beside.cells.as_deref().and_then(|cells| serde_json::from_str::<Envelope>(cells).ok());
        let Some(envelope) = envelope else {
            let fault = Fault::new("replay.cells", "what the message was besides its value was not kept");
            return Row::Bad(bad(origin, value, fault));
        };
        if value.len() > MESSAGE_BYTES_MAX {
            let fault = Fault::new("kafka.size", format!("the message has more than {MESSAGE_BYTES_MAX} bytes"));
            let head = value.get(..MESSAGE_BYTES_MAX).unwrap_or_default();
            return Row::Bad(Reject { truncated: true, ..bad(origin, head, fault) });
        }
        let deleted = beside.op.is_some();
        if deleted && !self.tells {
            let detail = "the message has no value, which deletes its key; map `$op` to take it as a deletion";
            return Row::Bad(bad(origin, value, Fault::new("kafka.tombstone", detail)));
        }
        let json = if deleted { b"{}" } else { value };
        self.rows.row(origin, value, json, &|word| match word {
            Word::Key if beside.faults.contains_key("$key") => {
                Cell::Bad(Fault::new("text.utf8", "the key is not UTF-8"))
            }
            Word::Key => envelope.key.clone().map_or(Cell::Null, Cell::from),
            Word::Partition => Cell::from(envelope.partition.to_string()),
            Word::Offset => Cell::from(envelope.offset.to_string()),
            Word::Timestamp => envelope.time_ms.map_or(Cell::Null, |ms| match jiff::Timestamp::from_millisecond(ms) {
                Ok(time) => Cell::from(format!("{time:.3}")),
                Err(_) => Cell::Bad(Fault::new("time.range", "the message's time is outside of all calendars")),
            }),
            Word::Op => Cell::from(if deleted { "delete" } else { "upsert" }),
            Word::Payload if deleted => Cell::Null,
            Word::Payload => match std::str::from_utf8(value) {
                Ok(text) => Cell::from(text.to_owned()),
                Err(_) => Cell::Bad(Fault::new("text.utf8", "the message is not UTF-8")),
            },
        })
    }
}
