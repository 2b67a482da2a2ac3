//! What an agency's broker asks its own executor about subjects: canonical CBOR over a Unix socket of the node's folder,
//! so that no person's id goes over the streams.

use concordat_protocol::cbor::{self, Bytes, Canon};
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::DatasetId;
use concordat_protocol::leaves::Redacted;
use concordat_protocol::tree::SortedProof;
use concordat_protocol::{canon_enum, canon_struct};
use std::io::{Error, ErrorKind};
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Longest message, bytes.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

canon_struct! {
    /// An operation that the ledger's runs name.
    pub struct OpAsked {
        /// Global index.
        pub index: u64,
        /// Hash of the operation.
        pub op_hash: Hash,
    }
}

canon_struct! {
    /// What the provider kept of an operation.
    pub struct OpTold {
        /// Canonical operation; empty where the provider does not know it.
        pub op: Bytes,
        /// Leaves of the commitment: all, or `open_by` alone while the access is sealed; none once erased.
        pub openings: Option<Redacted>,
        /// For bulk tags: the subject in or out.
        pub bulk: Option<SortedProof>,
        /// The clause's sentence.
        pub sentence: String,
        /// 1: accepted and never released.
        pub withheld: u8,
    }
}

canon_enum! {
    /// A question.
    pub enum Ask {
        /// The subject's key; one that was never met gets one.
        1 => Key { dataset: DatasetId, subject: String },
        /// What was kept of operations, for this subject.
        2 => Details { dataset: DatasetId, subject: String, ops: Vec<OpAsked> },
        /// Forget the subject; with 1 the held records stay.
        3 => Erase { dataset: DatasetId, subject: String, keep_records: u8 },
    }
}

canon_enum! {
    /// An answer.
    pub enum Told {
        /// It cannot be done.
        0 => Refused { code: String, detail: String },
        /// The subject's id in the stores, its key, and when it was erased last (0: never).
        1 => Key { id: [u8; 32], key: [u8; 32], erased_ms: u64 },
        /// In the order asked.
        2 => Details { body: Vec<OpTold> },
        /// Recorded on the ledger as erased: how many operations; removed: how many records.
        3 => Erased { id: [u8; 32], operations: Vec<u64>, records: u64 },
    }
}

/// Writes one message.
pub(super) async fn send<T: Canon>(stream: &mut UnixStream, message: &T) -> Result<(), Error> {
    let body = cbor::encode(message);
    stream.write_u32(body.len() as u32).await?;
    stream.write_all(&body).await?;
    stream.flush().await
}

/// Reads one message.
pub(super) async fn receive<T: Canon>(stream: &mut UnixStream) -> Result<T, Error> {
    let len = stream.read_u32().await? as usize;
    if len > MESSAGE_BYTES_MAX {
        return Err(Error::new(ErrorKind::InvalidData, format!("a message of {len} bytes")));
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await?;
    cbor::decode(&body).map_err(|e| Error::new(ErrorKind::InvalidData, e.to_string()))
}

/// Asks the executor whose socket lies at `path`.
pub async fn ask(path: &Path, question: &Ask) -> Result<Told, Error> {
    let mut stream = UnixStream::connect(path).await?;
    send(&mut stream, question).await?;
    receive(&mut stream).await
}
