//! Messages as a source of batches: acknowledged at the server once they are durable with us.

use std::time::Duration;

use super::client::{Client, LinkError, Message, News, Stage};
use super::topics;
use crate::contract::{AdapterError, Batch, Checkpoint, Origin, Row, Source};
use crate::convert::Fault;
use crate::json_rows::{JsonRows, bad};
use crate::mapping::Cell;
use crate::window::{WAITING_MAX, Window};

/// Longest wait for a message in one call.
const WAIT: Duration = Duration::from_millis(250);
/// Largest message that becomes a record; larger ones become dead letters.
const MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// What a cell of an MQTT message can be besides a path into its JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// The whole topic.
    Topic,
    /// A level of the topic, from 0.
    Level(usize),
    /// The whole message as text.
    Payload,
}

impl Word {
    /// Reads `$topic`, `$topic[3]` and `$payload`; none for anything else.
    pub fn parse(text: &str) -> Option<Result<Self, String>> {
        match text {
            "$topic" => Some(Ok(Self::Topic)),
            "$payload" => Some(Ok(Self::Payload)),
            _ => {
                let level = text.strip_prefix("$topic[")?;
                let number = level.strip_suffix(']').and_then(|n| n.parse().ok());
                Some(number.map(Self::Level).ok_or_else(|| {
                    format!("`{text}` names no level of the topic; write `$topic[0]` for the first one")
                }))
            }
        }
    }
}

/// What becomes of the messages under one filter.
pub struct Rule {
    /// The filter.
    pub filter: String,
    /// Its mapping.
    pub rows: JsonRows<Word>,
}

impl Rule {
    fn row<'a>(&self, topic: &'a str, payload: &'a [u8], origin: Origin) -> Row {
        if payload.len() > MESSAGE_BYTES_MAX {
            let fault = Fault::new("mqtt.size", format!("the message has more than {MESSAGE_BYTES_MAX} bytes"));
            let head = payload.get(..MESSAGE_BYTES_MAX).unwrap_or_default();
            return Row::Bad(crate::contract::Reject { truncated: true, ..bad(origin, head, fault) });
        }
        self.rows.row(origin, payload, payload, &|word| match word {
            Word::Topic => Cell::from(topic),
            Word::Level(n) => Cell::from(topics::level(topic, *n)),
            Word::Payload => match std::str::from_utf8(payload) {
                Ok(text) => Cell::from(text),
                Err(_) => Cell::Bad(Fault::new("text.utf8", "the message is not UTF-8")),
            },
        })
    }
}

/// Messages of an MQTT server.
pub struct MqttSource<C> {
    client: C,
    rules: Vec<Rule>,
    window: Window<Message>,
    /// An error that came while messages were not handed out yet.
    failed: Option<AdapterError>,
    notes: Vec<String>,
    connected: bool,
    persistent: bool,
}

/// An error of the connection as the runner knows errors.
pub fn source_error(error: LinkError) -> AdapterError {
    let code = match error.stage {
        Stage::Reach | Stage::Link => "source.unreachable",
        Stage::Tls => "source.tls",
        Stage::Login => "source.login",
        Stage::Rights => "source.rights",
    };
    AdapterError::source_failed(error.class, code, error.to_string())
}

impl<C: Client> MqttSource<C> {
    /// A source over a client. `run` tells this process's checkpoints from those of others.
    pub fn new(client: C, rules: Vec<Rule>, persistent: bool, run: [u8; 8]) -> Self {
        Self { client, rules, window: Window::new(run), failed: None, notes: vec![], connected: false, persistent }
    }

    /// Takes what came; waits only when nothing is there to hand out.
    fn receive(&mut self, wait: Duration) -> Result<(), AdapterError> {
        let room = WAITING_MAX.saturating_sub(self.window.len());
        if room == 0 {
            return Ok(());
        }
        match self.client.receive(room, wait) {
            Ok(news) => {
                let known: Vec<_> = news.into_iter().filter_map(|news| self.heard(news)).collect();
                self.client.acknowledge(&known);
                Ok(())
            }
            Err(error) => Err(source_error(error)),
        }
    }

    fn heard(&mut self, news: News) -> Option<super::client::Token> {
        match news {
            News::Up { session_kept, .. } => {
                self.window.connected(session_kept);
                if self.connected && self.persistent && !session_kept {
                    let note = "the MQTT server did not keep the session: messages of the time between may be missing";
                    self.notes.push(note.to_owned());
                }
                self.connected = true;
                None
            }
            News::Message(message) => self.window.received(message),
        }
    }
}

/// The row of one message, by the first filter that its topic falls under.
pub(super) fn row(rules: &[Rule], topic: &str, payload: &[u8], origin: Origin) -> Row {
    match rules.iter().find(|rule| topics::matches(&rule.filter, topic)) {
        Some(rule) => rule.row(topic, payload, origin),
        None => {
            let fault = Fault::new("mqtt.topic", "no filter of the document matches the topic; add one");
            Row::Bad(bad(origin, payload, fault))
        }
    }
}

impl<C: Client> Source for MqttSource<C> {
    fn read(&mut self, from: &Checkpoint, max: usize) -> Result<Batch, AdapterError> {
        let (seq, durable) = self.window.place(from)?;
        // Behind a checkpoint there was a connection, of this process or of the one before.
        self.connected |= !from.is_start();
        self.client.acknowledge(&durable);
        let waiting = self.window.has_behind(seq);
        if let Some(error) = self.failed.take_if(|_| !waiting) {
            return Err(error);
        }
        if self.failed.is_none() {
            match self.receive(if waiting { Duration::ZERO } else { WAIT }) {
                Err(error) if waiting => self.failed = Some(error),
                other => other?,
            }
        }
        let mut batch = self.window.batch(from, seq, max, |message| {
            // One place for equal messages, so that a bad one that comes again is one dead letter.
            let origin = Origin::row(message.topic.as_str(), 0);
            row(&self.rules, &message.topic, &message.payload, origin)
        });
        batch.notes = std::mem::take(&mut self.notes);
        Ok(batch)
    }

    fn ack(&mut self, durable: &Checkpoint) -> Result<(), AdapterError> {
        let tokens = self.window.acknowledged(durable);
        self.client.acknowledge(&tokens);
        Ok(())
    }
}
