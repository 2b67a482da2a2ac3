//! Sealing (PROTOCOL 8): one HPKE encapsulation (RFC 9180, base mode, X-Wing KEM) a session or subscription epoch,
//! then a fresh AES-256-GCM key for each number, so that what is recorded today cannot be read tomorrow.
//!
//! Suite: KEM 0x647a (X-Wing), KDF 0x0001 (HKDF-SHA256), AEAD 0xffff (export only).
//! `info = "concordat/v1/seal" || 0x00 || chain || 0x00 || cbor[scope, epoch]`,
//! `k = Export("concordat/v1/seal", 32)`, `key n = HKDF-Expand(k, cbor n, 32)`, nonce zero, header as associated data.

use crate::codes;
use thiserror::Error;

/// Bytes by which a sealed text is longer than the plain one.
pub const SEAL_OVERHEAD: usize = 16;
/// Bytes of an X-Wing encapsulation.
pub const ENCAPSULATION_LEN: usize = 1120;
/// How far below the newest number a sender still seals; older ones might have been used already.
pub const SEAL_WINDOW: u64 = crate::limits::SESSION_WINDOW;

/// Why something was not sealed or opened.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum SealError {
    /// The recipient's key is no X-Wing key.
    #[error("recipient key: not a valid x-wing key; ask the consumer to register its key again")]
    Key,
    /// The encapsulation does not parse.
    #[error("encapsulation: {0} bytes, expected {ENCAPSULATION_LEN}")]
    Encapsulation(usize),
    /// Chain or scope are too long.
    #[error("chain and scope together must be at most 1024 bytes")]
    Scope,
    /// The number was sealed under before; each key is used once.
    #[error("number {0} was used before in this epoch, or is too old to tell; take the next number")]
    Reused(u64),
    /// The text does not open: other key, number, header, scope or content.
    #[error("the sealed text does not open: it was changed, or is for another key, session, epoch or number")]
    Open,
    /// The operating system gave no randomness, or the library failed.
    #[error("sealing library: {0}")]
    Library(&'static str),
}

impl SealError {
    /// Stable code of the error, from the registry in [`crate::codes`].
    #[must_use]
    pub fn code(&self) -> u16 {
        match self {
            Self::Key => codes::BAD_KEY,
            Self::Reused(_) => codes::STALE,
            _ => codes::BAD_VALUE,
        }
    }
}

#[cfg(feature = "verifier")]
mod hybrid;
#[cfg(feature = "verifier")]
pub use hybrid::{SealReceiver, SealSender};
