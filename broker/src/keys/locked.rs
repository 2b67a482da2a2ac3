//! Key files under a passphrase: one `concordat-secret-1` line in an age file (age-encryption.org/v1, scrypt recipient).

use age::armor::ArmoredReader;
use age::secrecy::SecretString;
use age::{DecryptError, Decryptor, Identity, scrypt};
use std::io::Read;
use zeroize::Zeroizing;

/// scrypt's N is 2 to this: 128 MiB and a good part of a second for every guess. Fixed, so that a key file opens equally
/// fast on the machine that made it and on any other.
const WORK: u8 = 17;
/// More work than this is refused: the file is not ours.
const WORK_MAX: u8 = 20;
/// First line of the two forms of an age file.
const BINARY: &[u8] = b"age-encryption.org/v1";
const ARMOR: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE-----";
/// Longest text inside: a hybrid secret has 155 bytes, a token's URI may be longer.
const TEXT_MAX: usize = 4_096;

/// Why a file does not open.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Locked {
    /// Another passphrase.
    Wrong,
    /// Not a whole age file with one passphrase.
    Damaged(String),
}

/// Whether these bytes are an age file.
pub fn is_locked(bytes: &[u8]) -> bool {
    bytes.starts_with(BINARY) || bytes.starts_with(ARMOR)
}

/// Encrypts a text; armored, so that the file can be printed and kept in a safe.
pub(super) fn lock(text: &str, passphrase: &str) -> Result<String, String> {
    let mut recipient = scrypt::Recipient::new(SecretString::from(passphrase.to_owned()));
    recipient.set_work_factor(WORK);
    age::encrypt_and_armor(&recipient, text.as_bytes()).map_err(|e| e.to_string())
}

/// Decrypts what [`lock`] or `age --passphrase` wrote.
pub(super) fn unlock(bytes: &[u8], passphrase: &str) -> Result<Zeroizing<String>, Locked> {
    let damaged = |e: &dyn std::fmt::Display| Locked::Damaged(e.to_string());
    let decryptor = Decryptor::new_buffered(ArmoredReader::new(bytes)).map_err(|e| damaged(&e))?;
    if !decryptor.is_scrypt() {
        return Err(Locked::Damaged("it is encrypted to keys, not with a passphrase".into()));
    }
    let mut identity = scrypt::Identity::new(SecretString::from(passphrase.to_owned()));
    identity.set_max_work_factor(WORK_MAX);
    let mut reader = decryptor.decrypt(std::iter::once(&identity as &dyn Identity)).map_err(|e| match e {
        DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed => Locked::Wrong,
        other => damaged(&other),
    })?;
    // Reserved at once, so that no half of the secret stays behind in freed memory.
    let mut text = Zeroizing::new(vec![0; TEXT_MAX + 1]);
    let mut len = 0;
    while len < text.len() {
        match reader.read(&mut text[len..]).map_err(|e| damaged(&e))? {
            0 => break,
            n => len += n,
        }
    }
    if len > TEXT_MAX {
        return Err(Locked::Damaged(format!("it holds more than {TEXT_MAX} bytes")));
    }
    let text = std::str::from_utf8(&text[..len]).map_err(|_| Locked::Damaged("it holds no text".into()))?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_text_comes_back_only_with_the_passphrase_and_whole() {
        let locked = lock("concordat-secret-1:ed25519:00ff\n", "correct horse").unwrap();
        assert!(is_locked(locked.as_bytes()) && !is_locked(b"concordat-secret-1:"));
        assert!(!locked.contains("00ff"));
        assert_eq!(unlock(locked.as_bytes(), "correct horse").unwrap().as_str(), "concordat-secret-1:ed25519:00ff\n");
        assert_eq!(unlock(locked.as_bytes(), "correct hors").err(), Some(Locked::Wrong));
        // One changed character of the payload, and a file that was cut.
        let (middle, mut bytes) = (locked.len() - 60, locked.clone().into_bytes());
        bytes[middle] = if bytes[middle] == b'A' { b'B' } else { b'A' };
        assert!(matches!(unlock(&bytes, "correct horse"), Err(Locked::Damaged(_) | Locked::Wrong)));
        assert!(matches!(unlock(&locked.as_bytes()[..locked.len() / 2], "correct horse"), Err(Locked::Damaged(_))));
    }
}
