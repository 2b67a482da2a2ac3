//! The server's errors, and names of collections and indexes.

use mongodb::bson::{Bson, Document};
use mongodb::error::{Error, ErrorKind, WriteFailure};

use super::filter;
use crate::holding::{DatasetSpec, HoldingError};

/// The server's code of a key that is there already.
pub(super) const DUPLICATE: i32 = 11_000;

/// Turns the server's answer into ours.
pub(super) fn told(e: Error) -> HoldingError {
    let (code, text) = match e.kind.as_ref() {
        ErrorKind::Command(c) => (c.code, c.message.clone()),
        ErrorKind::Write(WriteFailure::WriteError(w)) => (w.code, w.message.clone()),
        ErrorKind::Authentication { .. } => return HoldingError::Unreachable("name or password was refused".into()),
        ErrorKind::Io(io) => return HoldingError::Unreachable(io.to_string()),
        ErrorKind::ServerSelection { .. } | ErrorKind::DnsResolve { .. } | ErrorKind::ConnectionPoolCleared { .. } => {
            return HoldingError::Unreachable("no server answered in time".into());
        }
        ErrorKind::InvalidArgument { message, .. } => return HoldingError::Setup(message.clone()),
        _ => (0, e.to_string()),
    };
    match code {
        50 | 262 => HoldingError::Timeout,
        13 | 18 => HoldingError::Access(text),
        14_031 => HoldingError::DiskFull,
        _ => HoldingError::Store(text),
    }
}

pub(super) fn is_duplicate(e: &Error) -> bool {
    matches!(e.kind.as_ref(), ErrorKind::Write(WriteFailure::WriteError(w)) if w.code == DUPLICATE)
}

/// A collection's name: the dataset's, as far as it reads, and a hash that keeps names apart.
pub(super) fn collection(id: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let hash = concordat_protocol::hash::sha256(&[id.as_bytes()]);
    format!("{}_{}", id.chars().take(60).map(plain).collect::<String>(), hex::encode(&hash[..6]))
}

/// The indexes of a collection: as declared, and the key's fields, since filters name fields.
pub(super) fn indexes(spec: &DatasetSpec) -> Vec<Document> {
    let mut lists = spec.indexes.clone();
    if !lists.iter().any(|l| l.first() == spec.key.first()) {
        lists.push(spec.key.clone());
    }
    lists.sort();
    lists.dedup();
    lists.iter().map(|l| l.iter().map(|f| (filter::path(f), Bson::Int32(1))).collect()).collect()
}
