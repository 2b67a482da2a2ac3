//! A build without PKCS#11 (cargo feature `pkcs11`): keys in tokens are refused by name.

use super::{KeyFileError, Passphrases, TokenUri};
use concordat_protocol::keys::SigningKey;

fn off<T>(uri: &TokenUri) -> Result<T, KeyFileError> {
    let why = "this program was built without PKCS#11: use one built with the feature `pkcs11`".to_owned();
    Err(KeyFileError::Token { uri: uri.text.clone(), why })
}

/// Opens no key.
pub(super) fn open(
    uri: &TokenUri,
    _mldsa_seed: Option<&[u8]>,
    _passphrases: &Passphrases,
) -> Result<SigningKey, KeyFileError> {
    off(uri)
}

/// Makes no key.
///
/// # Errors
/// Always.
pub fn generate(uri: &TokenUri, _passphrases: &Passphrases) -> Result<(), KeyFileError> {
    off(uri)
}
