//! Signing with aws-lc-rs.

use super::secret::{read_secret_text, secret_text};
use super::{KeyError, MLDSA65_SIGNATURE_LEN, PublicKey, Signature, Statement, Suite, signed_bytes};
use crate::cbor::Bytes;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair, ML_DSA_65_SIGNING, PqdsaKeyPair};
use zeroize::Zeroizing;

/// Fills `out` with the operating system's randomness.
pub(crate) fn random(out: &mut [u8]) -> Result<(), KeyError> {
    getrandom::fill(out).map_err(|_| KeyError::Library("the operating system gives no randomness"))
}

/// A secret key that signs. Never printed; its seed is wiped when it is dropped.
pub struct SigningKey {
    seed: Zeroizing<Vec<u8>>,
    ed25519: Option<Ed25519KeyPair>,
    mldsa65: Option<PqdsaKeyPair>,
    public: PublicKey,
}

impl SigningKey {
    /// A new random key. For the suite X-Wing use [`super::KemKey`].
    ///
    /// # Errors
    /// A suite that does not sign, or no randomness.
    pub fn generate(suite: Suite) -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new(vec![0; suite.seed_len()]);
        random(&mut seed)?;
        Self::from_seed(suite, &seed)
    }

    /// The key of a secret seed: 32 bytes, of a hybrid 64 (Ed25519's, then ML-DSA's).
    ///
    /// # Errors
    /// A suite that does not sign, or a seed of another length.
    pub fn from_seed(suite: Suite, seed: &[u8]) -> Result<Self, KeyError> {
        if suite.signature_lens().is_none() {
            return Err(KeyError::Suite { suite, what: "sign: it receives sealed data" });
        }
        if seed.len() != suite.seed_len() {
            return Err(KeyError::Secret("the seed has a wrong length"));
        }
        let (first, last) = seed.split_at(seed.len().min(32));
        let refused = |_| KeyError::Library("the seed was refused");
        let ed25519 = match suite {
            Suite::MlDsa65 => None,
            _ => Some(Ed25519KeyPair::from_seed_unchecked(first).map_err(refused)?),
        };
        let pq = |seed| PqdsaKeyPair::from_seed(&ML_DSA_65_SIGNING, seed).map(Some).map_err(refused);
        let mldsa65 = match suite {
            Suite::MlDsa65 => pq(first)?,
            Suite::Hybrid => pq(last)?,
            _ => None,
        };
        let part = |key: Option<&[u8]>| Bytes(key.unwrap_or_default().to_vec());
        let public = PublicKey {
            suite,
            ed25519: part(ed25519.as_ref().map(|k| k.public_key().as_ref())),
            pq: part(mldsa65.as_ref().map(|k| k.public_key().as_ref())),
        };
        public.check()?;
        Ok(Self { seed: Zeroizing::new(seed.to_vec()), ed25519, mldsa65, public })
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Name of the key.
    #[must_use]
    pub fn key_id(&self) -> super::KeyId {
        self.public.key_id()
    }

    /// Signs a statement.
    ///
    /// # Errors
    /// The library fails.
    pub fn try_sign(&self, st: Statement, chain: &str, cbor: &[u8]) -> Result<Signature, KeyError> {
        let msg = signed_bytes(st, chain, cbor);
        let mut out = Signature { suite: self.public.suite, ed25519: Bytes::default(), pq: Bytes::default() };
        let failed = |_| KeyError::Library("signing failed");
        if let Some(key) = &self.ed25519 {
            out.ed25519 = Bytes(key.try_sign(&msg).map_err(failed)?.as_ref().to_vec());
        }
        if let Some(key) = &self.mldsa65 {
            let mut sig = vec![0; MLDSA65_SIGNATURE_LEN];
            let len = key.sign(&msg, &mut sig).map_err(failed)?;
            sig.truncate(len);
            out.pq = Bytes(sig);
        }
        Ok(out)
    }

    /// Signs a statement. Should the library fail, the signature is empty and verifies nowhere; use
    /// [`SigningKey::try_sign`] to learn why.
    #[must_use]
    pub fn sign(&self, st: Statement, chain: &str, cbor: &[u8]) -> Signature {
        let empty = || Signature { suite: self.public.suite, ed25519: Bytes::default(), pq: Bytes::default() };
        self.try_sign(st, chain, cbor).unwrap_or_else(|_| empty())
    }

    /// The key as text for a file that only its owner may read (mode 0600).
    #[must_use]
    pub fn to_secret_text(&self) -> Zeroizing<String> {
        secret_text(self.public.suite, &self.seed)
    }

    /// Reads what [`SigningKey::to_secret_text`] wrote.
    ///
    /// # Errors
    /// Text of another form, or a suite that does not sign; the text is not repeated in the message.
    pub fn from_secret_text(text: &str) -> Result<Self, KeyError> {
        let (suite, seed) = read_secret_text(text)?;
        Self::from_seed(suite, &seed)
    }
}

impl core::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SigningKey({} {})", self.public.suite, self.key_id())
    }
}
