//! What the newest envelope of a stream says.

use super::{Accepted, Position};
use concordat_protocol::hash::Hash;
use concordat_protocol::message::{Envelope, EnvelopeHeader, SourceState};

/// A stream as its newest envelope tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// Sequence number of the next message.
    pub next_seq: u64,
    /// The stream's last place, 0 when nothing was ever there.
    pub subject_seq: u64,
    /// Where the adapter stood.
    pub source: SourceState,
    /// What was answered to the adapter's newest batch.
    pub answer: Accepted,
    /// Root of the newest envelope, zeros when there is none.
    pub root: Hash,
}

impl Head {
    /// An empty stream.
    pub fn empty() -> Self {
        let source = SourceState { adapter: String::new(), batch_no: 0, checkpoint: vec![].into() };
        Self { next_seq: 1, subject_seq: 0, source, answer: Accepted { accepted: 0, last_seq: 0 }, root: [0; 32] }
    }

    /// After this envelope at this place.
    pub fn of(envelope: &Envelope, subject_seq: u64) -> Self {
        Self::after(&envelope.header, envelope.source.state.clone(), subject_seq)
    }

    /// After an envelope with this header at this place.
    pub fn after(header: &EnvelopeHeader, source: SourceState, subject_seq: u64) -> Self {
        let last_seq = header.last_seq();
        let answer = Accepted { accepted: header.count, last_seq };
        Self { next_seq: last_seq + 1, subject_seq, source, answer, root: header.root }
    }

    /// Where the adapter stands.
    pub fn position(&self) -> Position {
        Position { batch_no: self.source.batch_no, checkpoint: self.source.checkpoint.0.clone() }
    }
}
