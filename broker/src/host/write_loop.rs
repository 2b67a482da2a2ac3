//! Writes in the loop: what the step asks of the store of records, and what the consumer is answered.

use super::{Loop, Message};
use crate::host::releases::writes::WriteRound;
use crate::host::{HostError, StoreError};
use concordat_executor::decide::denied;
use concordat_executor::step::{Conclusion, Effect, Input, Key, failed};
use concordat_executor::writing::conclude;
use concordat_protocol::cbor;
use concordat_protocol::codes;
use concordat_protocol::session::{QueryReply, Released, Written};
use std::collections::BTreeSet;
use std::time::Duration;
use tracing::{error, info};

/// After how long a store that did not say is asked again.
const AGAIN: Duration = Duration::from_millis(500);

impl Loop {
    /// Takes over writes that a former process left unfinished.
    pub(super) fn resume_writes(&mut self) -> Result<(), StoreError> {
        let writes = self.host.store.open_writes()?;
        if !writes.is_empty() {
            info!(writes = writes.len(), "unfinished writes go on");
        }
        self.step.step(Input::Resumed { writes }, 0);
        Ok(())
    }

    /// Everything that the ledger had at the start was seen.
    pub(super) async fn caught_up(&mut self) -> Result<(), HostError> {
        let on_their_way: BTreeSet<_> = self.host.writer.reopened().iter().copied().collect();
        self.advance(vec![Input::CaughtUp { on_their_way }], None).await
    }

    /// Whether a call is a write. One that this process did not prepare is: of a former process's calls only writes go on.
    pub(super) fn is_write(&self, key: Key) -> bool {
        self.live.get(&key).and_then(|l| l.done.as_ref()).is_none_or(|d| d.write.is_some())
    }

    /// Takes what has to be durable of an effect; gives back any other effect.
    pub(super) fn sort_write(&self, round: &mut WriteRound, effect: Effect, tick: u64) -> Option<Effect> {
        match effect {
            Effect::MarkAccepted { key, index, height } => round.accepted.push((key, index, height, tick)),
            Effect::MarkWritten { key, index, height } => round.ended.push((key, index, height, tick)),
            Effect::Settle { key, index, conclusion } => {
                let (applied, code) = match conclusion {
                    Conclusion::Applied => (true, codes::OK),
                    Conclusion::Failed(code) => (false, code),
                };
                let after = self.host.store.todo(key).ok().flatten().and_then(|t| t.after);
                match conclude(index, applied, code, after) {
                    Ok(made) => round.concluded.push((key, conclusion, made)),
                    // It stays accepted: the next start concludes it.
                    Err(e) => {
                        error!(index, error = %e, "the outcome of a write could not be made: restart the executor")
                    }
                }
            }
            other => return Some(other),
        }
        None
    }

    /// Has the store of records carry a write out, or forbid it, away from the loop.
    pub(super) fn settle_write(&self, key: Key, apply: bool) -> Result<(), StoreError> {
        let Some(todo) = self.host.store.todo(key)? else {
            error!(session = key.0, n = key.1, "an accepted write is not in the release store");
            return Ok(());
        };
        let (fetcher, messages) = (self.host.fetcher.clone(), self.messages.clone());
        tokio::spawn(async move {
            let done = tokio::task::spawn_blocking(move || fetcher.settle(&todo, apply)).await;
            let fate = done.ok().flatten();
            if fate.is_none() {
                tokio::time::sleep(AGAIN).await;
            }
            let _ = messages.send(Message::Applied(key, fate)).await;
        });
        Ok(())
    }

    /// The answer to a write that is ended; none where the call is no such write.
    pub(super) fn written(&self, key: Key) -> Result<Option<QueryReply>, StoreError> {
        let Some(ended) = self.host.store.ended(key)? else { return Ok(None) };
        if let Conclusion::Failed(code) = ended.conclusion {
            return Ok(Some(QueryReply::Denied { body: failed(ended.index, code) }));
        }
        let found = self.host.store.find(key)?;
        let kept = found.and_then(|f| Some((cbor::decode::<Released>(&f.body?).ok()?, f.index, f.height)));
        let Some((mut intent, index, height)) = kept else {
            let over = "this write was answered already and the answer is no longer kept: query the record";
            let mut body = denied(codes::REPLAY, "repeat-over", over);
            body.operation = Some(ended.index);
            return Ok(Some(QueryReply::Denied { body }));
        };
        (intent.ticket.log_index, intent.ticket.height) = (index, height);
        let body = Written {
            intent,
            outcome_index: ended.outcome_index,
            outcome_height: ended.outcome_height,
            outcome: ended.outcome.into(),
            outcome_openings: ended.shown.into(),
        };
        Ok(Some(QueryReply::Written { body }))
    }
}
