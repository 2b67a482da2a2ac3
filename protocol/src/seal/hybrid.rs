//! Sender and receiver.

use super::{SEAL_WINDOW, SealError};
use crate::cbor::encode;
use crate::keys::{KemKey, PublicKey, Suite};
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use hkdf::Hkdf;
use hpke::aead::ExportOnlyAead;
use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use sha2::Sha256;
use std::collections::BTreeSet;
use std::convert::Infallible;
use zeroize::Zeroizing;

const LABEL: &[u8] = b"concordat/v1/seal";

type Secret = Zeroizing<[u8; 32]>;

fn info(chain: &str, scope: &str, epoch: u64) -> Result<Vec<u8>, SealError> {
    // HPKE libraries panic on an `info` of 64 KiB; no name here comes near.
    if chain.len().saturating_add(scope.len()) > 1024 {
        return Err(SealError::Scope);
    }
    Ok([LABEL, &[0], chain.as_bytes(), &[0], &encode(&(scope.to_owned(), epoch))].concat())
}

fn cipher(k: &Secret, n: u64) -> Result<Aes256Gcm, SealError> {
    let failed = SealError::Library("key derivation failed");
    let mut key = Zeroizing::new([0; 32]);
    let prk = Hkdf::<Sha256>::from_prk(k.as_slice()).map_err(|_| failed.clone())?;
    prk.expand(&encode(&n), key.as_mut_slice()).map_err(|_| failed.clone())?;
    Aes256Gcm::new_from_slice(key.as_slice()).map_err(|_| failed)
}

/// Hands out given random bytes once. X-Wing asks for 64 in one piece; anything else gets nothing, which is checked.
struct Given<'a> {
    bytes: &'a [u8; 64],
    used: bool,
    ok: bool,
}

impl TryRng for Given<'_> {
    type Error = Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.ok = false;
        Ok(0)
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.ok = false;
        Ok(0)
    }
    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        if dst.len() == self.bytes.len() && !self.used {
            dst.copy_from_slice(self.bytes);
            self.used = true;
        } else {
            self.ok = false;
        }
        Ok(())
    }
}

impl TryCryptoRng for Given<'_> {}

/// Seals to one recipient for one scope and epoch. Each number is used at most once.
pub struct SealSender {
    k: Secret,
    encapsulation: Vec<u8>,
    newest: u64,
    used: BTreeSet<u64>,
}

impl SealSender {
    /// Encapsulates to the recipient's X-Wing key. `scope` names the session or subscription.
    ///
    /// # Errors
    /// No X-Wing key, names too long, or no randomness.
    #[cfg(feature = "node")]
    pub fn new(recipient: &PublicKey, chain: &str, scope: &str, epoch: u64) -> Result<Self, SealError> {
        let mut random = Zeroizing::new([0; 64]);
        crate::keys::random(random.as_mut_slice())
            .map_err(|_| SealError::Library("the operating system gives no randomness"))?;
        Self::with_randomness(recipient, chain, scope, epoch, &random)
    }

    /// [`SealSender::new`] with given randomness, for test vectors: who knows the 64 bytes can open everything.
    ///
    /// # Errors
    /// No X-Wing key, or names too long.
    #[doc(hidden)]
    pub fn with_randomness(
        recipient: &PublicKey,
        chain: &str,
        scope: &str,
        epoch: u64,
        random: &[u8; 64],
    ) -> Result<Self, SealError> {
        if recipient.suite != Suite::XWing {
            return Err(SealError::Key);
        }
        let key = <XWing as Kem>::PublicKey::from_bytes(&recipient.pq).map_err(|_| SealError::Key)?;
        let info = info(chain, scope, epoch)?;
        let mut rng = Given { bytes: random, used: false, ok: true };
        let made =
            hpke::setup_sender_with_rng::<ExportOnlyAead, HkdfSha256, XWing>(&OpModeS::Base, &key, &info, &mut rng);
        let (encapsulation, context) = made.map_err(|_| SealError::Library("encapsulation failed"))?;
        if !rng.used || !rng.ok {
            return Err(SealError::Library("encapsulation drew its randomness in an unexpected way"));
        }
        let mut k = Zeroizing::new([0; 32]);
        context.export(LABEL, k.as_mut_slice()).map_err(|_| SealError::Library("export failed"))?;
        Ok(Self { k, encapsulation: encapsulation.to_bytes().to_vec(), newest: 0, used: BTreeSet::new() })
    }

    /// What the receiver needs once, beside the first sealed text.
    #[must_use]
    pub fn encapsulation(&self) -> &[u8] {
        &self.encapsulation
    }

    /// Seals under number `n`; `header` is bound but not hidden. Numbers may come in any order within
    /// [`SEAL_WINDOW`] of the newest.
    ///
    /// # Errors
    /// [`SealError::Reused`] for a number used before: a second text under one key would reveal both.
    pub fn seal(&mut self, n: u64, header: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        if n.saturating_add(SEAL_WINDOW) <= self.newest || !self.used.insert(n) {
            return Err(SealError::Reused(n));
        }
        self.newest = self.newest.max(n);
        // Numbers that fell out of the window are refused by the comparison above and need no place here.
        let oldest = self.newest.saturating_sub(SEAL_WINDOW).saturating_add(1);
        if self.newest >= SEAL_WINDOW {
            self.used = self.used.split_off(&oldest);
        }
        let payload = Payload { msg: plaintext, aad: header };
        cipher(&self.k, n)?.encrypt(&Nonce::default(), payload).map_err(|_| SealError::Library("sealing failed"))
    }
}

impl core::fmt::Debug for SealSender {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SealSender").field("newest", &self.newest).finish_non_exhaustive()
    }
}

/// Opens what a [`SealSender`] sealed. Pure Rust.
pub struct SealReceiver {
    k: Secret,
}

impl SealReceiver {
    /// Reads an encapsulation with the secret key it was made for. A wrong key shows when the first text is opened.
    ///
    /// # Errors
    /// Wrong length, or names too long.
    pub fn new(key: &KemKey, encapsulation: &[u8], chain: &str, scope: &str, epoch: u64) -> Result<Self, SealError> {
        let info = info(chain, scope, epoch)?;
        let encapped = <XWing as Kem>::EncappedKey::from_bytes(encapsulation)
            .map_err(|_| SealError::Encapsulation(encapsulation.len()))?;
        let secret = key.private().map_err(|_| SealError::Key)?;
        let context =
            hpke::setup_receiver::<ExportOnlyAead, HkdfSha256, XWing>(&OpModeR::Base, &secret, &encapped, &info)
                .map_err(|_| SealError::Open)?;
        let mut k = Zeroizing::new([0; 32]);
        context.export(LABEL, k.as_mut_slice()).map_err(|_| SealError::Library("export failed"))?;
        Ok(Self { k })
    }

    /// Opens what was sealed under number `n` with this header.
    ///
    /// # Errors
    /// [`SealError::Open`] if anything differs.
    pub fn open(&self, n: u64, header: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let payload = Payload { msg: sealed, aad: header };
        cipher(&self.k, n)?.decrypt(&Nonce::default(), payload).map_err(|_| SealError::Open)
    }
}

impl core::fmt::Debug for SealReceiver {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("SealReceiver")
    }
}

#[cfg(all(test, feature = "node"))]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn pair(scope: &str) -> (KemKey, SealSender, SealReceiver) {
        let key = KemKey::generate().unwrap();
        let sender = SealSender::new(key.public(), "city", scope, 3).unwrap();
        let receiver = SealReceiver::new(&key, sender.encapsulation(), "city", scope, 3).unwrap();
        (key, sender, receiver)
    }

    #[test]
    fn seals_and_opens_in_any_order() {
        let (_, mut sender, receiver) = pair("s:7");
        let sealed: Vec<_> = [5u64, 1, 900].map(|n| (n, sender.seal(n, b"head", b"rows").unwrap())).into();
        assert_ne!(sealed[0].1, sealed[1].1);
        for (n, text) in sealed.iter().rev() {
            assert_eq!(receiver.open(*n, b"head", text).unwrap(), b"rows");
            assert_eq!(text.len(), 4 + super::super::SEAL_OVERHEAD);
        }
    }

    /// A forged one: other content, number, header, scope, epoch, chain or key.
    #[test]
    fn nothing_else_opens() {
        let (key, mut sender, receiver) = pair("s:7");
        let sealed = sender.seal(1, b"head", b"rows").unwrap();
        let mut flipped = sealed.clone();
        flipped[0] ^= 1;
        for (n, header, text) in [(2, &b"head"[..], &sealed), (1, b"hea", &sealed), (1, b"head", &flipped)] {
            assert_eq!(receiver.open(n, header, text), Err(SealError::Open));
        }
        assert_eq!(receiver.open(1, b"head", &sealed[..10]), Err(SealError::Open));
        let other = KemKey::generate().unwrap();
        for (key, chain, scope, epoch) in
            [(&other, "city", "s:7", 3), (&key, "town", "s:7", 3), (&key, "city", "s:8", 3), (&key, "city", "s:7", 4)]
        {
            let receiver = SealReceiver::new(key, sender.encapsulation(), chain, scope, epoch).unwrap();
            assert_eq!(receiver.open(1, b"head", &sealed), Err(SealError::Open));
        }
        let short = &sender.encapsulation()[1..];
        assert_eq!(SealReceiver::new(&key, short, "city", "s:7", 3).unwrap_err(), SealError::Encapsulation(1119));
    }

    #[test]
    fn a_number_is_never_used_twice() {
        let (_, mut sender, _) = pair("s");
        for n in [10, 3, SEAL_WINDOW + 20, 21] {
            sender.seal(n, b"", b"").unwrap();
        }
        for n in [10, 3, 20, 21, SEAL_WINDOW + 20] {
            assert_eq!(sender.seal(n, b"", b""), Err(SealError::Reused(n)));
        }
        sender.seal(u64::MAX, b"", b"").unwrap();
        assert_eq!(sender.seal(u64::MAX, b"", b""), Err(SealError::Reused(u64::MAX)));
        assert!(sender.used.len() <= 2);
    }

    #[test]
    fn wrong_recipients_are_refused() {
        let signing = crate::keys::SigningKey::generate(Suite::Ed25519).unwrap();
        assert_eq!(SealSender::new(signing.public(), "c", "s", 1).unwrap_err(), SealError::Key);
        let mut bad = KemKey::generate().unwrap().public().clone();
        bad.pq.0[..3].fill(0xff);
        assert_eq!(SealSender::new(&bad, "c", "s", 1).unwrap_err(), SealError::Key);
        let long = "x".repeat(1025);
        let good = KemKey::generate().unwrap();
        assert_eq!(SealSender::new(good.public(), &long, "s", 1).unwrap_err(), SealError::Scope);
    }
}
