//! Commands about subscriptions: signed under the session like a query, with canonical bytes in the query's place.

use super::error::GatewayError;
use super::{Ask, Gateway, wire};
use crate::streams::subscribe_subject;
use concordat_protocol::cbor;
use concordat_protocol::codes;
use concordat_protocol::session::Denied;
use concordat_protocol::subscribe::{SubscribeCommand, SubscribeReply};
use std::time::Duration;
use tracing::info;

impl Gateway {
    /// Sends a command to the owner of the dataset and returns its answer. It discloses nothing, so that there is no
    /// record to verify; what the answer says has to be checked against the ledger.
    pub async fn subscribe(&self, ask: &Ask, command: &SubscribeCommand) -> Result<SubscribeReply, GatewayError> {
        let x = &self.inner;
        let Ok(_room) = x.room.try_acquire() else { return Err(GatewayError::Busy(x.cfg.limits.queries_in_flight)) };
        let now = x.watch.fresh().map_err(GatewayError::StaleLedger)?;
        x.known(&ask.dataset).await?;
        let call = x.sign(ask, cbor::encode(command), now.tick_ms).await?;
        let (provider, session) = (call.request.provider.clone(), call.request.session);
        let within = Duration::from_millis(x.cfg.limits.query_ms);
        let subject = subscribe_subject(&provider);
        let reply = wire::send(&x.nats, &provider, subject, call.bytes.clone(), within, not_yet).await?;
        match &reply {
            SubscribeReply::Denied { body } => {
                if matches!(body.code, codes::SESSION_UNKNOWN | codes::SESSION_EXPIRED | codes::SESSION_WINDOW) {
                    x.provider(&provider).give_up(session).await;
                }
                info!(request_id = %ask.request_id, code = body.code, reason = %body.reason, "subscription denied");
                x.metrics.decision("subscribe", "deny", &body.reason);
            }
            _ => x.metrics.decision("subscribe", "permit", "clause"),
        }
        Ok(reply)
    }
}

/// The session was opened in a block that the provider's node has not seen.
fn not_yet(reply: &SubscribeReply) -> bool {
    matches!(reply, SubscribeReply::Denied { body: Denied { code: codes::SESSION_UNKNOWN, .. } })
}
