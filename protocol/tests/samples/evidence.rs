//! Checkpoints, epochs, disputes, operations that name a session, proofs of leaves, time-stamps.

use super::node::{key, roots};
use super::{CHAIN, Sample, TICK, ed25519, h, hybrid, id, point, sample, session};
use concordat_protocol::cbor::{Bytes, encode};
use concordat_protocol::evidence::{
    CheckpointView, DisputeView, EpochView, EpochVote, LeavesProof, LogProofs, NamedOp, SignedEpoch, TimeStamp,
    ValidatorView,
};
use concordat_protocol::keys::{Signature, Statement};
use concordat_protocol::node::{LeafProof, key_leaf_key, session_leaf_key};
use concordat_protocol::receipt::{Checkpoint, Cosign, Cosignature};
use concordat_protocol::trust::{EpochBody, KeyLine};

/// A signature of the right shape: by an Ed25519 key, where the ledger asks for a hybrid one.
fn signature(st: Statement, body: &[u8]) -> Signature {
    ed25519(0x61).sign(st, CHAIN, body)
}

pub fn checkpoint() -> Sample<Checkpoint> {
    sample!(Checkpoint { chain: CHAIN.to_owned(), height: 12, tick_ms: TICK + 2, log_size: 6, roots: roots() })
}

/// What the police sign of it.
pub fn cosign() -> Sample<Cosign> {
    sample!(Cosign { checkpoint: checkpoint().value, agency: id("police"), archived_height: 9 })
}

pub fn cosignature() -> Sample<Cosignature> {
    let signature = signature(Statement::Cosign, &encode(&cosign().value));
    sample!(Cosignature { agency: id("police"), archived_height: 9, signature })
}

/// With one cosignature, and with none yet.
pub fn checkpoints() -> Vec<Sample<CheckpointView>> {
    vec![
        sample!(CheckpointView { checkpoint: checkpoint().value, cosignatures: vec![cosignature().value] }),
        sample!(CheckpointView { checkpoint: checkpoint().value, cosignatures: Vec::<Cosignature>::new() }),
    ]
}

/// A query, and a denial that counts several.
pub fn named() -> Vec<Sample<NamedOp>> {
    vec![
        sample!(NamedOp { index: 5_821, session: 70_000, n: 23, kind: 3u64, op_hash: h(120) }),
        sample!(NamedOp { index: 5_822, session: 70_000, n: 0u64, kind: 6u64, op_hash: h(121) }),
    ]
}

fn key_line(cosigns: bool) -> KeyLine {
    let cosign = cosigns.then(|| hybrid(0x63).public().clone());
    KeyLine { agency: id("police"), root: hybrid(0x62).public().clone(), cosign }
}

pub fn epoch_body() -> Sample<EpochBody> {
    sample!(EpochBody { n: 1, from_height: 100, validators_hash: h(122), pq_keys_hash: h(123), prev_hash: h(124) })
}

/// What an agency's `epoch` act carries.
pub fn signed_epoch() -> Sample<SignedEpoch> {
    let body = epoch_body().value;
    let signature = signature(Statement::Epoch, &encode(&body));
    sample!(SignedEpoch { body, signature })
}

/// Epoch 0 has no votes and here no cosigning key; epoch 1 has one of each.
pub fn epochs() -> Vec<Sample<EpochView>> {
    let validator = ValidatorView { agency: id("police"), key: point(0x64), power: 10 };
    let vote = EpochVote { agency: id("police"), signature: signed_epoch().value.signature };
    let first = EpochBody { n: 0, from_height: 1, prev_hash: [0; 32], ..epoch_body().value };
    vec![
        sample!(EpochView {
            body: first,
            validators: vec![validator.clone()],
            keys: vec![key_line(false)],
            votes: Vec::<EpochVote>::new()
        }),
        sample!(EpochView {
            body: epoch_body().value,
            validators: vec![validator],
            keys: vec![key_line(true)],
            votes: vec![vote]
        }),
    ]
}

pub fn dispute() -> Sample<DisputeView> {
    sample!(DisputeView { reference: 5_821, agency: id("court"), reason: h(125), tick_ms: TICK + 3 })
}

/// A release key and a session, each with its path.
pub fn leaves() -> Sample<LeavesProof> {
    let leaf = |key: Vec<u8>, value: Vec<u8>, path| LeafProof {
        key: key.into(),
        value: value.into(),
        index: 1,
        size: 2,
        path,
    };
    sample!(LeavesProof {
        height: 12,
        roots: roots(),
        keys: vec![leaf(key_leaf_key(&key().key.key_id()), encode(&key()), vec![h(126)])],
        sessions: vec![leaf(session_leaf_key(70_000), encode(&session::leaf().value), vec![h(127)])],
    })
}

/// An entry's leaf with a path; the value is filler.
pub fn log_proofs() -> Sample<LogProofs> {
    let entry = LeafProof { key: vec![0; 8].into(), value: vec![0x80].into(), index: 0, size: 2, path: vec![h(128)] };
    sample!(LogProofs { height: 12, roots: roots(), entries: vec![entry] })
}

/// The token is filler.
pub fn time_stamp() -> Sample<TimeStamp> {
    sample!(TimeStamp { checkpoint: checkpoint().value, token: Bytes(vec![0x30, 0x03, 0x02, 0x01, 0x00]) })
}
