//! One call to a provider over the streams: the same bytes again until an answer comes or time is over.

use super::error::GatewayError;
use async_nats::StatusCode;
use bytes::Bytes;
use concordat_protocol::cbor::{self, Canon};
use concordat_protocol::codes;
use concordat_protocol::ids::{AgencyId, DatasetId};
use concordat_protocol::session::QueryReply;
use futures::StreamExt;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};

/// After how long without an answer the same bytes are sent again.
const AGAIN: Duration = Duration::from_secs(5);
/// After how long when nobody listened: the executor may be restarting.
const AGAIN_UNHEARD: Duration = Duration::from_millis(250);
/// How long a provider's node may lag behind ours: until then "unknown session" means "not yet".
const LAG: Duration = Duration::from_secs(8);

/// The subject under which a dataset of a provider is queried; the exchange maps it to `q.<CONSUMER>.<PROVIDER>.<dataset>`.
pub fn subject(provider: &AgencyId, dataset: &DatasetId) -> String {
    format!("query.{}.{}", provider.account(), dataset.token())
}

/// Sends a query and waits for the answer.
pub async fn call(
    nats: &async_nats::Client,
    provider: &AgencyId,
    dataset: &DatasetId,
    bytes: Vec<u8>,
    within: Duration,
) -> Result<QueryReply, GatewayError> {
    send(nats, provider, subject(provider, dataset), bytes, within, not_yet).await
}

/// Sends bytes to a provider and waits for the answer; one that says "not yet" is asked again.
pub async fn send<R: Canon>(
    nats: &async_nats::Client,
    provider: &AgencyId,
    subject: String,
    bytes: Vec<u8>,
    within: Duration,
    not_yet: fn(&R) -> bool,
) -> Result<R, GatewayError> {
    let started = Instant::now();
    let deadline = started + within;
    let bytes = Bytes::from(bytes);
    let down = |e: String| GatewayError::Streams(e);
    let inbox = nats.new_inbox();
    // An inbox of its own: the answer to the first sending counts as well as that to the second.
    let mut answers = nats.subscribe(inbox.clone()).await.map_err(|e| down(e.to_string()))?;
    let (mut next, mut heard) = (started, true);
    loop {
        if Instant::now() >= next {
            let sent = nats.publish_with_reply(subject.clone(), inbox.clone(), bytes.clone());
            match timeout_at(deadline, sent).await {
                Ok(sent) => sent.map_err(|e| down(e.to_string()))?,
                Err(_) => return Err(down("the connection is lost".into())),
            }
            (heard, next) = (true, Instant::now() + AGAIN);
        }
        let message = tokio::select! {
            message = answers.next() => message.ok_or_else(|| down("the connection was closed".into()))?,
            () = sleep_until(next.min(deadline)) => {
                if Instant::now() >= deadline {
                    let ms = within.as_millis() as u64;
                    let provider = provider.clone();
                    return Err(if heard { GatewayError::Timeout { provider, ms } } else { GatewayError::NoProvider(provider) });
                }
                continue;
            }
        };
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            (heard, next) = (false, Instant::now() + AGAIN_UNHEARD);
            continue;
        }
        heard = true;
        let reply: R = cbor::decode(&message.payload).map_err(|e| malformed(provider, &e.to_string()))?;
        if not_yet(&reply) && started.elapsed() < LAG {
            next = Instant::now() + AGAIN_UNHEARD;
            continue;
        }
        return Ok(reply);
    }
}

/// The session was opened in a block that the provider's node has not seen.
fn not_yet(reply: &QueryReply) -> bool {
    matches!(reply, QueryReply::Denied { body } if body.code == codes::SESSION_UNKNOWN && body.operation.is_none())
}

fn malformed(provider: &AgencyId, why: &str) -> GatewayError {
    let error = super::check::ProofError { check: "reply", sentence: format!("the reply does not decode: {why}") };
    GatewayError::Proof { provider: provider.clone(), error }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn subjects_are_what_the_exchange_maps() {
        let d = DatasetId::new("ds:fire-brigade/call-outs@2").unwrap();
        assert_eq!(subject(&d.owner(), &d), "query.FIRE_BRIGADE.call_outs_2");
    }
}
