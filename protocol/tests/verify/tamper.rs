//! What was changed is refused: every byte, and every field taken from another valid receipt.

use crate::world::{Spec, make, trust, vals};
use concordat_protocol::cbor::encode;
use concordat_protocol::codes::Verdict;
use concordat_protocol::receipt::Receipt;
use concordat_protocol::verify::{Invalid, verify};
use proptest::prelude::*;
use std::sync::OnceLock;

/// Changes the first receipt, by what the second holds.
type Splice = fn(&mut Receipt, &Receipt);

fn refused(r: &Receipt) -> Invalid {
    verify(&encode(r), &trust(), None).expect_err("a spliced receipt must be refused")
}

/// Tries these bytes with every mask, and gives the checks that refused.
fn flip(good: &[u8], at: impl Iterator<Item = usize>, masks: &[u8]) -> std::collections::BTreeMap<&'static str, usize> {
    let trust = trust();
    verify(good, &trust, None).unwrap();
    let mut seen = std::collections::BTreeMap::new();
    let mut bytes = good.to_vec();
    for i in at {
        for mask in masks {
            bytes[i] ^= mask;
            match verify(&bytes, &trust, None) {
                Ok(_) => panic!("byte {i} of {} flipped by {mask:#x} and still valid", bytes.len()),
                Err(e) => *seen.entry(e.check).or_insert(0) += 1,
            }
            bytes[i] ^= mask;
        }
    }
    seen
}

#[test]
fn every_flipped_byte_is_refused() {
    let good = make(&Spec::default()).bytes();
    let seen = flip(&good, 0..good.len(), &[0x01, 0x80]);
    for check in [
        "decode",
        "chain",
        "header",
        "validators",
        "commit",
        "app_hash",
        "log_path",
        "op_hash",
        "commitment",
        "session",
    ] {
        assert!(seen.contains_key(check), "no byte led to {check}: {seen:?}");
    }
    for check in ["request_signature", "release_key", "release_signature"] {
        assert!(seen.contains_key(check), "no byte led to {check}: {seen:?}");
    }
}

#[test]
fn every_flipped_byte_of_a_commit_with_an_absent_vote_is_refused() {
    let partial = Spec { signers: vec![0, 2, 3], ..Spec::default() };
    let good = make(&partial).bytes();
    flip(&good, 0..good.len(), &[0x10]);
}

/// A final receipt is a provisional one with the checkpoint at its end; of the long signatures every eighth byte is tried.
#[test]
fn flipped_bytes_of_a_checkpoint_are_refused() {
    let provisional = make(&Spec::default()).bytes();
    let made = make(&Spec { cosigners: vec!["court", "police", "transport"], ..Spec::default() }).bytes();
    let from = provisional.len() - 1;
    assert_eq!(made[..from], provisional[..from]);
    let seen = flip(&made, (from..from + 60).chain((from + 60..made.len()).step_by(8)), &[0x10]);
    assert!(seen["checkpoint"] > 1_200, "{seen:?}");
}

#[test]
fn every_field_of_another_valid_receipt_is_refused_by_its_own_check() {
    let cosigners = vec!["court", "police", "transport"];
    let a = make(&Spec { cosigners: cosigners.clone(), ..Spec::default() }).receipt();
    let other = Spec { seed: "b", session: 8, n: 4, index: 31, log_size: 45, height: 14, cosigners, ..Spec::default() };
    let b = make(&other).receipt();
    for r in [&a, &b] {
        verify(&encode(r), &trust(), None).unwrap();
    }
    let splices: &[(&str, Splice)] = &[
        ("log_path", |a, b| a.index = b.index),
        ("log_path", |a, b| a.entry = b.entry.clone()),
        ("log_path", |a, b| a.entry.tick_ms = b.entry.tick_ms + 1),
        ("log_path", |a, b| a.log_path = b.log_path.clone()),
        ("app_hash", |a, b| a.roots = b.roots.clone()),
        ("app_hash", |a, b| a.roots.runs = b.roots.log),
        ("op_hash", |a, b| a.op = b.op.clone()),
        ("commitment", |a, b| a.openings = b.openings.clone()),
        ("session", |a, b| a.request = b.request.clone()),
        ("request_signature", |a, _| req(a).request.purpose = "purp:planning".into()),
        ("request_signature", |a, b| req(a).path = b.request.clone().unwrap().path),
        ("request_signature", |a, b| req(a).signature = b.request.clone().unwrap().signature),
        ("session", |a, b| req(a).session = b.request.clone().unwrap().session),
        ("session", |a, b| req(a).session_path = b.request.clone().unwrap().session_path),
        ("release_signature", |a, b| a.release.as_mut().unwrap().signature = b.release.clone().unwrap().signature),
        ("release_key", |a, b| a.release = b.release.clone()),
        ("release_key", |a, b| a.release.as_mut().unwrap().key_path = b.release.clone().unwrap().key_path),
        ("release_key", |a, _| a.release.as_mut().unwrap().key.revoked_ms = 1),
        ("app_hash", |a, b| a.header = b.header.clone()),
        ("checkpoint", |a, b| a.checkpoint = b.checkpoint.clone()),
        ("log_path", |a, b| {
            (a.header, a.validators, a.roots) = (b.header.clone(), b.validators.clone(), b.roots.clone())
        }),
        ("op_hash", |a, b| {
            (a.header, a.roots) = (b.header.clone(), b.roots.clone());
            (a.index, a.entry, a.log_path) = (b.index, b.entry.clone(), b.log_path.clone());
        }),
        ("chain", |a, _| a.chain = "another-chain".into()),
        ("decode", |a, _| a.version = 2),
    ];
    for (i, (check, splice)) in splices.iter().enumerate() {
        let mut r = a.clone();
        splice(&mut r, &b);
        assert_ne!(r, a, "splice {i} changes nothing");
        let e = refused(&r);
        assert_eq!(e.check, *check, "splice {i}: {e}");
    }
}

fn req(r: &mut Receipt) -> &mut concordat_protocol::receipt::RequestPart {
    r.request.as_mut().unwrap()
}

#[test]
fn a_refused_operation_cannot_be_shown_as_accepted() {
    let spec = Spec { verdict: Verdict::Refused, code: 405, ..Spec::default() };
    let mut r = make(&spec).receipt();
    let said = verify(&encode(&r), &trust(), None).unwrap();
    assert_eq!((said.verdict, said.code, said.accepted()), (Verdict::Refused, 405, false));
    assert!(said.checks.iter().any(|c| c.name == "verdict" && c.sentence.contains("did not accept")));
    r.entry.verdict = Verdict::Accepted;
    assert_eq!(refused(&r).check, "log_path");
    r.entry.code = 0;
    assert_eq!(refused(&r).check, "log_path");
}

#[test]
fn validators_of_ones_own_making_are_refused() {
    let e = verify(&make(&Spec { vals: vals("forger"), ..Spec::default() }).bytes(), &trust(), None).unwrap_err();
    assert_eq!(e.check, "validators", "{e}");
    // The city's validators beside a header of the forger's.
    let mut r = make(&Spec { vals: vals("forger"), ..Spec::default() }).receipt();
    r.validators = make(&Spec::default()).receipt().validators;
    assert_eq!(refused(&r).check, "validators");
}

#[test]
fn an_altered_app_hash_without_new_votes_is_refused() {
    let good = make(&Spec::default()).receipt();
    let forged = make(&Spec { verdict: Verdict::Refused, ..Spec::default() }).receipt();
    let (old, new) = [&good, &forged].map(|r| concordat_protocol::receipt::app_hash(&r.roots)).into();
    let mut r = good;
    let at = r.header.0.windows(32).position(|w| w == old).unwrap();
    r.header.0[at..at + 32].copy_from_slice(&new);
    (r.entry, r.roots) = (forged.entry, forged.roots);
    let e = refused(&r);
    assert_eq!(e.check, "commit", "{e}");
}

fn sample() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| make(&Spec::default()).bytes())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(r) = Receipt::from_bytes(&bytes) {
            prop_assert_eq!(encode(&r), bytes.clone());
        }
        prop_assert!(verify(&bytes, &trust(), None).is_err());
    }

    /// Cut out, put in, overwrite: a receipt that is not the one that was made is refused.
    #[test]
    fn patched_receipts_are_refused(at: prop::sample::Index, cut in 0..40usize, with in proptest::collection::vec(any::<u8>(), 0..40)) {
        let mut bytes = sample().to_vec();
        let from = at.index(bytes.len());
        let to = (from + cut).min(bytes.len());
        bytes.splice(from..to, with);
        if let Ok(r) = Receipt::from_bytes(&bytes) {
            prop_assert_eq!(&encode(&r), &bytes);
        }
        prop_assume!(bytes != sample());
        prop_assert!(verify(&bytes, &trust(), None).is_err());
    }

    /// The protobuf parts decode what they are given without panic, whatever it is.
    #[test]
    fn arbitrary_headers_never_panic(header in proptest::collection::vec(any::<u8>(), 0..120), validators in proptest::collection::vec(any::<u8>(), 0..120)) {
        let mut r = Receipt::from_bytes(sample()).unwrap();
        (r.header.0, r.validators.0) = (header, validators);
        prop_assert!(verify(&encode(&r), &trust(), None).is_err());
    }
}
