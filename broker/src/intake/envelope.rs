//! The pure decisions of a dataset's stream: what a batch is, given the newest envelope.

use super::{Accepted, IntakeError, Position};
use concordat_protocol::hash::Hash;
use concordat_protocol::message::{Envelope, SourceState};

/// What the newest envelope of a stream says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// Sequence number of the next message.
    pub next_seq: u64,
    /// The envelope's place in the stream, 0 when there is none.
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
        let last_seq = envelope.header.last_seq();
        Self {
            next_seq: last_seq + 1,
            subject_seq,
            source: envelope.source.state.clone(),
            answer: Accepted { accepted: envelope.header.count, last_seq },
            root: envelope.header.root,
        }
    }

    /// Where the adapter stands.
    pub fn position(&self) -> Position {
        Position { batch_no: self.source.batch_no, checkpoint: self.source.checkpoint.0.clone() }
    }

    /// What a batch is: `Ok(None)` new (with the source to sign), `Ok(Some)` the newest one again.
    pub fn place(&self, dataset: &str, source: Option<&SourceState>) -> Result<Option<Accepted>, IntakeError> {
        let Some(source) = source else { return Ok(None) };
        if !self.source.adapter.is_empty() && self.source.adapter != source.adapter {
            let adapter = self.source.adapter.clone();
            return Err(IntakeError::OtherAdapter { dataset: dataset.to_owned(), adapter });
        }
        if source.batch_no == self.source.batch_no && source.batch_no > 0 {
            return Ok(Some(self.answer));
        }
        if Some(source.batch_no) != self.source.batch_no.checked_add(1) {
            return Err(IntakeError::Elsewhere(self.position()));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn source(adapter: &str, batch_no: u64) -> SourceState {
        SourceState { adapter: adapter.into(), batch_no, checkpoint: vec![batch_no as u8].into() }
    }

    fn head() -> Head {
        Head { source: source("load", 7), answer: Accepted { accepted: 256, last_seq: 900 }, ..Head::empty() }
    }

    #[test]
    fn the_next_batch_is_new_the_last_is_repeated_all_others_resume() {
        assert_eq!(head().place("d", Some(&source("load", 8))), Ok(None));
        assert_eq!(head().place("d", Some(&source("load", 7))), Ok(Some(Accepted { accepted: 256, last_seq: 900 })));
        for wrong in [0, 1, 6, 9, u64::MAX] {
            let at = Position { batch_no: 7, checkpoint: vec![7] };
            assert_eq!(head().place("d", Some(&source("load", wrong))), Err(IntakeError::Elsewhere(at)), "{wrong}");
        }
    }

    #[test]
    fn an_empty_stream_takes_batch_one_of_anybody() {
        assert_eq!(Head::empty().place("d", Some(&source("any", 1))), Ok(None));
        assert!(
            matches!(Head::empty().place("d", Some(&source("any", 2))), Err(IntakeError::Elsewhere(p)) if p == Position::default())
        );
        assert!(matches!(Head::empty().place("d", Some(&source("any", 0))), Err(IntakeError::Elsewhere(_))));
    }

    #[test]
    fn a_second_adapter_does_not_take_the_place_of_the_first() {
        assert_eq!(head().place("d", Some(&source("other", 8))).unwrap_err().code(), "other-adapter");
        assert_eq!(head().place("d", None), Ok(None), "single messages leave the adapter's position alone");
    }
}
