//! Writing one record: what the writer expects to find, and how versions are told apart.

use concordat_protocol::hash::{Hash, sha256};
use serde_json::{Map, Value};

use super::HoldingError;

/// The version of a record: a hash of its content, so that equal content is one version on every
/// store and no store has to keep it. Shown as 32 hex digits (an `ETag`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(String);

impl Version {
    /// The version of a row as stores keep it ([`super::Checked::doc`]).
    #[must_use]
    pub fn of(doc: &str) -> Self {
        Self(hex::encode(&digest(doc)[..16]))
    }

    /// The version of a whole row.
    ///
    /// # Errors
    /// It is no row of the dataset.
    pub fn of_row(spec: &super::DatasetSpec, row: &Map<String, Value>) -> Result<Self, HoldingError> {
        Ok(Self::of(&super::row::check_row(spec, 0, row)?.doc))
    }

    /// Reads a version as it was shown; another text is a version that no record has.
    #[must_use]
    pub fn read(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// SHA-256 of a row's content as stores keep it; a [`Version`] is its first half.
#[must_use]
pub fn digest(doc: &str) -> Hash {
    sha256(&[b"record-version/", doc.as_bytes()])
}

/// What a writer expects to find under the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Anything or nothing.
    Any,
    /// No record (`If-None-Match: *`).
    Absent,
    /// A record, whatever its version (`If-Match: *`).
    Present,
    /// A record of this version (`If-Match: "…"`).
    Version(Version),
}

impl Expect {
    /// Checks what is there: `found` is the kept text of the row, if there is one.
    pub(crate) fn check(&self, key: &str, found: Option<&str>) -> Result<(), HoldingError> {
        self.fits(key, found.map(Version::of))
    }

    /// Checks the version that is there.
    pub(crate) fn fits(&self, key: &str, found: Option<Version>) -> Result<(), HoldingError> {
        let fits = match (self, &found) {
            (Self::Any, _) | (Self::Absent, None) | (Self::Present, Some(_)) => true,
            (Self::Version(wanted), Some(v)) => v == wanted,
            _ => false,
        };
        if fits { Ok(()) } else { Err(HoldingError::Conflict { key: key.to_owned(), found }) }
    }
}

/// What a write did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The key text.
    pub key: String,
    /// The version before, none where there was no record.
    pub before: Option<Version>,
    /// The version now, none where the record is gone.
    pub now: Option<Version>,
}

/// A write that is carried out once, however often it is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Once {
    /// Names it: the hash of the intent on the ledger.
    pub id: Hash,
    /// The key text of the record.
    pub key: String,
    /// The record from now on; none deletes it.
    pub row: Option<Map<String, Value>>,
    /// What has to be there.
    pub expect: Expect,
}

/// What became of a write that is carried out once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is done, now or before.
    Done,
    /// It is not done and never will be: something else was there, or it was forbidden.
    Void,
}
