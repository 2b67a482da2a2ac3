#![allow(clippy::unwrap_used, clippy::expect_used)]
use super::*;
use crate::cbor::decode;
use proptest::prelude::*;

fn point(hex_text: &str) -> PublicKey {
    PublicKey { suite: Suite::Ed25519, ed25519: Bytes(hex::decode(hex_text).unwrap()), pq: Bytes::default() }
}

#[test]
fn the_libraries_of_this_build_may_be_used() {
    self_test().unwrap();
}

#[test]
fn signed_bytes_are_the_published_form() {
    assert_eq!(signed_bytes(Statement::TxBatch, "city-1", &[0x80]), b"concordat/v1/txbatch\0city-1\0\x80");
    let names: Vec<&str> = Statement::ALL.iter().map(|s| s.name()).collect();
    let published = "txbatch act envelope request release promise ack cosign epoch complaint";
    assert_eq!(names.join(" "), published);
}

/// Points that a lax verifier takes: the eight of small order, in canonical and other encodings, and y at or above p.
#[test]
fn weak_and_non_canonical_points_are_refused() {
    for bad in [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ] {
        assert!(matches!(point(bad).check(), Err(KeyError::WeakKey(_))), "{bad}");
        assert!(PublicKey::from_text(&point(bad).to_text()).is_err());
    }
    // y = p + 3 and y = 3 are one point of full order: only the second may name it.
    let three = "0300000000000000000000000000000000000000000000000000000000000000";
    point(three).check().unwrap();
    assert!(point("f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f").check().is_err());
}

#[test]
fn lengths_belong_to_the_suite() {
    let key = |suite, ed, pq| PublicKey { suite, ed25519: Bytes(vec![3; ed]), pq: Bytes(vec![0; pq]) };
    for (suite, ed, pq) in [
        (Suite::Ed25519, 31, 0),
        (Suite::Ed25519, 32, 1),
        (Suite::MlDsa65, 32, MLDSA65_KEY_LEN),
        (Suite::MlDsa65, 0, 0),
        (Suite::Hybrid, 32, 0),
        (Suite::Hybrid, 0, MLDSA65_KEY_LEN),
        (Suite::XWing, 0, 1215),
    ] {
        let error = key(suite, ed, pq).check().unwrap_err();
        assert!(matches!(error, KeyError::KeyLength { .. }), "{error}");
        assert_eq!(error.code(), codes::BAD_KEY);
    }
}

#[test]
fn ids_and_keys_read_back() {
    let key = point("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    assert_eq!(PublicKey::from_text(&key.to_text()).unwrap(), key);
    assert_eq!(key.key_id().to_string().parse::<KeyId>().unwrap(), key.key_id());
    assert!("00".parse::<KeyId>().is_err());
    assert!(PublicKey::from_text("zz").is_err());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120), pk: [u8; 32], sig: [u8; 32], s: [u8; 32]) {
        if let Ok(k) = decode::<PublicKey>(&bytes) { let _ = k.check(); prop_assert_eq!(encode(&k), bytes.clone()); }
        if let Ok(s) = decode::<Signature>(&bytes) { prop_assert_eq!(encode(&s), bytes.clone()); }
        let mut both = [0; 64];
        both[..32].copy_from_slice(&sig);
        both[32..].copy_from_slice(&s);
        prop_assert!(verify_ed25519(&pk, &bytes, &both).is_err());
    }
}

#[cfg(feature = "node")]
mod signing {
    use super::*;

    fn keys() -> Vec<SigningKey> {
        [Suite::Ed25519, Suite::MlDsa65, Suite::Hybrid].map(|s| SigningKey::generate(s).unwrap()).into()
    }

    #[test]
    fn every_suite_signs_and_verifies() {
        for key in keys() {
            let sig = key.sign(Statement::Act, "city", b"\x80");
            key.public().verify_full(Statement::Act, "city", b"\x80", &sig).unwrap();
            let classical = key.public().verify_classical(Statement::Act, "city", b"\x80", &sig);
            assert_eq!(classical.is_ok(), key.public().suite != Suite::MlDsa65);
            assert_eq!(decode::<Signature>(&encode(&sig)).unwrap(), sig);
        }
    }

    /// Forged ones: another statement, chain, content, key or suite, and every part of the signature flipped.
    #[test]
    fn nothing_else_verifies() {
        let all = keys();
        for key in &all {
            let (public, sig) = (key.public(), key.sign(Statement::Act, "city", b"\x80"));
            assert!(public.verify_full(Statement::Ack, "city", b"\x80", &sig).is_err());
            assert!(public.verify_full(Statement::Act, "citx", b"\x80", &sig).is_err());
            assert!(public.verify_full(Statement::Act, "city", b"\x81", &sig).is_err());
            let other = SigningKey::generate(public.suite).unwrap();
            assert!(other.public().verify_full(Statement::Act, "city", b"\x80", &sig).is_err());
            for wrong in all.iter().filter(|k| k.public().suite != public.suite) {
                assert!(matches!(
                    wrong.public().verify_full(Statement::Act, "city", b"\x80", &sig),
                    Err(KeyError::Suite { .. })
                ));
            }
            for at in [0, 33, 63] {
                let mut forged = sig.clone();
                if let Some(byte) = forged.ed25519.0.get_mut(at) {
                    *byte ^= 1
                } else {
                    continue;
                }
                let error = public.verify_full(Statement::Act, "city", b"\x80", &forged).unwrap_err();
                assert_eq!(error.code(), codes::BAD_SIGNATURE);
                assert!(public.verify_classical(Statement::Act, "city", b"\x80", &forged).is_err());
            }
            for at in [0, 100, MLDSA65_SIGNATURE_LEN - 1] {
                let mut forged = sig.clone();
                if let Some(byte) = forged.pq.0.get_mut(at) {
                    *byte ^= 1
                } else {
                    continue;
                }
                let error = public.verify_full(Statement::Act, "city", b"\x80", &forged).unwrap_err();
                assert_eq!(error, KeyError::BadSignature("ml-dsa-65"));
            }
        }
    }

    /// A hybrid whose halves come from two keys is refused, as is one with a half left out.
    #[test]
    fn a_hybrid_needs_both() {
        let (a, b) = (SigningKey::generate(Suite::Hybrid).unwrap(), SigningKey::generate(Suite::Hybrid).unwrap());
        let (sa, sb) = (a.sign(Statement::Cosign, "c", b""), b.sign(Statement::Cosign, "c", b""));
        let verify = |sig: &Signature| a.public().verify_full(Statement::Cosign, "c", b"", sig);
        verify(&sa).unwrap();
        assert!(verify(&Signature { pq: sb.pq.clone(), ..sa.clone() }).is_err());
        assert!(verify(&Signature { ed25519: sb.ed25519.clone(), ..sa.clone() }).is_err());
        assert!(verify(&Signature { pq: Bytes::default(), ..sa.clone() }).is_err());
        assert!(verify(&Signature { ed25519: Bytes::default(), ..sa.clone() }).is_err());
        assert!(verify(&Signature { suite: Suite::Ed25519, pq: Bytes::default(), ..sa }).is_err());
    }

    #[test]
    fn secrets_are_stored_and_never_shown() {
        for key in keys() {
            let text = key.to_secret_text();
            let back = SigningKey::from_secret_text(&text).unwrap();
            assert_eq!(back.public(), key.public());
            let seed = text.trim().rsplit(':').next().unwrap();
            assert!(!format!("{key:?}").contains(&seed[..16]));
            let cut = &text[..text.len() - 4];
            let error = SigningKey::from_secret_text(cut).unwrap_err();
            assert!(!error.to_string().contains(&seed[..16]));
        }
        let kem = KemKey::generate().unwrap();
        assert_eq!(KemKey::from_secret_text(&kem.to_secret_text()).unwrap().public(), kem.public());
        kem.public().check_full().unwrap();
        assert!(SigningKey::from_secret_text(&kem.to_secret_text()).is_err());
        assert!(KemKey::from_secret_text(&keys()[0].to_secret_text()).is_err());
        assert!(SigningKey::generate(Suite::XWing).is_err());
    }

    #[test]
    fn an_x_wing_key_above_the_modulus_is_refused() {
        let mut key = KemKey::generate().unwrap().public().clone();
        key.pq.0[..3].fill(0xff);
        key.check().unwrap();
        assert_eq!(key.check_full(), Err(KeyError::PqKey("x-wing")));
    }
}
