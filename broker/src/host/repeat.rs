//! A request that was answered already.

use super::Loop;
use crate::host::StoreError;
use crate::host::bounded;
use crate::host::releases::{Found, State};
use concordat_executor::decide::denied;
use concordat_executor::step::{Key, Reason, refuse};
use concordat_protocol::cbor;
use concordat_protocol::codes;
use concordat_protocol::ops::Op;
use concordat_protocol::session::{QueryReply, Released};

impl Loop {
    /// The same bytes again, while the agreement still stands.
    pub(super) fn repeat(&self, key: Key) -> Result<QueryReply, StoreError> {
        let no = |reason: &str, detail: &str| Ok(QueryReply::Denied { body: denied(codes::REPLAY, reason, detail) });
        if let Some(reply) = self.written(key)? {
            return Ok(reply);
        }
        let found = self.host.store.find(key)?;
        if found.as_ref().is_some_and(|f| f.state == State::Withheld as i64) {
            return Ok(QueryReply::Denied { body: refuse(Reason::Withheld) });
        }
        let Some(Found { state, body: Some(body), index, height, promise, .. }) = found else {
            return no(
                "repeat-over",
                "this request was answered already and its bytes are no longer kept: sign a new request",
            );
        };
        if state != State::Released as i64 && state != State::Promised as i64 {
            return no("settled", "this request was settled without data: sign a new request");
        }
        let Ok(mut released) = cbor::decode::<Released>(&body) else {
            return no("store", "the stored response does not decode");
        };
        let handle =
            cbor::decode::<Op>(&released.op).ok().and_then(|op| op.recorded().map(|r| r.handle)).unwrap_or_default();
        if let Some(code) = self.step.barred_now(handle, self.now_ms()) {
            return Ok(QueryReply::Denied { body: refuse(Reason::Ledger(code)) });
        }
        if state == State::Promised as i64 {
            return Ok(bounded::reply(released, &promise).unwrap_or_else(|| QueryReply::Denied {
                body: denied(codes::REPLAY, "store", "the stored promise does not decode"),
            }));
        }
        (released.ticket.log_index, released.ticket.height) = (index, height);
        Ok(QueryReply::Released { body: released })
    }
}
