//! One question to the service: who asks, how long and how much, and what the answer's status means.

#[path = "fetch_told.rs"]
mod told;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url};
use rustls::ClientConfig;
use serde::Deserialize;
use tokio::time::Instant;
use told::{late, next_link, refused, skew, text, unreachable};
use zeroize::Zeroizing;

use crate::contract::{AdapterError, ErrorClass};
use crate::document::Secret;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of a token's answer.
const TOKEN_BYTES_MAX: usize = 64 * 1024;
/// A token is not used in the last seconds of its life.
const TOKEN_SPARE: Duration = Duration::from_secs(30);

/// Who asks.
#[derive(Debug, Clone)]
pub enum Auth {
    /// Nobody in particular.
    None,
    /// A token.
    Bearer(Secret),
    /// User and password.
    Basic(String, Secret),
    /// A header with a key.
    Header(HeaderName, Secret),
    /// Client credentials of OAuth 2.
    OAuth2(OAuth2),
}

/// Client credentials of OAuth 2.
#[derive(Debug, Clone)]
pub struct OAuth2 {
    /// Where tokens are given.
    pub token_url: Url,
    /// Name of the client.
    pub client_id: String,
    /// Its secret.
    pub secret: Secret,
    /// What is asked for.
    pub scope: Option<String>,
}

/// Bounds of an answer.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most bytes.
    pub bytes: usize,
    /// Longest time from the question to the last byte.
    pub time: Duration,
}

/// A service and how it is asked.
#[derive(Clone)]
pub struct Service {
    /// The node folder: secrets are read below it.
    pub base: PathBuf,
    /// The first page's address.
    pub url: Url,
    /// Headers of every question.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Who asks.
    pub auth: Auth,
    /// How TLS is spoken.
    pub tls: Arc<ClientConfig>,
    /// Bounds of an answer.
    pub limits: Limits,
}

/// One question.
#[derive(Debug, Clone)]
pub struct Question {
    /// Where.
    pub url: Url,
    /// Only if the version is another one.
    pub etag: Option<String>,
    /// Only if it was changed since.
    pub modified: Option<String>,
}

/// One answer with a body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The body.
    pub body: Vec<u8>,
    /// Its version.
    pub etag: Option<String>,
    /// When it was changed.
    pub modified: Option<String>,
    /// The next page by the `Link` header.
    pub link_next: Option<String>,
    /// The service's clock minus ours, in seconds, if it said its time.
    pub skew_s: Option<i64>,
}

/// What the service said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Nothing changed.
    Unchanged,
    /// A page.
    Page(Page),
}

/// An address without what could be secret in it.
pub fn place(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

fn failed(class: ErrorClass, code: &'static str, url: &Url, detail: impl std::fmt::Display) -> AdapterError {
    AdapterError::source_failed(class, code, format!("{}: {detail}", place(url)))
}

/// Asks questions on a thread of its own, so that nobody has to wait for a slow service.
pub struct Asker {
    jobs: tokio::sync::mpsc::UnboundedSender<Question>,
    answers: Receiver<Result<Reply, AdapterError>>,
    waiting: bool,
}

impl Asker {
    /// Starts the thread. It ends with this value, after the question under way.
    pub fn new(service: Service) -> Self {
        let (jobs, mut questions) = tokio::sync::mpsc::unbounded_channel::<Question>();
        let (tell, answers) = channel();
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                let mut agent = Agent::new(service);
                while let Some(question) = questions.recv().await {
                    let answer = match &mut agent {
                        Ok(agent) => agent.ask(&question).await,
                        Err(error) => Err(failed(ErrorClass::Permanent, "source.tls", &question.url, error)),
                    };
                    if tell.send(answer).is_err() {
                        return;
                    }
                }
            });
        };
        // Without a thread the channel is closed, and the next question says so.
        let _ = std::thread::Builder::new().name("http-poll".to_owned()).spawn(work);
        Self { jobs, answers, waiting: false }
    }

    /// True while a question is under way.
    pub fn waiting(&self) -> bool {
        self.waiting
    }

    /// Asks. One question at a time.
    pub fn ask(&mut self, question: Question) {
        self.waiting = true;
        // A closed channel is found when the answer is waited for.
        let _ = self.jobs.send(question);
    }

    /// The answer, if it comes within `wait`.
    pub fn answer(&mut self, wait: Duration) -> Option<Result<Reply, AdapterError>> {
        match self.answers.recv_timeout(wait) {
            Ok(answer) => {
                self.waiting = false;
                Some(answer)
            }
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                self.waiting = false;
                let detail = "the thread that asks the service is gone";
                Some(Err(AdapterError::source_failed(ErrorClass::Permanent, "source.unreachable", detail)))
            }
        }
    }
}

struct Agent {
    service: Service,
    http: Client,
    token: Option<(Zeroizing<String>, Instant)>,
}

#[derive(Deserialize)]
struct TokenBody {
    access_token: String,
    #[serde(default)]
    expires_in: Option<u64>,
}

impl Agent {
    fn new(service: Service) -> Result<Self, String> {
        let origin = service.url.origin();
        // Credentials go with the question: a redirect to another server is not followed.
        let policy = reqwest::redirect::Policy::custom(move |attempt| {
            match attempt.url().origin() == origin && attempt.previous().len() < 6 {
                true => attempt.follow(),
                false => attempt.stop(),
            }
        });
        let http = Client::builder()
            .tls_backend_preconfigured((*service.tls).clone())
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(policy)
            .user_agent(concat!("concordat-adapter/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| e.to_string())?;
        Ok(Self { service, http, token: None })
    }

    async fn ask(&mut self, question: &Question) -> Result<Reply, AdapterError> {
        let deadline = Instant::now() + self.service.limits.time;
        let reply = self.once(question, deadline).await;
        match &reply {
            // A token can be revoked before its time: once with a new one.
            Err(error) if error.code() == "source.login" && self.token.take().is_some() => {
                self.once(question, deadline).await
            }
            _ => reply,
        }
    }

    async fn once(&mut self, question: &Question, deadline: Instant) -> Result<Reply, AdapterError> {
        let url = &question.url;
        let time = self.service.limits.time;
        let sent = tokio::time::timeout_at(deadline, async {
            let mut headers = self.credentials(deadline).await?;
            for (name, value) in &self.service.headers {
                headers.insert(name, value.clone());
            }
            for (name, value) in
                [(header::IF_NONE_MATCH, &question.etag), (header::IF_MODIFIED_SINCE, &question.modified)]
            {
                if let Some(value) = value.as_deref().and_then(|v| HeaderValue::try_from(v).ok()) {
                    headers.insert(name, value);
                }
            }
            self.http.get(url.clone()).headers(headers).send().await.map_err(|e| unreachable(url, e))
        });
        let response = sent.await.map_err(|_| late(url, time))??;
        let status = response.status();
        if status == StatusCode::NOT_MODIFIED {
            return Ok(Reply::Unchanged);
        }
        let page = Page {
            etag: text(response.headers(), &header::ETAG),
            modified: text(response.headers(), &header::LAST_MODIFIED),
            link_next: response.headers().get_all(header::LINK).iter().find_map(next_link),
            skew_s: text(response.headers(), &header::DATE).and_then(|date| skew(&date)),
            body: vec![],
        };
        if status == StatusCode::NO_CONTENT {
            return Ok(Reply::Page(Page { body: b"[]".to_vec(), ..page }));
        }
        if !status.is_success() {
            return Err(refused(url, &response));
        }
        let limit = self.service.limits.bytes;
        let body = tokio::time::timeout_at(deadline, body(url, response, limit)).await;
        let body = body.map_err(|_| late(url, time))??;
        Ok(Reply::Page(Page { body, ..page }))
    }

    async fn credentials(&mut self, deadline: Instant) -> Result<HeaderMap, AdapterError> {
        let base = self.service.base.clone();
        let (name, value) = match &self.service.auth {
            Auth::None => return Ok(HeaderMap::new()),
            Auth::Bearer(secret) => {
                (header::AUTHORIZATION, Zeroizing::new(format!("Bearer {}", *secret.reveal(&base)?)))
            }
            Auth::Basic(user, secret) => (header::AUTHORIZATION, basic(user, &secret.reveal(&base)?)),
            Auth::Header(name, secret) => (name.clone(), secret.reveal(&base)?),
            Auth::OAuth2(oauth2) => {
                let oauth2 = oauth2.clone();
                (header::AUTHORIZATION, Zeroizing::new(format!("Bearer {}", *self.token(&oauth2, deadline).await?)))
            }
        };
        let mut value = HeaderValue::try_from(value.as_str()).map_err(|_| {
            let detail = "the secret holds characters that no header may have; check it for line ends";
            failed(ErrorClass::Auth, "source.secret", &self.service.url, detail)
        })?;
        value.set_sensitive(true);
        Ok(HeaderMap::from_iter([(name, value)]))
    }

    async fn token(&mut self, oauth2: &OAuth2, deadline: Instant) -> Result<Zeroizing<String>, AdapterError> {
        if let Some((token, _)) = self.token.as_ref().filter(|(_, until)| *until > Instant::now()) {
            return Ok(token.clone());
        }
        let url = &oauth2.token_url;
        let secret = oauth2.secret.reveal(&self.service.base)?;
        let mut form = "grant_type=client_credentials".to_owned();
        if let Some(scope) = &oauth2.scope {
            form.push_str(&format!("&scope={}", encoded(scope)));
        }
        let asked = async {
            let request = self
                .http
                .post(url.clone())
                .header(header::AUTHORIZATION, basic(&encoded(&oauth2.client_id), &encoded(&secret)).as_str())
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .header(header::ACCEPT, "application/json")
                .body(form);
            let response = request.send().await.map_err(|e| unreachable(url, e))?;
            match response.status() {
                status if status.is_success() => body(url, response, TOKEN_BYTES_MAX).await,
                // RFC 6749, section 5.2: 400 is how wrong credentials are told, too.
                StatusCode::BAD_REQUEST => Err(failed(
                    ErrorClass::Auth,
                    "source.login",
                    url,
                    "the service gave no token (status 400); check client_id, client_secret and scope",
                )),
                _ => Err(refused(url, &response)),
            }
        };
        let answer = tokio::time::timeout_at(deadline, asked).await;
        let answer = Zeroizing::new(answer.map_err(|_| late(url, self.service.limits.time))??);
        let token: TokenBody = serde_json::from_slice(&answer)
            .map_err(|_| failed(ErrorClass::Permanent, "source.protocol", url, "its answer holds no `access_token`"))?;
        let access = Zeroizing::new(token.access_token);
        let life = Duration::from_secs(token.expires_in.unwrap_or(300)).saturating_sub(TOKEN_SPARE);
        self.token = Some((access.clone(), Instant::now() + life));
        Ok(access)
    }
}

fn basic(user: &str, password: &str) -> Zeroizing<String> {
    let pair = Zeroizing::new(format!("{user}:{password}"));
    Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())))
}

fn encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

async fn body(url: &Url, mut response: Response, limit: usize) -> Result<Vec<u8>, AdapterError> {
    let large = || {
        let detail = format!("the answer has more than {limit} bytes; ask for smaller pages, or raise `limits.bytes`");
        failed(ErrorClass::Permanent, "source.limit", url, detail)
    };
    if response.content_length().is_some_and(|n| n > limit as u64) {
        return Err(large());
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| unreachable(url, e))? {
        if body.len() + chunk.len() > limit {
            return Err(large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
