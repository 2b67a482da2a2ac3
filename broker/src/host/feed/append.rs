//! Appends the items of one subscription to the consumer's feed stream, in order, a few at a time.

use super::deliver::Guard;
use super::error::{FeedError, refused};
use super::store::Unsent;
use super::subscription::Shared;
use crate::streams::feed_append;
use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, Context};
use concordat_protocol::ids::AgencyId;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// Appends that may be on their way at once.
const WINDOW: usize = 8;

/// What waits to be appended.
pub(super) struct Appender {
    shared: Arc<Shared>,
    js: Context,
    subject: String,
    /// Oldest first.
    pub(super) unsent: VecDeque<Unsent>,
    /// Numbers behind the oldest one that are there already.
    ahead: BTreeSet<u64>,
    /// After a refusal one goes alone.
    window: usize,
}

impl Appender {
    pub(super) fn new(shared: Arc<Shared>, consumer: &AgencyId, unsent: Vec<Unsent>) -> Self {
        let (js, subject) = (jetstream::new(shared.setup.nats.clone()), feed_append(consumer, shared.number));
        Self { shared, js, subject, unsent: unsent.into(), ahead: BTreeSet::new(), window: WINDOW }
    }

    /// Appends in order. After a failure those on their way are waited for, and the next call goes on with the first that
    /// failed: the consumer puts them in order and drops repeats. Returns the first item that may not be sent any more,
    /// if there is one.
    pub(super) async fn append(&mut self, guard: &mut Guard) -> Result<Option<Unsent>, FeedError> {
        let mut flying: VecDeque<(u64, PublishAckFuture)> = VecDeque::new();
        let (mut at, mut trouble, mut withdrawn) = (0, None, None);
        loop {
            while trouble.is_none() && withdrawn.is_none() && flying.len() < self.window {
                let Some(item) = self.unsent.get(at) else { break };
                at += 1;
                if self.ahead.contains(&item.sub_seq) {
                    continue;
                }
                match guard.permit() {
                    Err(e) => trouble = Some(e),
                    Ok(permit) if !guard.fits(item, &permit) => withdrawn = Some(item.clone()),
                    Ok(_) => match self.js.send_publish(self.subject.clone(), self.message(item)).await {
                        Ok(ack) => flying.push_back((item.sub_seq, ack)),
                        Err(e) => trouble = Some(refused(&e)),
                    },
                }
            }
            let Some((sub_seq, ack)) = flying.pop_front() else { break };
            match ack.await {
                Ok(_) => {
                    self.ahead.insert(sub_seq);
                    self.window = WINDOW;
                }
                Err(e) => {
                    self.window = 1;
                    trouble = trouble.or(Some(refused(&e)));
                }
            }
        }
        self.settle()?;
        match (trouble, withdrawn) {
            (Some(e), _) => Err(e),
            (None, withdrawn) => Ok(withdrawn),
        }
    }

    fn message(&self, item: &Unsent) -> PublishMessage {
        let (provider, number) = (&self.shared.setup.cfg.agency, self.shared.number);
        let id = format!("{provider}-{number}-{}", item.sub_seq);
        PublishMessage::build().message_id(id).payload(item.bytes.clone())
    }

    /// Lets go of the oldest ones that are there.
    fn settle(&mut self) -> Result<(), FeedError> {
        let mut appended = None;
        while let Some(item) = self.unsent.front().filter(|i| self.ahead.contains(&i.sub_seq)) {
            self.ahead.remove(&item.sub_seq);
            appended = Some(item.sub_seq);
            self.unsent.pop_front();
        }
        if let Some(up_to) = appended {
            let anchors = self.shared.clause().max_lag_ms > 0;
            self.shared.store.appended(self.shared.number, up_to, anchors)?;
        }
        Ok(())
    }
}
