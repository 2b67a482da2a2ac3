//! X-Wing key pairs, which receive sealed data.

use super::{KeyError, PublicKey, Suite};
use crate::cbor::Bytes;
use hpke::{Deserializable, Kem, Serializable, kem::XWing};
use zeroize::Zeroizing;

/// The secret half of an X-Wing key pair.
pub struct KemKey {
    seed: Zeroizing<[u8; 32]>,
    public: PublicKey,
}

impl KemKey {
    /// The key pair of a secret 32-byte seed.
    ///
    /// # Errors
    /// The library refuses the seed.
    pub fn from_seed(seed: [u8; 32]) -> Result<Self, KeyError> {
        let seed = Zeroizing::new(seed);
        let secret = <XWing as Kem>::PrivateKey::from_bytes(seed.as_slice())
            .map_err(|_| KeyError::Library("the X-Wing seed was refused"))?;
        let public = XWing::sk_to_pk(&secret).to_bytes().to_vec();
        Ok(Self { seed, public: PublicKey { suite: Suite::XWing, ed25519: Bytes::default(), pq: Bytes(public) } })
    }

    /// A new random key pair.
    ///
    /// # Errors
    /// The operating system gives no randomness.
    #[cfg(feature = "node")]
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        super::signing::random(seed.as_mut_slice())?;
        Self::from_seed(*seed)
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The key as text for a file that only its owner may read (mode 0600).
    #[must_use]
    pub fn to_secret_text(&self) -> Zeroizing<String> {
        super::secret::secret_text(Suite::XWing, self.seed.as_slice())
    }

    /// Reads what [`KemKey::to_secret_text`] wrote.
    ///
    /// # Errors
    /// Text of another form or suite; the text is not repeated in the message.
    pub fn from_secret_text(text: &str) -> Result<Self, KeyError> {
        let (suite, seed) = super::secret::read_secret_text(text)?;
        let seed = <[u8; 32]>::try_from(seed.as_slice()).ok().filter(|_| suite == Suite::XWing);
        Self::from_seed(seed.ok_or(KeyError::Secret("this file holds a signing key, not an x-wing key"))?)
    }

    pub(crate) fn private(&self) -> Result<<XWing as Kem>::PrivateKey, KeyError> {
        <XWing as Kem>::PrivateKey::from_bytes(self.seed.as_slice())
            .map_err(|_| KeyError::Library("the X-Wing seed was refused"))
    }
}

impl core::fmt::Debug for KemKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "KemKey({})", self.public.key_id())
    }
}

impl PublicKey {
    /// [`PublicKey::check`], and that an X-Wing key parses (FIPS 203 modulus check).
    ///
    /// # Errors
    /// What is wrong with which part.
    pub fn check_full(&self) -> Result<(), KeyError> {
        self.check()?;
        if self.suite == Suite::XWing {
            <XWing as Kem>::PublicKey::from_bytes(&self.pq).map_err(|_| KeyError::PqKey("x-wing"))?;
        }
        Ok(())
    }
}
