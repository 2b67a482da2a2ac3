//! The vault of a provider: a random key a subject, under a name that only this vault's secret gives.
//!
//! From a subject's key follow its tags on the ledger. Destroying the key forgets the subject: nobody can tell its tags from
//! padding any more. The file names nobody: a subject's id is a keyed hash of dataset and value.

use concordat_executor::holding::sqlite::empty_log;
use concordat_executor::subjects::SubjectKey;
use concordat_protocol::hash::hmac_sha256;
use concordat_protocol::ids::DatasetId;
use rusqlite::{Connection, OptionalExtension, params};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use thiserror::Error;
use zeroize::Zeroizing;

/// A subject as the provider's stores name it: `HMAC-SHA256(vault secret, dataset || 0x00 || value)`.
pub type SubjectId = [u8; 32];

/// Why the vault cannot be used. Nothing about persons is released then.
#[derive(Debug, Error)]
pub enum VaultError {
    /// SQLite's word.
    #[error("the vault of subjects failed: {0}; free disk space, then restart the executor")]
    Sqlite(#[from] rusqlite::Error),
    /// A file.
    #[error("{path}: {source}; restore it from the backup that the vault is of")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The secret is damaged.
    #[error("{0}: must hold 32 bytes; restore it from the backup that the vault is of")]
    Secret(PathBuf),
    /// No randomness.
    #[error("no randomness from the operating system: {0}")]
    Random(String),
}

/// What an erasure that has begun is to do. Kept, so that it is finished after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Erasing {
    /// With the held records.
    Records = 1,
    /// Without them.
    Traces = 2,
}

/// How a subject stands.
#[derive(Clone, Default)]
pub struct Standing {
    /// Its key, where it has one.
    pub key: Option<SubjectKey>,
    /// When it was erased last, milliseconds of ledger time; 0 if never.
    pub erased_ms: u64,
}

/// The vault. Calls block.
pub struct Vault {
    db: Mutex<Connection>,
    secret: Zeroizing<[u8; 32]>,
}

fn random() -> Result<Zeroizing<[u8; 32]>, VaultError> {
    let mut out = Zeroizing::new([0; 32]);
    getrandom::fill(out.as_mut_slice()).map_err(|e| VaultError::Random(e.to_string()))?;
    Ok(out)
}

fn key_of(blob: Vec<u8>) -> SubjectKey {
    let blob = Zeroizing::new(blob);
    Zeroizing::new(blob.as_slice().try_into().unwrap_or([0; 32]))
}

impl Vault {
    /// Opens or makes `vault.sqlite` and `vault.secret` in a folder, both for their owner alone.
    pub fn open(folder: &Path) -> Result<Self, VaultError> {
        let path = folder.join("vault.sqlite");
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| VaultError::File { path, source }
        };
        std::fs::create_dir_all(folder).map_err(file(folder))?;
        let is_new = !path.exists();
        OpenOptions::new().append(true).create(true).mode(0o600).open(&path).map_err(file(&path))?;
        let secret = secret(&folder.join("vault.secret"), is_new)?;
        let db = Connection::open(&path)?;
        db.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;
             CREATE TABLE IF NOT EXISTS subject (
               id BLOB PRIMARY KEY, key BLOB, erased_ms INTEGER NOT NULL DEFAULT 0, erasing INTEGER NOT NULL DEFAULT 0)
               STRICT, WITHOUT ROWID;",
        )?;
        Ok(Self { db: Mutex::new(db), secret })
    }

    /// The vault of the executor with this term: another one's later term ends its writing.
    pub fn under(mut self, term: Option<u64>) -> Result<Self, VaultError> {
        if let Some(term) = term {
            crate::fence::guard(self.db.get_mut().unwrap_or_else(PoisonError::into_inner), term)?;
        }
        Ok(self)
    }

    fn db(&self) -> MutexGuard<'_, Connection> {
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The id of a subject of a dataset. `text` is [`concordat_executor::subjects::SubjectField::text`].
    pub fn id(&self, dataset: &DatasetId, text: &str) -> SubjectId {
        hmac_sha256(&self.secret, &[dataset.as_str().as_bytes(), &[0], text.as_bytes()])
    }

    /// The key of pseudonyms, which follows from the vault's secret. Its label is no dataset, so it is nobody's id.
    pub fn pseudonym_key(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(hmac_sha256(&self.secret, &[b"concordat/pseudonyms"]))
    }

    /// The keys of subjects, in order; a subject that was never met gets one, which is durable when this returns.
    pub fn keys(&self, ids: &[SubjectId]) -> Result<Vec<SubjectKey>, VaultError> {
        let mut db = self.db();
        let mut keys = Vec::with_capacity(ids.len());
        // One lock of the file for all of them.
        let seen = db.transaction()?;
        {
            let mut find = seen.prepare_cached("SELECT key FROM subject WHERE id = ?1 AND key IS NOT NULL")?;
            for id in ids {
                keys.push(find.query_row([id], |r| r.get(0)).optional()?.map(key_of));
            }
        }
        drop(seen);
        if keys.iter().all(Option::is_some) {
            return Ok(keys.into_iter().flatten().collect());
        }
        let tx = db.transaction()?;
        let mut all = Vec::with_capacity(ids.len());
        {
            let mut put = tx.prepare_cached(
                "INSERT INTO subject (id, key) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET key = coalesce(key, excluded.key)
                 RETURNING key",
            )?;
            for (id, known) in ids.iter().zip(keys) {
                all.push(match known {
                    Some(key) => key,
                    None => put.query_row(params![id, random()?.as_slice()], |r| r.get(0)).map(key_of)?,
                });
            }
        }
        tx.commit()?;
        Ok(all)
    }

    /// How a subject stands.
    pub fn standing(&self, id: &SubjectId) -> Result<Standing, VaultError> {
        let db = self.db();
        let sql = "SELECT key, erased_ms FROM subject WHERE id = ?1";
        let read = |r: &rusqlite::Row<'_>| {
            let key: Option<Vec<u8>> = r.get(0)?;
            Ok(Standing { key: key.map(key_of), erased_ms: r.get::<_, i64>(1)? as u64 })
        };
        Ok(db.query_row(sql, [id], read).optional()?.unwrap_or_default())
    }

    /// Remembers that an erasure has begun.
    pub fn begin_erasing(&self, id: &SubjectId, what: Erasing) -> Result<(), VaultError> {
        let sql = "INSERT INTO subject (id, erasing) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET erasing = ?2";
        self.db().execute(sql, params![id, what as i64])?;
        Ok(())
    }

    /// Erasures that have begun and not ended.
    pub fn erasing(&self) -> Result<Vec<(SubjectId, Erasing)>, VaultError> {
        let db = self.db();
        let mut all = db.prepare("SELECT id, erasing FROM subject WHERE erasing > 0")?;
        let read = |r: &rusqlite::Row<'_>| {
            let what = if r.get::<_, i64>(1)? == Erasing::Traces as i64 { Erasing::Traces } else { Erasing::Records };
            Ok((r.get(0)?, what))
        };
        Ok(all.query_map([], read)?.collect::<Result<_, _>>()?)
    }

    /// Destroys a subject's key. What stays is that this id was erased, and when.
    pub fn destroy(&self, id: &SubjectId, now_ms: u64) -> Result<(), VaultError> {
        let db = self.db();
        let sql = "INSERT INTO subject (id, erased_ms) VALUES (?1, ?2)
                   ON CONFLICT (id) DO UPDATE SET key = NULL, erasing = 0, erased_ms = ?2";
        db.execute(sql, params![id, now_ms as i64])?;
        empty_log(&db)?;
        Ok(())
    }
}

/// The secret behind ids, made together with the vault, mode 0600.
fn secret(path: &Path, is_new: bool) -> Result<Zeroizing<[u8; 32]>, VaultError> {
    let fail = |source| VaultError::File { path: path.to_owned(), source };
    match std::fs::read(path) {
        Ok(bytes) => {
            let bytes = Zeroizing::new(bytes);
            let secret = bytes.as_slice().try_into().map_err(|_| VaultError::Secret(path.to_owned()))?;
            Ok(Zeroizing::new(secret))
        }
        // A vault without its secret would give every subject a second name, and no list would be complete.
        Err(e) if e.kind() == ErrorKind::NotFound && is_new => {
            let secret = random()?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(fail)?;
            file.write_all(secret.as_slice()).and_then(|()| file.sync_all()).map_err(fail)?;
            Ok(secret)
        }
        Err(e) => Err(fail(e)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn stops() -> DatasetId {
        DatasetId::new("ds:police/stops@1").unwrap()
    }

    #[test]
    fn a_subject_keeps_its_key_over_restarts_until_it_is_destroyed() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open(dir.path()).unwrap();
        let ids = ["17-1", "17-2"].map(|s| vault.id(&stops(), s));
        let keys = vault.keys(&ids).unwrap();
        assert_ne!(keys[0], keys[1]);
        assert_ne!(ids[0], vault.id(&DatasetId::new("ds:police/arrests@1").unwrap(), "17-1"));
        drop(vault);
        let vault = Vault::open(dir.path()).unwrap();
        assert_eq!(vault.id(&stops(), "17-1"), ids[0]);
        assert_eq!(vault.keys(&[ids[1], ids[0]]).unwrap(), [keys[1].clone(), keys[0].clone()]);
        vault.begin_erasing(&ids[0], Erasing::Traces).unwrap();
        assert_eq!(vault.erasing().unwrap(), [(ids[0], Erasing::Traces)]);
        assert!(vault.standing(&ids[0]).unwrap().key.is_some(), "begun is not done");
        vault.destroy(&ids[0], 77).unwrap();
        let standing = vault.standing(&ids[0]).unwrap();
        assert!(standing.key.is_none() && standing.erased_ms == 77 && vault.erasing().unwrap().is_empty());
        for entry in std::fs::read_dir(dir.path()).unwrap().flatten() {
            let bytes = std::fs::read(entry.path()).unwrap();
            assert!(!bytes.windows(32).any(|w| w == keys[0].as_slice()), "the key is in {}", entry.path().display());
            assert!(!bytes.windows(4).any(|w| w == b"17-1"), "{} names somebody", entry.path().display());
        }
        let again = vault.keys(&ids[..1]).unwrap();
        assert_ne!(again[0], keys[0], "what comes after has another key");
        assert_eq!(vault.standing(&ids[0]).unwrap().erased_ms, 77);
    }

    #[test]
    fn files_are_their_owners_and_a_lost_secret_is_no_new_one() {
        let dir = tempfile::tempdir().unwrap();
        drop(Vault::open(dir.path()).unwrap());
        for name in ["vault.sqlite", "vault.secret"] {
            let mode = std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        std::fs::remove_file(dir.path().join("vault.secret")).unwrap();
        assert!(matches!(Vault::open(dir.path()), Err(VaultError::File { .. })));
        std::fs::write(dir.path().join("vault.secret"), b"short").unwrap();
        assert!(matches!(Vault::open(dir.path()), Err(VaultError::Secret(_))));
    }
}
