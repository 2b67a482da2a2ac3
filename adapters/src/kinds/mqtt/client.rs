//! What the source and the sink need of an MQTT client, so that the client can be exchanged.

use std::time::Duration;

use concordat_protocol::hash::sha256;

use crate::contract::ErrorClass;
use crate::window::{Print, Queued, print_of};

/// Quality of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Qos {
    /// At most once: nothing is acknowledged, what is lost on the way is lost.
    AtMostOnce,
    /// At least once.
    AtLeastOnce,
    /// Exactly once between the two ends of one connection.
    ExactlyOnce,
}

impl Qos {
    /// From 0, 1 or 2.
    pub fn new(level: u8) -> Option<Self> {
        match level {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// What acknowledges a message: valid on the connection that brought it, and on no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// Number of the connection.
    pub connection: u64,
    /// Packet identifier on it.
    pub packet: u16,
    /// How it is acknowledged.
    pub qos: Qos,
}

/// A message as the MQTT server delivered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// Its bytes.
    pub payload: Vec<u8>,
    /// What acknowledges it; none with quality of service 0.
    pub token: Option<Token>,
}

impl Queued for Message {
    type Token = Token;

    /// The same topic and bytes make the same record.
    fn print(&self) -> Print {
        print_of(sha256(&[&(self.topic.len() as u64).to_be_bytes(), self.topic.as_bytes(), &self.payload]))
    }

    fn token(&self) -> Option<Token> {
        self.token
    }

    fn set_token(&mut self, token: Option<Token>) {
        self.token = token;
    }
}

/// What a client tells its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A connection stands, its filters are subscribed.
    Up {
        /// Number of the connection, from 1.
        connection: u64,
        /// The server kept the session of the connection before: what is not acknowledged comes again.
        session_kept: bool,
    },
    /// A message.
    Message(Message),
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{server}: {detail}")]
pub struct LinkError {
    /// Host and port.
    pub server: String,
    /// One sentence: what happened and what to do.
    pub detail: String,
    /// What it asks of the runner.
    pub class: ErrorClass,
    /// What was being done.
    pub stage: Stage,
}

/// How far a connection came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The server could not be reached.
    Reach,
    /// TLS was refused, by one side or the other.
    Tls,
    /// The server refused the login.
    Login,
    /// The server refused a subscription or a message.
    Rights,
    /// The connection stood.
    Link,
}

/// An MQTT client. It keeps the connection alive by itself, and stops reading from the server while nobody takes
/// what it has read.
pub trait Client: Send + 'static {
    /// What came, at most `max`; waits for it up to `wait`. Connects when there is no connection. An error comes after
    /// everything that was read before it, and ends the connection.
    fn receive(&mut self, max: usize, wait: Duration) -> Result<Vec<News>, LinkError>;

    /// Acknowledges messages, in this order. Tokens of connections that are gone are left out: those messages come
    /// again.
    fn acknowledge(&mut self, tokens: &[Token]);
}
