//! `GET /v1/decisions/{id}`: why one of this agency's own requests was answered or denied. The id is an operation's
//! (`op:5824`) or a request's.

use super::openapi::{Doc, PEOPLE};
use super::operations::{entry_json, may_see, record_json};
use super::{AppState, Caller, Problem};
use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use concordat_protocol::ids::OpRef;
use serde_json::{Value, json};
use std::time::Duration;

/// How far the own node may lag behind the provider's before an entry counts as not there.
const OWN_NODE_BEHIND: Duration = Duration::from_secs(3);

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/v1/decisions/{id}", get(why))
}

pub(super) fn docs() -> Vec<Doc> {
    vec![Doc::new("get", "/v1/decisions/{id}", "Why a request of this agency was answered or denied.", PEOPLE).gives(
        200,
        "The decision.",
        "request_id:str outcome:str sentence:str ledger:@Entry?",
    )]
}

async fn why(State(state): State<AppState>, caller: Caller, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    caller.require_person()?;
    let records = state.gateway.records();
    let op = id.starts_with("op:").then(|| id.parse::<OpRef>()).transpose();
    let op = op.map_err(|e| Problem::bad_request(e.to_string()))?;
    let record = match op {
        Some(OpRef(index)) => records.by_op(index).await?,
        None => records.by_request(&id).await?,
    };
    let unknown = || {
        Problem::not_found("unknown-decision", format!("{id} is no request that this agency made"))
            .next("name an operation (op:5824) or the request id of the answer; the provider knows its own side")
    };
    let record = record.filter(|r| may_see(&caller, r)).ok_or_else(unknown)?;
    let entry = match record.op {
        Some(index) => entry_soon(&state, index).await?,
        None => None,
    };
    let mut out = record_json(&record);
    out["ledger"] = entry.unwrap_or(Value::Null);
    out["sentence"] = json!(sentence(&out));
    Ok(Json(out))
}

/// The ledger's entry. The provider's node may have committed it a moment before this agency's own: that moment is waited
/// for, so that who asks right after an answer finds its entry.
async fn entry_soon(state: &AppState, index: u64) -> Result<Option<Value>, Problem> {
    let until = tokio::time::Instant::now() + OWN_NODE_BEHIND;
    loop {
        if let Some(entry) = state.watch.entry(index).await? {
            return Ok(Some(entry_json(index, &entry)));
        }
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let next = state.watch.now().map_or(1, |n| n.height + 1);
        state.watch.reach(next, left).await;
    }
}

/// One sentence for people.
fn sentence(v: &Value) -> String {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let (why, provider) = (&v["why"], text(&v["provider"]));
    match v["outcome"].as_str() {
        Some("released") => {
            format!("{provider} released {} rows under {}/{}.", v["rows"], text(&v["agreement"]), text(&v["clause"]))
        }
        Some("provisional") => format!(
            "{provider} released {} rows under {}/{} and promised to record it; the record is not there yet.",
            v["rows"],
            text(&v["agreement"]),
            text(&v["clause"])
        ),
        Some("denied") => {
            let mut out = format!("{provider} denied it: {}", text(&why["detail"]));
            for (name, label) in [("clause_text", "the clause says"), ("missing", "missing")] {
                let value = text(&why[name]);
                if !value.is_empty() && !out.contains(&value) {
                    out.push_str(&format!(" ({label}: {value})"));
                }
            }
            out
        }
        _ => format!("It failed: {}", text(&why["detail"])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_say_who_and_why() {
        let denied = json!({"outcome": "denied", "provider": "police",
            "why": {"detail": "the clause is for another purpose", "clause_text": "Never for profiling.", "missing": ""}});
        assert_eq!(
            sentence(&denied),
            "police denied it: the clause is for another purpose (the clause says: Never for profiling.)"
        );
        let released =
            json!({"outcome": "released", "provider": "police", "rows": 47, "agreement": "A-1", "clause": "C1"});
        assert_eq!(sentence(&released), "police released 47 rows under A-1/C1.");
        let failed = json!({"outcome": "failed", "provider": "police", "why": {"detail": "no answer"}});
        assert_eq!(sentence(&failed), "It failed: no answer");
    }
}
