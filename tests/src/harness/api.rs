//! The HTTP API of an agency's broker, as its applications use it.

use super::wait;
use serde_json::Value;
use std::time::Duration;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body as JSON; text that is none is a JSON string.
    pub body: Value,
    /// The body's bytes.
    pub bytes: Vec<u8>,
    /// `x-request-id`
    pub request_id: String,
    /// `content-type`
    pub content_type: String,
}

impl Answer {
    /// Requires a status.
    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.body);
        self
    }

    /// The operation it names, as an index.
    #[track_caller]
    pub fn op(&self) -> u64 {
        let text = self.body["operation"].as_str().unwrap_or_default();
        let index = text.strip_prefix("op:").and_then(|n| n.parse().ok());
        index.unwrap_or_else(|| panic!("no operation in {}", self.body))
    }

    /// A member as text.
    pub fn text(&self, member: &str) -> String {
        self.body[member].as_str().map_or_else(|| self.body[member].to_string(), str::to_owned)
    }

    /// The body as text.
    pub fn text_body(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The rows.
    #[track_caller]
    pub fn rows(&self) -> &Vec<Value> {
        self.body["rows"].as_array().unwrap_or_else(|| panic!("no rows in {}", self.body))
    }
}

/// A caller of an agency's API.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Client {
    /// A caller with a token.
    pub fn new(listen: &str, token: &str) -> Self {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(60)).build().expect("an HTTP client");
        Self { http, base: format!("http://{listen}"), token: token.to_owned() }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
        let response = request.header("authorization", format!("Bearer {}", self.token)).send().await?;
        let header =
            |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let (status, request_id, content_type) =
            (response.status().as_u16(), header("x-request-id"), header("content-type"));
        let bytes = response.bytes().await?.to_vec();
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| text());
        Ok(Answer { status, body, bytes, request_id, content_type })
    }

    /// GET; a connection that fails shows as status 0.
    pub fn get(&self, path: &str) -> Answer {
        wait(self.get_async(path))
    }

    /// GET, to be awaited.
    pub async fn get_async(&self, path: &str) -> Answer {
        self.send(self.http.get(format!("{}{path}", self.base))).await.unwrap_or_else(broken)
    }

    /// POST of bytes.
    pub fn post_bytes(&self, path: &str, content_type: &str, body: Vec<u8>) -> Answer {
        let request = self.http.post(format!("{}{path}", self.base)).header("content-type", content_type).body(body);
        wait(self.send(request)).unwrap_or_else(broken)
    }

    /// A query.
    pub fn query(&self, body: &Value) -> Answer {
        wait(self.query_async(body, &[]))
    }

    /// A query with headers.
    pub fn query_with(&self, body: &Value, headers: &[(&str, &str)]) -> Answer {
        wait(self.query_async(body, headers))
    }

    /// A query, to be awaited.
    pub async fn query_async(&self, body: &Value, headers: &[(&str, &str)]) -> Answer {
        let request = self.http.post(format!("{}/v1/queries", self.base)).json(body);
        let request = headers.iter().fold(request, |r, (name, value)| r.header(*name, *value));
        self.send(request).await.unwrap_or_else(broken)
    }
}

fn broken(e: reqwest::Error) -> Answer {
    Answer {
        status: 0,
        body: Value::String(e.to_string()),
        bytes: vec![],
        request_id: String::new(),
        content_type: String::new(),
    }
}
