//! The secret that pseudonyms are made with.

use super::ServiceError;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use zeroize::Zeroizing;

/// The secret behind pseudonyms, made at the first start, mode 0600.
pub(super) fn actor_secret(path: &Path) -> Result<Zeroizing<[u8; 32]>, ServiceError> {
    let fail = |rule: String| ServiceError::ActorSecret { path: path.to_owned(), rule };
    let io = |e: std::io::Error| fail(format!("{e}; restore it from a backup, or remove it: pseudonyms then change"));
    match std::fs::read(path) {
        Ok(bytes) => {
            let bytes = Zeroizing::new(bytes);
            let secret: [u8; 32] = bytes.as_slice().try_into().map_err(|_| fail("must hold 32 bytes".into()))?;
            Ok(Zeroizing::new(secret))
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let mut secret = Zeroizing::new([0; 32]);
            getrandom::fill(secret.as_mut_slice()).map_err(|e| fail(e.to_string()))?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
            file.write_all(secret.as_slice()).and_then(|()| file.sync_all()).map_err(io)?;
            Ok(secret)
        }
        Err(e) => Err(io(e)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pseudonyms_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("actor.secret");
        let made = actor_secret(&path).unwrap();
        assert_eq!(*made, *actor_secret(&path).unwrap());
        std::fs::write(&path, b"short").unwrap();
        assert_eq!(actor_secret(&path).err().unwrap().code(), "actor-secret");
    }
}
