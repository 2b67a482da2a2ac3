//! Whose node a command speaks to, and as whom.

use crate::failure::{Exit, Failure};
use concordat_broker::config::NodeConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest life of one stream of events; a new one follows.
const EVENTS_WITHIN: Duration = Duration::from_secs(24 * 3600);

/// A service token of an agency's gateway.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Whose.
    pub name: String,
    /// Roles it brings.
    pub roles: Vec<String>,
    /// The secret.
    pub token: String,
}

/// `keys/tokens.yaml`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// The tokens.
    pub tokens: Vec<Token>,
}

/// Folder of the demo's city.
pub fn demo_root() -> PathBuf {
    if let Some(dir) = std::env::var_os("CONCORDAT_DEMO") {
        return dir.into();
    }
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from).join(".local/share");
    data.unwrap_or_else(home).join("concordat/demo")
}

/// The node folder that `--context court/clerk` or `--dir` names, with the user.
pub fn resolve(context: Option<&str>, dir: Option<&Path>) -> Result<(PathBuf, Option<String>), Failure> {
    match (context, dir) {
        (Some(c), _) => {
            let (agency, user) = c.split_once('/').map_or((c, None), |(a, u)| (a, Some(u.to_owned())));
            Ok((demo_root().join(agency), user))
        }
        (None, Some(d)) => Ok((d.to_owned(), None)),
        (None, None) => {
            Err(Failure::usage("name the node: --context AGENCY[/USER] for the demo, or --dir FOLDER (CONCORDAT_DIR)"))
        }
    }
}

/// A client of an agency's own gateway.
#[derive(Debug, Clone)]
pub struct Api {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Api {
    /// The gateway of the node in `dir`, as `user` (by default the first token that brings `role`).
    pub fn of(dir: &Path, user: Option<&str>, role: &str) -> Result<Self, Failure> {
        let cfg = NodeConfig::load(dir)?;
        let path = cfg.keys().join("tokens.yaml");
        let text = crate::failure::read_text(&path)?;
        let tokens: Tokens =
            serde_saphyr::from_str(&text).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
        let fits = |t: &&Token| user.map_or(t.roles.iter().any(|r| r == role), |u| t.name == u);
        let found = tokens.tokens.iter().find(fits);
        let names = || tokens.tokens.iter().map(|t| t.name.as_str()).collect::<Vec<_>>().join(", ");
        let token =
            found.ok_or_else(|| Failure::usage(format!("no such user at {}: there are {}", cfg.agency, names())))?;
        Self::new(&format!("http://{}", cfg.listen), &token.token)
    }

    /// A gateway at a base URL.
    pub fn new(base: &str, token: &str) -> Result<Self, Failure> {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(60)).build();
        let http = http.map_err(|e| Failure::new(Exit::Failed, "http", e.to_string()))?;
        Ok(Self { http, base: base.to_owned(), token: token.to_owned() })
    }

    fn down(&self, e: &reqwest::Error) -> Failure {
        let detail = format!("{} does not answer ({e}): is the node up? See `concordat node status`", self.base);
        Failure::new(Exit::Unavailable, "gateway-down", detail)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, Failure> {
        let response = request.bearer_auth(&self.token).send().await.map_err(|e| self.down(&e))?;
        if response.status().is_success() { Ok(response) } else { Err(problem(response).await) }
    }

    /// GET of a JSON resource.
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        json_of(self.send(self.http.get(format!("{}{path}", self.base))).await?).await
    }

    /// GET of bytes.
    pub async fn get_bytes(&self, path: &str, accept: &str) -> Result<Vec<u8>, Failure> {
        let response = self.send(self.http.get(format!("{}{path}", self.base)).header("accept", accept)).await?;
        Ok(response.bytes().await.map_err(broken)?.to_vec())
    }

    /// POST of a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        json_of(self.send(self.http.post(format!("{}{path}", self.base)).json(body)).await?).await
    }

    /// POST of a JSON body that is answered with bytes.
    pub async fn post_for_bytes(&self, path: &str, body: &Value) -> Result<Vec<u8>, Failure> {
        let response = self.send(self.http.post(format!("{}{path}", self.base)).json(body)).await?;
        Ok(response.bytes().await.map_err(broken)?.to_vec())
    }

    /// The same for what takes longer than other requests.
    pub async fn post_for_bytes_within(&self, path: &str, body: &Value, within: Duration) -> Result<Vec<u8>, Failure> {
        let request = self.http.post(format!("{}{path}", self.base)).json(body).timeout(within);
        Ok(self.send(request).await?.bytes().await.map_err(broken)?.to_vec())
    }

    /// POST of bytes.
    pub async fn post_bytes(&self, path: &str, content_type: &str, body: Vec<u8>) -> Result<Value, Failure> {
        let request = self.http.post(format!("{}{path}", self.base)).header("content-type", content_type).body(body);
        json_of(self.send(request).await?).await
    }

    /// POST of one batch of JSON lines; the answer as it is, since a refusal names lines.
    pub async fn post_lines(&self, path: &str, headers: &[(&str, String)], body: Vec<u8>) -> Result<Reply, Failure> {
        let request = self.http.post(format!("{}{path}", self.base)).header("content-type", "application/x-ndjson");
        let request = headers.iter().fold(request, |r, (name, value)| r.header(*name, value));
        let sent = request.bearer_auth(&self.token).body(body).send().await.map_err(|e| self.down(&e))?;
        let seconds = sent.headers().get("retry-after").and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
        let status = sent.status().as_u16();
        let bytes = sent.bytes().await.map_err(broken)?;
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        Ok(Reply { status, retry_after: seconds.map(Duration::from_secs), body })
    }

    /// A write with headers of its own.
    pub async fn write(
        &self,
        method: &str,
        path: &str,
        headers: &[(&'static str, String)],
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let method = reqwest::Method::from_bytes(method.as_bytes()).map_err(|e| Failure::usage(e.to_string()))?;
        let request = self.http.request(method, format!("{}{path}", self.base));
        let request = headers.iter().fold(request, |r, (name, value)| r.header(*name, value));
        let request = body.map_or(request.try_clone(), |body| request.try_clone().map(|r| r.json(body)));
        let request = request.ok_or_else(|| Failure::new(Exit::Failed, "http", "the request cannot be made"))?;
        json_of(self.send(request).await?).await
    }

    /// DELETE of a resource.
    pub async fn delete(&self, path: &str) -> Result<Value, Failure> {
        json_of(self.send(self.http.delete(format!("{}{path}", self.base))).await?).await
    }

    /// Opens a stream of events behind `after`, the id of the last event seen.
    pub async fn events(&self, path: &str, after: Option<&str>) -> Result<reqwest::Response, Failure> {
        let request = self.http.get(format!("{}{path}", self.base)).header("accept", "text/event-stream");
        let request =
            after.map_or(request.try_clone(), |id| request.try_clone().map(|r| r.header("last-event-id", id)));
        let request = request.ok_or_else(|| Failure::new(Exit::Failed, "http", "the request cannot be made"))?;
        self.send(request.timeout(EVENTS_WITHIN)).await
    }

    /// POST of a query with an idempotency key.
    pub async fn query(&self, body: &Value, key: Option<&str>) -> Result<Value, Failure> {
        let mut request = self.http.post(format!("{}/v1/queries", self.base)).json(body);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        json_of(self.send(request).await?).await
    }
}

fn broken(e: reqwest::Error) -> Failure {
    Failure::new(Exit::Unavailable, "gateway-answer", format!("the gateway's answer broke off: {e}"))
}

async fn json_of(response: reqwest::Response) -> Result<Value, Failure> {
    let bytes = response.bytes().await.map_err(broken)?;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&bytes)
        .map_err(|e| Failure::new(Exit::Failed, "gateway-answer", format!("the gateway's answer is no JSON: {e}")))
}

/// An answer whatever its status.
#[derive(Debug, Clone)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// When the server asks to be asked again.
    pub retry_after: Option<Duration>,
    /// The body, null where it is no JSON.
    pub body: Value,
}

impl Reply {
    /// The refusal as a failure.
    pub fn failure(self) -> Failure {
        failure_of(self.status, self.body)
    }
}

/// A text as one segment of a path: a dataset's id holds a slash.
pub fn segment(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:@".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

async fn problem(response: reqwest::Response) -> Failure {
    let status = response.status().as_u16();
    failure_of(status, response.json().await.unwrap_or_default())
}

/// RFC 9457 to a failure with its exit code.
pub fn failure_of(status: u16, body: Value) -> Failure {
    let word = |k: &str| body[k].as_str().unwrap_or_default().to_owned();
    let exit = match status {
        400 | 413 | 422 => Exit::Usage,
        401 | 403 => Exit::Denied,
        404 | 410 => Exit::NotFound,
        409 | 412 | 428 => Exit::Conflict,
        429 | 503 | 504 | 507 => Exit::Unavailable,
        502 if word("code").contains("proof") => Exit::ProofInvalid,
        502 => Exit::Unavailable,
        _ => Exit::Failed,
    };
    let code = body["code"].as_str().map_or_else(|| body["code"].to_string(), str::to_owned);
    let mut message =
        if word("detail").is_empty() { format!("{} (HTTP {status})", word("title")) } else { word("detail") };
    if !word("clause").is_empty() {
        message = format!("{message}\n  clause {}: \"{}\"", word("clause"), word("clause_text"));
    }
    if !word("missing").is_empty() {
        message = format!("{message}\n  missing: {}", word("missing"));
    }
    if !word("operation").is_empty() {
        message = format!("{message}\n  recorded as {}", word("operation"));
    }
    if !word("next").is_empty() {
        message = format!("{message}\n  next: {}", word("next"));
    }
    Failure { exit, code, message, problem: Some(body) }
}
