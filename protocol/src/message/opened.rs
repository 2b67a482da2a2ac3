//! Verified envelopes whose leaves are hashed once, to be redacted for any number of consumers.

use super::altered::{Alterations, Altering};
use super::envelope::{envelope_root, leaf_set, verify_header};
use super::{Envelope, EnvelopeHeader, Event, MessageError, MessageView, RedactedEnvelope};
use crate::hash::Hash;
use crate::keys::{KeyId, PublicKey, Signature};
use crate::leaves::LeafSet;
use crate::limits::CHECKPOINT_BYTES_MAX;
use crate::tree;
use std::collections::BTreeSet;

/// A message with its leaves' hashes.
struct OpenedMessage {
    event: Event,
    leaves: LeafSet,
    hashes: Vec<Hash>,
    root: Hash,
}

/// An envelope that was checked against its signature. Redacting it hashes nothing.
pub struct Opened {
    header: EnvelopeHeader,
    key: KeyId,
    signature: Signature,
    messages: Vec<OpenedMessage>,
}

impl core::fmt::Debug for Opened {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Opened").field("header", &self.header).finish_non_exhaustive()
    }
}

impl Opened {
    /// Checks an envelope as [`Envelope::verify`] does, and keeps what that computed.
    ///
    /// # Errors
    /// What differs from what was signed.
    pub fn verify(envelope: &Envelope, public: &PublicKey) -> Result<Self, MessageError> {
        let header = &envelope.header;
        header.check(envelope.records.len())?;
        verify_header(header, envelope.key, &envelope.signature, public)?;
        let members: BTreeSet<String> = envelope.members.iter().cloned().collect();
        if !members.iter().eq(envelope.members.iter()) {
            return Err(MessageError::Content("the list of members"));
        }
        let checkpoint = envelope.source.state.checkpoint.len();
        if checkpoint > CHECKPOINT_BYTES_MAX {
            return Err(MessageError::Checkpoint(checkpoint));
        }
        let mut messages = Vec::with_capacity(envelope.records.len());
        for record in &envelope.records {
            let (event, leaves) = leaf_set(record, &members)?;
            let hashes = leaves.hashes();
            let root = tree::root(&hashes);
            messages.push(OpenedMessage { event, leaves, hashes, root });
        }
        let roots: Vec<Hash> = messages.iter().map(|m| m.root).collect();
        if envelope_root(&roots) != header.root || envelope.source.hash() != header.source {
            return Err(MessageError::Content("a message or the source"));
        }
        let (header, signature) = (header.clone(), envelope.signature.clone());
        Ok(Self { header, key: envelope.key, signature, messages })
    }

    /// What was signed.
    #[must_use]
    pub fn header(&self) -> &EnvelopeHeader {
        &self.header
    }

    /// Redacts as [`Envelope::redact`] does.
    pub fn redact<S: Fn(&str) -> bool>(&self, mut choose: impl FnMut(u64, &Event) -> Option<S>) -> RedactedEnvelope {
        self.redact_altered("", |seq, event| Some((choose(seq, event)?, vec![])))
    }

    /// The same where `choose` also says which fields are shown altered, under a clause (`AGR-2026-0143/F1`). Their true
    /// values stay hidden, whatever else it says of them.
    pub fn redact_altered<S: Fn(&str) -> bool>(
        &self,
        clause: &str,
        mut choose: impl FnMut(u64, &Event) -> Option<(S, Vec<Altering>)>,
    ) -> RedactedEnvelope {
        let mut messages = Vec::with_capacity(self.messages.len());
        for (seq, message) in (self.header.first_seq..).zip(&self.messages) {
            let Some((show, altering)) = choose(seq, &message.event) else {
                messages.push(MessageView::LeftOut { root: message.root });
                continue;
            };
            let open = |name: &str| show(name) && !altering.iter().any(|a| a.name == name);
            let leaves = message.leaves.redact_known(&message.hashes, open);
            messages.push(match Alterations::of(clause, &altering, message.leaves.names()) {
                Some(altered) => MessageView::Altered { leaves, altered },
                None => MessageView::Shown { leaves },
            });
        }
        RedactedEnvelope { header: self.header.clone(), key: self.key, signature: self.signature.clone(), messages }
    }
}
