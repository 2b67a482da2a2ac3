//! The key that signs the exported log's head. It signs that and nothing else, it is not on the ledger, and no proof rests
//! on it: whose the head is, the agencies' cosignatures beside it say (docs/adr/0021).
//!
//! Its file is in the form of Go's `sumdb/note` (`PRIVATE+KEY+name+id+base64`), which tools for such logs read.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use concordat_protocol::c2sp::{C2spError, NoteSignature, VerifierKey};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use thiserror::Error;
use zeroize::Zeroizing;

/// File of the key in the folder of keys.
pub const NOTE_KEY_FILE: &str = "log-note.key";
const PREFIX: &str = "PRIVATE+KEY+";
/// Type of an Ed25519 key.
const ED25519: u8 = 1;

/// Why the key cannot be used. Nothing of it is repeated.
#[derive(Debug, Error)]
#[error("key file {path}: {why}")]
pub struct NoteKeyError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub why: String,
}

impl NoteKeyError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        "note-key-file"
    }
}

/// The key with its name.
pub struct NoteKey {
    key: Ed25519KeyPair,
    verifier: VerifierKey,
}

impl NoteKey {
    /// Reads the key of a log, or makes it where there is none (mode 0600).
    ///
    /// # Errors
    /// The file cannot be read or written, others can read it, or it is the key of another log.
    pub fn open(path: &Path, name: &str) -> Result<Self, NoteKeyError> {
        let fail = |why: String| NoteKeyError { path: path.to_owned(), why };
        match std::fs::metadata(path) {
            Ok(meta) if meta.permissions().mode() & 0o077 != 0 => Err(fail(
                "others can read it: remove it; the next export makes another, whose verifier key is new".into(),
            )),
            Ok(_) => {
                let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?);
                Self::parse(text.trim_end(), name).map_err(|why| fail(why.into()))
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let mut seed = Zeroizing::new([0u8; 32]);
                getrandom::fill(seed.as_mut_slice()).map_err(|e| fail(e.to_string()))?;
                let key = Self::of(&seed, name).map_err(|why| fail(why.into()))?;
                let io = |e: std::io::Error| fail(e.to_string());
                let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
                file.write_all(key.text(&seed).as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
                Ok(key)
            }
            Err(e) => Err(fail(e.to_string())),
        }
    }

    fn of(seed: &[u8; 32], name: &str) -> Result<Self, &'static str> {
        let key = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| "the key was refused")?;
        let public: [u8; 32] = key.public_key().as_ref().try_into().map_err(|_| "the key was refused")?;
        let verifier = VerifierKey::log(name, public).map_err(|_| "the log's name cannot be a key's name")?;
        Ok(Self { key, verifier })
    }

    fn text(&self, seed: &[u8; 32]) -> Zeroizing<String> {
        let data = Zeroizing::new([&[ED25519][..], seed].concat());
        let data = Zeroizing::new(STANDARD.encode(data.as_slice()));
        let id = hex::encode(self.verifier.id());
        Zeroizing::new(format!("{PREFIX}{}+{id}+{}\n", self.verifier.name, data.as_str()))
    }

    fn parse(text: &str, name: &str) -> Result<Self, &'static str> {
        let rest = text.strip_prefix(PREFIX).ok_or("it does not begin with PRIVATE+KEY+")?;
        let mut parts = rest.splitn(3, '+');
        let (Some(named), Some(id), Some(data)) = (parts.next(), parts.next(), parts.next()) else {
            return Err("it has not the parts of a note key");
        };
        if named != name {
            return Err("it is the key of another log");
        }
        let data = Zeroizing::new(STANDARD.decode(data).map_err(|_| "its last part is no base64")?);
        let Some((&ED25519, seed)) = data.split_first() else { return Err("it is no Ed25519 key") };
        let seed = Zeroizing::new(<[u8; 32]>::try_from(seed).map_err(|_| "it is no Ed25519 key")?);
        let key = Self::of(&seed, name)?;
        if hex::encode(key.verifier.id()) == id { Ok(key) } else { Err("its id does not fit: it was changed") }
    }

    /// What others verify notes with.
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// The signature line for a note's text.
    ///
    /// # Errors
    /// The library fails.
    pub fn sign(&self, text: &str) -> Result<NoteSignature, C2spError> {
        let signature = self.key.try_sign(text.as_bytes()).map_err(|_| C2spError::Key("signing failed"))?;
        Ok(self.verifier.line(signature.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use concordat_protocol::c2sp::Note;

    #[test]
    fn the_key_stays_the_same_and_signs_notes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NOTE_KEY_FILE);
        let made = NoteKey::open(&path, "concordat.city-1").unwrap();
        let again = NoteKey::open(&path, "concordat.city-1").unwrap();
        assert_eq!(made.verifier(), again.verifier());
        let text = "concordat.city-1\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n".to_owned();
        let note = Note { signatures: vec![again.sign(&text).unwrap()], text };
        assert_eq!(made.verifier().verify(&note), Ok(None));
        assert!(NoteKey::open(&path, "concordat.city-2").is_err(), "one log's key signs no other log");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(NoteKey::open(&path, "concordat.city-1").err().unwrap().code(), "note-key-file");
    }
}
