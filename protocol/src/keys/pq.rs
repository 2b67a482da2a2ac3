//! ML-DSA-65 verification in pure Rust.

use super::{KeyError, MLDSA65_KEY_LEN, MLDSA65_SIGNATURE_LEN, Suite};
use ml_dsa::{EncodedSignature, EncodedVerifyingKey, MlDsa65, Signature, VerifyingKey};

/// Verifies an ML-DSA-65 signature (FIPS 204, pure, empty context).
///
/// # Errors
/// Wrong lengths, a malformed signature, or one that is not this key's over `msg`.
pub fn verify_mldsa65(pk: &[u8], msg: &[u8], sig: &[u8]) -> Result<(), KeyError> {
    let bad = KeyError::BadSignature("ml-dsa-65");
    let encoded = EncodedVerifyingKey::<MlDsa65>::try_from(pk).map_err(|_| KeyError::KeyLength {
        suite: Suite::MlDsa65,
        part: "pq",
        got: pk.len(),
        want: MLDSA65_KEY_LEN,
    })?;
    let sig = EncodedSignature::<MlDsa65>::try_from(sig).map_err(|_| KeyError::SignatureLength {
        part: "pq",
        got: sig.len(),
        want: MLDSA65_SIGNATURE_LEN,
    })?;
    let sig = Signature::<MlDsa65>::decode(&sig).ok_or(bad.clone())?;
    let key = VerifyingKey::<MlDsa65>::decode(&encoded);
    if key.verify_with_context(msg, &[], &sig) { Ok(()) } else { Err(bad) }
}
