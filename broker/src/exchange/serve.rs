//! What agencies ask of the manager for their own feed streams. Who asks is in the subject, where the streams' server
//! put it; an agency reaches nobody else's stream this way.

use super::consumers::{Created, list, make};
use super::plan::{Refusal, may_open};
use super::{ExchangeError, Manager, streams};
use crate::streams::{feed_consumer, feed_subject};
use async_nats::Message;
use async_nats::jetstream::stream::Stream;
use concordat_protocol::cbor;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::subscribe::{CREATED_FROM, ExchangeCommand, ExchangeReply};
use tracing::{info, warn};

/// Subscriptions that an agency may have opened at once.
pub const CREATED_MAX: usize = 256;

/// An answer that is not "done": refused, or not possible now.
enum No {
    Refused(Refusal),
    Failed(ExchangeError),
}

impl From<ExchangeError> for No {
    fn from(e: ExchangeError) -> Self {
        Self::Failed(e)
    }
}

fn no(code: &'static str, detail: impl Into<String>) -> No {
    No::Refused((code, detail.into()))
}

impl Manager {
    /// Answers one request.
    pub(super) async fn serve(&self, message: &Message) {
        let Some(reply) = message.reply.clone() else { return };
        let answer = self.answer(&message.subject, &message.payload).await;
        if let Err(e) = self.js.client().publish(reply, cbor::encode(&answer).into()).await {
            warn!(error = %e, "an answer was not sent; the agency asks again");
        }
    }

    /// The answer to a request that came under this subject.
    pub(super) async fn answer(&self, subject: &str, payload: &[u8]) -> ExchangeReply {
        match self.decide(subject, payload).await {
            Ok(()) => ExchangeReply::Done {},
            Err(No::Refused((code, detail))) => ExchangeReply::Refused { code: code.into(), detail },
            Err(No::Failed(e)) => {
                warn!(subject, error = %e, "a request failed");
                let detail = "the exchange cannot do it now: ask again in a moment".into();
                ExchangeReply::Refused { code: "unavailable".into(), detail }
            }
        }
    }

    async fn decide(&self, subject: &str, payload: &[u8]) -> Result<(), No> {
        let account = subject.split('.').nth(1).unwrap_or_default();
        let asker = self.agencies.iter().find(|a| a.account() == account);
        let asker = asker.ok_or_else(|| no("not-served", "this exchange does not serve your account"))?;
        let command = cbor::decode::<ExchangeCommand>(payload)
            .map_err(|e| no("not-canonical", format!("the request cannot be read: {e}")))?;
        let stream = self.js.get_stream(asker.account()).await.map_err(streams)?;
        match command {
            ExchangeCommand::Open { provider, subscription, handle } => {
                self.open(&stream, asker, Created { provider, subscription, handle }).await
            }
            ExchangeCommand::Close { provider, subscription } => close(&stream, asker, &provider, subscription).await,
            ExchangeCommand::Seek { provider, subscription, place } => {
                self.seek(&stream, asker, &provider, subscription, place).await
            }
        }
    }

    async fn open(&self, stream: &Stream, asker: &AgencyId, wanted: Created) -> Result<(), No> {
        is_created(wanted.subscription)?;
        if !self.agencies.contains(&wanted.provider) {
            return Err(no("not-served", format!("this exchange does not serve {}", wanted.provider)));
        }
        let views = self.node.agreements().await.map_err(ExchangeError::from)?;
        may_open(&views, wanted.handle, &wanted.provider, asker).map_err(No::Refused)?;
        let there = list(stream).await?;
        let name = feed_consumer(&wanted.provider, wanted.subscription);
        if let Some(info) = there.get(&name) {
            let same = Created::of(info).as_ref() == Some(&wanted);
            let other = || no("exists", format!("subscription {name} is open under another clause: close it first"));
            return if same { Ok(()) } else { Err(other()) };
        }
        if there.values().filter_map(Created::of).count() >= CREATED_MAX {
            return Err(no("too-many", format!("{asker} has {CREATED_MAX} subscriptions open: delete some")));
        }
        let subject = feed_subject(&wanted.provider, asker, wanted.subscription);
        make(stream, subject, &name, Some(&wanted)).await?;
        info!(agency = %asker, consumer = name, handle = wanted.handle, "subscription opened on request");
        Ok(())
    }

    async fn seek(
        &self,
        stream: &Stream,
        asker: &AgencyId,
        provider: &AgencyId,
        subscription: u64,
        place: u64,
    ) -> Result<(), No> {
        let name = feed_consumer(provider, subscription);
        let there = list(stream).await?;
        let unknown = || no("unknown-subscription", format!("no subscription {name} is open: open it first"));
        let info = there.get(&name).ok_or_else(unknown)?;
        // The number of a default subscription is its handle.
        let handle = Created::of(info).map_or(subscription, |c| c.handle);
        let views = self.node.agreements().await.map_err(ExchangeError::from)?;
        may_open(&views, handle, provider, asker).map_err(No::Refused)?;
        stream.reset_consumer(&name, Some(place.max(1))).await.map_err(streams)?;
        info!(agency = %asker, consumer = name, place, "subscription set to a place");
        Ok(())
    }
}

fn is_created(subscription: u64) -> Result<(), No> {
    let default = "numbers below 2^32 are default subscriptions: they begin and end with their agreement";
    if subscription < CREATED_FROM { Err(no("default-subscription", default)) } else { Ok(()) }
}

async fn close(stream: &Stream, asker: &AgencyId, provider: &AgencyId, subscription: u64) -> Result<(), No> {
    is_created(subscription)?;
    let name = feed_consumer(provider, subscription);
    if list(stream).await?.contains_key(&name) {
        stream.delete_consumer(&name).await.map_err(streams)?;
        info!(agency = %asker, consumer = name, "subscription closed on request");
    }
    // Also when it is closed already: an earlier request may have come no further.
    stream.purge().filter(feed_subject(provider, asker, subscription)).await.map_err(streams)?;
    Ok(())
}
