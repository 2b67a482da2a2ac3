//! Where the time of released queries goes at the provider, for the agency's own broker: JSON on `executor.stages`.

use super::lead::Lead;
use crate::streams::EXECUTOR_STAGES;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::warn;

/// How long to wait before listening again.
const RETRY: Duration = Duration::from_secs(1);

/// What a released query goes through at its provider, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// From its arrival until the call is verified.
    Admit,
    /// Waiting for a worker, deciding, reading the records, sealing.
    Prepare,
    /// Until the response is durable and its operation with the writer.
    Store,
    /// Until the ledger's verdict is seen: batch, consensus, block.
    Order,
    /// Until the response is marked as released, durably, and sent.
    Release,
}

impl Stage {
    /// All, in order.
    pub const ALL: [Self; 5] = [Self::Admit, Self::Prepare, Self::Store, Self::Order, Self::Release];

    /// Its name in metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Prepare => "prepare",
            Self::Store => "store",
            Self::Order => "order",
            Self::Release => "release",
        }
    }
}

/// One query on its way.
#[derive(Debug, Clone, Copy)]
pub struct Passage {
    last: Instant,
    spent: [Duration; Stage::ALL.len()],
}

impl Passage {
    /// A call that arrived then.
    #[must_use]
    pub fn begin(at: Instant) -> Self {
        Self { last: at, spent: Default::default() }
    }

    /// It leaves a stage now: what passed since it left the one before belongs to this one.
    pub fn leave(&mut self, stage: Stage) {
        let now = Instant::now();
        self.spent[stage as usize] += now.saturating_duration_since(self.last);
        self.last = now;
    }
}

/// Sums since this executor started.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StageTimes {
    /// Queries released under the ledger's verdict.
    pub queries: u64,
    /// Seconds of all of them by stage.
    pub seconds: BTreeMap<String, f64>,
}

/// Adds up.
#[derive(Debug, Default)]
pub struct Stages(Mutex<(u64, [Duration; Stage::ALL.len()])>);

impl Stages {
    /// A query that was released.
    pub fn add(&self, passage: &Passage) {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sums.0 += 1;
        sums.1.iter_mut().zip(passage.spent).for_each(|(sum, spent)| *sum += spent);
    }

    /// The sums now.
    #[must_use]
    pub fn times(&self) -> StageTimes {
        let (queries, spent) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = Stage::ALL.iter().zip(spent).map(|(s, d)| (s.word().to_owned(), d.as_secs_f64()));
        StageTimes { queries, seconds: seconds.collect() }
    }
}

/// Answers for as long as the process runs.
pub(super) async fn answer(nats: async_nats::Client, stages: Arc<Stages>, lead: Arc<Lead>) {
    loop {
        // No group: the server would hand questions to a former executor that stands still.
        match nats.subscribe(EXECUTOR_STAGES).await {
            Ok(mut asked) => {
                while let Some(message) = asked.next().await {
                    let Some(reply) = message.reply.filter(|_| lead.holds()) else { continue };
                    let body = serde_json::to_vec(&stages.times()).unwrap_or_default();
                    if let Err(e) = nats.publish(reply, body.into()).await {
                        warn!(error = %e, "the times of stages could not be told");
                    }
                }
            }
            Err(e) => warn!(error = %e, "nobody can ask for the times of stages"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_add_up_to_the_time_since_the_arrival() {
        let begun = Instant::now().checked_sub(Duration::from_secs(2)).unwrap_or_else(Instant::now);
        let (mut passage, stages) = (Passage::begin(begun), Stages::default());
        passage.leave(Stage::Admit);
        passage.leave(Stage::Order);
        let whole = begun.elapsed().as_secs_f64();
        stages.add(&passage);
        stages.add(&passage);
        let times = stages.times();
        assert_eq!((times.queries, times.seconds.len()), (2, Stage::ALL.len()));
        assert!(times.seconds["prepare"] == 0.0 && times.seconds["admit"] >= times.seconds["order"]);
        assert!(times.seconds.values().sum::<f64>() <= 2.0 * whole);
    }
}
