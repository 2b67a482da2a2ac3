//! Messages published to an MQTT server, quality of service 1 or 2.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::Spanned;

use super::document::Head;
use super::{Message, Sink};
use crate::contract::{AdapterError, Reject};
use crate::document::{DocumentError, Secret};
use crate::kinds::mqtt::client::Qos;
use crate::kinds::mqtt::document::{Spoken, address};
use crate::kinds::mqtt::session::{Outgoing, Server, Session};
use crate::kinds::mqtt::source::source_error;
use crate::kinds::mqtt::wire::Hello;
use crate::tls;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Where messages are published.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct To {
    /// `mqtt://host:port` or `mqtts://host:port`.
    pub url: Spanned<String>,
    /// The topic; `{field}` stands for a member of the data.
    pub topic: Spanned<String>,
    /// 1 or 2; 1 when left out.
    #[serde(default)]
    pub qos: Option<u8>,
    /// The server keeps the last message of a topic.
    #[serde(default)]
    pub retain: bool,
    /// Only the data, without id, time and place.
    #[serde(default)]
    pub bare: bool,
    /// The client's name; `concordat-sink-` and the sink's name when left out.
    #[serde(default)]
    pub client_id: Option<String>,
    /// Version of the protocol, `5` or `3.1.1`.
    #[serde(default)]
    pub version: Spoken,
    /// User.
    #[serde(default)]
    pub user: Option<String>,
    /// Password, by reference.
    #[serde(default)]
    pub password: Option<Secret>,
    /// Certificates that are trusted, a PEM file.
    #[serde(default)]
    pub ca: Option<String>,
}

/// Opens the sink.
pub fn open(head: &Head, to: &To, base: &Path) -> Result<Box<dyn Sink>, AdapterError> {
    let (host, port, secure) = address(&to.url)?;
    let qos = match to.qos.unwrap_or(1) {
        1 => Qos::AtLeastOnce,
        2 => Qos::ExactlyOnce,
        _ => return Err(DocumentError::rule("to.qos", "1 or 2: with 0 nobody knows that a message arrived").into()),
    };
    let topic = &to.topic.value;
    if topic.is_empty() || topic.contains(['+', '#', '\0']) {
        return Err(DocumentError::at(&to.topic, "to.topic", "a topic without + and #").into());
    }
    let login = match (&to.user, &to.password) {
        (Some(user), Some(password)) => Some((user.clone(), password.reveal(base)?)),
        (None, None) => None,
        _ => return Err(DocumentError::at(&to.url, "to", "`user` and `password` come together").into()),
    };
    let files = tls::Files { ca: to.ca.as_deref(), ..tls::Files::default() };
    let hello = Hello {
        version: to.version.0,
        client_id: to.client_id.clone().unwrap_or_else(|| format!("concordat-sink-{}", head.sink)),
        persistent: false,
        expiry_s: 0,
        keep_alive: Duration::from_secs(30),
        receive_max: 16,
        packet_max: 16 * 1024 * 1024,
        login,
        filters: vec![],
    };
    let tls = if secure { Some(tls::client(base, files)?) } else { None };
    let session = Session::new(Server { host, port, tls, hello });
    Ok(Box::new(MqttSink { session, to: to.clone(), qos, place: head.subscription.clone() }))
}

struct MqttSink {
    session: Session,
    to: To,
    qos: Qos,
    place: String,
}

impl Sink for MqttSink {
    fn deliver(&mut self, page: &[Message]) -> Result<Vec<Reject>, AdapterError> {
        let (mut out, mut refused) = (Vec::with_capacity(page.len()), Vec::new());
        for message in page {
            match topic(&self.to.topic.value, message) {
                Some(topic) => out.push(Outgoing {
                    topic,
                    payload: match self.to.bare {
                        true => serde_json::to_vec(&message.data).unwrap_or_default(),
                        false => message.line(),
                    },
                    qos: self.qos,
                    retain: self.to.retain,
                }),
                None => refused.push(super::webhook::refused(
                    &self.place,
                    message,
                    "sink.topic",
                    "a member that the topic names is missing or holds `/`, `+` or `#`".to_owned(),
                )),
            }
        }
        self.session.publish(out, TIMEOUT).map_err(source_error)?;
        Ok(refused)
    }
}

/// The topic with the members it names; none when one is missing or would change the levels.
fn topic(pattern: &str, message: &Message) -> Option<String> {
    let (mut out, mut rest) = (String::new(), pattern);
    while let Some((before, after)) = rest.split_once('{') {
        let (name, tail) = after.split_once('}')?;
        let value = match message.data.get(name)? {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        if value.is_empty() || value.contains(['/', '+', '#', '\0']) {
            return None;
        }
        out.push_str(before);
        out.push_str(&value);
        rest = tail;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_topic_is_made_of_members_and_cannot_be_broken_out_of() {
        let data = json!({"feeder": "F 7", "n": 3, "bad": "a/#"});
        let data = data.as_object().cloned().unwrap_or_default();
        let message = Message { sub_seq: 1, index: 0, seq: 1, id: "x".into(), time: None, data };
        assert_eq!(topic("grid/{feeder}/{n}/load", &message).as_deref(), Some("grid/F 7/3/load"));
        for bad in ["grid/{none}", "grid/{bad}", "grid/{n"] {
            assert_eq!(topic(bad, &message), None, "{bad}");
        }
    }
}
