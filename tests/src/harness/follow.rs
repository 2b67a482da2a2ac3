//! An application that follows a subscription through its own agency's gateway, and writes its history down.

use super::{City, Client, until};
use concordat_cli::demo::history::{Line, Place};
use concordat_protocol::hash::sha256;
use serde_json::{Value, json};
use std::time::Duration;

/// Longest wait for messages, on a busy machine.
const WITHIN: Duration = Duration::from_secs(60);

/// Digest of what is shown of a message.
pub fn digest(data: &Value) -> String {
    hex::encode(&sha256(&[data.to_string().as_bytes()])[..16])
}

/// A follower of one subscription.
#[derive(Debug, Clone)]
pub struct Follower {
    /// The gateway.
    pub api: Client,
    /// The subscription.
    pub id: String,
    /// What it received and acknowledged.
    pub history: Vec<Line>,
}

impl Follower {
    /// Follows a subscription that is there.
    pub fn of(city: &City, agency: &str, id: &str) -> Self {
        Self { api: city.api(agency, "operator"), id: id.to_owned(), history: vec![] }
    }

    /// Creates a subscription.
    #[track_caller]
    pub fn create(city: &City, agency: &str, body: &Value) -> Self {
        let api = city.api(agency, "operator");
        let answer = until(&format!("{agency} subscribes to {}", body["dataset"]), WITHIN, || {
            let answer = api.post("/v1/subscriptions", body);
            // The provider's node may be a block behind, or not be asked yet.
            let not_yet = matches!(answer.status, 403 | 503 | 504) && answer.body["retry"] != false;
            if not_yet { Err(format!("{} {}", answer.status, answer.body)) } else { Ok(answer) }
        });
        assert!(matches!(answer.status, 200 | 201), "{} {}", answer.status, answer.body);
        let id = answer.text("id");
        Self { api, id, history: vec![] }
    }

    /// The default subscription of an agreement.
    pub fn default_of(city: &City, agency: &str, agreement: &str) -> Self {
        let api = city.api(agency, "operator");
        let id = until(&format!("{agency} follows {agreement}"), WITHIN, || {
            let all = api.get("/v1/subscriptions");
            let list = all.body["subscriptions"].as_array().cloned().unwrap_or_default();
            let own = list.iter().find(|s| s["agreement"] == agreement && s["state"] == "active");
            own.map(|s| s["id"].as_str().unwrap_or_default().to_owned()).ok_or(all.body)
        });
        Self { api, id, history: vec![] }
    }

    /// A path below the subscription.
    pub fn path(&self, rest: &str) -> String {
        format!("/v1/subscriptions/{}{rest}", self.id)
    }

    /// The subscription as its agency sees it.
    pub fn view(&self) -> Value {
        self.api.get(&self.path("")).is(200).body
    }

    /// One page after a place, and its cursor.
    pub fn page(&mut self, max: usize, wait_s: f64, after: Option<&str>) -> Result<(Vec<Value>, String), String> {
        let after = after.map(|a| format!("&after={a}")).unwrap_or_default();
        let answer = self.api.get(&self.path(&format!("/messages?max={max}&wait={wait_s}{after}")));
        if answer.status != 200 {
            return Err(format!("{} {}", answer.status, answer.body));
        }
        let messages = answer.body["messages"].as_array().cloned().unwrap_or_default();
        for m in &messages {
            let key = m["data"]["n"].to_string();
            self.history.push(Line::Received { at: place(m), key, digest: digest(&m["data"]) });
        }
        Ok((messages, answer.text("cursor")))
    }

    /// Acknowledges up to a cursor.
    pub fn ack(&mut self, cursor: &str) -> Result<(), String> {
        let answer = self.api.post(&self.path("/acks"), &json!({"cursor": cursor}));
        if answer.status != 200 {
            return Err(format!("{} {}", answer.status, answer.body));
        }
        let (sub_seq, index) = cursor.split_once('.').unwrap_or((cursor, "0"));
        let number = |t: &str| t.parse().unwrap_or_else(|_| panic!("cursor {cursor}"));
        self.history.push(Line::Committed { at: (number(sub_seq), number(index)) });
        Ok(())
    }

    /// Takes and acknowledges this many messages.
    #[track_caller]
    pub fn take(&mut self, n: usize) -> Vec<Value> {
        let mut got = Vec::new();
        until(&format!("{n} messages of {}", self.id), WITHIN, || {
            let (messages, cursor) = self.page((n - got.len()).min(1_000), 1.0, None)?;
            if !messages.is_empty() {
                self.ack(&cursor)?;
                got.extend(messages);
            }
            if got.len() == n { Ok(()) } else { Err(format!("{} of {n}", got.len())) }
        });
        got
    }

    /// Requires that nothing is there that was not acknowledged.
    #[track_caller]
    pub fn nothing_more(&mut self) {
        let (messages, _) = self.page(1_000, 0.0, None).expect("a page");
        assert!(messages.is_empty(), "{} more messages, the first {}", messages.len(), messages[0]);
    }
}

fn place(m: &Value) -> Place {
    let number = |name: &str| m[name].as_u64().unwrap_or_else(|| panic!("no {name} in {m}"));
    (number("sub_seq"), number("index"))
}
