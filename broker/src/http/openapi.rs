//! `GET /openapi.json`: the API as an OpenAPI 3.1 document.
//!
//! Beside the `routes()` of a module stands its `docs()`. Parameters and bodies are read from the very types that the
//! handlers parse; answers are named in [`shape`]s, against which tests hold real answers. A test holds the paths and
//! methods against the router's own, so that neither can be without the other.

mod shapes;

use super::AppState;
use axum::Router;
use axum::http::header;
use axum::routing::get;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;
use utoipa::openapi::path::ParameterIn;
use utoipa::{IntoParams, PartialSchema};

pub(crate) use shapes::shape;

/// Whoever has a token that is no adapter's.
pub(crate) const PEOPLE: &str = "any role but adapter";
/// Without a token.
pub(crate) const ANYBODY: &str = "";

/// One operation of the API.
pub(crate) struct Doc {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    who: &'static str,
    params: Vec<Value>,
    body: Option<Value>,
    answers: Map<String, Value>,
}

fn as_json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

impl Doc {
    /// An operation: its method in lower case, its path as the router has it, one sentence, who may.
    pub(crate) fn new(method: &'static str, path: &'static str, summary: &'static str, who: &'static str) -> Self {
        let params = braces(path)
            .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
        let params = params.collect();
        Self { method, path, summary, who, params, body: None, answers: Map::new() }
    }

    /// Query parameters, from the type that reads them.
    pub(crate) fn query<T: IntoParams>(mut self) -> Self {
        self.params.extend(T::into_params(|| Some(ParameterIn::Query)).iter().map(as_json));
        self
    }

    /// A header that may be sent.
    pub(crate) fn header(mut self, name: &str, description: &str) -> Self {
        self.params
            .push(json!({"name": name, "in": "header", "description": description, "schema": {"type": "string"}}));
        self
    }

    /// A JSON body, from the type that reads it.
    pub(crate) fn takes<T: PartialSchema>(mut self) -> Self {
        let schema = as_json(&T::schema());
        self.body = Some(json!({"required": true, "content": {"application/json": {"schema": schema}}}));
        self
    }

    /// Another body.
    pub(crate) fn takes_bytes(mut self, media: &str, description: &str) -> Self {
        self.body = Some(json!({"required": true, "description": description, "content": {media: {}}}));
        self
    }

    /// An answer in JSON.
    pub(crate) fn gives(self, status: u16, description: &str, fields: &str) -> Self {
        self.media(status, description, "application/json", Some(shape(fields)))
    }

    /// Another answer; a status may have several.
    pub(crate) fn gives_bytes(self, status: u16, description: &str, media: &str) -> Self {
        self.media(status, description, media, None)
    }

    /// A status without a body.
    pub(crate) fn gives_nothing(mut self, status: u16, description: &str) -> Self {
        self.answers.insert(status.to_string(), json!({"description": description}));
        self
    }

    fn media(mut self, status: u16, description: &str, media: &str, schema: Option<Value>) -> Self {
        let answer = self.answers.entry(status.to_string());
        let answer = answer.or_insert_with(|| json!({"description": description, "content": {}}));
        answer["content"][media] = schema.map_or_else(|| json!({}), |s| json!({"schema": s}));
        self
    }

    /// The path as OpenAPI writes it.
    fn path(&self) -> String {
        self.path.replace("{*", "{")
    }

    fn id(&self) -> String {
        let words = self.path.split(['/', ':']).filter(|w| !w.is_empty() && *w != "v1");
        let plain = |w: &str| w.trim_matches(['{', '}', '*']).replace(['-', '.'], "_");
        let words = words.map(|w| if w.starts_with('{') { format!("by_{}", plain(w)) } else { plain(w) });
        std::iter::once(self.method.to_owned()).chain(words).collect::<Vec<_>>().join("_")
    }

    fn operation(&self) -> Value {
        let words: Vec<&str> = self.path.split(['/', '{', ':']).filter(|w| !w.is_empty()).collect();
        let tag = words.iter().find(|w| **w != "v1").copied().unwrap_or_default();
        let mut answers = self.answers.clone();
        for status in ["4XX", "5XX"] {
            answers.insert(status.into(), json!({"$ref": "#/components/responses/Problem"}));
        }
        let mut out = json!({
            "operationId": self.id(), "tags": [tag], "summary": self.summary, "parameters": self.params,
            "responses": answers,
        });
        if self.who == ANYBODY {
            out["security"] = json!([{}]);
        } else {
            out["description"] = format!("Who may: {}.", self.who).into();
        }
        if let Some(body) = &self.body {
            out["requestBody"] = body.clone();
        }
        out
    }
}

/// Names in braces.
fn braces(path: &str) -> impl Iterator<Item = &str> {
    path.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0.trim_start_matches('*')))
}

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/openapi.json", get(serve))
}

pub(super) fn docs() -> Vec<Doc> {
    vec![Doc::new("get", "/openapi.json", "This document.", ANYBODY).gives(
        200,
        "OpenAPI 3.1.",
        "openapi:str paths:obj",
    )]
}

async fn serve() -> ([(header::HeaderName, &'static str); 1], &'static [u8]) {
    static TEXT: LazyLock<Vec<u8>> = LazyLock::new(|| document(&super::docs()).to_string().into_bytes());
    ([(header::CONTENT_TYPE, "application/json")], TEXT.as_slice())
}

/// The document.
fn document(docs: &[Doc]) -> Value {
    let mut paths = Map::new();
    for doc in docs {
        let item = paths.entry(doc.path()).or_insert_with(|| json!({}));
        item[doc.method] = doc.operation();
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Concordat: an agency's broker",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Clients speak only to their own agency's broker; it signs for them and speaks to the others. \
                            Errors are problems of RFC 9457 with a stable `code`.",
        },
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {
                "type": "http", "scheme": "bearer",
                "description": "A service token of keys/tokens.yaml, or an access token of the issuer in node.yaml.",
            }},
            "responses": {"Problem": {
                "description": "What is wrong, on whose side, and what to do next.",
                "headers": {"X-Request-Id": {"schema": {"type": "string"}}},
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            }},
            "schemas": shapes::components(),
        },
    })
}

#[cfg(test)]
mod tests;
