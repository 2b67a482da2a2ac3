//! Envelopes: the unit of signing, storage, promise and acknowledgement.

use super::altered::Alterations;
use super::prepared::{Prepared, plain_root};
use super::{Event, MessageError};
use crate::cbor::{Bytes, encode};
use crate::hash::{Hash, sha256};
use crate::ids::DatasetId;
use crate::keys::{KeyId, PublicKey, Signature, Statement};
use crate::leaves::{LeafSet, Redacted};
use crate::limits::{CHECKPOINT_BYTES_MAX, ENVELOPE_MESSAGES_MAX};
use crate::tree;
use std::collections::BTreeSet;

crate::canon_struct! {
    /// Where an adapter stood: what an adapter resumes from.
    pub struct SourceState {
        /// Name of the adapter at its agency.
        pub adapter: String,
        /// Number of the adapter's batch, from 1.
        pub batch_no: u64,
        /// The adapter's own note of its position, at most 4,096 bytes.
        pub checkpoint: Bytes,
    }
}

crate::canon_struct! {
    /// [`SourceState`] with a salt. A checkpoint may name a row, so that consumers get only its salted hash.
    pub struct EnvelopeSource {
        /// Sixteen random bytes.
        pub salt: [u8; 16],
        /// The state.
        pub state: SourceState,
    }
}

impl EnvelopeSource {
    /// SHA-256(salt || cbor state): what the header carries.
    #[must_use]
    pub fn hash(&self) -> Hash {
        sha256(&[&self.salt, &encode(&self.state)])
    }
}

crate::canon_struct! {
    /// What the publisher signs (statement `envelope`).
    pub struct EnvelopeHeader {
        /// The chain.
        pub chain: String,
        /// The dataset.
        pub dataset: DatasetId,
        /// Sequence number of the first message in the dataset, from 1.
        pub first_seq: u64,
        /// Number of messages.
        pub count: u64,
        /// [`EnvelopeSource::hash`].
        pub source: Hash,
        /// RFC 6962 root over the message roots; also the id of the envelope (`Nats-Msg-Id`).
        pub root: Hash,
    }
}

impl EnvelopeHeader {
    /// Sequence number of the last message.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.first_seq.saturating_add(self.count).saturating_sub(1)
    }

    pub(super) fn check(&self, messages: usize) -> Result<(), MessageError> {
        if messages == 0 || messages > ENVELOPE_MESSAGES_MAX || self.count != messages as u64 {
            return Err(MessageError::Count(messages));
        }
        if self.first_seq == 0 || self.first_seq.checked_add(self.count).is_none() {
            return Err(MessageError::Sequence(self.first_seq));
        }
        Ok(())
    }
}

crate::canon_struct! {
    /// A message as its provider keeps it.
    pub struct Record {
        /// Random, for this message alone: the leaves' salts derive from it.
        pub secret: [u8; 32],
        /// The event, structured JSON.
        pub event: Bytes,
    }
}

/// An envelope before it is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvelopeDraft {
    /// The chain.
    pub chain: String,
    /// The dataset.
    pub dataset: DatasetId,
    /// Sequence number of the first message.
    pub first_seq: u64,
    /// Where the adapter stood.
    pub source: EnvelopeSource,
    /// Top-level members of the dataset's schema.
    pub members: BTreeSet<String>,
    /// The messages.
    pub records: Vec<Record>,
}

impl EnvelopeDraft {
    /// Checks the messages and computes the header.
    ///
    /// # Errors
    /// The first event that breaks a rule, or a limit.
    pub fn header(&self) -> Result<EnvelopeHeader, MessageError> {
        let header = header(&self.chain, &self.dataset, self.first_seq, &self.source, self.records.len())?;
        let members: Vec<&str> = self.members.iter().map(String::as_str).collect();
        Ok(EnvelopeHeader { root: records_root(&self.records, &members)?, ..header })
    }

    /// The envelope with a signature made elsewhere.
    ///
    /// # Errors
    /// As [`EnvelopeDraft::header`].
    pub fn finish(self, key: KeyId, signature: Signature) -> Result<Envelope, MessageError> {
        let header = self.header()?;
        Ok(self.signed(header, key, signature))
    }

    fn signed(self, header: EnvelopeHeader, key: KeyId, signature: Signature) -> Envelope {
        let members = self.members.into_iter().collect();
        Envelope { header, key, signature, source: self.source, members, records: self.records }
    }

    /// Signs the envelope.
    ///
    /// # Errors
    /// As [`EnvelopeDraft::header`], or the library fails.
    #[cfg(feature = "node")]
    pub fn sign(self, key: &crate::keys::SigningKey) -> Result<Envelope, MessageError> {
        let header = self.header()?;
        let signature = key.try_sign(Statement::Envelope, &header.chain, &encode(&header))?;
        Ok(self.signed(header, key.key_id(), signature))
    }
}

/// A header without its root, its limits checked.
fn header(
    chain: &str,
    dataset: &DatasetId,
    first_seq: u64,
    source: &EnvelopeSource,
    messages: usize,
) -> Result<EnvelopeHeader, MessageError> {
    let header = EnvelopeHeader {
        chain: chain.to_owned(),
        dataset: dataset.clone(),
        first_seq,
        count: messages as u64,
        source: source.hash(),
        root: [0; 32],
    };
    header.check(messages)?;
    let checkpoint = source.state.checkpoint.len();
    if checkpoint > CHECKPOINT_BYTES_MAX {
        return Err(MessageError::Checkpoint(checkpoint));
    }
    Ok(header)
}

/// The envelope root of messages as they are kept; `members` in order.
fn records_root(records: &[Record], members: &[&str]) -> Result<Hash, MessageError> {
    let mut set: Option<BTreeSet<String>> = None;
    let mut root = tree::RootBuilder::new();
    for record in records {
        let message = match plain_root(&record.event, &record.secret, members) {
            Some(message) => message,
            None => {
                let set = set.get_or_insert_with(|| members.iter().map(|m| (*m).to_owned()).collect());
                leaf_set(record, set)?.1.root()
            }
        };
        root.push(&tree::leaf_hash(&message));
    }
    Ok(root.root())
}

impl Prepared {
    /// Gives the messages their place and signs them. `members` in order.
    ///
    /// # Errors
    /// No message or too many, a sequence number or checkpoint past its limit, or the library fails.
    #[cfg(feature = "node")]
    pub fn sign(
        self,
        place: (&str, &DatasetId, u64),
        source: EnvelopeSource,
        members: &[String],
        key: &crate::keys::SigningKey,
    ) -> Result<Envelope, MessageError> {
        let (chain, dataset, first_seq) = place;
        let header = header(chain, dataset, first_seq, &source, self.records.len())?;
        let header = EnvelopeHeader { root: envelope_root(&self.roots), ..header };
        let signature = key.try_sign(Statement::Envelope, chain, &encode(&header))?;
        let (key, members) = (key.key_id(), members.to_vec());
        Ok(Envelope { header, key, signature, source, members, records: self.records })
    }
}

pub(super) fn leaf_set(record: &Record, members: &BTreeSet<String>) -> Result<(Event, LeafSet), MessageError> {
    let event = Event::parse(&record.event)?;
    let leaves = event.leaves(&record.secret, members)?;
    Ok((event, leaves))
}

/// Root over message roots: each is the data of one leaf.
pub(super) fn envelope_root(message_roots: &[Hash]) -> Hash {
    let mut tree = tree::RootBuilder::new();
    message_roots.iter().for_each(|root| tree.push(&tree::leaf_hash(root)));
    tree.root()
}

/// Checks a header's signature against the key it names.
pub(super) fn verify_header(
    header: &EnvelopeHeader,
    key: KeyId,
    sig: &Signature,
    public: &PublicKey,
) -> Result<(), MessageError> {
    if public.key_id() != key {
        return Err(MessageError::Content("the key id"));
    }
    let cbor = encode(header);
    #[cfg(feature = "verifier")]
    public.verify_full(Statement::Envelope, &header.chain, &cbor, sig)?;
    #[cfg(not(feature = "verifier"))]
    public.verify_classical(Statement::Envelope, &header.chain, &cbor, sig)?;
    Ok(())
}

crate::canon_struct! {
    /// A signed envelope as it stands in its provider's own stream. It holds everything and leaves the provider only
    /// as [`RedactedEnvelope`].
    pub struct Envelope {
        /// What was signed.
        pub header: EnvelopeHeader,
        /// The publisher's key.
        pub key: KeyId,
        /// Its signature over the header (statement `envelope`).
        pub signature: Signature,
        /// Where the adapter stood.
        pub source: EnvelopeSource,
        /// Top-level members of the dataset's schema at signing, sorted: the leaf set depends on them.
        pub members: Vec<String>,
        /// The messages.
        pub records: Vec<Record>,
    }
}

impl Envelope {
    /// Checks the signature and that everything held is what was signed.
    ///
    /// # Errors
    /// What differs.
    pub fn verify(&self, public: &PublicKey) -> Result<(), MessageError> {
        verify_header(&self.header, self.key, &self.signature, public)?;
        let members: Vec<&str> = self.members.iter().map(String::as_str).collect();
        if !members.windows(2).all(|w| matches!(w, [a, b] if a < b)) {
            return Err(MessageError::Content("the list of members"));
        }
        let EnvelopeHeader { chain, dataset, first_seq, .. } = &self.header;
        let header = header(chain, dataset, *first_seq, &self.source, self.records.len())?;
        let header = EnvelopeHeader { root: records_root(&self.records, &members)?, ..header };
        if header == self.header { Ok(()) } else { Err(MessageError::Content("a message or the source")) }
    }

    /// Redacts for a subscription. `choose` gets each message's sequence number and event and returns which leaves
    /// (`a/<attribute>`, `d/<member>`) to show, or none to leave the message out: then only its root remains.
    ///
    /// # Errors
    /// An event that no longer parses.
    pub fn redact<S: Fn(&str) -> bool>(
        &self,
        mut choose: impl FnMut(u64, &Event) -> Option<S>,
    ) -> Result<RedactedEnvelope, MessageError> {
        self.header.check(self.records.len())?;
        let members: BTreeSet<String> = self.members.iter().cloned().collect();
        let mut messages = Vec::with_capacity(self.records.len());
        for (seq, record) in (self.header.first_seq..).zip(&self.records) {
            let (event, leaves) = leaf_set(record, &members)?;
            messages.push(match choose(seq, &event) {
                Some(show) => MessageView::Shown { leaves: leaves.redact(show) },
                None => MessageView::LeftOut { root: leaves.root() },
            });
        }
        let (header, signature) = (self.header.clone(), self.signature.clone());
        Ok(RedactedEnvelope { header, key: self.key, signature, messages })
    }
}

crate::canon_enum! {
    /// A message as a consumer sees it.
    pub enum MessageView {
        /// Some fields shown.
        1 => Shown {
            /// The leaf set, hidden fields as hashes.
            leaves: Redacted,
        },
        /// Not for this consumer: only its root.
        2 => LeftOut {
            /// The message root.
            root: Hash,
        },
        /// Some fields shown, some of them altered as the clause says.
        3 => Altered {
            /// The leaf set, the altered fields' true values among the hidden ones.
            leaves: Redacted,
            /// What is shown in their place. Not a part of what was signed: the provider's promise vouches for it.
            altered: Alterations,
        },
    }
}

crate::canon_struct! {
    /// An envelope as a consumer gets it.
    pub struct RedactedEnvelope {
        /// What was signed.
        pub header: EnvelopeHeader,
        /// The publisher's key.
        pub key: KeyId,
        /// Its signature over the header (statement `envelope`).
        pub signature: Signature,
        /// Every message of the envelope, in order.
        pub messages: Vec<MessageView>,
    }
}

impl RedactedEnvelope {
    /// Checks that every message shown is an unaltered part of what the publisher signed, and returns these with their
    /// sequence numbers. Of fields that are shown altered it checks the form alone: see [`Self::altered`].
    ///
    /// # Errors
    /// The key is not the one named, the signature does not verify, or a message is not what was signed.
    pub fn verify(&self, public: &PublicKey) -> Result<Vec<(u64, &Redacted)>, MessageError> {
        self.header.check(self.messages.len())?;
        verify_header(&self.header, self.key, &self.signature, public)?;
        let (mut roots, mut shown) = (Vec::with_capacity(self.messages.len()), Vec::new());
        for (seq, message) in (self.header.first_seq..).zip(&self.messages) {
            roots.push(match message {
                MessageView::LeftOut { root } => *root,
                MessageView::Shown { leaves } => {
                    shown.push((seq, leaves));
                    leaves.root()?
                }
                MessageView::Altered { leaves, altered } => {
                    altered.check(leaves)?;
                    shown.push((seq, leaves));
                    leaves.root()?
                }
            });
        }
        if envelope_root(&roots) == self.header.root { Ok(shown) } else { Err(MessageError::Content("a message")) }
    }
    /// What is shown altered, by sequence number. The publisher did not sign it: only the promise over this envelope
    /// vouches for it. Call it after [`Self::verify`].
    pub fn altered(&self) -> impl Iterator<Item = (u64, &Alterations)> {
        (self.header.first_seq..).zip(&self.messages).filter_map(|(seq, message)| match message {
            MessageView::Altered { altered, .. } => Some((seq, altered)),
            MessageView::Shown { .. } | MessageView::LeftOut { .. } => None,
        })
    }
}
