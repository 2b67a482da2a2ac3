//! Keys, suites and signatures: what is signed, and the one function that verifies Ed25519 (PROTOCOL 1).
//!
//! Inside consensus only Ed25519 is verified and post-quantum parts are length-checked
//! ([`PublicKey::verify_classical`]); nodes and receipt verifiers check both ([`PublicKey::verify_full`]).

use crate::cbor::{Bytes, Canon, encode};
use crate::codes;
use crate::hash::sha256;
use ed25519_dalek::VerifyingKey;

#[cfg(feature = "verifier")]
mod kem;
#[cfg(feature = "verifier")]
mod pq;
#[cfg(feature = "verifier")]
mod secret;
mod selftest;
#[cfg(feature = "node")]
mod signing;

#[cfg(feature = "verifier")]
pub use kem::KemKey;
#[cfg(feature = "verifier")]
pub use pq::verify_mldsa65;
pub use selftest::self_test;
#[cfg(feature = "node")]
pub(crate) use signing::random;
#[cfg(feature = "node")]
pub use signing::{Ed25519Signer, SigningKey};

/// Bytes of an Ed25519 public key.
pub const ED25519_KEY_LEN: usize = 32;
/// Bytes of an Ed25519 signature.
pub const ED25519_SIGNATURE_LEN: usize = 64;
/// Bytes of an ML-DSA-65 public key (FIPS 204).
pub const MLDSA65_KEY_LEN: usize = 1952;
/// Bytes of an ML-DSA-65 signature (FIPS 204).
pub const MLDSA65_SIGNATURE_LEN: usize = 3309;
/// Bytes of an X-Wing public key.
pub const XWING_KEY_LEN: usize = 1216;

/// Why a key or a signature was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A part of a key has another length than its suite calls for.
    #[error("public key of suite {suite}: the {part} part has {got} bytes, expected {want}")]
    KeyLength {
        /// The key's suite.
        suite: Suite,
        /// `ed25519` or `pq`.
        part: &'static str,
        /// Bytes given.
        got: usize,
        /// Bytes expected.
        want: usize,
    },
    /// The Ed25519 part is no point, not canonical, or of small order.
    #[error("public key: the ed25519 part {0}; generate the key again")]
    WeakKey(&'static str),
    /// The post-quantum part does not parse.
    #[error("public key: the pq part is not a valid {0} key; generate the key again")]
    PqKey(&'static str),
    /// A signature of one suite for a key of another, or a suite that cannot do what is asked.
    #[error("a {suite} key cannot {what}")]
    Suite {
        /// The key's suite.
        suite: Suite,
        /// What was asked of it.
        what: &'static str,
    },
    /// A part of a signature has another length than its suite calls for.
    #[error("signature: the {part} part has {got} bytes, expected {want}")]
    SignatureLength {
        /// `ed25519` or `pq`.
        part: &'static str,
        /// Bytes given.
        got: usize,
        /// Bytes expected.
        want: usize,
    },
    /// The signature is not this key's over these bytes.
    #[error("the {0} signature does not verify: the content was changed, or another key signed it")]
    BadSignature(&'static str),
    /// A stored secret does not parse. The text never appears in the message.
    #[error("secret key: {0}; restore the key file or register a new key")]
    Secret(&'static str),
    /// The operating system gave no randomness, or the signing library failed.
    #[error("cryptographic library: {0}")]
    Library(&'static str),
    /// The token that holds the secret gave no signature.
    #[error("token: {0}")]
    Token(String),
    /// A start-up self test failed.
    #[error("self test failed: {0}; the cryptographic library of this build must not be used, install another build")]
    SelfTest(&'static str),
}

impl KeyError {
    /// Stable code of the error, from the registry in [`crate::codes`].
    #[must_use]
    pub fn code(&self) -> u16 {
        match self {
            Self::SignatureLength { .. } | Self::BadSignature(_) => codes::BAD_SIGNATURE,
            _ => codes::BAD_KEY,
        }
    }
}

crate::canon_words! {
    /// A set of algorithms. Every key and signature names its suite, so that algorithms can change.
    pub enum Suite {
        /// Ed25519 alone: the hot path.
        1 => Ed25519 = "ed25519",
        /// ML-DSA-65 (FIPS 204), empty context.
        2 => MlDsa65 = "ml-dsa-65",
        /// Ed25519 and ML-DSA-65 over the same bytes; both must verify.
        3 => Hybrid = "hybrid",
        /// X-Wing (X25519 and ML-KEM-768): receives sealed data, never signs.
        4 => XWing = "x-wing",
    }
}

impl Suite {
    /// Bytes of the (Ed25519, post-quantum) part of a public key.
    #[must_use]
    pub fn key_lens(self) -> (usize, usize) {
        match self {
            Self::Ed25519 => (ED25519_KEY_LEN, 0),
            Self::MlDsa65 => (0, MLDSA65_KEY_LEN),
            Self::Hybrid => (ED25519_KEY_LEN, MLDSA65_KEY_LEN),
            Self::XWing => (0, XWING_KEY_LEN),
        }
    }

    /// Bytes of the (Ed25519, post-quantum) part of a signature; none for a suite that does not sign.
    #[must_use]
    pub fn signature_lens(self) -> Option<(usize, usize)> {
        match self {
            Self::Ed25519 => Some((ED25519_SIGNATURE_LEN, 0)),
            Self::MlDsa65 => Some((0, MLDSA65_SIGNATURE_LEN)),
            Self::Hybrid => Some((ED25519_SIGNATURE_LEN, MLDSA65_SIGNATURE_LEN)),
            Self::XWing => None,
        }
    }

    /// Bytes of the secret seed from which a key pair is made.
    #[must_use]
    pub fn seed_len(self) -> usize {
        if self == Self::Hybrid { 64 } else { 32 }
    }
}

crate::canon_words! {
    /// What a signature is for. The name is part of the signed bytes, so that no statement passes for another.
    pub enum Statement {
        /// A batch of operations of one writer.
        1 => TxBatch = "txbatch",
        /// An act of governance or of an agreement's life.
        2 => Act = "act",
        /// Messages a provider published together.
        3 => Envelope = "envelope",
        /// A consumer's requests.
        4 => Request = "request",
        /// An executor's release.
        5 => Release = "release",
        /// A promise to anchor a bounded delivery.
        6 => Promise = "promise",
        /// A consumer's acknowledgement.
        7 => Ack = "ack",
        /// A checkpoint cosignature.
        8 => Cosign = "cosign",
        /// A change of validators, roots or cosigning keys.
        9 => Epoch = "epoch",
        /// A complaint about another party.
        10 => Complaint = "complaint",
    }
}

impl Statement {
    /// The name that stands in the signed bytes.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.word()
    }
}

/// The bytes that are signed: `"concordat/v1/" || type || 0x00 || chain || 0x00 || cbor`.
#[must_use]
pub fn signed_bytes(st: Statement, chain: &str, cbor: &[u8]) -> Vec<u8> {
    [b"concordat/v1/", st.name().as_bytes(), &[0], chain.as_bytes(), &[0], cbor].concat()
}

/// Name of a key: the first 16 bytes of SHA-256 over its canonical bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 16]);

impl core::fmt::Display for KeyId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl core::fmt::Debug for KeyId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl core::str::FromStr for KeyId {
    type Err = KeyError;
    fn from_str(s: &str) -> Result<Self, KeyError> {
        let mut id = [0; 16];
        hex::decode_to_slice(s, &mut id).map_err(|_| KeyError::WeakKey("has an id that is not 32 hex digits"))?;
        Ok(Self(id))
    }
}

impl Canon for KeyId {
    fn put(&self, e: &mut crate::cbor::Enc) {
        self.0.put(e);
    }
    fn get(d: &mut crate::cbor::Dec<'_>) -> Result<Self, crate::cbor::CborError> {
        Canon::get(d).map(Self)
    }
}

crate::canon_struct! {
    /// A public key. Call [`PublicKey::check`] before trusting one that came from outside.
    pub struct PublicKey {
        /// Its algorithms.
        pub suite: Suite,
        /// The Ed25519 part, 32 bytes or empty.
        pub ed25519: Bytes,
        /// The ML-DSA-65 or X-Wing part, or empty.
        pub pq: Bytes,
    }
}

crate::canon_struct! {
    /// A signature.
    pub struct Signature {
        /// Its algorithms: the key's.
        pub suite: Suite,
        /// The Ed25519 part, 64 bytes or empty.
        pub ed25519: Bytes,
        /// The ML-DSA-65 part, 3,309 bytes or empty.
        pub pq: Bytes,
    }
}

/// Reads a point and refuses one that is not canonical or of small order.
fn strict_point(pk: &[u8; 32]) -> Result<VerifyingKey, KeyError> {
    let key = VerifyingKey::from_bytes(pk).map_err(|_| KeyError::WeakKey("is no point of the curve"))?;
    if key.is_weak() {
        return Err(KeyError::WeakKey("has small order"));
    }
    if key.to_edwards().compress().to_bytes() != *pk {
        return Err(KeyError::WeakKey("is not the canonical encoding of its point"));
    }
    Ok(key)
}

/// Verifies an Ed25519 signature: the one function for all evidence. Strict: canonical S and A, neither A nor R of
/// small order, the equation without cofactor.
///
/// # Errors
/// A key that [`PublicKey::check`] would refuse, or a signature that is not this key's over `msg`.
pub fn verify_ed25519(pk: &[u8; 32], msg: &[u8], sig: &[u8; 64]) -> Result<(), KeyError> {
    let signature = ed25519_dalek::Signature::from_bytes(sig);
    strict_point(pk)?.verify_strict(msg, &signature).map_err(|_| KeyError::BadSignature("ed25519"))
}

fn expect_len(part: &'static str, bytes: &[u8], want: usize) -> Result<(), KeyError> {
    let got = bytes.len();
    if got == want { Ok(()) } else { Err(KeyError::SignatureLength { part, got, want }) }
}

impl PublicKey {
    /// Name of the key.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        let hash = sha256(&[&encode(self)]);
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        KeyId(id)
    }

    /// Checks lengths, and that the Ed25519 part is a canonical point not of small order. The same in every build, so
    /// that consensus can rely on it.
    ///
    /// # Errors
    /// What is wrong with which part.
    pub fn check(&self) -> Result<(), KeyError> {
        let (ed, pq) = self.suite.key_lens();
        for (part, bytes, want) in [("ed25519", &self.ed25519, ed), ("pq", &self.pq, pq)] {
            if bytes.len() != want {
                return Err(KeyError::KeyLength { suite: self.suite, part, got: bytes.len(), want });
            }
        }
        match self.point()? {
            Some(pk) => strict_point(&pk).map(drop),
            None => Ok(()),
        }
    }

    /// The Ed25519 part, none for a suite without one.
    fn point(&self) -> Result<Option<[u8; 32]>, KeyError> {
        let (want, _) = self.suite.key_lens();
        if want == 0 {
            return Ok(None);
        }
        let got = self.ed25519.len();
        let wrong = KeyError::KeyLength { suite: self.suite, part: "ed25519", got, want };
        self.ed25519.0.as_slice().try_into().map(Some).map_err(|_| wrong)
    }

    /// Checks that the signature has the key's suite and the suite's lengths.
    fn check_shape(&self, sig: &Signature) -> Result<(), KeyError> {
        let cannot = |what| KeyError::Suite { suite: self.suite, what };
        if sig.suite != self.suite {
            return Err(cannot("verify a signature of another suite"));
        }
        let (ed, pq) = self.suite.signature_lens().ok_or(cannot("sign: it receives sealed data"))?;
        expect_len("ed25519", &sig.ed25519, ed)?;
        expect_len("pq", &sig.pq, pq)
    }

    /// Verifies the Ed25519 part if the suite has one.
    fn verify_point(&self, msg: &[u8], sig: &Signature) -> Result<(), KeyError> {
        let Some(pk) = self.point()? else { return Ok(()) };
        let bytes = sig.ed25519.0.as_slice().try_into();
        let bytes = bytes.map_err(|_| KeyError::BadSignature("ed25519"))?;
        verify_ed25519(&pk, msg, bytes)
    }

    /// What consensus does: verifies Ed25519 and checks the length of a post-quantum part. A suite without Ed25519 is
    /// refused, since nothing about it would be verified.
    ///
    /// # Errors
    /// Other suite, wrong lengths, or the signature does not verify.
    pub fn verify_classical(&self, st: Statement, chain: &str, cbor: &[u8], sig: &Signature) -> Result<(), KeyError> {
        self.check_shape(sig)?;
        if self.suite.key_lens().0 == 0 {
            return Err(KeyError::Suite { suite: self.suite, what: "be verified without its post-quantum part" });
        }
        self.verify_point(&signed_bytes(st, chain, cbor), sig)
    }

    /// Verifies every part that the suite has; of a hybrid both must verify.
    ///
    /// # Errors
    /// Other suite, wrong lengths, or a part that does not verify.
    #[cfg(feature = "verifier")]
    pub fn verify_full(&self, st: Statement, chain: &str, cbor: &[u8], sig: &Signature) -> Result<(), KeyError> {
        self.check_shape(sig)?;
        let msg = signed_bytes(st, chain, cbor);
        self.verify_point(&msg, sig)?;
        if self.suite.key_lens().1 == 0 { Ok(()) } else { verify_mldsa65(&self.pq, &msg, &sig.pq) }
    }

    /// The key as one line of text: its canonical bytes in hex.
    #[must_use]
    pub fn to_text(&self) -> String {
        hex::encode(encode(self))
    }

    /// Reads and checks what [`PublicKey::to_text`] wrote.
    ///
    /// # Errors
    /// Not hex, not canonical, or a key that [`PublicKey::check`] refuses.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        let bytes = hex::decode(text.trim()).map_err(|_| KeyError::WeakKey("is not written as hex"))?;
        let key: Self = crate::cbor::decode(&bytes).map_err(|_| KeyError::WeakKey("is not canonical CBOR"))?;
        key.check().map(|()| key)
    }
}

#[cfg(test)]
mod tests;
