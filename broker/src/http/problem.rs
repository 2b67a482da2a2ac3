//! Errors as RFC 9457 problems: what is wrong, on whose side, under which clause, and what to do next.

use crate::evidence::EvidenceError;
use crate::gateway::GatewayError;
use crate::ledger::LedgerError;
use crate::receipts::ReceiptsError;
use crate::store::StoreError;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use concordat_protocol::codes;
use concordat_protocol::session::Denied;
use serde::Serialize;
use std::ops::{Deref, DerefMut};

/// Who has the problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// This agency's gateway, or what was sent to it.
    Gateway,
    /// The ledger, or this agency's node of it.
    Ledger,
    /// The provider.
    Provider,
}

/// A problem; its members are those of [`Members`]. Boxed, because it is the rare way out of every handler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Problem(Box<Members>);

impl Deref for Problem {
    type Target = Members;
    fn deref(&self) -> &Members {
        &self.0
    }
}

impl DerefMut for Problem {
    fn deref_mut(&mut self) -> &mut Members {
        &mut self.0
    }
}

/// Members of a problem. Empty ones are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Members {
    /// `urn:concordat:problem:<code>`
    #[serde(rename = "type")]
    pub kind: String,
    /// HTTP status.
    #[serde(serialize_with = "status_number")]
    pub status: StatusCode,
    /// Stable code.
    pub code: String,
    /// Short sentence of the code.
    pub title: String,
    /// What happened, with names and the rule.
    pub detail: String,
    /// Stable word of a denial's reason.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Number of the ledger's registry of codes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger_code: Option<u16>,
    /// The clause.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub clause: String,
    /// The clause's sentence.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub clause_text: String,
    /// The first missing term.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub missing: String,
    /// Clauses that would do, where one has to be named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clauses: Vec<String>,
    /// `op:<index>` of the denial's own entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// Who has the problem.
    pub side: Side,
    /// Whether the same request may succeed later.
    pub retry: bool,
    /// What to do next.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub next: String,
    /// Set on the way out.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    /// `WWW-Authenticate` of a 401.
    #[serde(skip)]
    pub challenge: String,
}

fn status_number<S: serde::Serializer>(status: &StatusCode, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_u16(status.as_u16())
}

impl Problem {
    /// A problem on the gateway's side that does not go away by repeating.
    pub fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self(Box::new(Members {
            kind: format!("urn:concordat:problem:{code}"),
            status,
            code: code.to_owned(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            detail: detail.into(),
            reason: String::new(),
            ledger_code: None,
            clause: String::new(),
            clause_text: String::new(),
            missing: String::new(),
            clauses: vec![],
            operation: None,
            side: Side::Gateway,
            retry: false,
            next: String::new(),
            request_id: String::new(),
            challenge: "Bearer".into(),
        }))
    }

    /// 400: the body or a parameter does not parse.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    /// 404 with what was looked for.
    pub fn not_found(code: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    /// On another side.
    #[must_use]
    pub fn on(mut self, side: Side) -> Self {
        self.side = side;
        self
    }

    /// May succeed later.
    #[must_use]
    pub fn retry(mut self, retry: bool) -> Self {
        self.retry = retry;
        self
    }

    /// What to do next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = next.into();
        self
    }

    /// What a 401 asks for.
    #[must_use]
    pub fn challenge(mut self, challenge: impl Into<String>) -> Self {
        self.challenge = challenge.into();
        self
    }

    fn title(mut self, title: &str) -> Self {
        self.title = title.to_owned();
        self
    }

    /// The response with its request id.
    pub fn respond(self) -> Response {
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNAUTHORIZED {
            let bearer = || HeaderValue::from_static("Bearer");
            let challenge = HeaderValue::from_str(&self.challenge).unwrap_or_else(|_| bearer());
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if self.retry && self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.respond()
    }
}

/// A provider's denial. What the query itself has wrong is the caller's mistake, not a refusal.
pub fn of_denied(denied: &Denied) -> Problem {
    let is_query = denied.code == codes::BAD_VALUE;
    // This gateway gives no number twice: the provider recorded the request in an earlier life and withholds its answer.
    let replayed = matches!(denied.code, codes::REPLAY | codes::SESSION_WINDOW);
    let (status, code, title) = match denied.code {
        codes::BAD_VALUE if denied.reason == "bad-write" => {
            (StatusCode::UNPROCESSABLE_ENTITY, "bad-write", "The write breaks a rule")
        }
        codes::BAD_VALUE => (StatusCode::UNPROCESSABLE_ENTITY, "bad-query", "The query breaks a rule"),
        codes::BUSY => (StatusCode::SERVICE_UNAVAILABLE, "provider-busy", "The provider is busy"),
        codes::REPLAY | codes::SESSION_WINDOW => (StatusCode::CONFLICT, "denied", "Denied"),
        codes::RECORD_CONFLICT => (StatusCode::PRECONDITION_FAILED, "conflict", "The record is another one by now"),
        0 if denied.retry != 0 => {
            (StatusCode::SERVICE_UNAVAILABLE, "provider-not-ready", "The provider cannot answer now")
        }
        _ => (StatusCode::FORBIDDEN, "denied", "Denied"),
    };
    let next = match (is_query, denied.retry != 0, denied.clauses.is_empty()) {
        (_, _, false) => "name one of these clauses in the request".to_owned(),
        (true, ..) => "correct the query; the rule is in the detail".to_owned(),
        (_, true, _) => "send it again".to_owned(),
        _ if denied.code == codes::RECORD_CONFLICT => "query the record with its version, then decide anew".to_owned(),
        _ if replayed => "send it again: a new request is signed".to_owned(),
        _ if !denied.missing.is_empty() => {
            format!("bring what is missing ({}), or rely on another clause", denied.missing)
        }
        _ => "see GET /v1/agreements for what is agreed with this provider".to_owned(),
    };
    let mut p = Problem::new(status, code, denied.detail.clone()).title(title).on(Side::Provider);
    p.retry = denied.retry != 0 || replayed;
    p.reason.clone_from(&denied.reason);
    p.ledger_code = (denied.code != 0).then_some(denied.code);
    p.clause.clone_from(&denied.clause);
    p.clause_text.clone_from(&denied.clause_text);
    p.missing.clone_from(&denied.missing);
    p.clauses.clone_from(&denied.clauses);
    p.operation = denied.operation.map(|op| format!("op:{op}"));
    p.next = next;
    p
}

impl From<GatewayError> for Problem {
    fn from(e: GatewayError) -> Self {
        use GatewayError as G;
        let (status, side, next) = match &e {
            G::Denied { denied, .. } => return of_denied(denied),
            G::Ledger(..) => (StatusCode::SERVICE_UNAVAILABLE, Side::Ledger, "see GET /v1/ledger/status and /readyz"),
            G::BadQuery { .. } => (StatusCode::UNPROCESSABLE_ENTITY, Side::Gateway, "correct the named member"),
            G::UnknownDataset(_) => (StatusCode::NOT_FOUND, Side::Ledger, "choose one of GET /v1/catalogue/datasets"),
            G::Proof { .. } => {
                (StatusCode::BAD_GATEWAY, Side::Provider, "report this to the provider's operator with the request id")
            }
            G::Timeout { .. } => (
                StatusCode::GATEWAY_TIMEOUT,
                Side::Provider,
                "repeat it with the same Idempotency-Key: the same request is sent",
            ),
            G::NoProvider(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, Side::Provider, "ask the provider's operator whether its node is up")
            }
            G::StaleLedger(_) => (StatusCode::SERVICE_UNAVAILABLE, Side::Ledger, "see GET /v1/ledger/status"),
            G::KeyReused => (StatusCode::UNPROCESSABLE_ENTITY, Side::Gateway, "take a new Idempotency-Key"),
            G::InProgress => (StatusCode::CONFLICT, Side::Gateway, "wait for the first request's answer"),
            G::Library(_) => (StatusCode::INTERNAL_SERVER_ERROR, Side::Gateway, "see the broker's log"),
            _ => (StatusCode::SERVICE_UNAVAILABLE, Side::Gateway, "repeat it; see /readyz if it stays"),
        };
        let title = match &e {
            G::Proof { .. } => "The answer does not prove itself",
            G::Timeout { .. } => "The provider did not answer in time",
            _ => status.canonical_reason().unwrap_or("Error"),
        };
        Self::new(status, e.code(), e.to_string()).title(title).on(side).retry(e.retry()).next(next)
    }
}

impl From<LedgerError> for Problem {
    fn from(e: LedgerError) -> Self {
        let unavailable = |e: &LedgerError| {
            let p = Self::new(StatusCode::SERVICE_UNAVAILABLE, e.code(), e.to_string());
            p.on(Side::Ledger).retry(true).next("see /readyz")
        };
        match &e {
            LedgerError::Refused { code, .. } => {
                let (status, retry, next) = match *code {
                    codes::BUSY | codes::WINDOW_FULL => {
                        (StatusCode::SERVICE_UNAVAILABLE, true, "send the same bytes again")
                    }
                    300..400 => (StatusCode::CONFLICT, false, "read the newest state and sign again"),
                    400..500 | 200..300 => {
                        (StatusCode::FORBIDDEN, false, "see GET /v1/agreements and the agency's keys")
                    }
                    _ => (StatusCode::UNPROCESSABLE_ENTITY, false, "correct it and sign again"),
                };
                let mut p = Self::new(status, e.code(), e.to_string()).on(Side::Ledger).retry(retry).next(next);
                p.ledger_code = Some(*code);
                p
            }
            LedgerError::Counter { code } => {
                let p = Self::new(StatusCode::CONFLICT, e.code(), e.to_string()).on(Side::Ledger).retry(true);
                let mut p = p.next("read the key's counters and sign again");
                p.ledger_code = Some(*code);
                p
            }
            LedgerError::Timeout(_) => {
                let p = Self::new(StatusCode::GATEWAY_TIMEOUT, e.code(), e.to_string());
                p.on(Side::Ledger).retry(true).next("look it up before it is sent again")
            }
            _ => unavailable(&e),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(e: StoreError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, e.code(), e.to_string()).retry(true).next("see /readyz")
    }
}

impl From<ReceiptsError> for Problem {
    fn from(e: ReceiptsError) -> Self {
        use ReceiptsError as R;
        let detail = e.to_string();
        let code = e.code();
        match e {
            R::Ledger(e) => e.into(),
            R::Store(e) => e.into(),
            R::Unknown(_) => Self::not_found(code, detail).on(Side::Ledger),
            R::NotYet(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).on(Side::Ledger).retry(true),
            R::NoBody(_) => Self::not_found(code, detail).on(Side::Ledger),
            R::Elsewhere(_) => Self::new(StatusCode::CONFLICT, code, detail),
            R::Erased(_) => Self::new(StatusCode::GONE, code, detail),
            R::Mismatch(_) | R::Comet(_) => Self::new(StatusCode::BAD_GATEWAY, code, detail).on(Side::Ledger),
            R::Build(_) => Self::new(StatusCode::CONFLICT, code, detail),
            R::Evidence(e) => e.into(),
        }
    }
}

impl From<EvidenceError> for Problem {
    fn from(e: EvidenceError) -> Self {
        let (code, detail) = (e.code(), e.to_string());
        match e {
            EvidenceError::Ledger(e) => e.into(),
            EvidenceError::Store(e) => e.into(),
            EvidenceError::NotYet(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).on(Side::Ledger).retry(true)
            }
            _ => Self::new(StatusCode::BAD_GATEWAY, code, detail).on(Side::Ledger),
        }
    }
}

#[cfg(test)]
#[path = "problem_tests.rs"]
mod tests;
