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

    /// A caller without a token.
    pub fn anonymous(listen: &str) -> Self {
        Self::new(listen, "")
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
        let request = match self.token.as_str() {
            "" => request,
            token => request.bearer_auth(token),
        };
        let response = request.send().await?;
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

    /// A request of any method, without a body.
    pub fn request(&self, method: &str, path: &str) -> Answer {
        let method = method.parse().expect("a method");
        wait(self.send(self.http.request(method, format!("{}{path}", self.base)))).unwrap_or_else(broken)
    }

    /// DELETE.
    pub fn delete(&self, path: &str) -> Answer {
        wait(self.send(self.http.delete(format!("{}{path}", self.base)))).unwrap_or_else(broken)
    }

    /// POST of JSON.
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        wait(self.send(self.http.post(format!("{}{path}", self.base)).json(body))).unwrap_or_else(broken)
    }

    /// POST of lines with headers.
    pub fn post_lines(&self, path: &str, lines: &[Value], headers: &[(&str, &str)]) -> Answer {
        let text: String = lines.iter().map(|l| format!("{l}\n")).collect();
        let request = self.http.post(format!("{}{path}", self.base)).header("content-type", "application/x-ndjson");
        let request = headers.iter().fold(request.body(text), |r, (name, value)| r.header(*name, *value));
        wait(self.send(request)).unwrap_or_else(broken)
    }

    /// An open stream of events, from after a place on.
    pub fn events(&self, path: &str, last: Option<&str>) -> Result<Events, Answer> {
        let http = reqwest::Client::builder().connect_timeout(Duration::from_secs(5)).build().expect("an HTTP client");
        let request = http.get(format!("{}{path}", self.base)).header("accept", "text/event-stream");
        let request = last.into_iter().fold(request, |r, id| r.header("last-event-id", id));
        let request = request.header("authorization", format!("Bearer {}", self.token));
        let response = wait(request.send()).map_err(broken)?;
        if response.status().as_u16() == 200 {
            return Ok(Events { response, rest: Vec::new() });
        }
        let status = response.status().as_u16();
        let bytes = wait(response.bytes()).map_err(broken)?.to_vec();
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        Err(Answer { status, body, bytes, request_id: String::new(), content_type: String::new() })
    }

    /// POST of bytes.
    pub fn post_bytes(&self, path: &str, content_type: &str, body: Vec<u8>) -> Answer {
        let request = self.http.post(format!("{}{path}", self.base)).header("content-type", content_type).body(body);
        wait(self.send(request)).unwrap_or_else(broken)
    }

    /// A request of any method with headers, and a JSON body where there is one.
    pub fn write(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Answer {
        wait(self.write_async(method, path, headers, body))
    }

    /// The same, to be awaited.
    pub async fn write_async(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let request = self.http.request(method.parse().expect("a method"), format!("{}{path}", self.base));
        let request = headers.iter().fold(request, |r, (name, value)| r.header(*name, *value));
        let request = body.into_iter().fold(request, |r, body| r.json(body));
        self.send(request).await.unwrap_or_else(broken)
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

/// A server-sent event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its id, empty where it has none.
    pub id: String,
    /// Its kind, `message` where it names none.
    pub event: String,
    /// Its data.
    pub data: String,
}

/// An open stream of server-sent events.
pub struct Events {
    response: reqwest::Response,
    rest: Vec<u8>,
}

impl Events {
    /// The next event; none when the stream ended. Fails when neither comes in time.
    pub fn next(&mut self, within: Duration) -> Option<Event> {
        let end = tokio::time::Instant::now() + within;
        loop {
            while let Some(at) = self.rest.windows(2).position(|w| w == b"\n\n") {
                let block: Vec<u8> = self.rest.drain(..at + 2).collect();
                if let Some(event) = event(&String::from_utf8_lossy(&block)) {
                    return Some(event);
                }
            }
            let chunk = wait(async { tokio::time::timeout_at(end, self.response.chunk()).await });
            let chunk = chunk.unwrap_or_else(|_| panic!("no event and no end within {} s", within.as_secs()));
            match chunk {
                Ok(Some(bytes)) => self.rest.extend_from_slice(&bytes),
                // A server that is gone ends the stream as well.
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

/// One block of the stream; none where it is a comment only.
fn event(block: &str) -> Option<Event> {
    let (mut id, mut event, mut data) = (String::new(), "message".to_owned(), Vec::new());
    let mut any = false;
    for line in block.lines().filter(|l| !l.is_empty() && !l.starts_with(':')) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        any = true;
        match name {
            "id" => id = value.to_owned(),
            "event" => event = value.to_owned(),
            "data" => data.push(value.to_owned()),
            _ => {}
        }
    }
    any.then(|| Event { id, event, data: data.join("\n") })
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
