//! Requests, tickets, releases and promises (PROTOCOL 5).

use crate::cbor::{self, Bytes};
use crate::hash::{Hash, sha256};
use crate::ids::{AgencyId, DatasetId};
use crate::keys::KeyId;
use crate::{canon_enum, canon_struct, tree};

canon_struct! {
    /// A consumer's request, signed by the session key (statement `request`, over the root of up to 256 requests).
    pub struct Request {
        /// The chain.
        pub chain: String,
        /// The session's number on the ledger.
        pub session: u64,
        /// The request's number in the session, from 1.
        pub n: u64,
        /// Who is asked.
        pub provider: AgencyId,
        /// What is asked about.
        pub dataset: DatasetId,
        /// The clause it relies on; empty where the provider picks the only one that matches.
        pub clause: String,
        /// Purpose, `purp:...`.
        pub purpose: String,
        /// Case reference, or empty.
        pub case: String,
        /// SHA-256 of the query document's bytes (which hold a nonce of 16 random bytes).
        pub query_hash: Hash,
        /// The consumer's X-Wing key that the response is sealed to.
        pub kem_key_id: KeyId,
        /// Last tick at which the provider may record it, milliseconds.
        pub not_after_ms: u64,
    }
}

impl Request {
    /// SHA-256 of the canonical bytes: `request_hash`.
    pub fn hash(&self) -> Hash {
        sha256(&[&cbor::encode(self)])
    }
}

canon_struct! {
    /// A request with the signature that covers it: `signature` is over the tree root of `size` requests.
    pub struct SignedRequest {
        /// Canonical [`Request`] bytes.
        pub request: Bytes,
        /// Position of the request under the signature.
        pub index: u64,
        /// How many requests the signature covers.
        pub size: u64,
        /// RFC 6962 path to the root.
        pub path: Vec<Hash>,
        /// Ed25519 by the session key over the canonical bytes of the root.
        pub signature: [u8; 64],
    }
}

impl SignedRequest {
    /// The canonical bytes that the session key signed: the root as a byte string.
    pub fn signed_root(&self) -> Result<Vec<u8>, tree::TreeError> {
        let leaf = tree::leaf_hash(&self.request);
        let root = tree::root_of_path(&leaf, self.index, self.size, &self.path)?;
        Ok(cbor::encode(&root))
    }
}

canon_struct! {
    /// What the gateway sends to a provider.
    pub struct QueryCall {
        /// The signed request.
        pub signed: SignedRequest,
        /// The query document, JSON: filter, fields, limit, roles and pseudonym of the person, nonce.
        pub query: Bytes,
        /// Goes through all processes' logs.
        pub request_id: String,
    }
}

canon_struct! {
    /// Where the ledger put the operation that covers a release.
    pub struct Ticket {
        /// The chain.
        pub chain: String,
        /// Global index of the operation: `op:<index>`.
        pub log_index: u64,
        /// Height of its block.
        pub height: u64,
        /// [`crate::ops::Op::hash`].
        pub op_hash: Hash,
    }
}

canon_struct! {
    /// What the executor signs with its release key (statement `release`).
    pub struct Release {
        /// The request it answers.
        pub request_hash: Hash,
        /// The operation that records it.
        pub op_hash: Hash,
        /// Root of the released content.
        pub content_root: Hash,
    }
}

canon_struct! {
    /// The released content, sealed to the consumer. `rows` are RFC 8785 JSON objects.
    pub struct Content {
        /// Secret from which the leaves' salts derive.
        pub secret: [u8; 32],
        /// The rows.
        pub rows: Vec<Bytes>,
    }
}

impl Content {
    /// `content_root`: RFC 6962 over salted leaves, the count first, so that even an empty result is salted.
    pub fn root(&self) -> Hash {
        let count = (self.rows.len() as u64).to_be_bytes();
        let salts = crate::leaves::salts(&self.secret, self.rows.len() + 1);
        let values = core::iter::once(&count[..]).chain(self.rows.iter().map(|r| &r.0[..]));
        let leaves: Vec<Hash> = salts.iter().zip(values).map(|(s, v)| tree::leaf_hash(&[&s[..], v].concat())).collect();
        tree::root(&leaves)
    }
}

canon_struct! {
    /// A released response.
    pub struct Released {
        /// Where its record is.
        pub ticket: Ticket,
        /// The operation's canonical bytes.
        pub op: Bytes,
        /// Opened and hidden leaves of the operation's commitment, canonical [`crate::leaves::Redacted`] bytes.
        pub openings: Bytes,
        /// The executor's signature over [`Release`].
        pub release_signature: Bytes,
        /// The key that made it.
        pub release_key: KeyId,
        /// The clause that decided.
        pub clause: String,
        /// X-Wing encapsulation of the session.
        pub encapsulation: Bytes,
        /// Sealed canonical [`Content`].
        pub sealed: Bytes,
    }
}

canon_struct! {
    /// Why a request was not answered. Never says whether a row exists.
    pub struct Denied {
        /// Code of [`crate::codes`], 0 where the provider's policy decided.
        pub code: u16,
        /// Stable word of the reason.
        pub reason: String,
        /// One sentence for people.
        pub detail: String,
        /// The clause, or empty.
        pub clause: String,
        /// The clause's sentence, or empty.
        pub clause_text: String,
        /// The first missing term, or empty.
        pub missing: String,
        /// Clauses that would do, where the request must name one.
        pub clauses: Vec<String>,
        /// The denial's own entry, where it has one.
        pub operation: Option<u64>,
        /// Whether the same request may succeed later.
        pub retry: u8,
    }
}

canon_struct! {
    /// A write that was carried out: its intent, and the outcome that stands on the ledger after it.
    pub struct Written {
        /// The intent, opened and signed as a release is. Its sealed content is one row that says what was done.
        pub intent: Released,
        /// Global index of the outcome.
        pub outcome_index: u64,
        /// Height of its block.
        pub outcome_height: u64,
        /// The outcome's canonical bytes.
        pub outcome: Bytes,
        /// Leaves of its commitment, canonical [`crate::leaves::Redacted`] bytes.
        pub outcome_openings: Bytes,
    }
}

canon_struct! {
    /// A provider's promise to record what it released under bounded evidence (statement `promise`, by the release key).
    /// It has one field more than a [`Promise`], so that neither passes for the other.
    pub struct ReleasePromise {
        /// The chain.
        pub chain: String,
        /// Who promises.
        pub provider: AgencyId,
        /// The request's session.
        pub session: u64,
        /// The request's number in it.
        pub n: u64,
        /// Handle of the clause.
        pub handle: u64,
        /// The request.
        pub request_hash: Hash,
        /// The operation that will record the release.
        pub op_hash: Hash,
        /// Newest tick plus monotonic time since, milliseconds; taken before the first byte left.
        pub delivered_ms: u64,
        /// The clause's bound, milliseconds.
        pub max_lag_ms: u64,
    }
}

canon_struct! {
    /// A response that was released before its record (bounded evidence).
    pub struct Promised {
        /// The response; its ticket names the operation, at index and height 0.
        pub released: Released,
        /// Canonical [`ReleasePromise`] bytes.
        pub promise: Bytes,
        /// The executor's signature over it, 64 bytes, by the key that signed the release.
        pub promise_signature: Bytes,
    }
}

canon_enum! {
    /// The provider's answer to a [`QueryCall`].
    pub enum QueryReply {
        /// Data, after its record.
        1 => Released { body: Released },
        /// No data.
        2 => Denied { body: Denied },
        /// A write, after its outcome.
        3 => Written { body: Written },
        /// Data before its record, with the promise that the record follows.
        4 => Promised { body: Promised },
    }
}

canon_struct! {
    /// A provider's promise to anchor a bounded delivery (statement `promise`, by the release key).
    pub struct Promise {
        /// The chain.
        pub chain: String,
        /// Who promises.
        pub provider: AgencyId,
        /// The subscription's number (the handle of its clause for the default subscription).
        pub subscription: u64,
        /// First delivered envelope, numbered from 1 in the subscription.
        pub first_sub_seq: u64,
        /// Last delivered envelope.
        pub last_sub_seq: u64,
        /// SHA-256 of the redacted envelope's canonical bytes.
        pub root: Hash,
        /// Newest tick plus monotonic time since, milliseconds.
        pub delivered_ms: u64,
        /// The agreement's bound, milliseconds.
        pub max_lag_ms: u64,
    }
}

canon_struct! {
    /// One message of a feed stream: a redacted envelope, sealed, with its promise.
    pub struct FeedItem {
        /// Canonical [`Promise`] bytes.
        pub promise: Bytes,
        /// The executor's signature over it.
        pub promise_signature: Bytes,
        /// The key that made it.
        pub release_key: KeyId,
        /// X-Wing encapsulation of the subscription's epoch.
        pub encapsulation: Bytes,
        /// Number of the sealing key in the epoch.
        pub seal_n: u64,
        /// Sealed canonical redacted envelope.
        pub sealed: Bytes,
    }
}
