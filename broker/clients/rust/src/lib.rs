//! A client of an agency's Concordat broker that verifies what it gets: the receipt against `trust.json`, the rows against
//! the receipt. `docs/connect-your-application.md` goes from nothing to a verified answer.
//!
//! ```no_run
//! # async fn ask(token: &str, trust: &str) -> Result<(), concordat_client::ClientError> {
//! use concordat_client::{Client, Query};
//! let client = Client::new("http://127.0.0.1:7101", token)?.with_trust(trust)?;
//! let query = Query::new("ds:police/stops@1", "purp:pending-case").case("26-CR-1042");
//! let query = query.filter(serde_json::json!({"stop_id": "17-089556"}));
//! let answer = client.query(&query, None).await?;
//! let proven = client.verify(&query, &answer, None).await?;
//! println!("{} rows, op:{}", answer.rows.len(), proven.index);
//! # Ok(())
//! # }
//! ```

mod error;
mod proof;

pub use concordat_protocol::trust::Trust;
pub use concordat_protocol::verify::{Invalid, Verified};
pub use error::{ClientError, Problem};

use reqwest::{Method, Url};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// How often a request is sent that may succeed later.
const ATTEMPTS: u32 = 5;
/// Longest pause before it is sent again, seconds.
const PAUSE_MAX: u64 = 10;
/// Longest wait for one answer.
const WITHIN: Duration = Duration::from_secs(150);

/// A question to a provider.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Query {
    dataset: String,
    purpose: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    case: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    clause: String,
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    filter: Option<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    select: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
}

impl Query {
    /// `ds:<agency>/<name>@<version>` and `purp:<name>`.
    pub fn new(dataset: impl Into<String>, purpose: impl Into<String>) -> Self {
        let (case, clause) = (String::new(), String::new());
        let (dataset, purpose) = (dataset.into(), purpose.into());
        Self { dataset, purpose, case, clause, filter: None, select: Vec::new(), limit: None }
    }

    /// The case it is for.
    #[must_use]
    pub fn case(self, case: impl Into<String>) -> Self {
        Self { case: case.into(), ..self }
    }

    /// The clause it relies on.
    #[must_use]
    pub fn clause(self, clause: impl Into<String>) -> Self {
        Self { clause: clause.into(), ..self }
    }

    /// A filter of the query language.
    #[must_use]
    pub fn filter(self, filter: Value) -> Self {
        Self { filter: Some(filter), ..self }
    }

    /// Fields; none: all that the clause opens.
    #[must_use]
    pub fn select(self, fields: &[&str]) -> Self {
        Self { select: fields.iter().map(|f| (*f).to_owned()).collect(), ..self }
    }

    /// Most rows, 1 to 1,000.
    #[must_use]
    pub fn limit(self, limit: u32) -> Self {
        Self { limit: Some(limit), ..self }
    }
}

/// The answer to a query. Rows are kept as the bytes they came in: those are what the provider committed to.
#[derive(Debug, Clone, Deserialize)]
pub struct Answer {
    /// JSON objects.
    pub rows: Vec<Box<RawValue>>,
    /// `op:<index>`
    pub operation: String,
    /// Height of its block.
    pub height: u64,
    /// The agreement.
    pub agreement: String,
    /// The clause.
    pub clause: String,
    /// The request's id in the logs of all processes.
    pub request_id: String,
    /// Opens the salts of the content root, hexadecimal.
    pub content_secret: String,
}

/// A message of a subscription.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Message {
    /// Number of its delivery.
    pub sub_seq: u64,
    /// Place in the delivery.
    pub index: u64,
    /// Number in the dataset.
    pub seq: u64,
    /// The event's id.
    pub id: String,
    /// Its time, where it is shown.
    #[serde(default)]
    pub time: Option<Value>,
    /// Members that are shown.
    pub data: Map<String, Value>,
    /// How many are hidden, and proven to be there.
    pub hidden: u64,
    /// Members that are shown altered, each by a duty of the clause. Their true values are hidden.
    #[serde(default)]
    pub altered: Vec<Altered>,
}

/// A member of a message that is shown altered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Altered {
    /// The member.
    pub field: String,
    /// `mask`, `pseudonymise` or `coarsen`.
    pub duty: String,
    /// `AGR-2026-0143/F1`
    pub clause: String,
}

/// Messages and the cursor of the last one.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Page {
    /// The messages.
    pub messages: Vec<Message>,
    /// What is acknowledged once they are dealt with.
    pub cursor: Option<String>,
}

/// An application's way to its own agency's broker. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: String,
    trust: Option<std::sync::Arc<Trust>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the broker at `base`, with a service token or an access token of the agency's issuer.
    pub fn new(base: &str, token: &str) -> Result<Self, ClientError> {
        // A token goes nowhere but to the broker it is for.
        let http = reqwest::Client::builder().timeout(WITHIN).redirect(reqwest::redirect::Policy::none()).build()?;
        let base = Url::parse(base).map_err(|e| ClientError::Address(format!("{base}: {e}")))?;
        if base.cannot_be_a_base() {
            return Err(ClientError::Address(format!("{base}: write http://host:port")));
        }
        Ok(Self { http, base, token: token.to_owned(), trust: None })
    }

    /// The text of `trust.json`, whose fingerprint the agencies compared.
    pub fn with_trust(mut self, trust: &str) -> Result<Self, ClientError> {
        let trust = Trust::from_json(trust).map_err(|e| ClientError::Trust(e.to_string()))?;
        self.trust = Some(std::sync::Arc::new(trust));
        Ok(self)
    }

    fn url(&self, segments: &[&str], query: &[(&str, String)]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// Sends, and sends again what the broker says may succeed later. `key` makes repetitions one request.
    async fn send(
        &self,
        method: Method,
        url: Url,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Result<Vec<u8>, ClientError> {
        let mut attempt = 1;
        loop {
            let mut request = self.http.request(method.clone(), url.clone()).bearer_auth(&self.token);
            if let Some(body) = body {
                request = request.json(body);
            }
            if let Some(key) = key {
                request = request.header("idempotency-key", key);
            }
            let answer = request.send().await?;
            let status = answer.status();
            let pause = answer.headers().get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok()).unwrap_or(1u64);
            let bytes = answer.bytes().await?.to_vec();
            if status.is_success() {
                return Ok(bytes);
            }
            let problem = Problem::read(status.as_u16(), &bytes);
            if !problem.retry || attempt == ATTEMPTS {
                return Err(ClientError::Problem(Box::new(problem)));
            }
            attempt += 1;
            tokio::time::sleep(Duration::from_secs(pause.min(PAUSE_MAX))).await;
        }
    }

    async fn get(&self, segments: &[&str], query: &[(&str, String)]) -> Result<Vec<u8>, ClientError> {
        self.send(Method::GET, self.url(segments, query), None, None).await
    }

    /// Who this application is to the broker.
    pub async fn whoami(&self) -> Result<Value, ClientError> {
        Ok(serde_json::from_slice(&self.get(&["v1", "whoami"], &[]).await?)?)
    }

    /// Datasets that a search finds (`text`, `theme`, `area`, `from`, `until`, `field`, `access`, ...).
    pub async fn datasets(&self, search: &[(&str, String)]) -> Result<Value, ClientError> {
        Ok(serde_json::from_slice(&self.get(&["v1", "catalogue", "datasets"], search).await?)?)
    }

    /// Rows under an agreement. With a `key` of yours a repetition is the same request, also after a crash.
    pub async fn query(&self, query: &Query, key: Option<&str>) -> Result<Answer, ClientError> {
        let body = serde_json::to_value(query)?;
        let bytes = self.send(Method::POST, self.url(&["v1", "queries"], &[]), Some(&body), key).await?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// The receipt of an operation; with `wait` (seconds) the final one where it is there by then.
    pub async fn receipt(&self, operation: &str, wait: Option<u64>) -> Result<Vec<u8>, ClientError> {
        let wait: Vec<_> = wait.map(|s| ("wait", s.to_string())).into_iter().collect();
        self.get(&["v1", "operations", operation, "receipt"], &wait).await
    }

    /// Fetches an answer's receipt and proves it: the receipt against `trust.json`, the question and the rows against the
    /// receipt.
    pub async fn verify(&self, query: &Query, answer: &Answer, wait: Option<u64>) -> Result<Verified, ClientError> {
        let trust = self.trust.as_ref().ok_or_else(|| ClientError::Trust("no trust.json was given".into()))?;
        let receipt = self.receipt(&answer.operation, wait).await?;
        Ok(proof::prove(&receipt, trust, query, answer)?)
    }

    /// A subscription. `terms` are further members of the body, for example `{"name": "traffic", "from": "latest"}`.
    pub async fn subscribe(&self, dataset: &str, terms: &Value, key: Option<&str>) -> Result<Value, ClientError> {
        let mut body = json!({"dataset": dataset});
        if let (Some(body), Some(terms)) = (body.as_object_mut(), terms.as_object()) {
            body.extend(terms.clone());
        }
        let bytes = self.send(Method::POST, self.url(&["v1", "subscriptions"], &[]), Some(&body), key).await?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Messages behind what is acknowledged; waits up to `wait` seconds (30) for the first.
    pub async fn messages(&self, subscription: &str, max: u32, wait: u32) -> Result<Page, ClientError> {
        let query = [("max", max.to_string()), ("wait", wait.to_string())];
        Ok(serde_json::from_slice(&self.get(&["v1", "subscriptions", subscription, "messages"], &query).await?)?)
    }

    /// Everything up to and with a cursor was dealt with; it does not come again.
    pub async fn acknowledge(&self, subscription: &str, cursor: &str) -> Result<(), ClientError> {
        let url = self.url(&["v1", "subscriptions", subscription, "acks"], &[]);
        self.send(Method::POST, url, Some(&json!({"cursor": cursor})), None).await.map(drop)
    }
}
