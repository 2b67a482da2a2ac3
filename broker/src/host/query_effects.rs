//! What the loop does outside the store: prepare, record, answer.

use super::{Loop, Message};
use crate::host::HostError;
use crate::host::bounded;
use crate::host::job::Job;
use crate::host::listen::answer_to;
use crate::host::stages::Stage;
use concordat_executor::decide::denied;
use concordat_executor::step::{Effect, Key, ReplyTo};
use concordat_protocol::codes;
use concordat_protocol::ops::Op;
use concordat_protocol::session::QueryReply;

impl Loop {
    pub(super) async fn carry_out(&mut self, effect: Effect) -> Result<(), HostError> {
        match effect {
            Effect::Prepare { key } => self.prepare(key),
            Effect::Record { op, .. } => self.record(op).await?,
            Effect::Apply { key } => self.settle_write(key, true)?,
            Effect::Void { key } => self.settle_write(key, false)?,
            Effect::Release { key, replies } if self.is_write(key) => {
                let lost = QueryReply::Denied { body: denied(codes::BUSY, "lost", "the answer is no longer held") };
                let reply = self.written(key)?.unwrap_or(lost);
                self.answer(replies, &reply).await;
            }
            Effect::Release { key, replies } => {
                let released = self.live.get(&key).and_then(|l| l.done.as_ref()).and_then(|d| d.released.clone());
                let reply = match released {
                    Some(body) => QueryReply::Released { body },
                    None => QueryReply::Denied {
                        body: denied(codes::BUSY, "lost", "the response is no longer held: sign a new request"),
                    },
                };
                self.answer(replies, &reply).await;
                self.leave(key, Stage::Release);
                if let Some(live) = self.live.get(&key) {
                    self.host.stages.add(&live.passage);
                }
            }
            Effect::Promise { key, replies } => {
                let done = self.live.get(&key).and_then(|l| l.done.as_ref());
                let sent = done.and_then(|d| bounded::reply(d.released.clone()?, &d.row.detail.promise));
                let lost = || QueryReply::Denied { body: denied(codes::BUSY, "lost", "sign a new request") };
                self.answer(replies, &sent.unwrap_or_else(lost)).await;
            }
            Effect::Repeat { key, reply } => {
                let answer = self.repeat(key)?;
                self.answer(vec![reply], &answer).await;
            }
            Effect::Deny { replies, denied } => self.answer(replies, &QueryReply::Denied { body: denied }).await,
            Effect::Forget { key } => {
                self.live.remove(&key);
            }
            Effect::MarkAccepted { .. }
            | Effect::MarkWritten { .. }
            | Effect::Settle { .. }
            | Effect::Store { .. }
            | Effect::MarkReleased { .. }
            | Effect::MarkClosed { .. }
            | Effect::Withhold { .. } => {}
        }
        Ok(())
    }

    pub(super) fn leave(&mut self, key: Key, stage: Stage) {
        if let Some(live) = self.live.get_mut(&key) {
            live.passage.leave(stage);
        }
    }

    pub(super) async fn record(&self, op: Op) -> Result<(), HostError> {
        Ok(self.host.writer.enqueue(op).await?)
    }

    pub(super) fn prepare(&self, key: Key) {
        let Some(live) = self.live.get(&key) else { return };
        let tick_ms = self.step.tick_ms().unwrap_or_default();
        let clock_ms = self.step.clock_ms(self.now_ms()).unwrap_or(tick_ms);
        let job = Job { tick_ms, clock_ms, height: self.step.height(), ..(*live.job).clone() };
        let (fetcher, messages, permits) = (self.host.fetcher.clone(), self.messages.clone(), self.permits.clone());
        tokio::spawn(async move {
            let Ok(_permit) = permits.acquire_owned().await else { return };
            let result = tokio::task::spawn_blocking(move || fetcher.prepare(&job)).await;
            let result = result
                .unwrap_or_else(|e| Err(denied(codes::BUSY, "provider-fault", format!("the executor failed: {e}"))));
            let _ = messages.send(Message::Prepared(key, Box::new(result))).await;
        });
    }

    pub(super) async fn answer(&mut self, replies: Vec<ReplyTo>, reply: &QueryReply) {
        for to in replies {
            if let Some(subject) = self.replies.remove(&to) {
                answer_to(&self.host.nats, &self.host.lead, subject, reply).await;
            }
        }
    }
}
