//! What a worker is given of a call, and what it makes.

use super::hosted::Agreed;
use super::releases::NewRelease;
use super::releases::writes::NewWrite;
use concordat_executor::replay::Asked;
use concordat_executor::step::{Call, Prepared};
use concordat_protocol::ids::AgencyId;
use concordat_protocol::keys::PublicKey;
use concordat_protocol::session::Released;
use std::sync::Arc;

/// What a worker needs of a call.
#[derive(Debug, Clone)]
pub struct Job {
    /// The verified call.
    pub call: Call,
    /// The consumer, from the session.
    pub consumer: AgencyId,
    /// The query document's bytes.
    pub query: Vec<u8>,
    /// The consumer's key that the response is sealed to.
    pub kem: Arc<PublicKey>,
    /// Ledger time, milliseconds.
    pub tick_ms: u64,
    /// Height of the newest block.
    pub height: u64,
    /// Ledger time with what passed since its tick, milliseconds.
    pub clock_ms: u64,
}

impl Job {
    /// What is decided, for its record.
    pub(super) fn asked(&self) -> Asked<'_> {
        let (request, consumer) = (&self.call.request, &self.consumer);
        Asked { request, query: &self.query, consumer, height: self.height, tick_ms: self.tick_ms }
    }
}

/// What a worker makes.
#[derive(Debug)]
pub struct Done {
    /// For the step.
    pub prepared: Prepared,
    /// For the store.
    pub row: NewRelease,
    /// The response with an empty ticket, none for a denial.
    pub released: Option<Released>,
    /// The terms by which it was decided, none for a denial or a write.
    pub agreed: Option<Agreed>,
    /// What has to be done once the intent is accepted, none for a query.
    pub write: Option<Box<NewWrite>>,
}
