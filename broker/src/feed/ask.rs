//! What is asked of the exchange manager.

use crate::streams::EXCHANGE_ASK;
use concordat_protocol::cbor;
use concordat_protocol::subscribe::{ExchangeCommand, ExchangeReply};
use std::time::Duration;
use thiserror::Error;

/// How long an answer is waited for.
const WAIT: Duration = Duration::from_secs(2);

/// Why the exchange manager did not do it.
#[derive(Debug, Error)]
pub(super) enum AskError {
    /// It did not answer.
    #[error("the exchange manager does not answer ({0}): is the exchange up?")]
    Unheard(String),
    /// It answered no.
    #[error("the exchange manager refused ({code}): {detail}")]
    Refused {
        /// Stable word.
        code: String,
        /// What to do.
        detail: String,
    },
}

/// Asks, and waits until it is so.
pub(super) async fn ask(nats: &async_nats::Client, command: &ExchangeCommand) -> Result<(), AskError> {
    let request = nats.request(EXCHANGE_ASK, cbor::encode(command).into());
    let answer = match tokio::time::timeout(WAIT, request).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(e)) => return Err(AskError::Unheard(e.to_string())),
        Err(_) => return Err(AskError::Unheard(format!("{} s", WAIT.as_secs()))),
    };
    match cbor::decode(&answer.payload) {
        Ok(ExchangeReply::Done {}) => Ok(()),
        Ok(ExchangeReply::Refused { code, detail }) => Err(AskError::Refused { code, detail }),
        Err(e) => Err(AskError::Unheard(format!("its answer does not decode: {e}"))),
    }
}
