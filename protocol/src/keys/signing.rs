//! Signing with aws-lc-rs.

use super::secret::{read_secret_text, secret_text};
use super::{
    ED25519_KEY_LEN, ED25519_SIGNATURE_LEN, KeyError, MLDSA65_SIGNATURE_LEN, PublicKey, Signature, Statement, Suite,
    signed_bytes, verify_ed25519,
};
use crate::cbor::Bytes;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair, ML_DSA_65_SIGNING, PqdsaKeyPair};
use zeroize::Zeroizing;

/// Fills `out` with the operating system's randomness.
pub(crate) fn random(out: &mut [u8]) -> Result<(), KeyError> {
    getrandom::fill(out).map_err(|_| KeyError::Library("the operating system gives no randomness"))
}

/// Makes Ed25519 signatures with a secret that need not be in this process: a key pair in memory, or a token's.
pub trait Ed25519Signer: Send + Sync {
    /// Signs a message.
    ///
    /// # Errors
    /// [`KeyError::Library`] or [`KeyError::Token`] when there is no signature to be had.
    fn sign_message(&self, msg: &[u8]) -> Result<[u8; ED25519_SIGNATURE_LEN], KeyError>;
}

impl Ed25519Signer for Ed25519KeyPair {
    fn sign_message(&self, msg: &[u8]) -> Result<[u8; ED25519_SIGNATURE_LEN], KeyError> {
        let failed = KeyError::Library("signing failed");
        let signature = self.try_sign(msg).map_err(|_| failed.clone())?;
        signature.as_ref().try_into().map_err(|_| failed)
    }
}

/// A secret key that signs. Never printed; its seed is wiped when it is dropped. The Ed25519 secret may be in a token
/// ([`SigningKey::in_token`]); who signs sees no difference.
pub struct SigningKey {
    /// What is in this process: the suite's seed, or of a key in a token the ML-DSA seed alone.
    seed: Zeroizing<Vec<u8>>,
    in_token: bool,
    ed25519: Option<Box<dyn Ed25519Signer>>,
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
        let point = ed25519.as_ref().map(|k| k.public_key().as_ref());
        let public = public_of(suite, point, mldsa65.as_ref())?;
        let ed25519 = ed25519.map(|pair| Box::new(pair) as Box<dyn Ed25519Signer>);
        Ok(Self { seed: Zeroizing::new(seed.to_vec()), in_token: false, ed25519, mldsa65, public })
    }

    /// A key whose Ed25519 half signs elsewhere. With the seed of an ML-DSA half (32 bytes) it is a hybrid one.
    ///
    /// # Errors
    /// The public key is not a good one, or the seed has another length.
    pub fn with_signer(
        point: &[u8; ED25519_KEY_LEN],
        signer: Box<dyn Ed25519Signer>,
        mldsa_seed: Option<&[u8]>,
    ) -> Result<Self, KeyError> {
        let refused = |_| KeyError::Secret("the ML-DSA seed has a wrong length");
        let mldsa65 =
            mldsa_seed.map(|seed| PqdsaKeyPair::from_seed(&ML_DSA_65_SIGNING, seed).map_err(refused)).transpose()?;
        let suite = if mldsa65.is_some() { Suite::Hybrid } else { Suite::Ed25519 };
        let public = public_of(suite, Some(point), mldsa65.as_ref())?;
        let seed = Zeroizing::new(mldsa_seed.unwrap_or_default().to_vec());
        Ok(Self { seed, in_token: true, ed25519: Some(signer), mldsa65, public })
    }

    /// Whether the Ed25519 secret is elsewhere.
    #[must_use]
    pub fn in_token(&self) -> bool {
        self.in_token
    }

    /// The ML-DSA seed of a key of suite ML-DSA-65, as the second half of a key in a token is stored.
    #[must_use]
    pub fn mldsa_seed(&self) -> Option<&[u8]> {
        (self.public.suite == Suite::MlDsa65).then_some(self.seed.as_slice())
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
            let signature = key.sign_message(&msg)?;
            if self.in_token {
                // A token that was exchanged, or a broken one, is noticed here and not by the other side.
                let point = self.public.point()?.ok_or(KeyError::Library("the key has no Ed25519 part"))?;
                verify_ed25519(&point, &msg, &signature)
                    .map_err(|_| KeyError::Token("it signs with another key than it shows".into()))?;
            }
            out.ed25519 = Bytes(signature.to_vec());
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

    /// The key as text for a file that only its owner may read (mode 0600). Of a key in a token there is none to write:
    /// the text is empty, and no key is read from it.
    #[must_use]
    pub fn to_secret_text(&self) -> Zeroizing<String> {
        if self.in_token {
            return Zeroizing::new(String::new());
        }
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

/// The public key of these halves, checked.
fn public_of(suite: Suite, point: Option<&[u8]>, mldsa65: Option<&PqdsaKeyPair>) -> Result<PublicKey, KeyError> {
    let part = |key: Option<&[u8]>| Bytes(key.unwrap_or_default().to_vec());
    let pq = part(mldsa65.map(|k| k.public_key().as_ref()));
    let public = PublicKey { suite, ed25519: part(point), pq };
    public.check().map(|()| public)
}

impl core::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SigningKey({} {})", self.public.suite, self.key_id())
    }
}
