//! How the deliveries stand, for the agency's own broker: JSON on `executor.feeds`.

use super::Feeds;
use crate::streams::EXECUTOR_FEEDS;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tracing::warn;

/// How long to wait before listening again.
const RETRY: Duration = Duration::from_secs(1);

/// One subscription as its provider sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionStatus {
    /// Its number.
    pub subscription: u64,
    /// Who follows.
    pub consumer: String,
    /// `AGR-2026-0143`
    pub agreement: String,
    /// The clause's id.
    pub clause: String,
    /// The dataset; empty for one that is only anchored.
    pub dataset: String,
    /// `delivering`, `held` (by the duty delay), `paused`, `full`, `waiting` or `ended`.
    pub state: String,
    /// Why it does not deliver; empty while it does.
    pub why: String,
    /// Newest delivery.
    pub last_sub_seq: u64,
    /// Newest delivery that the ledger covers.
    pub anchored_sub_seq: u64,
    /// Age of the oldest delivery that the ledger does not cover, milliseconds.
    pub lag_ms: u64,
    /// The clause's bound, milliseconds; 0 for public data.
    pub max_lag_ms: u64,
    /// Place in the own stream up to which everything is handled.
    pub stream_seq: u64,
    /// Deliveries that are made and not in the consumer's stream yet.
    pub unsent: u64,
    /// Messages shown in all deliveries.
    pub delivered_messages: u64,
}

/// Every subscription, by number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedsStatus {
    /// By number.
    pub subscriptions: Vec<SubscriptionStatus>,
}

impl Feeds {
    /// How the deliveries stand now.
    pub fn status(&self) -> FeedsStatus {
        let view = self.setup.view.borrow().clone();
        // Where the ledger stands still the lag goes on growing.
        let now_ms = view.tick_ms.saturating_add(view.at.elapsed().as_millis() as u64);
        let one = |known: &super::Known| {
            let (clause, progress) = (known.shared.clause(), known.shared.progress());
            let (agreement, id) = clause.name.split_once('/').unwrap_or((&clause.name, ""));
            SubscriptionStatus {
                subscription: known.shared.number,
                consumer: clause.consumer.to_string(),
                agreement: agreement.to_owned(),
                clause: id.to_owned(),
                dataset: known.dataset.clone(),
                state: progress.state.to_owned(),
                why: progress.why,
                last_sub_seq: progress.last_sub_seq,
                anchored_sub_seq: progress.anchored_sub_seq,
                lag_ms: known.shared.unanchored(|u| u.lag_ms(now_ms)),
                max_lag_ms: clause.max_lag_ms,
                stream_seq: progress.stream_seq,
                unsent: progress.unsent as u64,
                delivered_messages: progress.delivered_messages,
            }
        };
        FeedsStatus { subscriptions: self.known().values().map(one).collect() }
    }
}

/// Answers for as long as the process runs.
pub(super) async fn answer(feeds: Arc<Feeds>) {
    loop {
        // No group: the server would hand questions to a former executor that stands still.
        match feeds.setup.nats.subscribe(EXECUTOR_FEEDS).await {
            Ok(mut asked) => {
                while let Some(message) = asked.next().await {
                    let Some(reply) = message.reply.filter(|_| feeds.setup.lead.holds()) else { continue };
                    let body = serde_json::to_vec(&feeds.status()).unwrap_or_default();
                    if let Err(e) = feeds.setup.nats.publish(reply, body.into()).await {
                        warn!(error = %e, "the state of the feeds could not be told");
                    }
                }
            }
            Err(e) => warn!(error = %e, "nobody can ask for the state of the feeds"),
        }
        tokio::time::sleep(RETRY).await;
    }
}
