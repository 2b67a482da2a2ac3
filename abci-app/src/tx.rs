//! A transaction, read once: decoded, hashed, and its signature remembered once it was verified.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use concordat_protocol::acts::Act;
use concordat_protocol::cbor;
use concordat_protocol::codes;
use concordat_protocol::hash::{Hash, sha256};
use concordat_protocol::keys::{KeyId, PublicKey, Signature, Statement, Suite};
use concordat_protocol::limits::{ACT_BYTES_MAX, BATCH_OPS_MAX, TX_BYTES_MAX};
use concordat_protocol::ops::{Batch, Tx, batch_hash};
use concordat_protocol::receipt::Cosign;

/// A decoded transaction.
#[derive(Debug)]
pub enum Content {
    /// Ledger time.
    Tick(u64),
    /// Operations of one writer.
    Batch(Box<BatchTx>),
    /// A decision of an agency.
    Act(Box<ActTx>),
    /// An agency's signature on a checkpoint.
    Cosign(Box<CosignTx>),
    /// Not to be read, with the code that says why.
    Bad(u16),
}

/// A batch with what is computed from it once.
#[derive(Debug)]
pub struct BatchTx {
    /// The batch.
    pub batch: Batch,
    /// Its hash: what the next one names.
    pub hash: Hash,
    /// Hashes of its operations.
    pub op_hashes: Vec<Hash>,
    body: Vec<u8>,
    signature: Signature,
}

/// An act with what is computed from it once.
#[derive(Debug)]
pub struct ActTx {
    /// The act.
    pub act: Act,
    /// Its canonical bytes.
    pub body: Vec<u8>,
    /// Its hash.
    pub hash: Hash,
    /// Its signature.
    pub signature: Signature,
}

/// A cosignature.
#[derive(Debug)]
pub struct CosignTx {
    /// What is signed.
    pub cosign: Cosign,
    /// Its signature.
    pub signature: Signature,
    body: Vec<u8>,
}

/// A transaction, read once.
#[derive(Debug)]
pub struct Parsed {
    /// The bytes as they stand in the block.
    pub bytes: Bytes,
    /// SHA-256 of the bytes.
    pub hash: Hash,
    /// What they say.
    pub content: Content,
    verified: OnceLock<(KeyId, bool)>,
}

/// Where a transaction belongs in a block (PROTOCOL 3, order in a block): class, then agency or writer, key, counter
/// or first sequence number, hash.
pub type Place = (u8, String, [u8; 16], u64, Hash);

impl Parsed {
    /// Reads a transaction; one that cannot be read becomes [`Content::Bad`].
    pub fn read(bytes: Bytes) -> Arc<Self> {
        let hash = sha256(&[&bytes]);
        let content = read_content(&bytes).unwrap_or_else(Content::Bad);
        Arc::new(Self { bytes, hash, content, verified: OnceLock::new() })
    }

    /// Whether the transaction's signature is this key's. The answer for the first key asked about is remembered.
    pub fn signed_by(&self, id: &KeyId, key: &PublicKey) -> bool {
        let verify = || match &self.content {
            Content::Batch(b) => {
                key.verify_classical(Statement::TxBatch, &b.batch.chain, &b.body, &b.signature).is_ok()
            }
            Content::Act(a) => key.verify_classical(Statement::Act, &a.act.chain, &a.body, &a.signature).is_ok(),
            Content::Cosign(c) => {
                key.verify_classical(Statement::Cosign, &c.cosign.checkpoint.chain, &c.body, &c.signature).is_ok()
            }
            Content::Tick(_) | Content::Bad(_) => false,
        };
        match self.verified.get() {
            Some((known, good)) if known == id => *good,
            Some(_) => verify(),
            None => self.verified.get_or_init(|| (*id, verify())).1,
        }
    }

    /// Where the transaction belongs in a block; `None` for one that belongs in none.
    pub fn place(&self) -> Option<Place> {
        match &self.content {
            Content::Tick(_) => Some((0, String::new(), [0; 16], 0, self.hash)),
            Content::Act(a) => {
                let class = if a.act.body.is_urgent() { 1 } else { 2 };
                Some((class, a.act.agency.to_string(), a.act.key_id.0, a.act.counter, self.hash))
            }
            Content::Batch(b) => Some((3, b.batch.writer.to_string(), [0; 16], b.batch.first_seq, self.hash)),
            Content::Cosign(c) => {
                Some((4, c.cosign.agency.to_string(), [0; 16], c.cosign.checkpoint.height, self.hash))
            }
            Content::Bad(_) => None,
        }
    }

    /// Bytes the transaction takes of a block's size: tag, length and itself.
    pub fn block_size(&self) -> usize {
        block_size(self.bytes.len())
    }
}

/// `1 + varint(len) + len`: what a transaction of `len` bytes takes in CometBFT's count.
pub fn block_size(len: usize) -> usize {
    let bits = usize::BITS - (len | 1).leading_zeros();
    1 + (bits as usize).div_ceil(7) + len
}

fn read_content(bytes: &[u8]) -> Result<Content, u16> {
    if bytes.len() > TX_BYTES_MAX {
        return Err(codes::TOO_LARGE);
    }
    match cbor::decode::<Tx>(bytes).map_err(|e| e.code())? {
        Tx::Tick { ms } => Ok(Content::Tick(ms)),
        Tx::Batch { body, signature } => {
            let batch: Batch = cbor::decode(&body).map_err(|e| e.code())?;
            if batch.ops.len() > BATCH_OPS_MAX {
                return Err(codes::TOO_LARGE);
            }
            let op_hashes = batch.ops.iter().map(concordat_protocol::ops::Op::hash).collect();
            let hash = batch_hash(&body);
            let signature =
                Signature { suite: Suite::Ed25519, ed25519: signature.to_vec().into(), pq: Vec::new().into() };
            Ok(Content::Batch(Box::new(BatchTx { batch, hash, op_hashes, body: body.0, signature })))
        }
        Tx::Act { body, signature } => {
            if body.len() > ACT_BYTES_MAX {
                return Err(codes::TOO_LARGE);
            }
            let act: Act = cbor::decode(&body).map_err(|e| e.code())?;
            let hash = sha256(&[&body]);
            Ok(Content::Act(Box::new(ActTx { act, body: body.0, hash, signature })))
        }
        Tx::Cosign { body, signature } => {
            let cosign: Cosign = cbor::decode(&body).map_err(|e| e.code())?;
            Ok(Content::Cosign(Box::new(CosignTx { cosign, signature, body: body.0 })))
        }
    }
}

/// The transaction that carries a tick.
pub fn tick_tx(ms: u64) -> Bytes {
    Bytes::from(cbor::encode(&Tx::Tick { ms }))
}
