//! Applications of the consumer: each follows one subscription, by server-sent events or by long poll, keeps its place, and
//! acknowledges from time to time on a connection of its own.

use super::{AGREEMENT, CONSUMER, PACED, PROVIDER, PURPOSE};
use crate::city::City;
use crate::failed::BenchError;
use crate::http::Connection;
use concordat_broker::config::RpcAddr;
use concordat_cli::commands::sse::Parser;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// How long nothing may come.
const PATIENCE: Duration = Duration::from_secs(60);
/// After how long, or how many deliveries, the next acknowledgement is due.
const ACK_EVERY: Duration = Duration::from_millis(500);
const ACK_DELIVERIES: u64 = 64;
/// Messages of a page at most.
const PAGE: usize = 1_000;

/// An operator of the consumer.
#[derive(Clone)]
struct Operator {
    addr: RpcAddr,
    headers: Arc<str>,
}

impl Operator {
    fn of(city: &City) -> Result<Self, BenchError> {
        let (addr, token) = city.gateway(CONSUMER, "operator")?;
        let headers = format!("Authorization: Bearer {token}\r\nContent-Type: application/json\r\n");
        Ok(Self { addr, headers: headers.into() })
    }
}

/// A stream of server-sent events.
pub struct Events {
    response: reqwest::Response,
    parser: Parser,
    operator: Operator,
    id: String,
    acks: Acks,
}

impl Events {
    /// Opens the stream; it begins behind what was acknowledged.
    pub async fn open(city: &City, id: &str) -> Result<Self, BenchError> {
        let operator = Operator::of(city)?;
        let (addr, token) = city.gateway(CONSUMER, "operator")?;
        let RpcAddr::Tcp(addr) = addr else { return Err(BenchError::refused("the gateway", "it has no TCP address")) };
        let request = reqwest::Client::new().get(format!("http://{addr}/v1/subscriptions/{id}/events"));
        let response = request.bearer_auth(token).send().await.and_then(reqwest::Response::error_for_status);
        let response = response.map_err(|e| BenchError::refused("opening a stream of events", e))?;
        Ok(Self { response, parser: Parser::default(), operator, id: id.to_owned(), acks: Acks::new() })
    }

    /// The next messages.
    pub async fn next(&mut self) -> Result<Vec<Value>, BenchError> {
        let broken = |e: &dyn std::fmt::Display| BenchError::refused("a stream of events", e);
        loop {
            let piece = tokio::time::timeout(PATIENCE, self.response.chunk()).await;
            let piece = piece.map_err(|e| broken(&e))?.map_err(|e| broken(&e))?.ok_or_else(|| broken(&"it ended"))?;
            let (mut messages, mut last) = (Vec::new(), None);
            for event in self.parser.push(&piece).map_err(|e| broken(&e))? {
                match event.name.as_str() {
                    "message" => messages.push(serde_json::from_str(&event.data).map_err(|e| broken(&e))?),
                    "comment" => continue,
                    _ => return Err(broken(&event.data)),
                }
                last = event.id.or(last);
            }
            if let Some(cursor) = last {
                self.acks.due(&self.operator, &self.id, cursor).await?;
                return Ok(messages);
            }
        }
    }

    /// Acknowledges everything that came.
    pub async fn finish(mut self) -> Result<(), BenchError> {
        self.acks.finish(&self.operator, &self.id).await
    }
}

/// Acknowledgements beside the reading, one at a time.
struct Acks {
    at: Instant,
    delivery: u64,
    newest: Option<String>,
    flying: Option<JoinHandle<Result<(), BenchError>>>,
}

impl Acks {
    fn new() -> Self {
        Self { at: Instant::now(), delivery: 0, newest: None, flying: None }
    }

    /// Notes the newest cursor and acknowledges it when that is due.
    async fn due(&mut self, operator: &Operator, id: &str, cursor: String) -> Result<(), BenchError> {
        let delivery = cursor.split('.').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or_default();
        self.newest = Some(cursor);
        let due = self.at.elapsed() >= ACK_EVERY || delivery >= self.delivery + ACK_DELIVERIES;
        if !due || self.flying.as_ref().is_some_and(|a| !a.is_finished()) {
            return Ok(());
        }
        self.settle().await?;
        (self.at, self.delivery) = (Instant::now(), delivery);
        let (operator, id, cursor) = (operator.clone(), id.to_owned(), self.newest.clone());
        self.flying = Some(tokio::spawn(async move { post_ack(&operator, &id, cursor).await }));
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), BenchError> {
        match self.flying.take() {
            Some(ack) => ack.await.map_err(|e| BenchError::refused("an acknowledgement", e))?,
            None => Ok(()),
        }
    }

    async fn finish(&mut self, operator: &Operator, id: &str) -> Result<(), BenchError> {
        self.settle().await?;
        post_ack(operator, id, self.newest.take()).await
    }
}

fn io(e: std::io::Error) -> BenchError {
    BenchError::io("the consumer's broker", e)
}

fn read<T: DeserializeOwned>(what: &str, answer: &crate::http::Answer) -> Result<T, BenchError> {
    if !(200..300).contains(&answer.status) {
        return Err(BenchError::refused(what, String::from_utf8_lossy(&answer.body)));
    }
    serde_json::from_slice(&answer.body).map_err(|e| BenchError::refused(what, e))
}

/// The subscription that the agreement gives the consumer by itself.
pub async fn default_subscription(city: &City, agreement: &str) -> Result<String, BenchError> {
    let operator = Operator::of(city)?;
    let (mut connection, begun) = (Connection::new(&operator.addr), Instant::now());
    while begun.elapsed() < PATIENCE {
        let answer = connection.get_with("/v1/subscriptions", &operator.headers).await.map_err(io)?;
        let all: Value = read("listing subscriptions", &answer)?;
        let ours = all["subscriptions"].as_array().into_iter().flatten().filter(|s| s["agreement"] == agreement);
        if let Some(id) = ours.min_by_key(|s| s["subscription"].as_u64()).and_then(|s| s["id"].as_str()) {
            return Ok(id.to_owned());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(BenchError::Late { what: "the consumer's subscription".into(), seconds: PATIENCE.as_secs() })
}

/// Creates so many more, which begin with what is published from now on.
pub async fn create(city: &City, count: usize) -> Result<Vec<String>, BenchError> {
    let operator = Operator::of(city)?;
    let (mut connection, mut all) = (Connection::new(&operator.addr), Vec::new());
    for n in 1..=count {
        let body = json!({
            "dataset": format!("ds:{PROVIDER}/{PACED}@1"), "name": format!("bench-{n}"), "agreement": AGREEMENT,
            "purpose": PURPOSE, "from": "latest",
        });
        let answer = connection.post("/v1/subscriptions", &operator.headers, body.to_string().as_bytes()).await;
        let made: Value = read("creating a subscription", &answer.map_err(io)?)?;
        let id = made["id"].as_str().ok_or_else(|| BenchError::refused("creating a subscription", &made))?;
        all.push(id.to_owned());
    }
    Ok(all)
}

/// A page of messages; `M` is what is read of each.
#[derive(Deserialize)]
pub struct Page<M> {
    /// The messages.
    pub messages: Vec<M>,
    cursor: Option<String>,
}

/// One application that reads whole pages.
pub struct Follower {
    operator: Operator,
    id: String,
    connection: Connection,
    after: Option<String>,
    acks: Acks,
}

impl Follower {
    /// An application that goes on where the last one acknowledged.
    pub fn new(city: &City, id: &str) -> Result<Self, BenchError> {
        let operator = Operator::of(city)?;
        let connection = Connection::new(&operator.addr);
        Ok(Self { operator, id: id.to_owned(), connection, after: None, acks: Acks::new() })
    }

    /// The next messages, once there are some.
    pub async fn next<M: DeserializeOwned>(&mut self) -> Result<Vec<M>, BenchError> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let after = self.after.as_ref().map(|c| format!("&after={c}")).unwrap_or_default();
            let path = format!("/v1/subscriptions/{}/messages?max={PAGE}&wait=5{after}", self.id);
            let answer = self.connection.get_with(&path, &self.operator.headers).await.map_err(io)?;
            let page: Page<M> = read("reading messages", &answer)?;
            if !page.messages.is_empty() {
                self.after.clone_from(&page.cursor);
                self.acks.due(&self.operator, &self.id, page.cursor.unwrap_or_default()).await?;
                return Ok(page.messages);
            }
        }
        Err(BenchError::Late { what: format!("a message of {}", self.id), seconds: PATIENCE.as_secs() })
    }

    /// Acknowledges everything that came.
    pub async fn finish(mut self) -> Result<(), BenchError> {
        self.acks.finish(&self.operator, &self.id).await
    }
}

async fn post_ack(operator: &Operator, id: &str, cursor: Option<String>) -> Result<(), BenchError> {
    let Some(cursor) = cursor else { return Ok(()) };
    let body = json!({ "cursor": cursor }).to_string();
    let path = format!("/v1/subscriptions/{id}/acks");
    let answer = Connection::new(&operator.addr).post(&path, &operator.headers, body.as_bytes()).await.map_err(io)?;
    read::<Value>("an acknowledgement", &answer).map(drop)
}
