//! Sinks: what an agency follows of others, delivered to where its own people and systems read it. A message is
//! acknowledged at the own gateway only after the sink has it.
//!
//! ```yaml
//! sink: load-archive
//! kind: file                                   # file | postgres | mqtt | webhook | iec104
//! subscription: SUB-0123
//! page: {max: 500, wait: 20s}
//! to: {folder: archive, rotate: 64MiB}
//! ```

pub mod document;
mod file;
mod gateway;
#[cfg(feature = "iec104")]
mod iec104;
#[cfg(feature = "mqtt")]
mod mqtt;
#[cfg(feature = "sql-poll")]
mod postgres;
pub mod runner;
mod webhook;

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::contract::{AdapterError, Reject};
use crate::document::{DocumentError, kind_of};
use crate::strict::nearest;
use document::Head;
pub use gateway::Gateway;

/// A message of a subscription, as the gateway proved and gives it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Number of the delivery in its subscription.
    pub sub_seq: u64,
    /// Position in the delivery.
    pub index: u64,
    /// Sequence number in the dataset.
    pub seq: u64,
    /// The event's id.
    pub id: String,
    /// The event's time, if it is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Value>,
    /// The members that are shown.
    pub data: Map<String, Value>,
}

impl Message {
    /// Its place in the subscription.
    pub fn cursor(&self) -> String {
        format!("{}.{}", self.sub_seq, self.index)
    }

    /// It as one line of JSON without a line end.
    pub fn line(&self) -> Vec<u8> {
        // Strings, numbers and objects under string keys always serialize.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// Where messages go. It may block.
pub trait Sink: Send + 'static {
    /// Delivers a page of messages in order and returns once all of them are safe there, with those that it refused for
    /// good. After an error the same page comes again, and after a restart too: the sink must bear that.
    fn deliver(&mut self, page: &[Message]) -> Result<Vec<Reject>, AdapterError>;
}

type Open = dyn Fn(&Path) -> Result<Box<dyn Sink>, AdapterError> + Send;

/// A sink as its document describes it.
pub struct Described {
    /// What every sink's document says.
    pub head: Head,
    open: Box<Open>,
}

impl Described {
    /// The sink itself; paths are relative to `base`, the node folder.
    pub fn open(&self, base: &Path) -> Result<Box<dyn Sink>, AdapterError> {
        (self.open)(base)
    }

    fn new<T: 'static + Send>(
        (head, to): (Head, T),
        open: impl Fn(&Head, &T, &Path) -> Result<Box<dyn Sink>, AdapterError> + Send + 'static,
    ) -> Self {
        let own = head.clone();
        Self { head, open: Box::new(move |base| open(&own, &to, base)) }
    }
}

/// The kinds of sink that this program was built with.
pub const KINDS: &[&str] = &[
    "file",
    #[cfg(feature = "iec104")]
    "iec104",
    #[cfg(feature = "mqtt")]
    "mqtt",
    #[cfg(feature = "sql-poll")]
    "postgres",
    "webhook",
];

/// Reads the document of a sink.
pub fn parse(text: &str) -> Result<Described, DocumentError> {
    let kind = kind_of(text)?;
    match kind.value.as_str() {
        "file" => Ok(Described::new(document::parse::<file::To>(text)?, file::open)),
        #[cfg(feature = "iec104")]
        "iec104" => Ok(Described::new(document::parse::<iec104::To>(text)?, iec104::open)),
        #[cfg(feature = "mqtt")]
        "mqtt" => Ok(Described::new(document::parse::<mqtt::To>(text)?, mqtt::open)),
        #[cfg(feature = "sql-poll")]
        "postgres" => Ok(Described::new(document::parse::<postgres::To>(text)?, postgres::open)),
        "webhook" => Ok(Described::new(document::parse::<webhook::To>(text)?, webhook::open)),
        other => {
            let hint = match nearest(other, KINDS.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", KINDS.join(", ")),
            };
            Err(DocumentError::at(&kind, "kind", format!("unknown kind of sink `{other}`; {hint}")))
        }
    }
}
