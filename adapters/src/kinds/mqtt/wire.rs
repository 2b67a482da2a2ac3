//! MQTT on the wire, 3.1.1 and 5, without a socket: bytes in, bytes out, and what they mean.

#[path = "versions.rs"]
mod versions;

use std::time::Duration;

use mqtt_protocol_core::mqtt;
use mqtt_protocol_core::mqtt::packet::v3_1_1 as v3;
use mqtt_protocol_core::mqtt::packet::v5_0 as v5;
use mqtt_protocol_core::mqtt::packet::{Packet, RetainHandling, SubEntry, SubOpts};
use mqtt_protocol_core::mqtt::prelude::*;
use mqtt_protocol_core::mqtt::result_code::{ConnectReasonCode, ConnectReturnCode};
use versions::{connect_v3, connect_v5, refused_v3, refused_v5};
use zeroize::Zeroizing;

use super::client::{Message, Qos, Stage, Token};
use crate::contract::ErrorClass;

/// Versions of the protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Version {
    /// 3.1.1.
    V3,
    /// 5.
    #[default]
    V5,
}

/// What a connection says when it begins.
#[derive(Debug, Clone)]
pub struct Hello {
    /// Version of the protocol.
    pub version: Version,
    /// The name under which the server keeps the session.
    pub client_id: String,
    /// The session outlives the connection.
    pub persistent: bool,
    /// How long it does, in seconds (version 5; servers of 3.1.1 decide by themselves).
    pub expiry_s: u32,
    /// Longest silence on the connection.
    pub keep_alive: Duration,
    /// Most messages the server may send without an acknowledgement (version 5).
    pub receive_max: u16,
    /// Largest packet taken, in bytes.
    pub packet_max: u32,
    /// User and password.
    pub login: Option<(String, Zeroizing<String>)>,
    /// Filters to subscribe.
    pub filters: Vec<(String, Qos)>,
}

/// What bytes of the server meant.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// The connection stands.
    Connected {
        /// The server kept the session.
        session_kept: bool,
    },
    /// All filters are subscribed.
    Subscribed,
    /// A message.
    Message(Message),
    /// A published message is with the server.
    Delivered(u16),
    /// The end, and why.
    Refused(Stage, ErrorClass, String),
}

type Core = mqtt::Connection<mqtt::role::Client>;

/// One connection's state.
pub struct Wire {
    core: Core,
    hello: Hello,
    number: u64,
    /// Bytes to send.
    pub out: Vec<u8>,
    /// When to call [`Wire::timer`], by kind.
    pub timers: Vec<(TimerKind, Duration)>,
    found: Vec<Incoming>,
}

fn qos_of(qos: mqtt::packet::Qos) -> Qos {
    match qos {
        mqtt::packet::Qos::AtMostOnce => Qos::AtMostOnce,
        mqtt::packet::Qos::AtLeastOnce => Qos::AtLeastOnce,
        mqtt::packet::Qos::ExactlyOnce => Qos::ExactlyOnce,
    }
}

fn core_qos(qos: Qos) -> mqtt::packet::Qos {
    match qos {
        Qos::AtMostOnce => mqtt::packet::Qos::AtMostOnce,
        Qos::AtLeastOnce => mqtt::packet::Qos::AtLeastOnce,
        Qos::ExactlyOnce => mqtt::packet::Qos::ExactlyOnce,
    }
}

fn unsendable(what: &str) -> Incoming {
    Incoming::Refused(
        Stage::Login,
        ErrorClass::Permanent,
        format!("{what} cannot be sent by MQTT; correct the document"),
    )
}

impl Wire {
    /// A connection that begins: its first bytes are in `out`. `number` goes into the tokens of its messages.
    pub fn new(hello: Hello, number: u64) -> Self {
        let version = match hello.version {
            Version::V3 => mqtt::Version::V3_1_1,
            Version::V5 => mqtt::Version::V5_0,
        };
        let options = mqtt::connection::ConnectionOptions::new().maximum_packet_size_recv(hello.packet_max);
        let mut core = Core::with_options(version, options);
        core.set_pingresp_recv_timeout(u64::try_from(hello.keep_alive.as_millis()).unwrap_or(u64::MAX).max(1_000));
        let mut wire = Self { core, hello, number, out: vec![], timers: vec![], found: vec![] };
        wire.greet();
        wire
    }

    fn greet(&mut self) {
        let hello = self.hello.clone();
        let seconds = u16::try_from(hello.keep_alive.as_secs()).unwrap_or(u16::MAX);
        let events = match hello.version {
            Version::V3 => connect_v3(&hello, seconds).map(|packet| self.core.checked_send(packet)),
            Version::V5 => connect_v5(&hello, seconds).map(|packet| self.core.checked_send(packet)),
        };
        match events {
            Ok(events) => self.handle(events),
            Err(_) => self.found.push(unsendable("the client's name, user or password")),
        }
    }

    /// Takes bytes of the server and says what they mean, in order.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Incoming> {
        let mut cursor = mqtt::common::Cursor::new(bytes);
        while (cursor.position() as usize) < bytes.len() {
            let events = self.core.recv(&mut cursor);
            self.handle(events);
            if matches!(self.found.last(), Some(Incoming::Refused(..))) {
                break;
            }
        }
        std::mem::take(&mut self.found)
    }

    /// A timer ran out.
    pub fn timer(&mut self, kind: TimerKind) -> Vec<Incoming> {
        let events = self.core.notify_timer_fired(kind);
        self.handle(events);
        std::mem::take(&mut self.found)
    }

    /// Acknowledges a message of this connection.
    pub fn acknowledge(&mut self, token: Token) {
        if token.connection != self.number {
            return;
        }
        let id = token.packet;
        let events = match (token.qos, self.hello.version) {
            (Qos::AtMostOnce, _) => return,
            (Qos::AtLeastOnce, Version::V3) => {
                v3::Puback::builder().packet_id(id).build().map(|p| self.core.checked_send(p))
            }
            (Qos::AtLeastOnce, Version::V5) => {
                v5::Puback::builder().packet_id(id).build().map(|p| self.core.checked_send(p))
            }
            (Qos::ExactlyOnce, Version::V3) => {
                v3::Pubrec::builder().packet_id(id).build().map(|p| self.core.checked_send(p))
            }
            (Qos::ExactlyOnce, Version::V5) => {
                v5::Pubrec::builder().packet_id(id).build().map(|p| self.core.checked_send(p))
            }
        };
        if let Ok(events) = events {
            self.handle(events);
        }
    }

    /// Publishes a message; its packet identifier comes back in [`Incoming::Delivered`]. None when it cannot be sent
    /// now: too many are under way, or the topic is none.
    pub fn publish(&mut self, topic: &str, payload: &[u8], qos: Qos, retain: bool) -> Option<u16> {
        if self.core.get_receive_maximum_vacancy_for_send() == Some(0) {
            return None;
        }
        let id = self.core.acquire_packet_id().ok()?;
        let level = core_qos(qos);
        let events = match self.hello.version {
            Version::V3 => v3::Publish::builder()
                .topic_name(topic)
                .and_then(|b| b.qos(level).retain(retain).packet_id(id).payload(payload).build())
                .map(|p| self.core.checked_send(p)),
            Version::V5 => v5::Publish::builder()
                .topic_name(topic)
                .and_then(|b| b.qos(level).retain(retain).packet_id(id).payload(payload).build())
                .map(|p| self.core.checked_send(p)),
        };
        let Ok(events) = events else {
            let _ = self.core.release_packet_id(id);
            return None;
        };
        self.handle(events);
        Some(id)
    }

    /// Says goodbye: the session stays if it is persistent.
    pub fn goodbye(&mut self) {
        let events = match self.hello.version {
            Version::V3 => v3::Disconnect::builder().build().map(|p| self.core.checked_send(p)),
            Version::V5 => v5::Disconnect::builder().build().map(|p| self.core.checked_send(p)),
        };
        if let Ok(events) = events {
            self.handle(events);
        }
    }

    fn handle(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::RequestSendPacket { packet, .. } => self.out.append(&mut packet.to_continuous_buffer()),
                Event::NotifyPacketReceived(packet) => self.received(packet),
                Event::RequestTimerReset { kind, duration_ms } => {
                    self.timers.retain(|(k, _)| *k != kind);
                    self.timers.push((kind, Duration::from_millis(duration_ms)));
                }
                Event::RequestTimerCancel(kind) => {
                    self.timers.retain(|(k, _)| *k != kind);
                    self.timers.push((kind, Duration::MAX));
                }
                Event::NotifyError(error) => {
                    self.refuse(Stage::Link, ErrorClass::Transient, format!("the connection broke: {error:?}"))
                }
                Event::RequestClose => {
                    self.refuse(Stage::Link, ErrorClass::Transient, "the connection was given up".to_owned())
                }
                Event::NotifyPacketIdReleased(_) => {}
            }
        }
    }

    fn refuse(&mut self, stage: Stage, class: ErrorClass, detail: String) {
        self.found.push(Incoming::Refused(stage, class, detail));
    }

    fn received(&mut self, packet: Packet) {
        match packet {
            Packet::V3_1_1Connack(p) => match p.return_code() {
                ConnectReturnCode::Accepted => self.connected(p.session_present()),
                code => {
                    let (class, detail) = refused_v3(code);
                    self.refuse(Stage::Login, class, detail);
                }
            },
            Packet::V5_0Connack(p) => match p.reason_code() {
                ConnectReasonCode::Success => self.connected(p.session_present()),
                code => {
                    let (class, detail) = refused_v5(code);
                    self.refuse(Stage::Login, class, detail);
                }
            },
            Packet::V3_1_1Suback(p) => {
                let failed = p.return_codes().iter().position(|c| !c.is_success());
                self.subscribed(failed);
            }
            Packet::V5_0Suback(p) => {
                let failed = p.reason_codes().iter().position(|c| !c.is_success());
                self.subscribed(failed);
            }
            Packet::V3_1_1Publish(p) => {
                let (qos, id) = (qos_of(p.qos()), p.packet_id());
                self.message(p.topic_name(), p.payload().as_slice(), qos, id);
            }
            Packet::V5_0Publish(p) => {
                let (qos, id) = (qos_of(p.qos()), p.packet_id());
                self.message(p.topic_name(), p.payload().as_slice(), qos, id);
            }
            Packet::V3_1_1Puback(p) => self.found.push(Incoming::Delivered(p.packet_id())),
            Packet::V5_0Puback(p) => match p.reason_code() {
                Some(code) if code.is_failure() => {
                    self.refuse(
                        Stage::Rights,
                        ErrorClass::Auth,
                        format!("the server refused a message ({code}); give the user the right to publish there"),
                    );
                }
                _ => self.found.push(Incoming::Delivered(p.packet_id())),
            },
            Packet::V3_1_1Pubrec(p) => self.release_v3(p.packet_id()),
            Packet::V5_0Pubrec(p) => self.release_v5(p.packet_id()),
            Packet::V3_1_1Pubrel(p) => {
                if let Ok(done) = v3::Pubcomp::builder().packet_id(p.packet_id()).build() {
                    let events = self.core.checked_send(done);
                    self.handle(events);
                }
            }
            Packet::V5_0Pubrel(p) => {
                if let Ok(done) = v5::Pubcomp::builder().packet_id(p.packet_id()).build() {
                    let events = self.core.checked_send(done);
                    self.handle(events);
                }
            }
            Packet::V3_1_1Pubcomp(p) => self.found.push(Incoming::Delivered(p.packet_id())),
            Packet::V5_0Pubcomp(p) => self.found.push(Incoming::Delivered(p.packet_id())),
            Packet::V5_0Disconnect(p) => {
                let why = p.reason_code().map_or_else(|| "no reason given".to_owned(), |c| c.to_string());
                let hint = if why == "SessionTakenOver" { "; another client uses the same client_id" } else { "" };
                self.refuse(
                    Stage::Link,
                    ErrorClass::Transient,
                    format!("the server ended the connection: {why}{hint}"),
                );
            }
            _ => {}
        }
    }

    fn release_v3(&mut self, id: u16) {
        if let Ok(packet) = v3::Pubrel::builder().packet_id(id).build() {
            let events = self.core.checked_send(packet);
            self.handle(events);
        }
    }

    fn release_v5(&mut self, id: u16) {
        if let Ok(packet) = v5::Pubrel::builder().packet_id(id).build() {
            let events = self.core.checked_send(packet);
            self.handle(events);
        }
    }

    fn message(&mut self, topic: &str, payload: &[u8], qos: Qos, id: Option<u16>) {
        let token = id.filter(|_| qos != Qos::AtMostOnce);
        let token = token.map(|packet| Token { connection: self.number, packet, qos });
        self.found.push(Incoming::Message(Message { topic: topic.to_owned(), payload: payload.to_vec(), token }));
    }

    fn connected(&mut self, session_kept: bool) {
        self.found.push(Incoming::Connected { session_kept });
        if self.hello.filters.is_empty() {
            return self.found.push(Incoming::Subscribed);
        }
        // Retained messages come once a subscription, not at every new connection.
        let options = SubOpts::new().set_rh(RetainHandling::SendRetainedIfNotExists);
        let entries: Result<Vec<SubEntry>, _> = self
            .hello
            .filters
            .iter()
            .map(|(filter, qos)| {
                let options = if self.hello.version == Version::V5 { options } else { SubOpts::new() };
                SubEntry::new(filter.as_str(), options.set_qos(core_qos(*qos)))
            })
            .collect();
        let (Ok(entries), Ok(id)) = (entries, self.core.acquire_packet_id()) else {
            return self.found.push(unsendable("a topic filter"));
        };
        let events = match self.hello.version {
            Version::V3 => {
                v3::Subscribe::builder().entries(entries).packet_id(id).build().map(|p| self.core.checked_send(p))
            }
            Version::V5 => {
                v5::Subscribe::builder().entries(entries).packet_id(id).build().map(|p| self.core.checked_send(p))
            }
        };
        match events {
            Ok(events) => self.handle(events),
            Err(_) => self.found.push(unsendable("a topic filter")),
        }
    }

    fn subscribed(&mut self, failed: Option<usize>) {
        let Some(at) = failed else { return self.found.push(Incoming::Subscribed) };
        let filter = self.hello.filters.get(at).map_or("", |(filter, _)| filter.as_str());
        let detail = format!("the server refused the subscription of `{filter}`; give the user the right to read it");
        self.refuse(Stage::Rights, ErrorClass::Auth, detail);
    }
}
