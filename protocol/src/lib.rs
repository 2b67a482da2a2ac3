//! Concordat's protocol: ids, bytes, signatures, trees, messages, operations, agreements as data, receipts and their
//! offline verifier.
//!
//! Nothing here reads a clock, a file or a socket. Verification is pure Rust; the feature `node` adds signing and
//! sealing, the feature `verifier` adds post-quantum and CometBFT verification. `docs/PROTOCOL.md` has the rules.

pub mod access;
pub mod acts;
pub mod c2sp;
pub mod cbor;
mod cbor_macros;
pub mod codes;
pub mod evidence;
pub mod hash;
pub mod ids;
pub mod keys;
pub mod leaves;
pub mod limits;
pub mod message;
pub mod node;
pub mod ops;
pub mod receipt;
pub mod runs;
pub mod seal;
pub mod session;
pub mod subscribe;
pub mod terms;
pub mod tree;
pub mod trust;
#[cfg(feature = "verifier")]
pub mod verify;
