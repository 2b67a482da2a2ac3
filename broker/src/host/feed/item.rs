//! One delivery: a redacted envelope with its promise, sealed to the consumer (pure but for the sealing's randomness).

use concordat_protocol::cbor::{self, Bytes};
use concordat_protocol::hash::{Hash, sha256};
use concordat_protocol::ids::AgencyId;
use concordat_protocol::keys::{KeyError, PublicKey, SigningKey, Statement};
use concordat_protocol::message::RedactedEnvelope;
use concordat_protocol::seal::{SealError, SealSender};
use concordat_protocol::session::{FeedItem, Promise};
use thiserror::Error;

/// Why a delivery could not be made.
#[derive(Debug, Error)]
pub enum ItemError {
    /// Signing.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Sealing.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// The scope under which a subscription is sealed.
pub fn scope(subscription: u64) -> String {
    format!("subscription/{subscription}")
}

/// Seals one subscription from one start of this process on.
///
/// An epoch is named by the last `sub_seq` before it, and numbers in it count from 1: so the receiver finds the epoch
/// as `sub_seq - n`, and no two starts share one.
pub struct Sealer {
    sender: SealSender,
    epoch: u64,
}

impl Sealer {
    /// A new epoch after `last_sub_seq`.
    pub fn new(recipient: &PublicKey, chain: &str, subscription: u64, last_sub_seq: u64) -> Result<Self, ItemError> {
        Ok(Self { sender: SealSender::new(recipient, chain, &scope(subscription), last_sub_seq)?, epoch: last_sub_seq })
    }
}

/// What stays the same from one delivery of a subscription to the next.
pub struct Maker<'a> {
    /// The chain.
    pub chain: &'a str,
    /// This agency.
    pub provider: &'a AgencyId,
    /// The subscription.
    pub subscription: u64,
    /// The agreement's bound, milliseconds; 0 for public data: nothing is promised then.
    pub max_lag_ms: u64,
    /// Signs promises.
    pub key: &'a SigningKey,
}

impl Maker<'_> {
    /// Makes the item of one envelope; returns it with the promise's root.
    pub fn item(
        &self,
        redacted: &RedactedEnvelope,
        sub_seq: u64,
        delivered_ms: u64,
        sealer: &mut Sealer,
    ) -> Result<(FeedItem, Hash), ItemError> {
        let plain = cbor::encode(redacted);
        let root = sha256(&[&plain]);
        Ok((self.seal(&plain, root, sub_seq, delivered_ms, sealer)?, root))
    }

    /// Makes the item of one redacted envelope: its canonical bytes, and their SHA-256, which is promised.
    pub fn seal(
        &self,
        plain: &[u8],
        root: Hash,
        sub_seq: u64,
        delivered_ms: u64,
        sealer: &mut Sealer,
    ) -> Result<FeedItem, ItemError> {
        let promise = cbor::encode(&Promise {
            chain: self.chain.to_owned(),
            provider: self.provider.clone(),
            subscription: self.subscription,
            first_sub_seq: sub_seq,
            last_sub_seq: sub_seq,
            root,
            delivered_ms,
            max_lag_ms: self.max_lag_ms,
        });
        let signature = self.key.try_sign(Statement::Promise, self.chain, &promise)?;
        let seal_n = sub_seq.saturating_sub(sealer.epoch);
        let sealed = sealer.sender.seal(seal_n, &promise, plain)?;
        let item = FeedItem {
            promise: promise.into(),
            promise_signature: signature.ed25519,
            release_key: self.key.key_id(),
            encapsulation: Bytes(sealer.sender.encapsulation().to_vec()),
            seal_n,
            sealed: sealed.into(),
        };
        Ok(item)
    }
}
