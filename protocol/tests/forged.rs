//! Whatever is changed in a signed statement or its signature, it no longer verifies.
#![cfg(feature = "node")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod samples;

use concordat_protocol::cbor::{decode, encode};
use concordat_protocol::keys::{PublicKey, Signature, SigningKey, Statement, Suite, signed_bytes, verify_ed25519};
use concordat_protocol::ops::{Batch, Tx};
use concordat_protocol::session::SignedRequest;
use proptest::prelude::*;
use samples::{CHAIN, acts, ops, session};
use std::sync::LazyLock;

struct Signed {
    key: PublicKey,
    statement: Statement,
    body: Vec<u8>,
    signature: Signature,
}

/// One of each signed statement of these formats; the act by a hybrid key.
static SIGNED: LazyLock<Vec<Signed>> = LazyLock::new(|| {
    let made = |key: SigningKey, statement, body: Vec<u8>| {
        let signature = key.sign(statement, CHAIN, &body);
        key.public().verify_full(statement, CHAIN, &body, &signature).unwrap();
        Signed { key: key.public().clone(), statement, body, signature }
    };
    let approver = samples::hybrid(acts::HYBRID_SEED);
    let act = encode(&acts::act(acts::approve().value, &approver).value);
    let release = || samples::ed25519(session::RELEASE_SEED);
    vec![
        made(samples::ed25519(ops::WRITER_SEED), Statement::TxBatch, encode(&ops::batches()[1].value)),
        made(approver, Statement::Act, act),
        made(samples::ed25519(session::SESSION_SEED), Statement::Request, session::signed()[0].signed_root().unwrap()),
        made(release(), Statement::Release, encode(&session::release().value)),
        made(release(), Statement::Promise, encode(&session::promise().value)),
    ]
});

fn flipped(bytes: &[u8], at: prop::sample::Index, bit: u8) -> Vec<u8> {
    let mut out = bytes.to_vec();
    out[at.index(bytes.len())] ^= 1 << (bit % 8);
    out
}

fn verifies(s: &Signed, statement: Statement, chain: &str, body: &[u8], signature: &Signature) -> bool {
    s.key.verify_full(statement, chain, body, signature).is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_changed_bit_of_statement_or_signature_is_refused(at: prop::sample::Index, bit: u8) {
        for s in SIGNED.iter() {
            prop_assert!(!verifies(s, s.statement, CHAIN, &flipped(&s.body, at, bit), &s.signature));
            let ed25519 = Signature { ed25519: flipped(&s.signature.ed25519, at, bit).into(), ..s.signature.clone() };
            prop_assert!(!verifies(s, s.statement, CHAIN, &s.body, &ed25519));
            prop_assert!(s.key.verify_classical(s.statement, CHAIN, &s.body, &ed25519).is_err());
            if s.key.suite == Suite::Hybrid {
                let pq = Signature { pq: flipped(&s.signature.pq, at, bit).into(), ..s.signature.clone() };
                prop_assert!(!verifies(s, s.statement, CHAIN, &s.body, &pq));
            }
        }
    }

    #[test]
    fn another_statement_chain_or_key_is_refused(chain in "[a-z0-9-]{1,12}", seed: u8) {
        for s in SIGNED.iter() {
            for other in Statement::ALL.iter().filter(|st| **st != s.statement) {
                prop_assert!(!verifies(s, *other, CHAIN, &s.body, &s.signature));
            }
            prop_assert_eq!(verifies(s, s.statement, &chain, &s.body, &s.signature), chain == CHAIN);
            let other = SigningKey::from_seed(s.key.suite, &vec![seed; s.key.suite.seed_len()]).unwrap();
            if *other.public() != s.key {
                let forged = other.sign(s.statement, CHAIN, &s.body);
                prop_assert!(!verifies(s, s.statement, CHAIN, &s.body, &forged));
            }
        }
    }

    /// As a node and an executor do it: from the bytes that travel.
    #[test]
    fn no_changed_transaction_or_request_passes(at: prop::sample::Index, bit: u8) {
        let batch = &SIGNED[0];
        let signature = batch.signature.ed25519.0.as_slice().try_into().unwrap();
        let tx = encode(&Tx::Batch { body: batch.body.clone().into(), signature });
        let taken = |tx: &[u8]| {
            let Ok(Tx::Batch { body, signature }) = decode::<Tx>(tx) else { return false };
            let signed = signed_bytes(Statement::TxBatch, CHAIN, &body);
            decode::<Batch>(&body).is_ok()
                && verify_ed25519(&samples::point(ops::WRITER_SEED), &signed, &signature).is_ok()
        };
        prop_assert!(taken(&tx) && !taken(&flipped(&tx, at, bit)));

        for signed in session::signed() {
            let bytes = encode(&signed);
            let taken = |bytes: &[u8]| {
                let Ok(read) = decode::<SignedRequest>(bytes) else { return false };
                let Ok(root) = read.signed_root() else { return false };
                let message = signed_bytes(Statement::Request, CHAIN, &root);
                verify_ed25519(&samples::point(session::SESSION_SEED), &message, &read.signature).is_ok()
            };
            prop_assert!(taken(&bytes) && !taken(&flipped(&bytes, at, bit)));
        }
    }
}
