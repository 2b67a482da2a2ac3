//! `GET /v1/feeds`: the agency's own feeds, with what their streams hold and how their deliveries stand.

use super::Intake;
use super::stream::open;
use crate::streams::EXECUTOR_FEEDS;
use concordat_protocol::ids::DatasetId;
use serde_json::{Value, json};
use std::time::Duration;

/// How long the streams and the executor may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) async fn stats(intake: &Intake) -> Value {
    let known = intake.feeds.json();
    let feeds = intake.doors.keys().map(|dataset| {
        let mut feed = known.get(dataset).cloned().unwrap_or_else(|| json!({"state": "starting"}));
        async move {
            feed["dataset"] = dataset.as_str().into();
            feed["stream"] = stream(intake, dataset).await;
            feed
        }
    });
    let (feeds, executor) = tokio::join!(futures::future::join_all(feeds), executor(intake));
    json!({"feeds": feeds, "executor": executor})
}

/// What the stream holds; null when it does not say.
async fn stream(intake: &Intake, dataset: &DatasetId) -> Value {
    let state = async {
        let mut stream = open(&intake.js, dataset).await.ok()?;
        let info = stream.info().await.ok()?;
        let held = info.state.messages > 0;
        let first = (info.state.first_timestamp.unix_timestamp_nanos() / 1_000_000) as i64;
        let last = (info.state.last_timestamp.unix_timestamp_nanos() / 1_000_000) as i64;
        Some(json!({
            "bytes": info.state.bytes, "bytes_max": (info.config.max_bytes > 0).then_some(info.config.max_bytes),
            "envelopes": info.state.messages, "max_age_s": info.config.max_age.as_secs(),
            "first_ms": held.then_some(first),
            "last_ms": held.then_some(last),
        }))
    };
    tokio::time::timeout(PATIENCE, state).await.ok().flatten().unwrap_or(Value::Null)
}

async fn executor(intake: &Intake) -> Value {
    let asked = tokio::time::timeout(PATIENCE, intake.nats.request(EXECUTOR_FEEDS, "".into())).await;
    let said = asked.ok().and_then(Result::ok).and_then(|m| serde_json::from_slice(&m.payload).ok());
    said.unwrap_or_else(|| "not answering".into())
}
