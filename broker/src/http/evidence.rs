//! `POST /admin/v1/evidence`: the bundle of a case, as one file for a court.

use super::auth::{AUDITOR, OPERATOR};
use super::body::{self, Body};
use super::openapi::Doc;
use super::{AppState, Caller, Problem, Side};
use crate::bundle::collect::{self, Sources, Wanted};
use crate::bundle::{BundleError, MEDIA_TYPE};
use crate::evidence::TrustKeeper;
use crate::outside::timestamp::TimeStamps;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Deserialize;
use std::time::Duration;
use tracing::info;
use utoipa::ToSchema;

/// The resource.
pub(super) const PATH: &str = "/admin/v1/evidence";
/// Longest export.
pub(super) const WITHIN: Duration = Duration::from_secs(300);
/// Longest case reference, bytes.
const CASE_MAX: usize = 256;

pub(super) fn routes() -> Router<AppState> {
    Router::new().route(PATH, post(export))
}

pub(super) fn docs() -> Vec<Doc> {
    vec![
        Doc::new("post", PATH, "The evidence of a case, as one file for a court.", "operator, auditor")
            .takes::<Ask>()
            .gives_bytes(200, "The bundle.", MEDIA_TYPE),
    ]
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Ask {
    case: String,
    zone: Option<String>,
    from_ms: Option<u64>,
    until_ms: Option<u64>,
}

impl From<BundleError> for Problem {
    fn from(e: BundleError) -> Self {
        let (code, detail) = (e.code(), e.to_string());
        let problem = |status| Self::new(status, code, detail.clone());
        match e {
            BundleError::NoCase(_) => Self::not_found(code, detail),
            BundleError::TooMany(_) | BundleError::Zone(_) => problem(StatusCode::UNPROCESSABLE_ENTITY),
            BundleError::Ledger(e) => e.into(),
            BundleError::Store(e) => e.into(),
            BundleError::Receipts(e) => e.into(),
            BundleError::Evidence(e) => e.into(),
            BundleError::Refused { .. } | BundleError::Page(_) | BundleError::Key(_) | BundleError::Sign(_) => {
                problem(StatusCode::INTERNAL_SERVER_ERROR).on(Side::Gateway).next("see the broker's log")
            }
        }
    }
}

async fn export(State(state): State<AppState>, caller: Caller, Body(bytes): Body) -> Result<Response, Problem> {
    caller.require(&[OPERATOR, AUDITOR])?;
    let ask: Ask = body::json(&bytes)?;
    if ask.case.trim().is_empty() || ask.case.len() > CASE_MAX {
        return Err(Problem::bad_request(format!("case: 1 to {CASE_MAX} bytes")));
    }
    let cfg = &state.cfg;
    let genesis = cfg.comet_home().join("config/genesis.json");
    let from = Sources {
        records: state.gateway.records().clone(),
        receipts: state.receipts.clone(),
        node: state.node.clone(),
        trust: TrustKeeper::new(state.node.clone(), genesis),
        timestamps: TimeStamps::new(state.store.clone()),
        folder: cfg.path("."),
        keys: cfg.keys(),
    };
    let wanted = Wanted {
        case: ask.case,
        from_ms: ask.from_ms,
        until_ms: ask.until_ms,
        zone: ask.zone.unwrap_or_else(|| "UTC".into()),
        agency: cfg.agency.to_string(),
        by: caller.name.clone(),
        now_ms: u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0),
    };
    let made = collect::bundle(&from, &wanted).await?;
    let (operations, left_out) = (made.export.operations.len(), made.export.left_out.len());
    info!(by = caller.name, case = wanted.case, operations, left_out, bytes = made.bytes.len(), "evidence exported");
    let headers =
        [(header::CONTENT_TYPE, MEDIA_TYPE), (header::CONTENT_DISPOSITION, "attachment; filename=\"evidence.asice\"")];
    Ok((headers, made.bytes).into_response())
}
