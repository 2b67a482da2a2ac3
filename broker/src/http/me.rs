//! `/v1/me`: citizens see who looked at their records, their representatives what their mandates cover.
//!
//! A citizen sends no id: the token's claim is it. A representative names the person in a body, never in a path, and hears
//! the same of a person without a mandate and of one who does not exist. Every look is kept before it is answered.

use super::body::{self, Body, Params};
use super::openapi::Doc;
use super::problem::Problem;
use super::{AppState, subjects};
use crate::host::subjects::listing::Listed;
use crate::people::citizens::{Citizen, CitizenError, Citizens};
use crate::people::mandates::{self, Hidden, Look};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use concordat_protocol::ids::DatasetId;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;
use tracing::info;
use utoipa::{IntoParams, ToSchema};

/// Every path of it begins so.
pub(super) const DOOR: &str = "/v1/me/";
/// Lists that are made for citizens at one time: each asks the executor and the node that serve agencies too.
static LISTS: Semaphore = Semaphore::const_new(4);
/// What is wrong is told to the person, who has no keys/tokens.yaml.
const SIGN_IN: &str = "sign in at the citizens' issuer and send its access token as `Authorization: Bearer <token>`";

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/me/accesses", get(own_log))
        .route("/v1/me/accesses/proof", get(own_proof))
        .route("/v1/me/accesses/represented", post(their_log))
        .route("/v1/me/accesses/represented/proof", post(their_proof))
}

pub(super) fn docs() -> Vec<Doc> {
    let who = "a citizen, by a token of the citizens' issuer";
    let list = "dataset:str accesses:[obj] sealed:obj may_include:int complete:bool complete_to:obj status:str erased:time? represented:[obj]?";
    vec![
        Doc::new("get", "/v1/me/accesses", "Who looked at my records.", who).query::<Mine>().gives(
            200,
            "The list.",
            list,
        ),
        Doc::new("get", "/v1/me/accesses/proof", "The same as a file that anybody verifies.", who)
            .query::<Mine>()
            .gives_bytes(200, "The proof.", "application/cbor"),
        Doc::new("post", "/v1/me/accesses/represented", "Who looked at the records of a person I represent.", who)
            .takes::<Theirs>()
            .gives(200, "The list.", list),
        Doc::new("post", "/v1/me/accesses/represented/proof", "The same as a file that anybody verifies.", who)
            .takes::<Theirs>()
            .gives_bytes(200, "The proof.", "application/cbor"),
    ]
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct Mine {
    dataset: String,
    /// RFC 3339; runs that ended before are left out.
    from: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Theirs {
    dataset: String,
    /// The represented person's id in that dataset.
    subject: String,
    #[serde(default)]
    from: Option<String>,
}

/// Parameters, looked at after the token.
type Asked = Result<Params<Mine>, Problem>;

impl From<CitizenError> for Problem {
    fn from(e: CitizenError) -> Self {
        let detail = e.to_string();
        match e {
            CitizenError::Token(e) => Self::from(e).next(SIGN_IN),
            CitizenError::StepUp(wanted) => Self::new(StatusCode::UNAUTHORIZED, "step-up", detail)
                .challenge(wanted.challenge())
                .next("sign in again as the WWW-Authenticate header asks"),
        }
    }
}

/// A citizen at the door, counted.
struct Visit {
    state: AppState,
    citizens: Arc<Citizens>,
    citizen: Citizen,
    who: Hidden,
}

/// Under which name a person's id in a dataset is kept.
pub(super) fn hidden_subject(state: &AppState, dataset: &DatasetId, id: &str) -> Hidden {
    state.actors.hidden("subject", &[&dataset.to_string(), id])
}

/// Under which name a citizen is kept.
pub(super) fn hidden_holder(state: &AppState, issuer: &str, subject: &str) -> Hidden {
    state.actors.hidden("citizen", &[issuer, subject])
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// The list, in its turn; busy where four are being made.
async fn list_of(state: &AppState, dataset: &DatasetId, id: &str, from: Option<&str>) -> Result<Listed, Problem> {
    let busy = |_| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "other lists are being made")
            .next("ask again in a few seconds")
    };
    let _turn = LISTS.try_acquire().map_err(busy)?;
    subjects::list_of(state, dataset, id, from).await
}

impl Visit {
    /// Who comes, by their token; `Err` is the answer.
    async fn of(state: AppState, headers: &HeaderMap) -> Result<Self, Response> {
        let Some(citizens) = state.citizens.clone() else {
            let detail = "citizens do not sign in here: node.yaml has no `citizens`";
            return Err(Problem::new(StatusCode::UNAUTHORIZED, "no-citizens", detail)
                .challenge("Bearer")
                .into_response());
        };
        let token = body::header(headers, header::AUTHORIZATION.as_str()).and_then(|v| v.split_once(' '));
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        let Some(token) = token else {
            let problem =
                Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "no token was sent").challenge("Bearer");
            return Err(problem.next(SIGN_IN).into_response());
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let citizen = citizens.citizen(token, now).await.map_err(|e| Problem::from(e).into_response())?;
        let who = hidden_holder(&state, &citizens.cfg.issuer, &citizen.subject);
        if let Err(left) = citizens.rates.count(&hex::encode(who)) {
            return Err(citizens.rates.refuse(&left));
        }
        Ok(Self { state, citizens, citizen, who })
    }

    /// A dataset about whose people citizens may ask. Of all others the same is said.
    fn dataset(&self, text: &str) -> Result<DatasetId, Problem> {
        let known = DatasetId::new(text).ok().filter(|d| self.citizens.cfg.has(d));
        let detail = "citizens cannot ask about this dataset here: its provider says which ones they can";
        known.ok_or_else(|| Problem::not_found("unknown-dataset", detail))
    }

    async fn keep(&self, look: Look) -> Result<(), Problem> {
        let now = now_ms();
        Ok(self.state.store.run(move |db| mandates::looked(db, &look, now)).await?)
    }

    /// The citizen's own list.
    async fn own(&self, asked: Asked, what: &'static str) -> Result<(Listed, Hidden), Problem> {
        let Params(asked) = asked?;
        let dataset = self.dataset(&asked.dataset)?;
        let no_claim = || {
            let detail = "your token does not say who you are in this dataset";
            Problem::new(StatusCode::FORBIDDEN, "no-subject-claim", detail)
                .next("ask the issuer for the claim, or the agency's data protection officer for the list")
        };
        let id = self.citizen.id_in(&dataset).ok_or_else(no_claim)?.to_owned();
        let subject = hidden_subject(&self.state, &dataset, &id);
        let (who, mandate) = (self.who, None);
        self.keep(Look { dataset: dataset.to_string(), subject, who, mandate, what }).await?;
        let listed = list_of(&self.state, &dataset, &id, asked.from.as_deref()).await?;
        info!(subject = hex::encode(listed.id), %dataset, what, "who looked, asked by the person");
        Ok((listed, subject))
    }

    /// The list of somebody whose mandate the citizen has.
    async fn represented(&self, body: &[u8], what: &'static str) -> Result<Listed, Problem> {
        let asked: Theirs = body::json(body)?;
        let dataset = self.dataset(&asked.dataset)?;
        let subject = hidden_subject(&self.state, &dataset, &asked.subject);
        let (of, who, now) = (dataset.to_string(), self.who, now_ms());
        // Looked for and kept in one transaction: no mandate ends between the two.
        let mandate = self.state.store.run(move |db| {
            let mandate = mandates::covering(db, &of, &subject, &who, now)?;
            let what = if mandate.is_some() { what } else { "denied" };
            mandates::looked(db, &Look { dataset: of, subject, who, mandate: mandate.clone(), what }, now)?;
            Ok(mandate)
        });
        let no_mandate = || {
            let detail = "no mandate of yours that runs covers this";
            Problem::not_found("no-mandate", detail).next("the agency's clerk registers mandates: bring the document")
        };
        let mandate = mandate.await?.ok_or_else(no_mandate)?;
        let listed = list_of(&self.state, &dataset, &asked.subject, asked.from.as_deref()).await?;
        info!(subject = hex::encode(listed.id), %dataset, mandate, what, "who looked, asked by a representative");
        Ok(listed)
    }
}

async fn own_log(State(state): State<AppState>, headers: HeaderMap, asked: Asked) -> Result<Response, Response> {
    let visit = Visit::of(state, &headers).await?;
    let answer = async {
        let (listed, subject) = visit.own(asked, "log").await?;
        let mut list = subjects::list_json(&listed);
        let dataset = listed.list.dataset.to_string();
        let others = visit.state.store.run(move |db| mandates::by_others(db, &dataset, &subject)).await?;
        list["represented"] = json!(others);
        Ok(Json(list).into_response())
    };
    answer.await.map_err(Problem::into_response)
}

async fn own_proof(State(state): State<AppState>, headers: HeaderMap, asked: Asked) -> Result<Response, Response> {
    let visit = Visit::of(state, &headers).await?;
    let answer = async { subjects::as_file(&visit.own(asked, "proof").await?.0) };
    answer.await.map_err(Problem::into_response)
}

async fn their_log(State(state): State<AppState>, headers: HeaderMap, Body(body): Body) -> Result<Response, Response> {
    let visit = Visit::of(state, &headers).await?;
    let listed = visit.represented(&body, "log").await.map_err(Problem::into_response)?;
    Ok(Json(subjects::list_json(&listed)).into_response())
}

async fn their_proof(
    State(state): State<AppState>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, Response> {
    let visit = Visit::of(state, &headers).await?;
    let answer = async { subjects::as_file(&visit.represented(&body, "proof").await?) };
    answer.await.map_err(Problem::into_response)
}
