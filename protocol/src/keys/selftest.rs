//! What is tried before a process trusts its cryptographic libraries.

use super::{KeyError, verify_ed25519};

/// RFC 8032, 7.1, test 2.
const ED25519_PK: &str = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
const ED25519_SIG: &str = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";

/// Key, message, a signature that is good, and two that a sloppy library takes.
#[cfg(feature = "verifier")]
const MLDSA65: &str = include_str!("../../vectors/mldsa65_selftest.json");

/// Tries known signatures that must and must not verify. A process calls it first and does not start on an error.
///
/// # Errors
/// [`KeyError::SelfTest`]: the library in this build must not be used.
pub fn self_test() -> Result<(), KeyError> {
    let broken = KeyError::SelfTest("the Ed25519 test vector does not parse");
    let (mut pk, mut sig) = ([0; 32], [0; 64]);
    hex::decode_to_slice(ED25519_PK, &mut pk).map_err(|_| broken.clone())?;
    hex::decode_to_slice(ED25519_SIG, &mut sig).map_err(|_| broken)?;
    if verify_ed25519(&pk, &[0x72], &sig).is_err() {
        return Err(KeyError::SelfTest("a good Ed25519 signature was refused"));
    }
    if verify_ed25519(&pk, &[0x73], &sig).is_ok() {
        return Err(KeyError::SelfTest("a forged Ed25519 signature was accepted"));
    }
    // The neutral point as key and R with S = 0 "signs" everything for a verifier that is not strict.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let mut forged = [0; 64];
    forged[0] = 1;
    if verify_ed25519(&neutral, &[0x72], &forged).is_ok() {
        return Err(KeyError::SelfTest("an Ed25519 key of small order was accepted"));
    }
    #[cfg(feature = "verifier")]
    mldsa65()?;
    Ok(())
}

#[cfg(feature = "verifier")]
fn mldsa65() -> Result<(), KeyError> {
    use super::verify_mldsa65;
    let broken = || KeyError::SelfTest("the ML-DSA-65 test vector does not parse");
    let vector: serde_json::Value = serde_json::from_str(MLDSA65).map_err(|_| broken())?;
    let field =
        |name: &str| vector.get(name).and_then(|v| v.as_str()).and_then(|v| hex::decode(v).ok()).ok_or(broken());
    let (pk, msg, good, hint) = (field("public_key")?, field("message")?, field("good")?, field("bad_hint_padding")?);
    if verify_mldsa65(&pk, &msg, &good).is_err() {
        return Err(KeyError::SelfTest("a good ML-DSA-65 signature was refused"));
    }
    if verify_mldsa65(&pk, &msg, &hint).is_ok() {
        return Err(KeyError::SelfTest("an ML-DSA-65 signature with a malformed hint was accepted"));
    }
    let norm = vector.get("norm").ok_or(broken())?;
    let part = |name: &str| norm.get(name).and_then(|v| v.as_str()).and_then(|v| hex::decode(v).ok()).ok_or(broken());
    if verify_mldsa65(&part("public_key")?, &part("message")?, &part("signature")?).is_ok() {
        return Err(KeyError::SelfTest("an ML-DSA-65 signature with too large a response was accepted"));
    }
    let mut other = msg;
    other.push(0);
    if verify_mldsa65(&pk, &other, &good).is_ok() {
        return Err(KeyError::SelfTest("an ML-DSA-65 signature over another message was accepted"));
    }
    Ok(())
}
